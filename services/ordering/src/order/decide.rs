//! The rules: which events a command causes, and what an event makes of an order.

use std::collections::BTreeMap;

use contract::Money;

use super::parcels::{return_lines, withdraw};
use super::{Cancellation, Command, Event, Order, Placement, Rejection, ShipmentStatus, ShipmentStep, Status, amounts};

/// What a command causes; nothing if its effect is already there.
pub fn decide(order: Option<&Order>, command: Command) -> Result<Vec<Event>, Rejection> {
    let Some(order) = order else {
        let Command::Place(placement) = command else { return Err(Rejection::Missing) };
        check(&placement)?;
        return Ok(vec![Event::Placed(placement)]);
    };
    let wrong = |verb| Err(Rejection::WrongState { status: order.status, verb });
    let open = order.is_open();
    let once = |wanted: bool, event: Event| Ok(if wanted { vec![event] } else { vec![] });
    match command {
        Command::Place(_) => Ok(vec![]),
        Command::RecordStockHeld { allocations, expire_time } => {
            let wanted = order.status == Status::Pending && order.allocations.is_empty();
            once(wanted, Event::StockHeld { allocations, expire_time })
        }
        Command::RequirePaymentAction(action) => {
            once(order.status == Status::Pending, Event::PaymentActionRequired(action))
        }
        Command::RecordPaymentInDoubt { detail } => {
            once(open && !order.payment_in_doubt, Event::PaymentInDoubt { detail })
        }
        Command::RecordAuthorized => {
            once(open && !order.authorized, Event::PaymentAuthorized { amount: order.placed.total })
        }
        Command::RecordStockCommitted => once(open && !order.stock_committed, Event::StockCommitted),
        Command::Confirm if open && order.cancel.is_some() => Err(Rejection::CancelRequested),
        Command::Confirm => match order.status {
            Status::Pending | Status::AwaitingPaymentAction => Ok(vec![Event::Confirmed]),
            Status::Rejected | Status::Cancelled => wrong("be confirmed"),
            Status::Confirmed
            | Status::PartiallyShipped
            | Status::Shipped
            | Status::Delivered
            | Status::Closed
            | Status::Cancelling
            | Status::PartiallyCancelled => Ok(vec![]),
        },
        Command::Reject { .. } if open && order.cancel.is_some() => Ok(vec![order.cancelled()]),
        Command::Reject { reason, detail, skus } => match order.status {
            Status::Pending | Status::AwaitingPaymentAction => Ok(vec![Event::Rejected { reason, detail, skus }]),
            Status::Rejected | Status::Cancelled => Ok(vec![]),
            Status::Confirmed
            | Status::PartiallyShipped
            | Status::Shipped
            | Status::Delivered
            | Status::Closed
            | Status::Cancelling
            | Status::PartiallyCancelled => wrong("be rejected"),
        },
        Command::RecordCartClosed => once(!order.cart_closed, Event::CartClosed),
        Command::RequestCancel { by, reason } => request_cancel(order, by, reason),
        Command::RefuseCancel => once(order.status == Status::Cancelling, Event::CancelRefused),
        Command::RecordShipmentCancelled { shipment } => match order.shipments.get(&shipment) {
            None => Err(Rejection::UnknownShipment(shipment)),
            Some(parcel) => once(parcel.status == ShipmentStatus::Created, Event::ShipmentCancelled { shipment }),
        },
        Command::RecordSettled { refunded } => once(!order.settled, Event::PaymentSettled { refunded }),
        Command::FinishCancel => once(order.status == Status::Cancelling, order.cancelled()),
        Command::RecordShipment { shipment, planned } => {
            once(!order.shipments.contains_key(&shipment), Event::ShipmentCreated { shipment, planned })
        }
        Command::MoveShipment { shipment, step } => move_shipment(order, shipment, step),
        Command::ReturnLines { id, lines, restock, reason, actor, external_reference, external_time } => {
            return_lines(order, id, &lines, |returned| {
                returned.restock = restock;
                returned.reason = reason;
                returned.actor = actor;
                returned.external_reference = external_reference;
                returned.external_time = external_time;
            })
        }
        Command::RecordRefunded { id } => match order.returns.get(&id) {
            Some(returned) => once(!returned.refunded, Event::ReturnRefunded { amount: returned.amount, id }),
            None => Err(Rejection::UnknownReturn(id)),
        },
        Command::FinishReturn { id } => match order.returns.get(&id) {
            Some(returned) => once(!returned.complete, Event::ReturnCompleted { id }),
            None => Err(Rejection::UnknownReturn(id)),
        },
        Command::RaiseAttention { reason, detail } => {
            once(!order.attention.contains(&reason), Event::AttentionRaised { reason, detail })
        }
    }
}

/// What an event makes of an order; nothing if the first event is not its placing.
pub fn evolve(order: Option<Order>, event: &Event) -> Option<Order> {
    let Some(mut order) = order else {
        let Event::Placed(placement) = event else { return None };
        return Some(Order::new(placement));
    };
    match event {
        Event::Placed(_) => {}
        Event::StockHeld { allocations, .. } => order.allocations.clone_from(allocations),
        Event::PaymentActionRequired(action) => {
            order.action = Some(action.clone());
            order.status = Status::AwaitingPaymentAction;
        }
        Event::PaymentInDoubt { .. } => order.payment_in_doubt = true,
        Event::PaymentAuthorized { .. } => {
            order.authorized = true;
            order.payment_in_doubt = false;
            order.action = None;
        }
        Event::StockCommitted => order.stock_committed = true,
        Event::Confirmed => order.status = Status::Confirmed,
        Event::Rejected { reason, detail, .. } => {
            order.status = Status::Rejected;
            order.rejection = Some(*reason);
            order.rejection_detail.clone_from(detail);
            order.payment_in_doubt = false;
            order.action = None;
        }
        Event::CartClosed => order.cart_closed = true,
        Event::CancelRequested { by, reason } => {
            order.cancel = Some(Cancellation { by: by.clone(), from: order.status });
            order.cancel_reason.clone_from(reason);
            // Until the pivot the checkout itself unwinds and says when; its states stay as they are.
            if !order.is_open() {
                order.status = Status::Cancelling;
            }
        }
        Event::CancelRefused => {
            if let Some(cancel) = order.cancel.take() {
                order.status = cancel.from;
                order.cancel_reason.clear();
            }
        }
        Event::ShipmentCancelled { shipment } => set_shipment(&mut order, shipment, ShipmentStatus::Cancelled),
        Event::PaymentSettled { refunded } => {
            order.settled = true;
            order.refunded = order.refunded.checked_add(*refunded).unwrap_or(order.refunded);
        }
        Event::Cancelled { partial, .. } => {
            order.status = if *partial { Status::PartiallyCancelled } else { Status::Cancelled };
            order.action = None;
            order.payment_in_doubt = false;
        }
        Event::ShipmentCreated { shipment, planned } => {
            order.shipments.insert(shipment.clone(), planned.clone());
            // Lines may come back before there are parcels: they are taken out as soon as these are known.
            for returned in order.returns.values_mut() {
                withdraw(&mut order.shipments, returned);
            }
        }
        Event::ShipmentPacked { shipment } => set_shipment(&mut order, shipment, ShipmentStatus::Packed),
        Event::ShipmentCaptured { shipment, amount } => {
            order.captured = order.captured.checked_add(*amount).unwrap_or(order.captured);
            set_shipment(&mut order, shipment, ShipmentStatus::Captured);
        }
        Event::ShipmentFulfilled { shipment } => set_shipment(&mut order, shipment, ShipmentStatus::Fulfilled),
        Event::ShipmentReleased { shipment } => set_shipment(&mut order, shipment, ShipmentStatus::Released),
        Event::LinesShipped { shipment, complete, .. } => {
            set_shipment(&mut order, shipment, ShipmentStatus::Shipped);
            order.status = if *complete { Status::Shipped } else { Status::PartiallyShipped };
        }
        Event::LinesDelivered { shipment, complete } => {
            set_shipment(&mut order, shipment, ShipmentStatus::Delivered);
            if *complete {
                order.status = Status::Delivered;
            }
        }
        Event::LinesReturned { id, returned } => {
            let mut returned = (**returned).clone();
            withdraw(&mut order.shipments, &mut returned);
            order.returns.insert(id.clone(), returned);
        }
        Event::ReturnRefunded { id, amount } => {
            order.refunded = order.refunded.checked_add(*amount).unwrap_or(order.refunded);
            if let Some(returned) = order.returns.get_mut(id) {
                returned.refunded = true;
            }
        }
        Event::ReturnCompleted { id } => {
            if let Some(returned) = order.returns.get_mut(id) {
                returned.complete = true;
            }
        }
        Event::AttentionRaised { reason, .. } => order.attention.push(reason.clone()),
        Event::AttentionCleared { reason } => order.attention.retain(|raised| raised != reason),
        Event::Closed => order.status = Status::Closed,
    }
    Some(order)
}

impl Order {
    fn new(placement: &Placement) -> Self {
        let nothing = Money::zero(placement.total.currency);
        Self {
            placed: placement.clone(),
            status: Status::Pending,
            rejection: None,
            rejection_detail: String::new(),
            allocations: vec![],
            action: None,
            payment_in_doubt: false,
            authorized: false,
            stock_committed: false,
            cart_closed: false,
            settled: false,
            captured: nothing,
            refunded: nothing,
            attention: vec![],
            shipments: BTreeMap::new(),
            returns: BTreeMap::new(),
            cancel: None,
            cancel_reason: String::new(),
        }
    }

    /// The event that ends a cancellation: what is in no parcel that goes on is undone.
    fn cancelled(&self) -> Event {
        let stays = |status: ShipmentStatus| !matches!(status, ShipmentStatus::Created | ShipmentStatus::Cancelled);
        let kept = |line: &str| -> i64 {
            let parcels = self.shipments.values().filter(|parcel| stays(parcel.status));
            parcels
                .flat_map(|parcel| &parcel.lines)
                .filter(|entry| entry.line == line)
                .map(|entry| entry.quantity)
                .sum()
        };
        let lines = self.placed.lines.iter().map(|line| (line.id.clone(), line.quantity - kept(&line.id)));
        Event::Cancelled {
            lines: lines.filter(|(_, quantity)| *quantity > 0).collect(),
            partial: self.shipments.values().any(|parcel| stays(parcel.status)),
        }
    }
}

fn check(placement: &Placement) -> Result<(), Rejection> {
    let mut sum = Money::zero(placement.total.currency);
    for line in &placement.lines {
        if line.quantity < 1 || line.unit_price.minor < 0 {
            return Err(Rejection::Amounts(format!("line {:?} has no quantity or a negative price", line.id)));
        }
        sum = sum.checked_add(line.unit_price.checked_mul(line.quantity).map_err(amounts)?).map_err(amounts)?;
    }
    let total = placement.subtotal.checked_add(placement.tax).and_then(|sum| sum.checked_add(placement.shipping));
    if placement.lines.is_empty() || sum != placement.subtotal || total.map_err(amounts)? != placement.total {
        return Err(Rejection::Amounts("subtotal, tax and shipping are not the total".to_owned()));
    }
    Ok(())
}

fn request_cancel(order: &Order, by: String, reason: String) -> Result<Vec<Event>, Rejection> {
    match order.status {
        Status::Pending | Status::AwaitingPaymentAction if order.cancel.is_some() => Ok(vec![]),
        Status::Cancelling | Status::Cancelled | Status::PartiallyCancelled => Ok(vec![]),
        Status::Pending | Status::AwaitingPaymentAction => Ok(vec![Event::CancelRequested { by, reason }]),
        Status::Confirmed | Status::PartiallyShipped => {
            let parcels = &order.shipments;
            let left = parcels.values().all(|parcel| parcel.status != ShipmentStatus::Created);
            if !parcels.is_empty() && left {
                return Err(Rejection::AlreadyDispatched);
            }
            Ok(vec![Event::CancelRequested { by, reason }])
        }
        Status::Shipped | Status::Delivered => Err(Rejection::AlreadyDispatched),
        Status::Rejected | Status::Closed => Err(Rejection::WrongState { status: order.status, verb: "be cancelled" }),
    }
}

fn move_shipment(order: &Order, shipment: String, step: ShipmentStep) -> Result<Vec<Event>, Rejection> {
    let Some(parcel) = order.shipments.get(&shipment) else { return Err(Rejection::UnknownShipment(shipment)) };
    let to = match &step {
        ShipmentStep::Pack => ShipmentStatus::Packed,
        ShipmentStep::Capture { .. } => ShipmentStatus::Captured,
        ShipmentStep::Fulfill => ShipmentStatus::Fulfilled,
        ShipmentStep::Release => ShipmentStatus::Released,
        ShipmentStep::Ship { .. } => ShipmentStatus::Shipped,
        ShipmentStep::Deliver => ShipmentStatus::Delivered,
    };
    if parcel.status >= to {
        return Ok(vec![]);
    }
    // Nothing is left when every other parcel has come at least as far, or will not leave.
    let others = order.shipments.iter().filter(|(name, _)| **name != shipment);
    let complete = others.clone().all(|(_, other)| other.status >= to);
    Ok(vec![match step {
        ShipmentStep::Pack => Event::ShipmentPacked { shipment },
        ShipmentStep::Capture { amount } => Event::ShipmentCaptured { shipment, amount },
        ShipmentStep::Fulfill => Event::ShipmentFulfilled { shipment },
        ShipmentStep::Release => Event::ShipmentReleased { shipment },
        ShipmentStep::Ship { carrier, tracking } => {
            let lines = parcel.lines.iter().map(|entry| (entry.line.clone(), entry.quantity)).collect();
            Event::LinesShipped { shipment, lines, complete, carrier, tracking }
        }
        ShipmentStep::Deliver => Event::LinesDelivered { shipment, complete },
    }])
}

fn set_shipment(order: &mut Order, shipment: &str, to: ShipmentStatus) {
    if let Some(parcel) = order.shipments.get_mut(shipment) {
        parcel.status = to;
    }
}
