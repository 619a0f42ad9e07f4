//! Between contract messages and the domain: the only file that sees both.

use std::collections::BTreeMap;

use contracts::inventory::v1 as proto;

use crate::movements::Movement;
use crate::reservation::{Event, MovementKind, Reservation, State, Units};
use crate::store::{Item, Stored};

/// An event as it is stored. `name` is the reservation's, `order` the order it is for.
pub(crate) fn to_stored(name: &str, order: &str, event: &Event) -> proto::Event {
    let (reservation, order) = (name.to_owned(), order.to_owned());
    match event {
        Event::Held { order, units, expire_time } => proto::Event::StockHeld(proto::StockHeld {
            reservation,
            order: order.clone(),
            allocations: to_units(units),
            expire_time: Some((*expire_time).into()),
        }),
        Event::Extended { expire_time } => proto::Event::ReservationExtended(proto::ReservationExtended {
            reservation,
            expire_time: Some((*expire_time).into()),
        }),
        Event::Expired { units } => proto::Event::ReservationExpired(proto::ReservationExpired {
            reservation,
            order,
            allocations: to_units(units),
        }),
        Event::HeldAgain { units } => {
            proto::Event::StockHeldAgain(proto::StockHeldAgain { reservation, order, allocations: to_units(units) })
        }
        Event::Committed { units } => {
            proto::Event::StockCommitted(proto::StockCommitted { reservation, order, allocations: to_units(units) })
        }
        Event::Released { held, committed, reason } => proto::Event::StockReleased(proto::StockReleased {
            reservation,
            order,
            held: to_units(held),
            committed: to_units(committed),
            reason: reason.clone(),
        }),
        Event::Closed { order, reason } => proto::Event::ReservationClosed(proto::ReservationClosed {
            reservation,
            order: order.clone(),
            reason: reason.clone(),
        }),
        Event::Fulfilled { shipment, units, complete } => proto::Event::StockFulfilled(proto::StockFulfilled {
            reservation,
            order,
            shipment: shipment.clone(),
            allocations: to_units(units),
            complete: *complete,
        }),
        Event::Restocked { return_id, units } => proto::Event::StockRestocked(proto::StockRestocked {
            reservation,
            order,
            return_id: return_id.clone(),
            allocations: to_units(units),
        }),
    }
}

/// The domain event of a stored one; nothing for an adjustment, which is about no reservation.
pub(crate) fn from_stored(event: &proto::Event) -> Option<Event> {
    Some(match event {
        proto::Event::StockAdjusted(_) => return None,
        proto::Event::StockHeld(held) => Event::Held {
            order: held.order.clone(),
            units: from_units(&held.allocations),
            expire_time: held.expire_time.and_then(|time| time.try_into().ok())?,
        },
        proto::Event::ReservationExtended(extended) => {
            Event::Extended { expire_time: extended.expire_time.and_then(|time| time.try_into().ok())? }
        }
        proto::Event::ReservationExpired(expired) => Event::Expired { units: from_units(&expired.allocations) },
        proto::Event::StockHeldAgain(again) => Event::HeldAgain { units: from_units(&again.allocations) },
        proto::Event::StockCommitted(committed) => Event::Committed { units: from_units(&committed.allocations) },
        proto::Event::StockReleased(released) => Event::Released {
            held: from_units(&released.held),
            committed: from_units(&released.committed),
            reason: released.reason.clone(),
        },
        proto::Event::ReservationClosed(closed) => {
            Event::Closed { order: closed.order.clone(), reason: closed.reason.clone() }
        }
        proto::Event::StockFulfilled(fulfilled) => Event::Fulfilled {
            shipment: fulfilled.shipment.clone(),
            units: from_units(&fulfilled.allocations),
            complete: fulfilled.complete,
        },
        proto::Event::StockRestocked(restocked) => {
            Event::Restocked { return_id: restocked.return_id.clone(), units: from_units(&restocked.allocations) }
        }
    })
}

/// The order a stored event is for; empty for an adjustment.
pub(crate) fn order_of(event: &proto::Event) -> &str {
    match event {
        proto::Event::StockAdjusted(_) | proto::Event::ReservationExtended(_) => "",
        proto::Event::StockHeld(it) => &it.order,
        proto::Event::ReservationExpired(it) => &it.order,
        proto::Event::StockHeldAgain(it) => &it.order,
        proto::Event::StockCommitted(it) => &it.order,
        proto::Event::StockReleased(it) => &it.order,
        proto::Event::ReservationClosed(it) => &it.order,
        proto::Event::StockFulfilled(it) => &it.order,
        proto::Event::StockRestocked(it) => &it.order,
    }
}

/// Lines summed by SKU: two lines of one SKU are one line for stock.
pub(crate) fn wanted(lines: &[proto::ReservationLine]) -> BTreeMap<String, i64> {
    let mut wanted = BTreeMap::new();
    for line in lines {
        let sum: &mut i64 = wanted.entry(line.sku.clone()).or_default();
        *sum = sum.saturating_add(line.quantity);
    }
    wanted
}

/// A reservation as callers see it.
pub(crate) fn reservation(name: &str, version: u64, state: &Reservation, stored: &Stored) -> proto::Reservation {
    proto::Reservation {
        name: name.to_owned(),
        order: state.order.clone(),
        state: state_of(state.state).into(),
        allocations: state
            .allocations
            .iter()
            .map(|allocation| proto::Allocation {
                warehouse: allocation.units.warehouse.clone(),
                sku: allocation.units.sku.clone(),
                quantity: allocation.units.quantity,
                fulfilled: allocation.fulfilled,
                restocked: allocation.restocked,
            })
            .collect(),
        expire_time: state.expire_time.map(Into::into),
        etag: version.to_string(),
        create_time: Some(stored.create_time.into()),
        update_time: Some(stored.update_time.into()),
    }
}

/// A stock item as callers see it.
pub(crate) fn item(item: &Item) -> proto::StockItem {
    proto::StockItem {
        name: item_name(&item.warehouse, &item.sku),
        sku: item.sku.clone(),
        on_hand: item.on_hand,
        held: item.held,
        committed: item.committed,
        available: item.on_hand - item.held - item.committed,
        etag: item.version.to_string(),
        update_time: Some(item.update_time.into()),
    }
}

/// A movement as callers see it.
pub(crate) fn movement(movement: &Movement) -> proto::StockMovement {
    proto::StockMovement {
        stock_item: item_name(&movement.delta.warehouse, &movement.delta.sku),
        kind: kind_of(movement.delta.kind).into(),
        on_hand_delta: movement.delta.on_hand,
        held_delta: movement.delta.held,
        committed_delta: movement.delta.committed,
        reservation: if movement.stream.starts_with("reservations/") { movement.stream.clone() } else { String::new() },
        order: movement.order.clone(),
        note: movement.note.clone(),
        occur_time: Some(movement.occur_time.into()),
        trace_id: movement.traceparent.split('-').nth(1).unwrap_or_default().to_owned(),
        event: format!("{}@{}", movement.stream, movement.version),
    }
}

/// `warehouses/{warehouse}/stockItems/{sku}`.
pub(crate) fn item_name(warehouse: &str, sku: &str) -> String {
    format!("{warehouse}/stockItems/{sku}")
}

/// (`warehouses/{warehouse}`, SKU) of a stock item's name, which the contract has checked.
pub(crate) fn parts(name: &str) -> Option<(&str, &str)> {
    name.split_once("/stockItems/")
}

/// The stored text of a state.
pub(crate) fn state_text(state: State) -> &'static str {
    match state {
        State::Held => "HELD",
        State::Expired => "EXPIRED",
        State::Committed => "COMMITTED",
        State::Released => "RELEASED",
        State::PartiallyFulfilled => "PARTIALLY_FULFILLED",
        State::Fulfilled => "FULFILLED",
    }
}

/// The stored text of a state in a filter; nothing when all are asked for.
pub(crate) fn state_filter(state: proto::ReservationState) -> &'static str {
    match state {
        proto::ReservationState::Unspecified => "",
        proto::ReservationState::Held => state_text(State::Held),
        proto::ReservationState::Expired => state_text(State::Expired),
        proto::ReservationState::Committed => state_text(State::Committed),
        proto::ReservationState::Released => state_text(State::Released),
        proto::ReservationState::PartiallyFulfilled => state_text(State::PartiallyFulfilled),
        proto::ReservationState::Fulfilled => state_text(State::Fulfilled),
    }
}

fn state_of(state: Option<State>) -> proto::ReservationState {
    match state {
        None => proto::ReservationState::Unspecified,
        Some(State::Held) => proto::ReservationState::Held,
        Some(State::Expired) => proto::ReservationState::Expired,
        Some(State::Committed) => proto::ReservationState::Committed,
        Some(State::Released) => proto::ReservationState::Released,
        Some(State::PartiallyFulfilled) => proto::ReservationState::PartiallyFulfilled,
        Some(State::Fulfilled) => proto::ReservationState::Fulfilled,
    }
}

fn kind_of(kind: MovementKind) -> proto::MovementKind {
    match kind {
        MovementKind::Adjusted => proto::MovementKind::Adjusted,
        MovementKind::Held => proto::MovementKind::Held,
        MovementKind::Expired => proto::MovementKind::Expired,
        MovementKind::Committed => proto::MovementKind::Committed,
        MovementKind::Released => proto::MovementKind::Released,
        MovementKind::Fulfilled => proto::MovementKind::Fulfilled,
        MovementKind::Restocked => proto::MovementKind::Restocked,
    }
}

fn to_units(units: &[Units]) -> Vec<proto::AllocatedUnits> {
    let wire = units.iter().map(|units| proto::AllocatedUnits {
        warehouse: units.warehouse.clone(),
        sku: units.sku.clone(),
        quantity: units.quantity,
    });
    wire.collect()
}

fn from_units(units: &[proto::AllocatedUnits]) -> Vec<Units> {
    let domain = units.iter().map(|units| Units {
        warehouse: units.warehouse.clone(),
        sku: units.sku.clone(),
        quantity: units.quantity,
    });
    domain.collect()
}
