//! The rows of stock, reservations and movements: every SQL statement of this service. All of them are derived: `Rows` is
//! the inline projection that makes them from events, in the transaction that appends and again in a rebuild.

use contracts::inventory::v1::Event as StoredEvent;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use store::{ConstraintKind, Error, Migration, MigrationSet, Row, Tx, params};

use crate::reservation::{Delta, Event, MovementKind, Units, deltas};
use crate::wire;

/// The tables of this service.
pub const MIGRATIONS: MigrationSet =
    MigrationSet::new("inventory", &[Migration::new(1, "inventory", include_str!("../migrations/0001_inventory.sql"))]);

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

/// A change of a stock item.
#[derive(Clone, Debug)]
pub(crate) struct Movement {
    pub(crate) warehouse: String,
    pub(crate) sku: String,
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) kind: MovementKind,
    pub(crate) on_hand: i64,
    pub(crate) held: i64,
    pub(crate) committed: i64,
    pub(crate) order: String,
    pub(crate) note: String,
    pub(crate) traceparent: String,
    pub(crate) occur_time: Timestamp,
}

/// The inline projection of stock, reservations and movements.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<StoredEvent> for Rows {
    fn name(&self) -> &'static str {
        "stock"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["stock", "reservations", "movements"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a StoredEvent,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if let StoredEvent::StockAdjusted(adjusted) = event {
                let (warehouse, sku) = wire::parts(&adjusted.stock_item).unwrap_or_default();
                let delta = Delta {
                    sku: sku.to_owned(),
                    warehouse: warehouse.to_owned(),
                    kind: MovementKind::Adjusted,
                    on_hand: adjusted.delta,
                    held: 0,
                    committed: 0,
                };
                return move_stock(tx, at, &delta, "", &adjusted.note).await;
            }
            let Some(event) = wire::from_stored(event) else { return Ok(()) };
            store_reservation(tx, at, &event).await?;
            let deltas = deltas(&event);
            if deltas.is_empty() {
                return Ok(());
            }
            let order = order_of(tx, &at.stream).await?;
            let note = match &event {
                Event::Fulfilled { shipment, .. } => shipment.as_str(),
                Event::Restocked { return_id, .. } => return_id.as_str(),
                Event::Released { reason, .. } | Event::Closed { reason, .. } => reason.as_str(),
                Event::Held { .. }
                | Event::Extended { .. }
                | Event::Expired { .. }
                | Event::HeldAgain { .. }
                | Event::Committed { .. } => "",
            };
            for delta in &deltas {
                move_stock(tx, at, delta, &order, note).await?;
            }
            Ok(())
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

async fn order_of(tx: &mut Tx, reservation: &str) -> Result<String, Error> {
    let row = tx.query_opt("SELECT order_name FROM reservations WHERE name = $1", params![reservation]).await?;
    row.map_or(Ok(String::new()), |row| row.get("order_name"))
}

async fn move_stock(tx: &mut Tx, at: &At, delta: &Delta, order: &str, note: &str) -> Result<(), Error> {
    let changed = tx
        .execute(
            "UPDATE stock SET on_hand = on_hand + $1, held = held + $2, committed = committed + $3, version = version + 1,
                              update_time = $4
             WHERE sku = $5 AND warehouse = $6
               AND on_hand + $1 - (held + $2) - (committed + $3) >= 0",
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
        // Not there yet, or guarded off. An insert finds out which: the second is a violated key or CHECK.
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
    tx.execute(
        "INSERT INTO movements (sku, warehouse, stream, version, kind, on_hand, held, committed, order_name, note,
                                traceparent, occur_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        params![
            delta.sku.as_str(),
            delta.warehouse.as_str(),
            at.stream.as_str(),
            at.version,
            wire::kind_text(delta.kind),
            delta.on_hand,
            delta.held,
            delta.committed,
            order,
            note,
            at.traceparent.as_str(),
            at.occur_time
        ],
    )
    .await?;
    Ok(())
}

/// Whether a fault means that somebody else took the stock between the look and the update.
pub(crate) fn is_guarded_off(error: &Error) -> bool {
    matches!(error, Error::Constraint { kind: ConstraintKind::Unique | ConstraintKind::Check, .. })
}

/// What can be sold of these SKUs, warehouses in order of their names.
pub(crate) async fn free<'a>(tx: &mut Tx, skus: impl IntoIterator<Item = &'a String>) -> Result<Vec<Units>, Error> {
    let mut free = vec![];
    for sku in skus {
        let rows = tx
            .query(
                "SELECT sku, warehouse, on_hand - held - committed AS quantity FROM stock
                 WHERE sku = $1 AND on_hand - held - committed > 0 ORDER BY warehouse",
                params![sku.as_str()],
            )
            .await?;
        for row in &rows {
            free.push(Units { sku: row.get("sku")?, warehouse: row.get("warehouse")?, quantity: row.get("quantity")? });
        }
    }
    Ok(free)
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

/// Movements of an item or a stream (any if empty), oldest first, after a position in that order.
pub(crate) async fn list_movements(
    tx: &mut Tx,
    item: Option<(&str, &str)>,
    stream: &str,
    after: &After,
    limit: u32,
) -> Result<Vec<Movement>, Error> {
    let mut params = params![
        after.occur_time,
        after.stream.as_str(),
        after.version,
        after.sku.as_str(),
        after.warehouse.as_str(),
        limit
    ]
    .to_vec();
    // A text of its own for each kind of list, so that each finds its rows by an index.
    let narrowed = match (item, stream) {
        (None, "") => "",
        (None, _) => "stream = $7 AND",
        (Some(_), "") => "sku = $7 AND warehouse = $8 AND",
        (Some(_), _) => "sku = $7 AND warehouse = $8 AND stream = $9 AND",
    };
    if let Some((warehouse, sku)) = item {
        params.extend([sku.into(), warehouse.into()]);
    }
    if !stream.is_empty() {
        params.push(stream.into());
    }
    let sql = format!(
        "SELECT sku, warehouse, stream, version, kind, on_hand, held, committed, order_name, note, traceparent, occur_time
         FROM movements
         WHERE {narrowed} (occur_time, stream, version, sku, warehouse)
               > (CAST($1 AS BIGINT), $2, CAST($3 AS BIGINT), $4, $5)
         ORDER BY occur_time, stream, version, sku, warehouse LIMIT CAST($6 AS BIGINT)"
    );
    let rows = tx.query(&sql, &params).await?;
    rows.iter().map(movement).collect()
}

/// Where a list of movements continues.
#[derive(Clone, Debug)]
pub(crate) struct After {
    pub(crate) occur_time: Timestamp,
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) sku: String,
    pub(crate) warehouse: String,
}

impl Default for After {
    fn default() -> Self {
        Self {
            occur_time: Timestamp::MIN,
            stream: String::new(),
            version: 0,
            sku: String::new(),
            warehouse: String::new(),
        }
    }
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

fn movement(row: &Row) -> Result<Movement, Error> {
    let text: String = row.get("kind")?;
    Ok(Movement {
        warehouse: row.get("warehouse")?,
        sku: row.get("sku")?,
        stream: row.get("stream")?,
        version: row.get("version")?,
        kind: wire::kind(&text).ok_or_else(|| Error::Mismatch {
            column: "kind".to_owned(),
            expected: "a kind of movement",
            found: text.clone(),
        })?,
        on_hand: row.get("on_hand")?,
        held: row.get("held")?,
        committed: row.get("committed")?,
        order: row.get("order_name")?,
        note: row.get("note")?,
        traceparent: row.get("traceparent")?,
        occur_time: row.get("occur_time")?,
    })
}
