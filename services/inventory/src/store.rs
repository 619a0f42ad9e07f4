//! The rows of stock and reservations, and those that find what moved: every SQL statement of this service. All of them are
//! derived: `Rows` is the inline projection that makes them from events, in the transaction that appends and again in a
//! rebuild.

use std::sync::LazyLock;

use contracts::inventory::v1::Event as StoredEvent;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use store::{ConstraintKind, Error, Migration, MigrationSet, Row, Tx, Value, params};

use crate::movements::{self, After};
use crate::reservation::{Delta, Event, Units, deltas};
use crate::wire;

/// The tables of this service.
pub const MIGRATIONS: MigrationSet = MigrationSet::new(
    "inventory",
    &[
        Migration::new(1, "inventory", include_str!("../migrations/0001_inventory.sql")),
        Migration::new(2, "movements are read from the log", include_str!("../migrations/0002_movements.sql")),
    ],
);

/// SKUs looked up by one statement where there are that many.
const MANY: usize = 16;

/// A stock item.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) warehouse: String,
    pub(crate) sku: String,
    pub(crate) on_hand: i64,
    pub(crate) held: i64,
    pub(crate) committed: i64,
    pub(crate) version: u64,
    pub(crate) update_time: Timestamp,
}

/// What a reservation's row says beside its events.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// An event that moved something.
#[derive(Clone, Debug)]
pub(crate) struct Moving {
    pub(crate) stream: String,
    pub(crate) version: u64,
}

/// The inline projection of stock, reservations, and what finds movements.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<StoredEvent> for Rows {
    fn name(&self) -> &'static str {
        "stock"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["stock", "reservations", "moving_events", "item_movements"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a StoredEvent,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let deltas = match event {
                StoredEvent::StockAdjusted(adjusted) => vec![movements::adjustment(adjusted)],
                _ => {
                    let Some(event) = wire::from_stored(event) else { return Ok(()) };
                    store_reservation(tx, at, &event).await?;
                    deltas(&event)
                }
            };
            if deltas.is_empty() {
                return Ok(());
            }
            for delta in &deltas {
                move_stock(tx, at, delta).await?;
            }
            note_movements(tx, at, &deltas).await
        })
    }
}

async fn store_reservation(tx: &mut Tx, at: &At, event: &Event) -> Result<(), Error> {
    let (state, expire_time) = match event {
        Event::Held { order, expire_time, .. } => {
            return insert_reservation(tx, at, order, "HELD", Some(*expire_time)).await;
        }
        Event::Closed { order, .. } => return insert_reservation(tx, at, order, "RELEASED", None).await,
        Event::Extended { expire_time } => ("HELD", Some(*expire_time)),
        Event::Expired { .. } => ("EXPIRED", None),
        Event::HeldAgain { .. } => ("HELD", None),
        Event::Committed { .. } => ("COMMITTED", None),
        Event::Released { .. } => ("RELEASED", None),
        Event::Fulfilled { complete: true, .. } => ("FULFILLED", None),
        Event::Fulfilled { complete: false, .. } => ("PARTIALLY_FULFILLED", None),
        Event::Restocked { .. } => ("", None),
    };
    tx.execute(
        "UPDATE reservations
         SET state = CASE WHEN $1 = '' THEN state ELSE $1 END, expire_time = COALESCE(CAST($2 AS BIGINT), expire_time),
             version = $3, update_time = $4
         WHERE name = $5",
        params![state, expire_time, at.version, at.occur_time, at.stream.as_str()],
    )
    .await?;
    Ok(())
}

async fn insert_reservation(
    tx: &mut Tx,
    at: &At,
    order: &str,
    state: &str,
    expire_time: Option<Timestamp>,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO reservations (name, order_name, state, expire_time, version, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $6)",
        params![at.stream.as_str(), order, state, expire_time, at.version, at.occur_time],
    )
    .await?;
    Ok(())
}

/// Sums and the latest time: what comes out is the same in whatever order the shards of the log are read, and only the CHECK
/// says what may not be, which a rebuild asks at its end.
async fn move_stock(tx: &mut Tx, at: &At, delta: &Delta) -> Result<(), Error> {
    let changed = tx
        .execute(
            "UPDATE stock SET on_hand = on_hand + $1, held = held + $2, committed = committed + $3, version = version + 1,
                              update_time = CASE WHEN update_time < $4 THEN $4 ELSE update_time END
             WHERE sku = $5 AND warehouse = $6",
            params![
                delta.on_hand,
                delta.held,
                delta.committed,
                at.occur_time,
                delta.sku.as_str(),
                delta.warehouse.as_str()
            ],
        )
        .await?;
    if changed == 0 {
        // Not there yet; if somebody else is about to make it, that is a violated key.
        tx.execute(
            "INSERT INTO stock (warehouse, sku, on_hand, held, committed, version, update_time)
             VALUES ($1, $2, $3, $4, $5, 1, $6)",
            params![
                delta.warehouse.as_str(),
                delta.sku.as_str(),
                delta.on_hand,
                delta.held,
                delta.committed,
                at.occur_time
            ],
        )
        .await?;
    }
    Ok(())
}

/// Makes the event findable by its time and by each item it moves.
async fn note_movements(tx: &mut Tx, at: &At, deltas: &[Delta]) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO moving_events (occur_time, stream, version) VALUES ($1, $2, $3)",
        params![at.occur_time, at.stream.as_str(), at.version],
    )
    .await?;
    // One row a statement: each lies in another page, and a statement of many keeps a copy of every page it touches.
    for delta in deltas {
        tx.execute(
            "INSERT INTO item_movements (sku, warehouse, occur_time, stream, version) VALUES ($1, $2, $3, $4, $5)",
            params![delta.sku.as_str(), delta.warehouse.as_str(), at.occur_time, at.stream.as_str(), at.version],
        )
        .await?;
    }
    Ok(())
}

/// Whether a fault means that somebody else took the stock between the look and the update.
pub(crate) fn is_guarded_off(error: &Error) -> bool {
    matches!(error, Error::Constraint { kind: ConstraintKind::Unique | ConstraintKind::Check, .. })
}

/// What can be sold of these SKUs, which are in order; warehouses in order of their names.
pub(crate) async fn free(tx: &mut Tx, skus: &[&str]) -> Result<Vec<Units>, Error> {
    let mut free = Vec::with_capacity(skus.len());
    let mut chunks = skus.chunks_exact(MANY);
    for chunk in chunks.by_ref() {
        free_of(tx, &FREE_MANY, chunk, &mut free).await?;
    }
    for sku in chunks.remainder() {
        free_of(tx, &FREE_ONE, &[sku], &mut free).await?;
    }
    Ok(free)
}

static FREE_ONE: LazyLock<String> = LazyLock::new(|| free_sql(1));
static FREE_MANY: LazyLock<String> = LazyLock::new(|| free_sql(MANY));

fn free_sql(skus: usize) -> String {
    let places: Vec<String> = (1..=skus).map(|place| format!("${place}")).collect();
    format!(
        "SELECT sku, warehouse, on_hand - held - committed AS quantity FROM stock
         WHERE sku IN ({}) AND on_hand - held - committed > 0 ORDER BY sku, warehouse",
        places.join(", ")
    )
}

async fn free_of(tx: &mut Tx, sql: &str, skus: &[&str], free: &mut Vec<Units>) -> Result<(), Error> {
    let skus: Vec<Value> = skus.iter().map(|sku| (*sku).into()).collect();
    tx.each(sql, &skus, |row| {
        free.push(Units { sku: row.get("sku")?, warehouse: row.get("warehouse")?, quantity: row.get("quantity")? });
        Ok(())
    })
    .await
}

/// Units of a SKU that can be sold, over all warehouses.
pub(crate) async fn available(tx: &mut Tx, sku: &str) -> Result<i64, Error> {
    let row = tx
        .query_opt(
            "SELECT CAST(COALESCE(SUM(on_hand - held - committed), 0) AS BIGINT) AS available FROM stock WHERE sku = $1",
            params![sku],
        )
        .await?;
    row.map_or(Ok(0), |row| row.get("available"))
}

/// One stock item.
pub(crate) async fn get_item(tx: &mut Tx, warehouse: &str, sku: &str) -> Result<Option<Item>, Error> {
    let row = tx
        .query_opt(
            "SELECT warehouse, sku, on_hand, held, committed, version, update_time FROM stock
             WHERE sku = $1 AND warehouse = $2",
            params![sku, warehouse],
        )
        .await?;
    row.as_ref().map(item).transpose()
}

/// Stock items of a warehouse (all if empty) after (sku, warehouse), in that order.
pub(crate) async fn list_items(
    tx: &mut Tx,
    warehouse: &str,
    after: (&str, &str),
    limit: u32,
) -> Result<Vec<Item>, Error> {
    let rows = tx
        .query(
            "SELECT warehouse, sku, on_hand, held, committed, version, update_time FROM stock
             WHERE ($1 = '' OR warehouse = $1) AND (sku, warehouse) > ($2, $3)
             ORDER BY sku, warehouse LIMIT CAST($4 AS BIGINT)",
            params![warehouse, after.0, after.1, limit],
        )
        .await?;
    rows.iter().map(item).collect()
}

/// Reservations in a state (any if empty) for an order (any if empty), newest first, after (time, name).
pub(crate) async fn list_reservations(
    tx: &mut Tx,
    state: &str,
    order: &str,
    after: Option<(Timestamp, &str)>,
    limit: u32,
) -> Result<Vec<Stored>, Error> {
    let (time, name) = after.unwrap_or((Timestamp::MAX, ""));
    let rows = tx
        .query(
            "SELECT name, create_time, update_time FROM reservations
             WHERE ($1 = '' OR state = $1) AND ($2 = '' OR order_name = $2)
               AND (create_time < CAST($3 AS BIGINT) OR (create_time = CAST($3 AS BIGINT) AND name > $4))
             ORDER BY create_time DESC, name LIMIT CAST($5 AS BIGINT)",
            params![state, order, time, name, limit],
        )
        .await?;
    rows.iter().map(stored).collect()
}

/// One reservation's row.
pub(crate) async fn get_reservation(tx: &mut Tx, name: &str) -> Result<Option<Stored>, Error> {
    let row =
        tx.query_opt("SELECT name, create_time, update_time FROM reservations WHERE name = $1", params![name]).await?;
    row.as_ref().map(stored).transpose()
}

/// Holds that have ended by `now`, oldest first; of one SKU if that is not empty.
pub(crate) async fn overdue(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<Vec<String>, Error> {
    let rows = tx
        .query(
            "SELECT name FROM reservations WHERE state = 'HELD' AND expire_time <= $1
             ORDER BY expire_time LIMIT CAST($2 AS BIGINT)",
            params![now, limit],
        )
        .await?;
    rows.iter().map(|row| row.get("name")).collect()
}

/// How many holds are neither committed nor released.
pub(crate) async fn open_holds(tx: &mut Tx) -> Result<u64, Error> {
    let row = tx.query_opt("SELECT COUNT(*) AS n FROM reservations WHERE state = 'HELD'", &[]).await?;
    Ok(row.map(|row| row.get("n")).transpose()?.unwrap_or(0))
}

/// Events that moved an item (anything if `None`), oldest first, from the one that `after` is of.
pub(crate) async fn moving_events(
    tx: &mut Tx,
    item: Option<(&str, &str)>,
    after: &After,
    limit: u32,
) -> Result<Vec<Moving>, Error> {
    let mut params = params![after.occur_time, after.stream.as_str(), after.version, limit].to_vec();
    // A text of its own for each kind of list, so that each finds its rows by a key.
    let from = match item {
        None => "moving_events WHERE",
        Some((warehouse, sku)) => {
            params.extend([sku.into(), warehouse.into()]);
            "item_movements WHERE sku = $5 AND warehouse = $6 AND"
        }
    };
    let sql = format!(
        "SELECT stream, version FROM {from} (occur_time, stream, version) >= (CAST($1 AS BIGINT), $2, CAST($3 AS BIGINT))
         ORDER BY occur_time, stream, version LIMIT CAST($4 AS BIGINT)"
    );
    let rows = tx.query(&sql, &params).await?;
    rows.iter().map(|row| Ok(Moving { stream: row.get("stream")?, version: row.get("version")? })).collect()
}

fn item(row: &Row) -> Result<Item, Error> {
    Ok(Item {
        warehouse: row.get("warehouse")?,
        sku: row.get("sku")?,
        on_hand: row.get("on_hand")?,
        held: row.get("held")?,
        committed: row.get("committed")?,
        version: row.get("version")?,
        update_time: row.get("update_time")?,
    })
}

fn stored(row: &Row) -> Result<Stored, Error> {
    Ok(Stored { name: row.get("name")?, create_time: row.get("create_time")?, update_time: row.get("update_time")? })
}
