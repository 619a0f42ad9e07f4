//! The rules: which events a command causes, and what an event makes of an order.

use std::collections::BTreeMap;

use contract::Money;

use super::parcels::{request_return, withdraw};
use super::{
    Cancellation, Command, Event, Order, Placement, Rejection, ShipmentStatus, Status, amounts,
};

/// What a command causes; nothing if its effect is already there.
pub fn decide(order: Option<&Order>, command: Command) -> Result<Vec<Event>, Rejection> {
    let Some(order) = order else {
        let Command::Place(placement) = command else {
            return Err(Rejection::Missing);
        };
        check(&placement)?;
        return Ok(vec![Event::Placed(placement)]);
    };
    let wrong = |verb| {
        Err(Rejection::WrongState {
            status: order.status,
            verb,
        })
    };
    let open = matches!(
        order.status,
        Status::Pending | Status::AwaitingPaymentAction
    );
    match command {
        Command::Place(_) => Ok(vec![]),
        Command::RecordStockHeld(allocations) => match order.status {
            Status::Pending if order.allocations.is_empty() => {
                Ok(vec![Event::StockHeld { allocations }])
            }
            _ => Ok(vec![]),
        },
        Command::RequirePaymentAction(action) => match order.status {
            Status::Pending => Ok(vec![Event::PaymentActionRequired(action)]),
            _ => Ok(vec![]),
        },
        Command::RecordPaymentInDoubt => Ok(if open && !order.payment_in_doubt {
            vec![Event::PaymentInDoubt]
        } else {
            vec![]
        }),
        Command::RecordAuthorized { payment } => Ok(if open && !order.authorized {
            vec![Event::PaymentAuthorized { payment }]
        } else {
            vec![]
        }),
        Command::Confirm if order.cancel.is_some() && open => Err(Rejection::CancelRequested),
        Command::Confirm if open => Ok(vec![Event::Confirmed]),
        Command::Confirm => match order.status {
            Status::Rejected | Status::Cancelled => wrong("be confirmed"),
            _ => Ok(vec![]),
        },
        Command::Reject(_) if open && order.cancel.is_some() => Ok(vec![Event::Cancelled]),
        Command::Reject(reason) if open => Ok(vec![Event::Rejected { reason }]),
        Command::Reject(_) => match order.status {
            Status::Rejected | Status::Cancelled => Ok(vec![]),
            _ => wrong("be rejected"),
        },
        Command::RequestCancel { by, reason } => request_cancel(order, by, reason),
        Command::RefuseCancel => Ok(match order.status {
            Status::Cancelling => vec![Event::CancelRefused],
            _ => vec![],
        }),
        Command::FinishCancel => match order.status {
            Status::Cancelled | Status::PartiallyCancelled => Ok(vec![]),
            Status::Cancelling | Status::Pending | Status::AwaitingPaymentAction => {
                Ok(vec![Event::Cancelled])
            }
            _ => wrong("be cancelled"),
        },
        Command::RecordShipment { shipment, planned } => {
            Ok(if order.shipments.contains_key(&shipment) {
                vec![]
            } else {
                vec![Event::ShipmentCreated { shipment, planned }]
            })
        }
        Command::RecordPacked { shipment } => {
            step(order, shipment, ShipmentStatus::Packed, |shipment| {
                Event::ShipmentPacked { shipment }
            })
        }
        Command::RecordCaptured { shipment, amount } => {
            step(order, shipment, ShipmentStatus::Captured, |shipment| {
                Event::ShipmentCaptured { shipment, amount }
            })
        }
        Command::RecordDispatched { shipment, tracking } => {
            step(order, shipment, ShipmentStatus::Dispatched, |shipment| {
                Event::ShipmentDispatched { shipment, tracking }
            })
        }
        Command::RecordDelivered { shipment } => {
            step(order, shipment, ShipmentStatus::Delivered, |shipment| {
                Event::ShipmentDelivered { shipment }
            })
        }
        Command::RequestReturn {
            id,
            lines,
            restock,
            reason,
            by,
        } => request_return(order, id, &lines, restock, reason, by),
        Command::FinishReturn { id } => match order.returns.get(&id) {
            Some(returned) if !returned.complete => Ok(vec![Event::ReturnCompleted { id }]),
            Some(_) | None => Ok(vec![]),
        },
        Command::RaiseAttention { reason } => Ok(match &order.attention {
            Some(raised) if *raised == reason => vec![],
            _ => vec![Event::AttentionRaised { reason }],
        }),
    }
}

/// What an event makes of an order.
pub fn evolve(order: Option<Order>, event: &Event) -> Option<Order> {
    let Some(mut order) = order else {
        let Event::Placed(placement) = event else {
            return None;
        };
        return Some(Order {
            placed: (**placement).clone(),
            status: Status::Pending,
            rejection: None,
            allocations: vec![],
            action: None,
            payment_in_doubt: false,
            authorized: false,
            attention: None,
            shipments: BTreeMap::new(),
            returns: BTreeMap::new(),
            cancel: None,
        });
    };
    match event {
        Event::Placed(_) => {}
        Event::StockHeld { allocations } => order.allocations.clone_from(allocations),
        Event::PaymentActionRequired(action) => {
            order.action = Some(action.clone());
            order.status = Status::AwaitingPaymentAction;
        }
        Event::PaymentInDoubt => order.payment_in_doubt = true,
        Event::PaymentAuthorized { .. } => {
            order.authorized = true;
            order.payment_in_doubt = false;
            order.action = None;
        }
        Event::Confirmed => order.status = Status::Confirmed,
        Event::Rejected { reason } => {
            order.status = Status::Rejected;
            order.rejection = Some(*reason);
            order.payment_in_doubt = false;
            order.action = None;
        }
        Event::CancelRequested { by, reason } => {
            order.cancel = Some(Cancellation {
                by: by.clone(),
                reason: reason.clone(),
                from: order.status,
            });
            // Until the pivot the checkout itself unwinds and says when; its states stay as they are.
            if !matches!(
                order.status,
                Status::Pending | Status::AwaitingPaymentAction
            ) {
                order.status = Status::Cancelling;
            }
        }
        Event::CancelRefused => {
            if let Some(cancel) = order.cancel.take() {
                order.status = cancel.from;
            }
        }
        Event::Cancelled => {
            let shipped = order
                .shipments
                .values()
                .any(|shipment| shipment.status >= ShipmentStatus::Dispatched);
            order.status = if shipped {
                Status::PartiallyCancelled
            } else {
                Status::Cancelled
            };
            order.action = None;
            order.payment_in_doubt = false;
        }
        Event::ShipmentCreated { shipment, planned } => {
            order.shipments.insert(shipment.clone(), planned.clone());
        }
        Event::ShipmentPacked { shipment } => {
            move_shipment(&mut order, shipment, ShipmentStatus::Packed)
        }
        Event::ShipmentCaptured { shipment, .. } => {
            move_shipment(&mut order, shipment, ShipmentStatus::Captured)
        }
        Event::ShipmentDispatched { shipment, .. } => {
            move_shipment(&mut order, shipment, ShipmentStatus::Dispatched)
        }
        Event::ShipmentDelivered { shipment } => {
            move_shipment(&mut order, shipment, ShipmentStatus::Delivered)
        }
        Event::ReturnRequested { id, returned, .. } => {
            withdraw(&mut order, returned);
            order.returns.insert(id.clone(), returned.clone());
        }
        Event::ReturnCompleted { id } => {
            if let Some(returned) = order.returns.get_mut(id) {
                returned.complete = true;
            }
        }
        Event::AttentionRaised { reason } => order.attention = Some(reason.clone()),
    }
    Some(order)
}

fn check(placement: &Placement) -> Result<(), Rejection> {
    let mut sum = Money::zero(placement.total.currency);
    for line in &placement.lines {
        if line.quantity < 1 || line.unit_price.minor < 0 {
            return Err(Rejection::Amounts(format!(
                "line {:?} has no quantity or a negative price",
                line.id
            )));
        }
        sum = sum
            .checked_add(
                line.unit_price
                    .checked_mul(line.quantity)
                    .map_err(amounts)?,
            )
            .map_err(amounts)?;
    }
    let total = placement
        .subtotal
        .checked_add(placement.tax)
        .and_then(|sum| sum.checked_add(placement.shipping))
        .map_err(amounts)?;
    if placement.lines.is_empty() || sum != placement.subtotal || total != placement.total {
        return Err(Rejection::Amounts(
            "subtotal, tax and shipping are not the total".to_owned(),
        ));
    }
    Ok(())
}

fn request_cancel(order: &Order, by: String, reason: String) -> Result<Vec<Event>, Rejection> {
    match order.status {
        Status::Pending | Status::AwaitingPaymentAction if order.cancel.is_some() => Ok(vec![]),
        Status::Cancelling | Status::Cancelled | Status::PartiallyCancelled => Ok(vec![]),
        Status::Pending | Status::AwaitingPaymentAction | Status::Confirmed => {
            if order
                .shipments
                .values()
                .any(|shipment| shipment.status >= ShipmentStatus::Packed)
            {
                return Err(Rejection::AlreadyDispatched);
            }
            Ok(vec![Event::CancelRequested { by, reason }])
        }
        Status::PartiallyShipped | Status::Shipped | Status::Delivered => {
            Err(Rejection::AlreadyDispatched)
        }
        Status::Rejected | Status::Closed => Err(Rejection::WrongState {
            status: order.status,
            verb: "be cancelled",
        }),
    }
}

fn step(
    order: &Order,
    shipment: String,
    to: ShipmentStatus,
    event: impl FnOnce(String) -> Event,
) -> Result<Vec<Event>, Rejection> {
    match order.shipments.get(&shipment) {
        None => Err(Rejection::UnknownShipment(shipment)),
        Some(parcel) if parcel.status >= to => Ok(vec![]),
        Some(_) => Ok(vec![event(shipment)]),
    }
}

fn move_shipment(order: &mut Order, shipment: &str, to: ShipmentStatus) {
    if let Some(parcel) = order.shipments.get_mut(shipment) {
        parcel.status = to;
    }
    let least = order.shipments.values().map(|parcel| parcel.status).min();
    let most = order.shipments.values().map(|parcel| parcel.status).max();
    let status = match (least, most) {
        (Some(ShipmentStatus::Delivered), _) => Status::Delivered,
        (Some(ShipmentStatus::Dispatched), _) => Status::Shipped,
        (_, Some(ShipmentStatus::Dispatched | ShipmentStatus::Delivered)) => {
            Status::PartiallyShipped
        }
        _ => return,
    };
    order.status = status;
}
