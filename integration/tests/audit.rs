//! Audit: a store damaged by hand breaks exactly the invariants it offends, and what is damaged is named.

mod damage;

use anyhow::{Result, ensure};
use integration::closed::{Closed, closed};
use integration::command_line;
use rusqlite::Connection;

use damage::cut;

#[tokio::test]
async fn a_parcel_that_was_acknowledged_and_is_gone_is_named() -> Result<()> {
    let shop = closed().await?;
    let shipping = open(&shop, "shipping")?;
    let parcel: String =
        shipping.query_row("SELECT stream FROM events ORDER BY position DESC LIMIT 1", [], |row| row.get(0))?;
    cut(&shipping, &parcel, 1)?;
    rebuild(&shop, "shipping").await?;
    only_broken(&shop, &["I8"], &parcel).await
}

#[tokio::test]
async fn an_order_that_was_acknowledged_and_is_gone_is_named() -> Result<()> {
    let shop = closed().await?;
    cut(&open(&shop, "ordering")?, &shop.order, 1)?;
    rebuild(&shop, "ordering").await?;
    // Who lists orders has it still, and its rows are not what the log says any more.
    only_broken(&shop, &["I6", "I8"], &format!("I8 BROKEN {}", shop.order)).await
}

#[tokio::test]
async fn the_end_of_a_log_is_missed_by_who_has_dealt_with_it() -> Result<()> {
    let shop = closed().await?;
    let ordering = open(&shop, "ordering")?;
    let last: i64 =
        ordering.query_row("SELECT max(version) FROM events WHERE stream = ?1", [&shop.order], |row| row.get(0))?;
    cut(&ordering, &shop.order, last)?;
    rebuild(&shop, "ordering").await?;
    only_broken(&shop, &["I6", "I8"], &format!("I8 BROKEN {}: version {last}", shop.order)).await
}

#[tokio::test]
async fn an_order_that_no_request_was_answered_with_is_named() -> Result<()> {
    let shop = closed().await?;
    let gone = open(&shop, "ordering")?.execute(
        "DELETE FROM requests WHERE method LIKE '%/PlaceOrder' AND instr(CAST(body AS TEXT), ?1) > 0",
        [&shop.order],
    )?;
    ensure!(gone == 1, "{gone} requests were answered with {}", shop.order);
    only_broken(&shop, &["I7"], &shop.order).await
}

#[tokio::test]
async fn a_request_that_was_begun_and_never_answered_is_named() -> Result<()> {
    let shop = closed().await?;
    let cart = open(&shop, "cart")?;
    let key: String = cart.query_row("SELECT key FROM requests WHERE state = 'DONE' LIMIT 1", [], |row| row.get(0))?;
    cart.execute("UPDATE requests SET state = 'CLAIMED' WHERE key = ?1", [&key])?;
    only_broken(&shop, &["I7"], &key).await
}

#[tokio::test]
async fn a_stored_answer_that_cannot_be_read_is_named() -> Result<()> {
    let shop = closed().await?;
    let cart = open(&shop, "cart")?;
    let key: String = cart.query_row("SELECT key FROM requests WHERE state = 'DONE' LIMIT 1", [], |row| row.get(0))?;
    cart.execute("UPDATE requests SET body = x'0a50' WHERE key = ?1", [&key])?;
    only_broken(&shop, &["I12"], &key).await
}

fn open(shop: &Closed, service: &str) -> Result<Connection> {
    damage::open(&shop.data, service)
}

/// Derives a service's rows from what is left of its log, so that they hide nothing.
async fn rebuild(shop: &Closed, service: &str) -> Result<()> {
    let rebuilt = command_line::stoa(["rebuild", service, "--data", &shop.data.display().to_string()]).await?;
    ensure!(rebuilt.code == Some(0), "{rebuilt:?}");
    Ok(())
}

/// The audit must find these broken and nothing else.
async fn only_broken(shop: &Closed, invariants: &[&str], named: &str) -> Result<()> {
    let audit = command_line::stoa(["audit", "--data", &shop.data.display().to_string()]).await?;
    damage::only_broken(&audit, invariants, named)
}
