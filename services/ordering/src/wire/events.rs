//! Events as they are stored, and back.
//!
//! Amounts are stored in minor units; their currency stands in `OrderPlaced`, so an event after it is read with the
//! order's currency.

use contract::{Currency, Money};
use contracts::ordering::v1 as proto;

use super::{address, count, currency, postal_address, reason_of, reject_reason};
use crate::order::{
    Allocation, Event, Line, PaymentAction, Placement, Return, ReturnLine, Shipment, ShipmentLine, ShipmentStatus,
};

/// An event of the order `name` as it is stored.
pub(crate) fn to_stored(name: &str, event: &Event) -> proto::Event {
    let order = name.to_owned();
    match event {
        Event::Placed(placement) => proto::Event::OrderPlaced(placed(order, placement)),
        Event::StockHeld { allocations, expire_time } => proto::Event::StockHeld(proto::StockHeld {
            order,
            allocations: allocations
                .iter()
                .map(|allocation| proto::HeldUnits {
                    warehouse: allocation.warehouse.clone(),
                    sku: allocation.sku.clone(),
                    quantity: allocation.quantity,
                })
                .collect(),
            expire_time: expire_time.map(Into::into),
        }),
        Event::PaymentActionRequired(action) => proto::Event::PaymentActionRequired(proto::PaymentActionRequired {
            order,
            uri: action.url.clone(),
            challenge_id: action.challenge.clone(),
            expire_time: Some(action.expire_time.into()),
        }),
        Event::PaymentInDoubt { detail } => {
            proto::Event::PaymentInDoubt(proto::PaymentInDoubt { order, detail: detail.clone() })
        }
        Event::PaymentAuthorized { amount } => {
            proto::Event::PaymentAuthorized(proto::PaymentAuthorized { order, amount_minor: amount.minor })
        }
        Event::StockCommitted => proto::Event::StockCommitted(proto::StockCommitted { order }),
        Event::Confirmed => proto::Event::OrderConfirmed(proto::OrderConfirmed { order }),
        Event::Rejected { reason, detail, skus } => proto::Event::OrderRejected(proto::OrderRejected {
            order,
            reason: reject_reason(*reason).into(),
            detail: detail.clone(),
            skus: skus.clone(),
        }),
        Event::CartClosed => proto::Event::CartClosed(proto::CartClosed { order }),
        Event::CancelRequested { by, reason } => {
            proto::Event::CancelRequested(proto::CancelRequested { order, actor: by.clone(), reason: reason.clone() })
        }
        Event::CancelRefused => {
            proto::Event::CancelRefused(proto::CancelRefused { order, reason: "ALREADY_DISPATCHED".to_owned() })
        }
        Event::ShipmentCancelled { shipment } => {
            proto::Event::ShipmentCancelled(proto::ShipmentCancelled { order, shipment: shipment.clone() })
        }
        Event::PaymentSettled { refunded } => {
            proto::Event::PaymentSettled(proto::PaymentSettled { order, refunded_minor: refunded.minor })
        }
        Event::Cancelled { lines, partial } => {
            proto::Event::OrderCancelled(proto::OrderCancelled { order, lines: counted(lines), partial: *partial })
        }
        Event::ShipmentCreated { shipment, planned } => proto::Event::ShipmentCreated(proto::ShipmentCreated {
            order,
            shipment: shipment.clone(),
            lines: planned
                .lines
                .iter()
                .map(|entry| proto::CountedLine { line: entry.line.clone(), quantity: count(entry.quantity) })
                .collect(),
            warehouse: planned.warehouse.clone(),
            value_minor: planned.value.minor,
        }),
        Event::ShipmentPacked { shipment } => {
            proto::Event::ShipmentPacked(proto::ShipmentPacked { order, shipment: shipment.clone() })
        }
        Event::ShipmentCaptured { shipment, amount } => proto::Event::ShipmentCaptured(proto::ShipmentCaptured {
            order,
            shipment: shipment.clone(),
            amount_minor: amount.minor,
        }),
        Event::ShipmentFulfilled { shipment } => {
            proto::Event::ShipmentFulfilled(proto::ShipmentFulfilled { order, shipment: shipment.clone() })
        }
        Event::ShipmentReleased { shipment } => {
            proto::Event::ShipmentReleased(proto::ShipmentReleased { order, shipment: shipment.clone() })
        }
        Event::LinesShipped { shipment, lines, complete, carrier, tracking } => {
            proto::Event::LinesShipped(proto::LinesShipped {
                order,
                shipment: shipment.clone(),
                lines: counted(lines),
                complete: *complete,
                carrier: carrier.clone(),
                tracking_number: tracking.clone(),
            })
        }
        Event::LinesDelivered { shipment, complete } => proto::Event::LinesDelivered(proto::LinesDelivered {
            order,
            shipment: shipment.clone(),
            complete: *complete,
        }),
        Event::LinesReturned { id, returned } => proto::Event::LinesReturned(lines_returned(order, id, returned)),
        Event::ReturnRefunded { id, amount } => proto::Event::ReturnRefunded(proto::ReturnRefunded {
            order,
            return_id: id.clone(),
            amount_minor: amount.minor,
        }),
        Event::ReturnCompleted { id } => {
            proto::Event::ReturnCompleted(proto::ReturnCompleted { order, return_id: id.clone() })
        }
        Event::AttentionRaised { reason, detail } => proto::Event::NeedsAttentionRaised(proto::NeedsAttentionRaised {
            order,
            reason: reason.clone(),
            detail: detail.clone(),
        }),
        Event::AttentionCleared { reason } => proto::Event::NeedsAttentionCleared(proto::NeedsAttentionCleared {
            order,
            reason: reason.clone(),
            actor: String::new(),
        }),
        Event::Closed => proto::Event::OrderClosed(proto::OrderClosed { order }),
    }
}

/// The domain event of a stored one; nothing for an erasure, which is about no order. `known` is the currency of the order
/// so far; only the first event is read without.
pub(crate) fn from_stored(stored: &proto::Event, known: Option<Currency>) -> Result<Option<Event>, String> {
    let money = |minor: i64| -> Result<Money, String> {
        let currency = known.ok_or("an amount before the order was placed")?;
        Ok(Money::new(currency, minor))
    };
    Ok(Some(match stored {
        proto::Event::OrderPlaced(placed) => Event::Placed(Box::new(placement_of(placed)?)),
        proto::Event::StockHeld(held) => Event::StockHeld {
            allocations: held
                .allocations
                .iter()
                .map(|units| Allocation {
                    warehouse: units.warehouse.clone(),
                    sku: units.sku.clone(),
                    quantity: units.quantity,
                })
                .collect(),
            expire_time: held.expire_time.and_then(|time| time.try_into().ok()),
        },
        proto::Event::PaymentActionRequired(action) => Event::PaymentActionRequired(PaymentAction {
            challenge: action.challenge_id.clone(),
            url: action.uri.clone(),
            expire_time: action
                .expire_time
                .and_then(|time| time.try_into().ok())
                .ok_or("a required action without an end")?,
        }),
        proto::Event::PaymentInDoubt(doubt) => Event::PaymentInDoubt { detail: doubt.detail.clone() },
        proto::Event::PaymentAuthorized(authorized) => {
            Event::PaymentAuthorized { amount: money(authorized.amount_minor)? }
        }
        proto::Event::StockCommitted(_) => Event::StockCommitted,
        proto::Event::OrderConfirmed(_) => Event::Confirmed,
        proto::Event::OrderRejected(rejected) => Event::Rejected {
            reason: reason_of(rejected.reason()),
            detail: rejected.detail.clone(),
            skus: rejected.skus.clone(),
        },
        proto::Event::CartClosed(_) => Event::CartClosed,
        proto::Event::CancelRequested(asked) => {
            Event::CancelRequested { by: asked.actor.clone(), reason: asked.reason.clone() }
        }
        proto::Event::CancelRefused(_) => Event::CancelRefused,
        proto::Event::ShipmentCancelled(cancelled) => Event::ShipmentCancelled { shipment: cancelled.shipment.clone() },
        proto::Event::PaymentSettled(settled) => Event::PaymentSettled { refunded: money(settled.refunded_minor)? },
        proto::Event::OrderCancelled(cancelled) => {
            Event::Cancelled { lines: quantities(&cancelled.lines), partial: cancelled.partial }
        }
        proto::Event::ShipmentCreated(created) => Event::ShipmentCreated {
            shipment: created.shipment.clone(),
            planned: Shipment {
                warehouse: created.warehouse.clone(),
                lines: created
                    .lines
                    .iter()
                    .map(|counted| ShipmentLine { line: counted.line.clone(), quantity: i64::from(counted.quantity) })
                    .collect(),
                value: money(created.value_minor)?,
                status: ShipmentStatus::Created,
            },
        },
        proto::Event::ShipmentPacked(moved) => Event::ShipmentPacked { shipment: moved.shipment.clone() },
        proto::Event::ShipmentCaptured(moved) => {
            Event::ShipmentCaptured { shipment: moved.shipment.clone(), amount: money(moved.amount_minor)? }
        }
        proto::Event::ShipmentFulfilled(moved) => Event::ShipmentFulfilled { shipment: moved.shipment.clone() },
        proto::Event::ShipmentReleased(moved) => Event::ShipmentReleased { shipment: moved.shipment.clone() },
        proto::Event::LinesShipped(shipped) => Event::LinesShipped {
            shipment: shipped.shipment.clone(),
            lines: quantities(&shipped.lines),
            complete: shipped.complete,
            carrier: shipped.carrier.clone(),
            tracking: shipped.tracking_number.clone(),
        },
        proto::Event::LinesDelivered(delivered) => {
            Event::LinesDelivered { shipment: delivered.shipment.clone(), complete: delivered.complete }
        }
        proto::Event::LinesReturned(returned) => Event::LinesReturned {
            id: returned.return_id.clone(),
            returned: Box::new(Return {
                lines: returned
                    .lines
                    .iter()
                    .map(|line| {
                        Ok(ReturnLine {
                            line: line.line.clone(),
                            quantity: i64::from(line.quantity),
                            amount: money(line.amount_minor)?,
                            withdrawn: vec![],
                        })
                    })
                    .collect::<Result<_, String>>()?,
                amount: money(returned.refund_minor)?,
                restock: returned.restock,
                reason: returned.reason.clone(),
                actor: returned.actor.clone(),
                external_reference: returned.external_reference.clone(),
                external_time: returned.returned_time.and_then(|time| time.try_into().ok()),
                refunded: false,
                complete: false,
            }),
        },
        proto::Event::ReturnRefunded(refunded) => {
            Event::ReturnRefunded { id: refunded.return_id.clone(), amount: money(refunded.amount_minor)? }
        }
        proto::Event::ReturnCompleted(done) => Event::ReturnCompleted { id: done.return_id.clone() },
        proto::Event::NeedsAttentionRaised(raised) => {
            Event::AttentionRaised { reason: raised.reason.clone(), detail: raised.detail.clone() }
        }
        proto::Event::NeedsAttentionCleared(cleared) => Event::AttentionCleared { reason: cleared.reason.clone() },
        proto::Event::OrderClosed(_) => Event::Closed,
        proto::Event::SubjectErased(_) => return Ok(None),
    }))
}

fn placed(order: String, placement: &Placement) -> proto::OrderPlaced {
    let id = order.strip_prefix("orders/").unwrap_or(&order).to_owned();
    proto::OrderPlaced {
        customer: placement.customer.clone(),
        cart: placement.cart.clone(),
        cart_etag: placement.cart_etag.clone(),
        quote_id: placement.quote_id.clone(),
        currency_code: placement.total.currency.code().to_owned(),
        lines: placement
            .lines
            .iter()
            .map(|line| proto::PlacedLine {
                line: line.id.clone(),
                item: line.item.clone(),
                sku: line.sku.clone(),
                variant: line.variant.clone(),
                title: line.title.clone(),
                quantity: count(line.quantity),
                unit_price_minor: line.unit_price.minor,
                tax_minor: line.tax.minor,
                stocked: line.stocked,
            })
            .collect(),
        subtotal_minor: placement.subtotal.minor,
        tax_minor: placement.tax.minor,
        shipping_minor: placement.shipping.minor,
        total_minor: placement.total.minor,
        reservation: format!("reservations/{id}"),
        payment: format!("payments/{id}"),
        payment_token: placement.payment_token.clone(),
        shipping_address: postal_address(&placement.address),
        contact_email: placement.contact_email.clone(),
        external_reference: placement.external_reference.clone(),
        placed_time: placement.external_time.map(Into::into),
        actor: placement.actor.clone(),
        saga: id,
        order,
    }
}

fn placement_of(placed: &proto::OrderPlaced) -> Result<Placement, String> {
    let currency = currency(&placed.currency_code)?;
    let money = |minor| Money::new(currency, minor);
    Ok(Placement {
        customer: placed.customer.clone(),
        cart: placed.cart.clone(),
        cart_etag: placed.cart_etag.clone(),
        lines: placed
            .lines
            .iter()
            .map(|line| Line {
                id: line.line.clone(),
                item: line.item.clone(),
                sku: line.sku.clone(),
                variant: line.variant.clone(),
                title: line.title.clone(),
                quantity: i64::from(line.quantity),
                unit_price: money(line.unit_price_minor),
                tax: money(line.tax_minor),
                stocked: line.stocked,
            })
            .collect(),
        subtotal: money(placed.subtotal_minor),
        tax: money(placed.tax_minor),
        shipping: money(placed.shipping_minor),
        total: money(placed.total_minor),
        quote_id: placed.quote_id.clone(),
        payment_token: placed.payment_token.clone(),
        address: placed.shipping_address.as_ref().map(address).unwrap_or_default(),
        contact_email: placed.contact_email.clone(),
        external_reference: placed.external_reference.clone(),
        external_time: placed.placed_time.and_then(|time| time.try_into().ok()),
        actor: placed.actor.clone(),
    })
}

fn lines_returned(order: String, id: &str, returned: &Return) -> proto::LinesReturned {
    proto::LinesReturned {
        order,
        return_id: id.to_owned(),
        lines: returned
            .lines
            .iter()
            .map(|line| proto::ReturnedLine {
                line: line.line.clone(),
                quantity: count(line.quantity),
                amount_minor: line.amount.minor,
            })
            .collect(),
        refund_minor: returned.amount.minor,
        restock: returned.restock,
        reason: returned.reason.clone(),
        actor: returned.actor.clone(),
        external_reference: returned.external_reference.clone(),
        returned_time: returned.external_time.map(Into::into),
        saga: crate::sagas::return_saga(id),
    }
}

fn counted(lines: &[(String, i64)]) -> Vec<proto::CountedLine> {
    let wire =
        lines.iter().map(|(line, quantity)| proto::CountedLine { line: line.clone(), quantity: count(*quantity) });
    wire.collect()
}

fn quantities(lines: &[proto::CountedLine]) -> Vec<(String, i64)> {
    lines.iter().map(|counted| (counted.line.clone(), i64::from(counted.quantity))).collect()
}
