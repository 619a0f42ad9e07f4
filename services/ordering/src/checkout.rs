//! The checkout: how a placed order comes to be confirmed, or does not.
//!
//! Hold the stock, set the money aside, sell the stock, confirm; then close the cart and have parcels made. Up to the
//! confirmation everything can be undone and is; after it everything only goes forward. Money is set aside before stock is
//! sold and charged only when a parcel is packed, so "charged and no stock" cannot happen.

use std::time::Duration;

use contracts::cart::v1::CloseCartRequest;
use contracts::inventory::v1 as inventory;
use contracts::payment::v1 as payment;
use contracts::shipping::v1 as shipping;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use saga::{Attempt, Definition, Effect, Kind, OnDeadline, Outcome, Refusal, Start, Step};
use server::status;
use store::Tx;

use crate::cancellation::CANCELLATION;
use crate::order::{Allocation, Command, Order, PaymentAction, RejectReason, Status};
use crate::sagas::{Desk, call, cancellation_saga, data, id, needs_attention, order_name, outcome};
use crate::wire;

/// The table.
pub(crate) static CHECKOUT: Definition<Desk> = Definition {
    name: "checkout",
    version: 1,
    steps: &[
        Step {
            name: "hold_stock",
            kind: Kind::Compensatable,
            action: hold_stock,
            compensation: Some(release_stock),
            try_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(30),
            on_deadline: OnDeadline::Compensate,
            milestone: false,
        },
        Step {
            name: "authorize_payment",
            kind: Kind::Compensatable,
            action: authorize_payment,
            compensation: Some(cancel_payment),
            try_timeout: Duration::from_secs(10),
            // It decides itself: a payment in doubt and a buyer who must act have windows of their own.
            deadline: Duration::from_secs(60),
            on_deadline: OnDeadline::Retry,
            milestone: false,
        },
        Step {
            name: "commit_stock",
            kind: Kind::Compensatable,
            action: commit_stock,
            // What was sold is given back by the compensation of the hold.
            compensation: None,
            try_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(60),
            on_deadline: OnDeadline::Retry,
            milestone: false,
        },
        Step {
            name: "confirm",
            kind: Kind::Pivot,
            action: confirm,
            compensation: None,
            try_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(60),
            on_deadline: OnDeadline::Retry,
            milestone: true,
        },
        Step {
            name: "close_cart",
            kind: Kind::Retriable,
            action: close_cart,
            compensation: None,
            try_timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(24 * 60 * 60),
            on_deadline: OnDeadline::Stick,
            milestone: false,
        },
        Step {
            name: "create_shipments",
            kind: Kind::Retriable,
            action: create_shipments,
            compensation: None,
            try_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(24 * 60 * 60),
            on_deadline: OnDeadline::Stick,
            milestone: false,
        },
    ],
    unwound,
    stuck: needs_attention,
};

/// How often a payment in doubt is asked about when no event of payment wakes the saga.
const ASK_AGAIN: Duration = Duration::from_secs(1);

fn hold_stock<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        let lines = stocked(&order);
        if lines.is_empty() {
            return Outcome::done();
        }
        let name = order_name(attempt);
        let request = inventory::HoldStockRequest {
            name: reservation(&name),
            order: name,
            lines,
            ttl: Some(desk.windows.hold.into()),
            request_id: attempt.key.clone(),
        };
        match desk.inventory.clone().hold_stock(call(attempt, request)).await {
            Ok(reply) => {
                let reservation = reply.into_inner().reservation.unwrap_or_default();
                let allocations = reservation.allocations.into_iter().map(|allocation| Allocation {
                    warehouse: allocation.warehouse,
                    sku: allocation.sku,
                    quantity: allocation.quantity,
                });
                let expire_time = reservation.expire_time.and_then(|time| time.try_into().ok());
                let held = Command::RecordStockHeld { allocations: allocations.collect(), expire_time };
                desk.done(attempt, vec![held])
            }
            Err(error) => outcome(&error),
        }
    })
}

fn release_stock<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        if stocked(&order).is_empty() {
            return Outcome::done();
        }
        let name = order_name(attempt);
        let request = inventory::ReleaseReservationRequest {
            name: reservation(&name),
            order: name,
            reason: attempt.reason.clone(),
            request_id: attempt.key.clone(),
        };
        match desk.inventory.clone().release_reservation(call(attempt, request)).await {
            Ok(_) => Outcome::done(),
            Err(error) => outcome(&error),
        }
    })
}

fn authorize_payment<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        if order.cancel.is_some() {
            return Outcome::Abandoned(Refusal::new("CANCEL_REQUESTED", "the order is being cancelled"));
        }
        if order.placed.total.minor == 0 {
            return desk.done(attempt, vec![Command::RecordAuthorized]);
        }
        let name = order_name(attempt);
        let request = payment::AuthorizePaymentRequest {
            name: payment_name(&name),
            order: name,
            customer: order.placed.customer.clone(),
            amount: Some(order.placed.total.into()),
            payment_token: order.placed.payment_token.clone(),
            request_id: attempt.key.clone(),
        };
        match desk.payment.clone().authorize_payment(call(attempt, request)).await {
            Ok(reply) => authorized(desk, attempt, &reply.into_inner().payment.unwrap_or_default()).await,
            Err(error) => match outcome(&error) {
                // Nobody knows what became of it; once that lasts too long, it is undone instead.
                Outcome::Retry(error) if waited(attempt, desk.windows.in_doubt) => {
                    Outcome::Abandoned(Refusal::new("PAYMENT_TIMEOUT", error))
                }
                other => other,
            },
        }
    })
}

/// What the state of the payment means for the checkout.
async fn authorized(desk: &Desk, attempt: &Attempt, payment: &payment::Payment) -> Outcome {
    match payment.state() {
        payment::PaymentState::Authorized
        | payment::PaymentState::PartiallyCaptured
        | payment::PaymentState::Captured => desk.done(attempt, vec![Command::RecordAuthorized]),
        payment::PaymentState::Failed => Outcome::refused("DECLINED", payment.decline_code.clone()),
        payment::PaymentState::Expired if payment.challenge_id.is_empty() => {
            Outcome::refused("DECLINED", "the authorisation expired")
        }
        payment::PaymentState::Expired => Outcome::refused("ACTION_EXPIRED", "the buyer did not act in time"),
        payment::PaymentState::Voided | payment::PaymentState::PartiallyRefunded | payment::PaymentState::Refunded => {
            Outcome::refused("DECLINED", "the payment was given back")
        }
        payment::PaymentState::RequiresAction => require_action(desk, attempt, payment).await,
        payment::PaymentState::Created | payment::PaymentState::Unspecified => {
            if waited(attempt, desk.windows.in_doubt) {
                let detail = "the provider gave no answer in time";
                return Outcome::Abandoned(Refusal::new("PAYMENT_TIMEOUT", detail));
            }
            let detail = "the provider's answer is unknown".to_owned();
            Outcome::Wait {
                until: later(attempt.now, ASK_AGAIN),
                why: detail.clone(),
                effect: Some(desk.tell(attempt, vec![Command::RecordPaymentInDoubt { detail }])),
            }
        }
    }
}

async fn require_action(desk: &Desk, attempt: &Attempt, payment: &payment::Payment) -> Outcome {
    let end = later(attempt.started, desk.windows.action);
    if attempt.now >= end {
        return Outcome::Abandoned(Refusal::new("ACTION_EXPIRED", "the buyer did not act in time"));
    }
    // The stock must outlast the buyer's time, and then some for what follows.
    let name = order_name(attempt);
    let extend = inventory::ExtendReservationRequest {
        name: reservation(&name),
        expire_time: Some(later(end, desk.windows.hold).into()),
        request_id: saga::key(&attempt.saga, "extend_reservation", false),
    };
    let extended = desk.inventory.clone().extend_reservation(call(attempt, extend)).await;
    if let Err(error) = extended {
        tracing::warn!(order = %name, %error, "the hold is not extended; the commit will find out");
    }
    let action =
        PaymentAction { challenge: payment.challenge_id.clone(), url: payment.action_uri.clone(), expire_time: end };
    Outcome::Wait {
        until: later(attempt.now, ASK_AGAIN).min(end),
        why: "the buyer must act".to_owned(),
        effect: Some(desk.tell(attempt, vec![Command::RequirePaymentAction(action)])),
    }
}

fn cancel_payment<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let name = order_name(attempt);
        let request = payment::CancelPaymentRequest {
            name: payment_name(&name),
            order: name,
            reason: attempt.reason.clone(),
            request_id: attempt.key.clone(),
        };
        // In doubt or not: payment remembers that the net must be zero and sees to it when it learns more.
        match desk.payment.clone().cancel_payment(call(attempt, request)).await {
            Ok(_) => Outcome::done(),
            Err(error) => outcome(&error),
        }
    })
}

fn commit_stock<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        if order.cancel.is_some() {
            return Outcome::refused("CANCEL_REQUESTED", "the order is being cancelled");
        }
        if stocked(&order).is_empty() {
            return Outcome::done();
        }
        let request = inventory::CommitReservationRequest {
            name: reservation(&order_name(attempt)),
            request_id: attempt.key.clone(),
        };
        match desk.inventory.clone().commit_reservation(call(attempt, request)).await {
            Ok(_) => desk.done(attempt, vec![Command::RecordStockCommitted]),
            Err(error) => outcome(&error),
        }
    })
}

fn confirm<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move { desk.done(attempt, vec![Command::Confirm]) })
}

fn close_cart<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        let request = CloseCartRequest {
            name: order.placed.cart.clone(),
            cart_etag: order.placed.cart_etag.clone(),
            order: order_name(attempt),
            request_id: attempt.key.clone(),
        };
        match desk.cart.clone().close_cart(call(attempt, request)).await {
            Ok(_) => desk.done(attempt, vec![Command::RecordCartClosed]),
            // A cart that is gone needs no closing.
            Err(error) if error.code() == tonic::Code::NotFound => desk.done(attempt, vec![Command::RecordCartClosed]),
            Err(error) => outcome(&error),
        }
    })
}

fn create_shipments<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        // A cancellation that came in between stops the parcels itself, made or not.
        if matches!(order.status, Status::Cancelling | Status::Cancelled | Status::PartiallyCancelled) {
            return Outcome::done();
        }
        if order.placed.address.is_erased() {
            return call_off(desk, attempt);
        }
        let name = order_name(attempt);
        let planned = match order.plan_shipments(id(&name)) {
            Ok(planned) => planned,
            Err(rejection) => return Outcome::refused("SHIPMENTS", rejection.to_string()),
        };
        let mut commands = vec![];
        for (shipment, parcel) in planned {
            let request = shipping::CreateShipmentRequest {
                shipment: Some(wire_shipment(&name, &shipment, &order, &parcel)),
                request_id: saga::key(&attempt.saga, &shipment, false),
            };
            match desk.shipping.clone().create_shipment(call(attempt, request)).await {
                Ok(_) => commands.push(Command::RecordShipment { shipment, planned: parcel }),
                // A cancellation that came in since stopped the parcel before it was made.
                Err(error) if refused_for(&error, &["SHIPMENT_CANCELLED"]) => {}
                Err(error) => return outcome(&error),
            }
        }
        desk.done(attempt, commands)
    })
}

/// Nobody knows any more where the parcels should go: the order is cancelled, and the money goes back.
fn call_off(desk: &Desk, attempt: &Attempt) -> Outcome {
    let name = order_name(attempt);
    let reason = "the address was erased with its person".to_owned();
    let mut told = desk.tell(attempt, vec![Command::RequestCancel { by: "services/ordering".to_owned(), reason }]);
    let undoing = Start {
        id: cancellation_saga(&name),
        data: data(&name, ""),
        correlation: attempt.correlation.clone(),
        traceparent: attempt.traceparent.clone(),
    };
    Outcome::Done(Some(Box::new(async move |tx: &mut Tx| {
        told.apply(tx).await?;
        saga::enqueue(tx, &CANCELLATION, &undoing).await?;
        Ok(())
    })))
}

fn wire_shipment(name: &str, shipment: &str, order: &Order, parcel: &crate::order::Shipment) -> shipping::Shipment {
    let lines = parcel.lines.iter().filter_map(|entry| {
        let line = order.placed.lines.iter().find(|line| line.id == entry.line)?;
        Some(shipping::ShipmentLine {
            line: entry.line.clone(),
            sku: line.sku.clone(),
            quantity: i32::try_from(entry.quantity).unwrap_or(i32::MAX),
            title: line.title.clone(),
        })
    });
    shipping::Shipment {
        name: shipment.to_owned(),
        order: name.to_owned(),
        customer: order.placed.customer.clone(),
        lines: lines.collect(),
        address: wire::postal_address(&order.placed.address),
        warehouse: parcel.warehouse.clone(),
        ..shipping::Shipment::default()
    }
}

/// What the order is told when everything is undone: rejected, or cancelled if that is what somebody asked for.
fn unwound(desk: &Desk, attempt: &Attempt, refusal: &Refusal) -> Effect {
    let reason = match refusal.reason.as_str() {
        "OUT_OF_STOCK" => RejectReason::OutOfStock,
        "STOCK_GONE" | "RESERVATION_CLOSED" => RejectReason::StockGone,
        "DECLINED" => RejectReason::Declined,
        "PAYMENT_TIMEOUT" => RejectReason::PaymentTimeout,
        "ACTION_EXPIRED" => RejectReason::ActionExpired,
        "DEADLINE_EXCEEDED" => RejectReason::StockTimeout,
        _ => RejectReason::Invalid,
    };
    let skus = refusal.detail.strip_prefix("not in stock: ").unwrap_or_default();
    let skus = skus.split(", ").filter(|sku| !sku.is_empty()).map(str::to_owned).collect();
    desk.tell(attempt, vec![Command::Reject { reason, detail: refusal.detail.clone(), skus }])
}

/// The lines that have stock.
fn stocked(order: &Order) -> Vec<inventory::ReservationLine> {
    let stocked = order.placed.lines.iter().filter(|line| line.stocked);
    stocked.map(|line| inventory::ReservationLine { sku: line.sku.clone(), quantity: line.quantity }).collect()
}

/// The reservation of an order.
pub(crate) fn reservation(order: &str) -> String {
    format!("reservations/{}", id(order))
}

/// The payment of an order.
pub(crate) fn payment_name(order: &str) -> String {
    format!("payments/{}", id(order))
}

/// Whether the step has been tried for longer than this.
pub(crate) fn waited(attempt: &Attempt, window: Duration) -> bool {
    attempt.now >= later(attempt.started, window)
}

/// A time later by this much.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// Whether a callee refused for this reason.
pub(crate) fn refused_for(error: &tonic::Status, reasons: &[&str]) -> bool {
    status::reason(error).is_some_and(|reason| reasons.contains(&reason.as_str()))
}
