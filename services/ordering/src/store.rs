//! Orders in the store: the rows derived from the log, and the one way to load, decide and append.

use std::sync::Arc;

use contracts::ordering::v1::Event as StoredEvent;
use log::{At, LocalBoxFuture, Log, Meta, Projection};
use store::{Error as StoreError, Migration, MigrationSet, Tx, params};

use crate::error::Error;
use crate::order::{Command, Event, Order, decide, evolve};
use crate::recent::Recent;
use crate::wire::{self, Times};

/// The tables of this service.
pub const MIGRATIONS: MigrationSet =
    MigrationSet::new("ordering", &[Migration::new(1, "ordering", include_str!("../migrations/0001_ordering.sql"))]);

/// An order as loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) order: Order,
    pub(crate) version: u64,
    pub(crate) times: Times,
}

/// Up to where an order is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// As it is.
    Now,
    /// As it was at this version.
    Version(u64),
    /// As it was at this time.
    Time(jiff::Timestamp),
}

/// Folds the order `name`; nothing if it does not exist (yet, at that time).
pub(crate) async fn load(
    log: &Log<StoredEvent>,
    tx: &mut Tx,
    name: &str,
    until: Until,
) -> Result<Option<Loaded>, Error> {
    fold(log, tx, name, until, None).await
}

/// The order `name` as it is, folded on from what is kept of it.
pub(crate) async fn load_on(
    log: &Log<StoredEvent>,
    recent: &Recent,
    tx: &mut Tx,
    name: &str,
) -> Result<Option<Loaded>, Error> {
    let known = match recent.get(name) {
        Some(known) if log.version(tx, &erasure_stream(&known.order.placed.customer)).await? == 0 => Some(known),
        Some(_) | None => None,
    };
    fold(log, tx, name, Until::Now, known).await
}

/// The stream that tells when a person was erased.
pub(crate) fn erasure_stream(subject: &str) -> String {
    format!("subjects/{}", subject.replace('/', "-"))
}

async fn fold(
    log: &Log<StoredEvent>,
    tx: &mut Tx,
    name: &str,
    until: Until,
    known: Option<Arc<Loaded>>,
) -> Result<Option<Loaded>, Error> {
    let after = known.as_ref().map_or(0, |known| known.version);
    let entries = log.load_after(tx, name, after).await?;
    let mut loaded = known.map(Arc::unwrap_or_clone);
    for entry in entries {
        let reached = match until {
            Until::Now => false,
            Until::Version(version) => entry.at.version > version,
            Until::Time(time) => entry.at.occur_time > time,
        };
        if reached {
            break;
        }
        let currency = loaded.as_ref().map(|loaded| loaded.order.currency());
        let unreadable = |detail| Error::Unreadable { order: name.to_owned(), version: entry.at.version, detail };
        let Some(event) = wire::from_stored(&entry.event, currency).map_err(unreadable)? else { continue };
        let (before, created) = match loaded {
            Some(loaded) => (Some(loaded.order), loaded.times.created),
            None => (None, entry.at.occur_time),
        };
        loaded = evolve(before, &event).map(|order| Loaded {
            order,
            version: entry.at.version,
            times: Times { created, updated: entry.at.occur_time },
        });
    }
    Ok(loaded)
}

/// Loads, decides and appends one command to one order inside a transaction.
pub(crate) async fn execute(
    log: &Log<StoredEvent>,
    recent: &Recent,
    tx: &mut Tx,
    name: &str,
    meta: &Meta,
    command: Command,
) -> Result<(Loaded, Vec<Event>), Error> {
    tx.take_stream(name).await?;
    let loaded = load_on(log, recent, tx, name).await?;
    let reject = |rejection| Error::Rejected { order: name.to_owned(), rejection };
    let events = decide(loaded.as_ref().map(|loaded| &loaded.order), command).map_err(reject)?;
    let now = tx.now();
    let version = loaded.as_ref().map_or(0, |loaded| loaded.version);
    let created = loaded.as_ref().map_or(now, |loaded| loaded.times.created);
    let unchanged = loaded.as_ref().map_or(now, |loaded| loaded.times.updated);
    let order = events.iter().fold(loaded.map(|loaded| loaded.order), evolve);
    let order = order.ok_or_else(|| reject(crate::order::Rejection::Missing))?;
    if events.is_empty() {
        return Ok((Loaded { order, version, times: Times { created, updated: unchanged } }, events));
    }
    let stored = events.iter().map(|event| wire::to_stored(name, event)).collect();
    let version = log.append(tx, name, version, meta, Some(&order.placed.customer), stored).await?;
    Ok((Loaded { order, version, times: Times { created, updated: now } }, events))
}

/// The order a cart at a version became, unless that was rejected.
pub(crate) async fn order_of_cart(tx: &mut Tx, cart: &str, cart_etag: &str) -> Result<Option<String>, StoreError> {
    let row = tx
        .query_opt(
            "SELECT name FROM orders WHERE cart = $1 AND cart_etag = $2 AND state <> 'REJECTED'",
            params![cart, cart_etag],
        )
        .await?;
    row.map(|row| row.get("name")).transpose()
}

/// The inline projection of orders.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<StoredEvent> for Rows {
    fn name(&self) -> &'static str {
        "orders"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["orders"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a StoredEvent,
    ) -> LocalBoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if let StoredEvent::OrderPlaced(placed) = event {
                tx.execute(
                    "INSERT INTO orders (name, customer, cart, cart_etag, state, version, create_time, update_time)
                     VALUES ($1, $2, $3, $4, 'PENDING', $5, $6, $6)",
                    params![
                        at.stream.as_str(),
                        placed.customer.as_str(),
                        placed.cart.as_str(),
                        placed.cart_etag.as_str(),
                        at.version,
                        at.occur_time
                    ],
                )
                .await?;
                return Ok(());
            }
            // An empty state keeps what was; a refused cancellation goes back to the state before it.
            tx.execute(
                "UPDATE orders SET state = CASE WHEN $1 = '' THEN state ELSE $1 END, version = $2, update_time = $3
                 WHERE name = $4",
                params![state_after(event), at.version, at.occur_time, at.stream.as_str()],
            )
            .await?;
            Ok(())
        })
    }
}

/// The coarse state a row needs: whether the order is open, rejected, or beyond.
fn state_after(event: &StoredEvent) -> &'static str {
    match event {
        StoredEvent::OrderConfirmed(_) => "CONFIRMED",
        StoredEvent::OrderRejected(_) => "REJECTED",
        StoredEvent::OrderCancelled(_) => "CANCELLED",
        StoredEvent::OrderPlaced(_)
        | StoredEvent::StockHeld(_)
        | StoredEvent::PaymentActionRequired(_)
        | StoredEvent::PaymentInDoubt(_)
        | StoredEvent::PaymentAuthorized(_)
        | StoredEvent::StockCommitted(_)
        | StoredEvent::CancelRequested(_)
        | StoredEvent::CancelRefused(_)
        | StoredEvent::CartClosed(_)
        | StoredEvent::ShipmentCreated(_)
        | StoredEvent::ShipmentPacked(_)
        | StoredEvent::ShipmentCaptured(_)
        | StoredEvent::ShipmentFulfilled(_)
        | StoredEvent::ShipmentReleased(_)
        | StoredEvent::LinesShipped(_)
        | StoredEvent::LinesDelivered(_)
        | StoredEvent::ShipmentCancelled(_)
        | StoredEvent::LinesReturned(_)
        | StoredEvent::ReturnRefunded(_)
        | StoredEvent::ReturnCompleted(_)
        | StoredEvent::PaymentSettled(_)
        | StoredEvent::OrderClosed(_)
        | StoredEvent::NeedsAttentionRaised(_)
        | StoredEvent::NeedsAttentionCleared(_)
        | StoredEvent::SubjectErased(_) => "",
    }
}
