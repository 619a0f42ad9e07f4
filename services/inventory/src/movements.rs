//! What moved, oldest first, as the log tells it: rows find the events, the events say the rest.
//!
//! The order is that of time, then stream and version, then SKU and warehouse. A list is read in one snapshot and is no
//! longer than a page; a page begins behind the movement the one before it ended with.

use contracts::inventory::v1::Event as StoredEvent;
use jiff::Timestamp;
use log::{Entry, Log};
use store::Tx;

use crate::error::Error;
use crate::reservation::{Delta, Event, MovementKind, deltas};
use crate::{store as rows, wire};

/// A change of a stock item.
#[derive(Clone, Debug)]
pub(crate) struct Movement {
    pub(crate) delta: Delta,
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) order: String,
    pub(crate) note: String,
    pub(crate) traceparent: String,
    pub(crate) occur_time: Timestamp,
}

/// Where a list continues: behind this movement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct After {
    pub(crate) occur_time: Timestamp,
    pub(crate) stream: String,
    pub(crate) version: u64,
    pub(crate) sku: String,
    pub(crate) warehouse: String,
}

impl Default for After {
    fn default() -> Self {
        let (stream, sku, warehouse) = Default::default();
        Self { occur_time: Timestamp::MIN, stream, version: 0, sku, warehouse }
    }
}

impl Movement {
    /// Where a list continues that ends with this one.
    pub(crate) fn place(&self) -> After {
        After {
            occur_time: self.occur_time,
            stream: self.stream.clone(),
            version: self.version,
            sku: self.delta.sku.clone(),
            warehouse: self.delta.warehouse.clone(),
        }
    }
}

/// At most `limit` movements of an item (any if `None`) or a reservation (any if empty).
pub(crate) async fn list(
    log: &Log<StoredEvent>,
    tx: &mut Tx,
    item: Option<(&str, &str)>,
    reservation: &str,
    after: &After,
    limit: u32,
) -> Result<Vec<Movement>, Error> {
    let mut found = vec![];
    if reservation.is_empty() {
        // Each of these events has a movement to tell, the first of them perhaps none behind `after`.
        for event in rows::moving_events(tx, item, after, limit.saturating_add(1)).await? {
            let entries = log.read(tx, &event.stream, event.version, 1).await?;
            found.extend(entries.iter().flat_map(of).filter(|movement| movement.place() > *after));
            if item.is_none() && found.len() >= limit as usize {
                break;
            }
        }
    } else {
        let entries = log.load(tx, reservation).await?;
        found.extend(entries.iter().flat_map(of).filter(|movement| movement.place() > *after));
        found.sort_by_key(Movement::place);
    }
    if let Some((warehouse, sku)) = item {
        found.retain(|movement| movement.delta.sku == sku && movement.delta.warehouse == warehouse);
    }
    found.truncate(limit as usize);
    Ok(found)
}

/// What an event moved, sorted by SKU and warehouse.
pub(crate) fn of(entry: &Entry<StoredEvent>) -> Vec<Movement> {
    let movement = |delta: Delta, order: &str, note: &str| Movement {
        delta,
        stream: entry.at.stream.clone(),
        version: entry.at.version,
        order: order.to_owned(),
        note: note.to_owned(),
        traceparent: entry.at.traceparent.clone(),
        occur_time: entry.at.occur_time,
    };
    if let StoredEvent::StockAdjusted(adjusted) = &entry.event {
        return vec![movement(adjustment(adjusted), "", &adjusted.note)];
    }
    let Some(event) = wire::from_stored(&entry.event) else { return vec![] };
    let (order, note) = (wire::order_of(&entry.event), note_of(&event));
    deltas(&event).into_iter().map(|delta| movement(delta, order, note)).collect()
}

/// What an adjustment moves.
pub(crate) fn adjustment(adjusted: &contracts::inventory::v1::StockAdjusted) -> Delta {
    let (warehouse, sku) = wire::parts(&adjusted.stock_item).unwrap_or_default();
    Delta {
        sku: sku.to_owned(),
        warehouse: warehouse.to_owned(),
        kind: MovementKind::Adjusted,
        on_hand: adjusted.delta,
        held: 0,
        committed: 0,
    }
}

fn note_of(event: &Event) -> &str {
    match event {
        Event::Fulfilled { shipment, .. } => shipment,
        Event::Restocked { return_id, .. } => return_id,
        Event::Released { reason, .. } | Event::Closed { reason, .. } => reason,
        Event::Held { .. }
        | Event::Extended { .. }
        | Event::Expired { .. }
        | Event::HeldAgain { .. }
        | Event::Committed { .. } => "",
    }
}
