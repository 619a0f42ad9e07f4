//! How a confirmed order is undone: parcels are stopped, stock and money given back.
//!
//! The first step decides. Parcels that are packed already stay; if all of them are, the cancellation is refused and the
//! order goes back to where it was. If only some are, the rest of the order is undone and an operator is told, because what
//! is left of the stock and of the authorisation then belongs to parcels that go on.

use std::collections::BTreeSet;
use std::time::Duration;

use contract::Money;
use contracts::inventory::v1 as inventory;
use contracts::payment::v1 as payment;
use contracts::shipping::v1 as shipping;
use futures_util::future::BoxFuture;
use saga::{Attempt, Definition, Effect, Kind, OnDeadline, Outcome, Refusal, Step};

use crate::checkout::{later, payment_name, refused_for, reservation};
use crate::order::{Command, Order, ShipmentStatus};
use crate::sagas::{Desk, call, id, needs_attention, order_name, outcome};

/// The table.
pub(crate) static CANCELLATION: Definition<Desk> = Definition {
    name: "cancellation",
    version: 1,
    steps: &[
        step("stop_shipments", Kind::Pivot, stop_shipments),
        step("release_stock", Kind::Retriable, release_stock),
        step("cancel_payment", Kind::Retriable, cancel_payment),
        step("finish", Kind::Retriable, finish),
    ],
    unwound: refuse,
    stuck: needs_attention,
};

const fn step(name: &'static str, kind: Kind, action: saga::Action<Desk>) -> Step<Desk> {
    Step {
        name,
        kind,
        action,
        compensation: None,
        try_timeout: Duration::from_secs(10),
        deadline: Duration::from_secs(24 * 60 * 60),
        on_deadline: OnDeadline::Stick,
        milestone: false,
    }
}

const ASK_AGAIN: Duration = Duration::from_secs(1);

fn stop_shipments<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        let name = order_name(attempt);
        // Also parcels that the checkout has not made yet: stopped before they exist, they never will.
        let planned = order.plan_shipments(id(&name)).unwrap_or_default();
        let parcels: BTreeSet<String> =
            order.shipments.keys().cloned().chain(planned.into_iter().map(|(name, _)| name)).collect();
        let (mut commands, mut stopped, mut stay) = (vec![], 0, 0);
        for shipment in parcels {
            let request = shipping::CancelShipmentRequest {
                name: shipment.clone(),
                order: name.clone(),
                reason: "the order is cancelled".to_owned(),
                request_id: saga::key(&attempt.saga, &shipment, false),
            };
            match desk.shipping.clone().cancel_shipment(call(attempt, request)).await {
                Ok(_) => {
                    stopped += 1;
                    if order.shipments.contains_key(&shipment) {
                        commands.push(Command::RecordShipmentCancelled { shipment });
                    }
                }
                Err(error) if refused_for(&error, &["ALREADY_DISPATCHED", "ALREADY_PACKED", "WRONG_STATE"]) => {
                    stay += 1
                }
                Err(error) => return outcome(&error),
            }
        }
        if stopped == 0 {
            return Outcome::refused("ALREADY_DISPATCHED", "every parcel is packed or has left");
        }
        if stay > 0 {
            let detail = format!("{stay} parcels go on; their stock and money were kept");
            commands.push(Command::RaiseAttention { reason: "PARTIALLY_CANCELLED".to_owned(), detail });
        }
        desk.done(attempt, commands)
    })
}

/// Whether some parcel goes on, and with it its stock and its money.
fn goes_on(order: &Order) -> bool {
    let still = |status| !matches!(status, ShipmentStatus::Created | ShipmentStatus::Cancelled);
    order.shipments.values().any(|parcel| still(parcel.status))
}

fn release_stock<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        if goes_on(&order) || order.allocations.is_empty() {
            return Outcome::done();
        }
        let name = order_name(attempt);
        let request = inventory::ReleaseReservationRequest {
            name: reservation(&name),
            order: name,
            reason: "CANCELLED".to_owned(),
            request_id: attempt.key.clone(),
        };
        match desk.inventory.clone().release_reservation(call(attempt, request)).await {
            Ok(_) => Outcome::done(),
            Err(error) => outcome(&error),
        }
    })
}

fn cancel_payment<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        if goes_on(&order) || order.placed.total.minor == 0 {
            return Outcome::done();
        }
        let name = order_name(attempt);
        let request = payment::CancelPaymentRequest {
            name: payment_name(&name),
            order: name,
            reason: "CANCELLED".to_owned(),
            request_id: attempt.key.clone(),
        };
        match desk.payment.clone().cancel_payment(call(attempt, request)).await {
            Ok(reply) => cancelled(desk, attempt, &order, &reply.into_inner().payment.unwrap_or_default()),
            Err(error) => outcome(&error),
        }
    })
}

/// Done once the net at the provider is zero.
fn cancelled(desk: &Desk, attempt: &Attempt, order: &Order, payment: &payment::Payment) -> Outcome {
    match payment.state() {
        payment::PaymentState::Voided
        | payment::PaymentState::Refunded
        | payment::PaymentState::Expired
        | payment::PaymentState::Failed => {
            let refunded = payment.refunded.as_ref().and_then(|money| Money::try_from(money).ok());
            let refunded = refunded.unwrap_or_else(|| Money::zero(order.currency()));
            desk.done(attempt, vec![Command::RecordSettled { refunded }])
        }
        payment::PaymentState::Unspecified
        | payment::PaymentState::Created
        | payment::PaymentState::RequiresAction
        | payment::PaymentState::Authorized
        | payment::PaymentState::PartiallyCaptured
        | payment::PaymentState::Captured
        | payment::PaymentState::PartiallyRefunded => Outcome::Wait {
            until: later(attempt.now, ASK_AGAIN),
            why: "the payment is not given back yet".to_owned(),
            effect: None,
        },
    }
}

fn finish<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move { desk.done(attempt, vec![Command::FinishCancel]) })
}

fn refuse(desk: &Desk, attempt: &Attempt, _: &Refusal) -> Effect {
    desk.tell(attempt, vec![Command::RefuseCancel])
}
