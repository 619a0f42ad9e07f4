//! Rolling updates: two copies of every service go from one release to the next, back, on again, and to the contracted tables, under load

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration::buyers::Buyers;
use integration::fleet::{Copy, GATEWAY, Plan, SERVICES, engines};
use integration::shopper::Shopper;
use integration::sold_out::{SKU, SOON};
use integration::{Fleet, skip, until};

/// The release of today.
const TODAY: &[&str] = &[];
/// The next one: it has a column and a table more, and writes them in every transaction.
const NEXT: &[&str] = &["--planted-schema", "expanded"];
/// The one after it: it takes away what only today's needs.
const AFTER: &[&str] = &["--planted-schema", "contracted"];

/// Who buys while everything is exchanged.
const BUYERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_forward_back_and_forward_again_costs_no_call_and_no_event() -> Result<()> {
    let Some((binary, map)) = given()? else { return Ok(()) };
    let plan = Plan { engines: &map, more: 1, ..Plan::default() };
    let mut fleet = Fleet::start_as(binary, &plan).await?;
    fleet.operator().await?.stock(SKU, 20, 100_000).await?;
    let mut buyers = Buyers::at(&fleet, BUYERS, 2, "tok_ok");
    buyers.more(8).await?;

    roll(&mut fleet, &mut buyers, NEXT).await.context("to the next release")?;
    roll_together(&mut fleet, &mut buyers, TODAY).await.context("back to today's")?;
    for (name, copy) in fleet.running().into_iter().filter(|(name, copy)| *copy == 1 && *name != GATEWAY) {
        let said = fleet.tail((name, copy), 400);
        ensure!(said.contains("the store is newer than this binary"), "{name} says nothing of its store:\n{said}");
    }

    // What today's release needs is not taken away beneath it.
    let second: Copy = ("ordering", 1);
    fleet.leave(second).await?;
    let refused = fleet.refused(second, AFTER).await?;
    ensure!(refused.contains("end them, then start this one again"), "{refused}");
    fleet.launch_with(second, TODAY).await?;
    buyers.more(4).await?;

    roll_together(&mut fleet, &mut buyers, NEXT).await.context("to the next release again")?;
    roll_together(&mut fleet, &mut buyers, AFTER).await.context("to the one after it")?;

    // Today's release is out; the next one still goes on.
    fleet.leave(second).await?;
    let refused = fleet.refused(second, TODAY).await?;
    for said in ["is older than the store", "start the release that migrated it"] {
        ensure!(refused.contains(said), "{refused}");
    }
    fleet.launch_with(second, NEXT).await?;
    buyers.more(8).await?;
    settled(&fleet, &buyers.home().await?).await
}

/// Every copy of every service, one after the other, each exchanged in the middle of sales.
async fn roll(fleet: &mut Fleet, buyers: &mut Buyers, release: &[&str]) -> Result<()> {
    for copy in services(fleet) {
        fleet.leave(copy).await?;
        fleet.launch_with(copy, release).await?;
        buyers.more(2).await.with_context(|| format!("after {copy:?} came back"))?;
    }
    Ok(())
}

/// All first copies of all services, then all second ones: as a cluster does that is given a new release for everything.
async fn roll_together(fleet: &mut Fleet, buyers: &mut Buyers, release: &[&str]) -> Result<()> {
    for number in 0..2 {
        let copies: Vec<Copy> = services(fleet).into_iter().filter(|(_, copy)| *copy == number).collect();
        fleet.leave_all(&copies).await?;
        for copy in copies {
            fleet.launch_with(copy, release).await?;
        }
        buyers.more(8).await.with_context(|| format!("after the copies {number} came back"))?;
    }
    Ok(())
}

/// Every copy that can be exchanged while another serves.
fn services(fleet: &Fleet) -> Vec<Copy> {
    let running = fleet.running();
    let spare = |name: &str| running.iter().filter(|(other, _)| *other == name).count() > 1;
    let copies = running.iter().filter(|(name, _)| SERVICES.contains(name) && spare(name));
    copies.copied().collect()
}

/// Each order has its parcel and its mail and was charged once, and the audit finds nothing.
async fn settled(fleet: &Fleet, orders: &[String]) -> Result<()> {
    let operator = fleet.operator().await?;
    for order in orders {
        until(SOON, "a parcel and a mail", async || {
            let mut looking = Shopper { http: operator.http.again(), user: String::new() };
            if looking.shipments(order).await?.is_empty() {
                return Ok(None);
            }
            let path = format!("/v1/notifications?filter=order%3D%22{order}%22");
            let mails = looking.http.get(&path).await?.ok()?;
            Ok(mails["notifications"].as_array().is_some_and(|mails| !mails.is_empty()).then_some(()))
        })
        .await
        .with_context(|| order.clone())?;
    }
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    let authorized = ledger.authorized().count();
    ensure!(authorized == orders.len(), "{authorized} authorisations stand for {} orders", orders.len());
    println!("measured: {} orders while every copy was exchanged four times", orders.len());
    fleet.audit().await.map(drop)
}

/// The binary that can have the tables of later releases, and the engines of its fleet.
fn given() -> Result<Option<(PathBuf, String)>> {
    let given = std::env::var_os("STOA_FLEET_BIN").zip(std::env::var("STOA_FLEET_DATABASES").ok());
    let Some((binary, database)) = given else {
        skip::not_proven("a rolling update: no binary built for it, or no server");
        return Ok(None);
    };
    let database = database.replace("{fleet}", "a");
    let kafka = std::env::var("STOA_FLEET_KAFKA").ok().map(|address| format!("{address}/roll-{}", std::process::id()));
    if kafka.is_none() {
        skip::not_proven("a rolling update with a broker: there is none");
    }
    let mut map = String::new();
    match std::env::var("STOA_FLEET_MONGODB") {
        Ok(address) => map.push_str(&format!("mongodb = {:?}\n", format!("{address}/roll_catalog"))),
        Err(_) => skip::not_proven("a rolling update of the catalogue: no MongoDB, so it has one copy"),
    }
    map.push_str(&engines(Some(&database), kafka.as_deref().map(|address| ("kafka", address)))?);
    Ok(Some((PathBuf::from(binary), map)))
}
