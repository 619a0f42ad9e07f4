//! An order as callers see it.

use contract::{EventSet as _, Money};
use contracts::ordering::v1 as proto;
use contracts::wkt;
use jiff::Timestamp;
use log::Entry;

use super::{count, postal_address, reject_reason, state};
use crate::order::{Order, Return, Shipment, ShipmentStatus, Status};

/// When an order's first and last event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// The order `name` at `version`.
pub(crate) fn reply(name: &str, version: u64, times: Times, order: &Order) -> proto::Order {
    let id = name.strip_prefix("orders/").unwrap_or(name);
    let placed = &order.placed;
    proto::Order {
        name: name.to_owned(),
        state: state(order.status).into(),
        customer: placed.customer.clone(),
        cart: placed.cart.clone(),
        lines: lines(order),
        subtotal: Some(placed.subtotal.into()),
        tax: Some(placed.tax.into()),
        shipping: Some(placed.shipping.into()),
        total: Some(placed.total.into()),
        currency_code: placed.total.currency.code().to_owned(),
        reject_reason: order.rejection.map_or(proto::RejectReason::Unspecified, reject_reason).into(),
        reject_detail: order.rejection_detail.clone(),
        reservation: format!("reservations/{id}"),
        payment: format!("payments/{id}"),
        payment_action: order.action.as_ref().map(|action| proto::PaymentAction {
            uri: action.url.clone(),
            challenge_id: action.challenge.clone(),
            expire_time: Some(action.expire_time.into()),
        }),
        payment_in_doubt: order.payment_in_doubt,
        shipments: order.shipments.iter().map(|(name, parcel)| shipment(name, parcel)).collect(),
        returns: order.returns.iter().map(|(id, returned)| order_return(id, returned, times)).collect(),
        captured: Some(order.captured.into()),
        refunded: Some(order.refunded.into()),
        shipping_address: postal_address(&placed.address),
        contact_email: placed.contact_email.clone(),
        cancel_reason: order.cancel_reason.clone(),
        needs_attention: !order.attention.is_empty(),
        attention_reasons: order.attention.clone(),
        external_reference: placed.external_reference.clone(),
        placed_time: Some(placed.external_time.unwrap_or(times.created).into()),
        version: i64::try_from(version).unwrap_or(i64::MAX),
        etag: version.to_string(),
        create_time: Some(times.created.into()),
        update_time: Some(times.updated.into()),
        saga: format!("services/ordering/sagas/{id}"),
    }
}

/// A return as callers see it.
fn order_return(id: &str, returned: &Return, times: Times) -> proto::OrderReturn {
    let state = if returned.complete { proto::OrderReturnState::Done } else { proto::OrderReturnState::Refunding };
    proto::OrderReturn {
        return_id: id.to_owned(),
        lines: returned.lines.iter().map(|line| quantity(&line.line, line.quantity)).collect(),
        refund: Some(returned.amount.into()),
        state: state.into(),
        restock: returned.restock,
        reason: returned.reason.clone(),
        create_time: Some(returned.external_time.unwrap_or(times.updated).into()),
        external_reference: returned.external_reference.clone(),
    }
}

fn lines(order: &Order) -> Vec<proto::OrderLine> {
    let of_line = |line: &str, wanted: &dyn Fn(&Shipment) -> bool| -> i64 {
        let parcels = order.shipments.values().filter(|parcel| wanted(parcel));
        parcels.flat_map(|parcel| &parcel.lines).filter(|entry| entry.line == line).map(|entry| entry.quantity).sum()
    };
    let shipped = |parcel: &Shipment| matches!(parcel.status, ShipmentStatus::Shipped | ShipmentStatus::Delivered);
    let stays = |parcel: &Shipment| !matches!(parcel.status, ShipmentStatus::Created | ShipmentStatus::Cancelled);
    let wire = order.placed.lines.iter().map(|line| {
        let subtotal = Money { minor: line.unit_price.minor.saturating_mul(line.quantity), ..line.unit_price };
        let cancelled = match order.status {
            Status::Cancelled | Status::PartiallyCancelled => line.quantity - of_line(&line.id, &stays),
            Status::Pending
            | Status::AwaitingPaymentAction
            | Status::Confirmed
            | Status::PartiallyShipped
            | Status::Shipped
            | Status::Delivered
            | Status::Closed
            | Status::Rejected
            | Status::Cancelling => 0,
        };
        proto::OrderLine {
            line: line.id.clone(),
            sku: line.sku.clone(),
            variant: line.variant.clone(),
            title: line.title.clone(),
            quantity: count(line.quantity),
            unit_price: Some(line.unit_price.into()),
            subtotal: Some(subtotal.into()),
            tax: Some(line.tax.into()),
            stocked: line.stocked,
            shipped_quantity: count(of_line(&line.id, &shipped)),
            returned_quantity: count(order.returned(&line.id)),
            cancelled_quantity: count(cancelled),
        }
    });
    wire.collect()
}

fn shipment(name: &str, parcel: &Shipment) -> proto::OrderShipment {
    let state = match parcel.status {
        ShipmentStatus::Created => proto::OrderShipmentState::Created,
        ShipmentStatus::Packed => proto::OrderShipmentState::Packed,
        ShipmentStatus::Captured | ShipmentStatus::Fulfilled => proto::OrderShipmentState::Captured,
        ShipmentStatus::Released => proto::OrderShipmentState::Released,
        ShipmentStatus::Shipped => proto::OrderShipmentState::Shipped,
        ShipmentStatus::Delivered => proto::OrderShipmentState::Delivered,
        ShipmentStatus::Cancelled => proto::OrderShipmentState::Cancelled,
    };
    proto::OrderShipment {
        shipment: name.to_owned(),
        lines: parcel.lines.iter().map(|entry| quantity(&entry.line, entry.quantity)).collect(),
        value: Some(parcel.value.into()),
        state: state.into(),
    }
}

fn quantity(line: &str, quantity: i64) -> proto::LineQuantity {
    proto::LineQuantity { line: line.to_owned(), quantity: count(quantity) }
}

/// An event of an order as callers see it; its fields as JSON.
pub(crate) fn order_event(order: &str, entry: &Entry<proto::Event>) -> proto::OrderEvent {
    let name = entry.event.name();
    let json = contracts::json::TABLE.get(name).and_then(|message| (message.from_wire)(&entry.event.encode()).ok());
    let data = json.and_then(|json| serde_json::from_slice::<wkt::Struct>(&json).ok());
    proto::OrderEvent {
        name: format!("{order}/events/{}", entry.at.version),
        version: i64::try_from(entry.at.version).unwrap_or(i64::MAX),
        r#type: name.to_owned(),
        schema_version: i32::try_from(entry.event.schema()).unwrap_or(i32::MAX),
        occur_time: Some(entry.at.occur_time.into()),
        causation_id: entry.at.causation.clone(),
        correlation_id: entry.at.correlation.clone(),
        trace_id: entry.at.traceparent.split('-').nth(1).unwrap_or_default().to_owned(),
        data,
    }
}
