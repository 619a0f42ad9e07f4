//! Rebuild: every derived table deleted and made again from the logs is byte for byte the same.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::closed::{Closed, closed, file_of};
use integration::command_line;
use integration::ledger::Provider;
use integration::shopper::{Shopper, text};
use integration::{Setup, Stoa};
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OpenFlags};

const SETTLED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn derived_tables_deleted_and_rebuilt_are_the_same_bytes() -> Result<()> {
    let shop = closed().await?;
    let before = dump(&shop)?;
    for (service, tables) in &shop.derived {
        let file = Connection::open(file_of(&shop.data, service)?)?;
        for table in tables {
            file.execute(&format!("DELETE FROM {table}"), [])?;
        }
    }
    let emptied = dump(&shop)?;
    ensure!(emptied != before, "nothing was there to delete");
    let folder = shop.data.display().to_string();
    let ended = command_line::stoa(["rebuild", "--data", &folder]).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let after = dump(&shop)?;
    for (table, rows) in &before {
        let rebuilt = after.get(table).context("a table is gone")?;
        ensure!(rebuilt == rows, "{table}: {} rows before, {} after", rows.len(), rebuilt.len());
    }
    command_line::audit(&shop.data).await?;
    Ok(())
}

#[tokio::test]
async fn a_row_changed_by_hand_is_found_by_the_audit() -> Result<()> {
    let shop = closed().await?;
    let folder = shop.data.display().to_string();
    let file = Connection::open(file_of(&shop.data, "inventory")?)?;
    let (table, column) = numeric_column(&file, &shop.derived["inventory"])?;
    let changed = file.execute(
        &format!("UPDATE {table} SET {column} = {column} + 1 WHERE {column} = (SELECT max({column}) FROM {table})"),
        [],
    );
    // A constraint may refuse one direction: the other is as wrong.
    if changed.is_err() {
        file.execute(
            &format!("UPDATE {table} SET {column} = {column} - 1 WHERE {column} = (SELECT max({column}) FROM {table})"),
            [],
        )?;
    }
    drop(file);
    let ended = command_line::stoa(["audit", "--data", &folder]).await?;
    ensure!(ended.code == Some(1), "the audit saw nothing: {ended:?}");
    ensure!(ended.output.contains("I6") || ended.output.contains(&table), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn an_order_reads_as_it_was_at_a_time() -> Result<()> {
    let provider = Provider::start().await?;
    let stoa = Stoa::start(Setup::new().provider(&provider.url())).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let sku = shopper.something().await?;
    let order = shopper.buy("EUR", &sku, 1, "tok_ok").await?;
    let name = text(&order, "name")?;
    let confirmed_at = text(&order, "updateTime")?;
    let cancel = serde_json::json!({ "requestId": integration::shopper::request_id() });
    shopper.http.post(&format!("/v1/{name}:cancel"), &cancel).await?.ok()?;
    shopper.await_order(&name, &["ORDER_STATE_CANCELLED"], SETTLED).await?;

    let folder = stoa.data().display().to_string();
    let arguments = ["orders", "at", &name, "--time", &confirmed_at, "--data", &folder];
    let then = command_line::stoa(arguments).await?;
    ensure!(then.code == Some(0) && then.output.contains("CONFIRMED"), "{then:?}");
    let first = shopper.http.get(&format!("/v1/{name}?version=1")).await?.ok()?;
    ensure!(first["state"] == "ORDER_STATE_PENDING", "{first}");
    let then = shopper.http.get(&format!("/v1/{name}?readTime={confirmed_at}")).await?.ok()?;
    ensure!(then["state"] == "ORDER_STATE_CONFIRMED", "{then}");
    Ok(())
}

#[tokio::test]
async fn a_flipped_byte_in_an_event_is_named_and_never_served() -> Result<()> {
    let shop = closed().await?;
    let path = file_of(&shop.data, "ordering")?;
    let payload: Vec<u8> = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?
        .query_row("SELECT payload FROM events WHERE stream = ?1 AND version = 1", [&shop.order], |row| row.get(0))
        .context("the first event of the order")?;
    let mut bytes = std::fs::read(&path)?;
    // Payloads may spill over pages: a piece from the middle is enough to find one.
    let piece = &payload[..payload.len().min(64)];
    let at = bytes.windows(piece.len()).position(|window| window == piece).context("the payload is not in the file")?;
    bytes[at + piece.len() / 2] ^= 0x10;
    std::fs::write(&path, bytes)?;

    let folder = shop.data.display().to_string();
    let audit = command_line::stoa(["audit", "--data", &folder]).await?;
    ensure!(audit.code == Some(1), "the audit saw nothing: {audit:?}");
    ensure!(audit.output.contains(&shop.order), "the order is not named: {audit:?}");

    let stoa = Stoa::start(Setup::new().data(&shop.data)).await?;
    let mut operator = Shopper::operator(&stoa).await?;
    let answer = operator.http.get(&format!("/v1/{}/events", shop.order)).await?;
    ensure!(answer.status >= 500, "served: {}", answer.describe());
    ensure!(answer.json()["code"] == 15, "not DATA_LOSS: {}", answer.describe());
    ensure!(stoa.output().contains(&shop.order), "the log does not name the stream");
    Ok(())
}

/// Every derived table, all rows in a fixed order.
fn dump(shop: &Closed) -> Result<BTreeMap<String, Vec<String>>> {
    let mut tables = BTreeMap::new();
    for (service, names) in &shop.derived {
        let file = Connection::open(file_of(&shop.data, service)?)?;
        for name in names {
            let mut rows = Vec::new();
            let mut query = file.prepare(&format!("SELECT * FROM {name}"))?;
            let width = query.column_count();
            let mut found = query.query([])?;
            while let Some(row) = found.next()? {
                let cells: Vec<Cell> = (0..width).map(|index| row.get(index)).collect::<Result<_, _>>()?;
                rows.push(format!("{cells:?}"));
            }
            rows.sort();
            tables.insert(format!("{service}.{name}"), rows);
        }
    }
    Ok(tables)
}

/// Some number that the log says: a table with rows and a column of integers that is no key.
fn numeric_column(file: &Connection, tables: &[String]) -> Result<(String, String)> {
    for table in tables {
        let rows: i64 = file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        let mut query = file.prepare(&format!("PRAGMA table_info({table})"))?;
        let columns = query
            .query_map([], |row| Ok((row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(5)?)))?;
        for column in columns {
            let (name, kind, key) = column?;
            if rows > 0 && key == 0 && kind.contains("INT") {
                return Ok((table.clone(), name));
            }
        }
    }
    anyhow::bail!("no number in {tables:?}")
}
