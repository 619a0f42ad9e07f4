//! The rows of shipments: every SQL statement of this service. They are derived: `Rows` is the inline projection that makes
//! them from events, in the transaction that appends and again in a rebuild.

use contracts::shipping::v1::Event as StoredEvent;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use store::{Error, Migration, MigrationSet, Row, Tx, params};

use crate::shipment::{Event, State};
use crate::wire;

/// The tables of this service.
pub const MIGRATIONS: MigrationSet =
    MigrationSet::new("shipping", &[Migration::new(1, "shipping", include_str!("../migrations/0001_shipping.sql"))]);

/// What a shipment's row says beside its events.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) customer: String,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
    pub(crate) pack_time: Option<Timestamp>,
    pub(crate) release_time: Option<Timestamp>,
    pub(crate) dispatch_time: Option<Timestamp>,
    pub(crate) deliver_time: Option<Timestamp>,
}

/// The inline projection of shipments.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<StoredEvent> for Rows {
    fn name(&self) -> &'static str {
        "shipments"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["shipments"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a StoredEvent,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Some(event) = wire::from_stored(event) else { return Ok(()) };
            match &event {
                Event::Created(plan) => insert(tx, at, &plan.order, &plan.customer, State::Preparing).await,
                Event::Cancelled { order, .. } if at.version == 1 => insert(tx, at, order, "", State::Cancelled).await,
                Event::Cancelled { .. } => update(tx, at, Some(State::Cancelled)).await,
                Event::Packed { .. } => update(tx, at, Some(State::Packed)).await,
                Event::Released => update(tx, at, Some(State::Released)).await,
                Event::Dispatched { .. } => update(tx, at, Some(State::Dispatched)).await,
                Event::Tracked { .. } => update(tx, at, None).await,
                Event::Delivered { .. } => update(tx, at, Some(State::Delivered)).await,
            }
        })
    }
}

async fn insert(tx: &mut Tx, at: &At, order: &str, customer: &str, state: State) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO shipments (name, order_name, customer, state, version, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $6)",
        params![at.stream.as_str(), order, customer, wire::state_text(state), at.version, at.occur_time],
    )
    .await?;
    Ok(())
}

async fn update(tx: &mut Tx, at: &At, state: Option<State>) -> Result<(), Error> {
    let when = |reached: State| (state == Some(reached)).then_some(at.occur_time);
    tx.execute(
        "UPDATE shipments
         SET state = CASE WHEN $1 = '' THEN state ELSE $1 END, version = $2, update_time = $3,
             pack_time = COALESCE(CAST($4 AS BIGINT), pack_time),
             release_time = COALESCE(CAST($5 AS BIGINT), release_time),
             dispatch_time = COALESCE(CAST($6 AS BIGINT), dispatch_time),
             deliver_time = COALESCE(CAST($7 AS BIGINT), deliver_time)
         WHERE name = $8",
        params![
            state.map_or("", wire::state_text),
            at.version,
            at.occur_time,
            when(State::Packed),
            when(State::Released),
            when(State::Dispatched),
            when(State::Delivered),
            at.stream.as_str()
        ],
    )
    .await?;
    Ok(())
}

/// One shipment's row.
pub(crate) async fn get(tx: &mut Tx, name: &str) -> Result<Option<Stored>, Error> {
    let row = tx
        .query_opt(
            "SELECT name, customer, create_time, update_time, pack_time, release_time, dispatch_time, deliver_time
             FROM shipments WHERE name = $1",
            params![name],
        )
        .await?;
    row.as_ref().map(stored).transpose()
}

/// Which shipments a list is of; empty conditions hold for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) order: String,
    pub(crate) state: &'static str,
    pub(crate) customer: String,
}

/// Shipments, newest first, after (time, name).
pub(crate) async fn list(
    tx: &mut Tx,
    wanted: &Wanted,
    after: Option<(Timestamp, &str)>,
    limit: u32,
) -> Result<Vec<Stored>, Error> {
    let (time, name) = after.unwrap_or((Timestamp::MAX, ""));
    // One text for each index: a condition that may be absent would keep the engine from using any.
    let sql = match (wanted.order.is_empty(), wanted.customer.is_empty()) {
        (false, _) => {
            "SELECT name, customer, create_time, update_time, pack_time, release_time, dispatch_time, deliver_time
             FROM shipments
             WHERE order_name = $1 AND ($2 = '' OR customer = $2) AND ($3 = '' OR state = $3)
               AND (create_time < CAST($4 AS BIGINT) OR (create_time = CAST($4 AS BIGINT) AND name > $5))
             ORDER BY create_time DESC, name LIMIT CAST($6 AS BIGINT)"
        }
        (true, false) => {
            "SELECT name, customer, create_time, update_time, pack_time, release_time, dispatch_time, deliver_time
             FROM shipments
             WHERE $1 = '' AND customer = $2 AND ($3 = '' OR state = $3)
               AND (create_time < CAST($4 AS BIGINT) OR (create_time = CAST($4 AS BIGINT) AND name > $5))
             ORDER BY create_time DESC, name LIMIT CAST($6 AS BIGINT)"
        }
        (true, true) => {
            "SELECT name, customer, create_time, update_time, pack_time, release_time, dispatch_time, deliver_time
             FROM shipments
             WHERE $1 = '' AND $2 = '' AND ($3 = '' OR state = $3) AND create_time <= CAST($4 AS BIGINT)
               AND (create_time < CAST($4 AS BIGINT) OR name > $5)
             ORDER BY create_time DESC, name LIMIT CAST($6 AS BIGINT)"
        }
    };
    let params = params![wanted.order.as_str(), wanted.customer.as_str(), wanted.state, time, name, limit];
    let rows = tx.query(sql, params).await?;
    rows.iter().map(stored).collect()
}

fn stored(row: &Row) -> Result<Stored, Error> {
    Ok(Stored {
        name: row.get("name")?,
        customer: row.get("customer")?,
        create_time: row.get("create_time")?,
        update_time: row.get("update_time")?,
        pack_time: row.get("pack_time")?,
        release_time: row.get("release_time")?,
        dispatch_time: row.get("dispatch_time")?,
        deliver_time: row.get("deliver_time")?,
    })
}
