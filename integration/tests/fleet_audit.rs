//! Fleet's audit: asked over the network it names what is damaged, is silent about what is under way, and says who is away

mod damage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use integration::fleet::Copy;
use integration::shopper::{Shopper, text};
use integration::sold_out::{PATIENCE, SKU, SOON};
use integration::{Fleet, command_line, until};
use rusqlite::Connection;
use tokio::task::JoinSet;

use damage::{cut, only_broken, open};

/// The exit code of a command that could not ask everybody.
const UNREACHED: Option<i32> = Some(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_in_a_file_of_a_fleet_is_named_over_the_network() -> Result<()> {
    let mut fleet = Fleet::start(command_line::binary()?, None).await?;
    let order = shipped(&fleet).await?;
    let whole = at_rest(&fleet).await?;
    ensure!(!whole.contains("not looked at"), "{whole}");

    damaged(&mut fleet, "ordering", &["I7"], &order, |ordering| {
        let gone = ordering.execute(
            "DELETE FROM requests WHERE method LIKE '%/PlaceOrder' AND instr(CAST(body AS TEXT), ?1) > 0",
            [&order],
        )?;
        ensure!(gone == 1, "{gone} requests were answered with {order}");
        Ok(())
    })
    .await?;
    let key = a_request(&fleet, "cart")?;
    damaged(&mut fleet, "cart", &["I7"], &key, |cart| {
        cart.execute("UPDATE requests SET state = 'CLAIMED' WHERE key = ?1", [&key])?;
        Ok(())
    })
    .await?;
    damaged(&mut fleet, "cart", &["I12"], &key, |cart| {
        cart.execute("UPDATE requests SET body = x'0a50' WHERE key = ?1", [&key])?;
        Ok(())
    })
    .await?;
    let parcel: String = open(&fleet.data(("shipping", 0)), "shipping")?.query_row(
        "SELECT stream FROM events ORDER BY position DESC LIMIT 1",
        [],
        |row| row.get(0),
    )?;
    // Only others know of it, by what they have dealt with.
    damaged(&mut fleet, "shipping", &["I8"], &parcel, |shipping| cut(shipping, &parcel, 1)).await?;
    // What stands behind the damaged event is not read either, so payment's books lack what the provider's have.
    damaged(&mut fleet, "payment", &["I2", "I6", "I12"], "its checksum does not fit", |payment| {
        let changed = payment.execute("UPDATE events SET payload = x'00' WHERE version = 1", [])?;
        ensure!(changed > 0, "no event of payment was changed");
        Ok(())
    })
    .await?;
    at_rest(&fleet).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_under_load_is_silent_about_what_is_under_way_and_says_who_is_away() -> Result<()> {
    let mut fleet = Fleet::start(command_line::binary()?, None).await?;
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let enough = Arc::new(AtomicBool::new(false));
    let mut buyers = JoinSet::new();
    for _ in 0..3 {
        let (client, enough) = (fleet.client(), Arc::clone(&enough));
        buyers.spawn(async move {
            let mut sold = 0;
            while !enough.load(Ordering::Relaxed) {
                let mut shopper = Shopper::guest_over(client.again().insisting(PATIENCE)).await?;
                shopper.buy("EUR", SKU, 1, "tok_ok").await?;
                sold += 1;
            }
            anyhow::Ok(sold)
        });
    }
    for _ in 0..4 {
        fleet.audit().await.context("while nothing is wrong")?;
    }
    for victim in ["shipping", "ordering"] {
        fleet.kill((victim, 0)).await?;
        let ended = fleet.ask(&["audit"]).await?;
        ensure!(ended.code == UNREACHED, "{victim} is dead: {ended:?}");
        ensure!(ended.errors.contains(&format!("cannot reach {victim}")), "{ended:?}");
        ensure!(!ended.output.contains("BROKEN"), "silence is no finding: {ended:?}");
        fleet.launch((victim, 0)).await?;
    }
    enough.store(true, Ordering::Relaxed);
    let mut sold = 0;
    while let Some(ended) = buyers.join_next().await {
        sold += ended??;
    }
    ensure!(sold > 0, "nobody bought anything meanwhile");
    at_rest(&fleet).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orders_story_is_told_over_the_network_and_says_whose_part_is_missing() -> Result<()> {
    let mut fleet = Fleet::start(command_line::binary()?, None).await?;
    let order = shipped(&fleet).await?;
    let told = fleet.ask(&["explain", &order]).await?;
    ensure!(told.code == Some(0), "{told:?}");
    for part in ["OrderPlaced", "OrderConfirmed", "payment ", "parcel ", "stock ", "authorize_payment"] {
        ensure!(told.output.contains(part), "no {part}: {}", told.output);
    }
    let now = fleet.ask(&["orders", "at", &order]).await?;
    ensure!(now.code == Some(0) && now.output.contains("SHIPPED"), "{now:?}");

    fleet.kill(("shipping", 0)).await?;
    let told = fleet.ask(&["explain", &order]).await?;
    ensure!(told.code == Some(1) && told.output.contains("shipping did not answer"), "{told:?}");
    fleet.kill(("ordering", 0)).await?;
    let told = fleet.ask(&["orders", "at", &order]).await?;
    ensure!(told.code == UNREACHED && told.errors.contains("cannot reach ordering"), "{told:?}");
    Ok(())
}

/// An order that was bought, paid and sent off.
async fn shipped(fleet: &Fleet) -> Result<String> {
    let mut operator = fleet.operator().await?;
    operator.stock(SKU, 20, 5).await?;
    let mut shopper = Shopper::customer_over(fleet.client().insisting(PATIENCE)).await?;
    let order = text(&shopper.buy("EUR", SKU, 1, "tok_ok").await?, "name")?;
    operator.ship(&order, SOON).await?;
    shopper.await_order(&order, &["ORDER_STATE_SHIPPED"], SOON).await?;
    Ok(order)
}

/// What an audit says when everything has come to an end and nothing is wrong.
async fn at_rest(fleet: &Fleet) -> Result<String> {
    until(SOON, "a clean audit", async || fleet.audit().await.map(Some)).await
}

fn a_request(fleet: &Fleet, service: &'static str) -> Result<String> {
    let store = open(&fleet.data((service, 0)), service)?;
    Ok(store.query_row("SELECT key FROM requests WHERE state = 'DONE' LIMIT 1", [], |row| row.get(0))?)
}

/// The store of a service is damaged while its process is dead: the audit of the fleet names it, and nothing else. Then the
/// store is what it was.
async fn damaged(
    fleet: &mut Fleet,
    service: &'static str,
    invariants: &[&str],
    named: &str,
    damage: impl FnOnce(&Connection) -> Result<()>,
) -> Result<()> {
    let process: Copy = (service, 0);
    fleet.kill(process).await?;
    let (data, kept) = (fleet.data(process), tempfile::tempdir()?);
    copy(&data, kept.path())?;
    damage(&open(&data, service)?)?;
    fleet.launch(process).await?;
    if invariants == ["I8"] {
        // Rows that were derived from what is gone would give it away.
        let rebuilt = fleet.ask(&["rebuild", service]).await?;
        ensure!(rebuilt.code == Some(0), "{rebuilt:?}");
    }
    only_broken(&fleet.ask(&["audit"]).await?, invariants, named).with_context(|| format!("{service} is damaged"))?;
    fleet.kill(process).await?;
    std::fs::remove_dir_all(&data)?;
    copy(kept.path(), &data)?;
    fleet.launch(process).await
}

/// Copies a folder of files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
