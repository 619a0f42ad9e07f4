//! What follows when the warehouse has packed a parcel: its value is charged, its units leave the stock, it may leave.
//!
//! There is nothing to undo: each step must succeed, and one that cannot makes the order need attention while the parcel
//! stays where it is.

use std::time::Duration;

use contracts::inventory::v1 as inventory;
use contracts::payment::v1 as payment;
use contracts::shipping::v1 as shipping;
use futures_util::future::BoxFuture;
use saga::{Attempt, Definition, Kind, OnDeadline, Outcome, Step};

use crate::checkout::{later, payment_name, reservation};
use crate::order::{Command, Order, ShipmentStep};
use crate::sagas::{Desk, call, needs_attention, nothing, order_name, outcome, part};

/// The table.
pub(crate) static FULFILMENT: Definition<Desk> = Definition {
    name: "fulfilment",
    version: 1,
    steps: &[
        step("capture_payment", capture, Duration::from_secs(10)),
        step("fulfill_stock", fulfill, Duration::from_secs(2)),
        step("release_shipment", release, Duration::from_secs(2)),
    ],
    unwound: nothing,
    stuck: needs_attention,
};

const fn step(name: &'static str, action: saga::Action<Desk>, try_timeout: Duration) -> Step<Desk> {
    Step {
        name,
        kind: Kind::Retriable,
        action,
        compensation: None,
        try_timeout,
        deadline: Duration::from_secs(60 * 60),
        on_deadline: OnDeadline::Stick,
        milestone: false,
    }
}

const ASK_AGAIN: Duration = Duration::from_secs(1);

fn capture<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        let shipment = part(attempt);
        let amount = match order.capture_value(&shipment) {
            Ok(amount) => amount,
            Err(rejection) => return Outcome::refused("CAPTURE", rejection.to_string()),
        };
        let captured = Command::MoveShipment { shipment: shipment.clone(), step: ShipmentStep::Capture { amount } };
        if amount.minor == 0 {
            return desk.done(attempt, vec![captured]);
        }
        let request = payment::CapturePaymentRequest {
            name: payment_name(&order_name(attempt)),
            amount: Some(amount.into()),
            shipment,
            request_id: attempt.key.clone(),
        };
        match desk.payment.clone().capture_payment(call(attempt, request)).await {
            Ok(reply) => {
                let tried = reply.into_inner().attempt.unwrap_or_default();
                settled(attempt, &tried).unwrap_or_else(|| desk.done(attempt, vec![captured]))
            }
            Err(error) => outcome(&error),
        }
    })
}

/// What an attempt at the provider that did not succeed means; nothing if it did.
pub(crate) fn settled(attempt: &Attempt, tried: &payment::Attempt) -> Option<Outcome> {
    match tried.state() {
        payment::AttemptState::Succeeded => None,
        payment::AttemptState::Declined | payment::AttemptState::Abandoned => {
            Some(Outcome::refused("PAYMENT_REFUSED", tried.decline_code.clone()))
        }
        payment::AttemptState::Unspecified
        | payment::AttemptState::Prepared
        | payment::AttemptState::Sent
        | payment::AttemptState::InDoubt => Some(Outcome::Wait {
            until: later(attempt.now, ASK_AGAIN),
            why: "the provider's answer is unknown".to_owned(),
            effect: None,
        }),
    }
}

fn fulfill<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let order = match desk.order(attempt).await {
            Ok(loaded) => loaded.order,
            Err(outcome) => return outcome,
        };
        let shipment = part(attempt);
        let moved = vec![Command::MoveShipment { shipment: shipment.clone(), step: ShipmentStep::Fulfill }];
        let lines = units(&order, &shipment);
        if lines.is_empty() {
            return desk.done(attempt, moved);
        }
        let request = inventory::FulfillReservationRequest {
            name: reservation(&order_name(attempt)),
            lines,
            shipment,
            request_id: attempt.key.clone(),
        };
        match desk.inventory.clone().fulfill_reservation(call(attempt, request)).await {
            Ok(_) => desk.done(attempt, moved),
            Err(error) => outcome(&error),
        }
    })
}

/// The units with stock that are in a parcel.
fn units(order: &Order, shipment: &str) -> Vec<inventory::ReservationLine> {
    let Some(parcel) = order.shipments.get(shipment) else { return vec![] };
    let stocked = parcel.lines.iter().filter_map(|entry| {
        let line = order.placed.lines.iter().find(|line| line.id == entry.line)?;
        let wanted = line.stocked && entry.quantity > 0;
        wanted.then(|| inventory::ReservationLine { sku: line.sku.clone(), quantity: entry.quantity })
    });
    stocked.collect()
}

fn release<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let shipment = part(attempt);
        let request = shipping::ReleaseShipmentRequest { name: shipment.clone(), request_id: attempt.key.clone() };
        match desk.shipping.clone().release_shipment(call(attempt, request)).await {
            Ok(_) => desk.done(attempt, vec![Command::MoveShipment { shipment, step: ShipmentStep::Release }]),
            Err(error) => outcome(&error),
        }
    })
}
