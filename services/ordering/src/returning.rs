//! How lines come back: the money first, then the goods.
//!
//! Units that never left are taken off the reservation as if they had, under a parcel name of the return's own; then all of
//! them go back on the shelf, where that is asked. An order that was just confirmed has no parcels yet: it is waited for
//! them, for only then it is known what has not left. A cancellation that comes before them puts the goods back itself.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::inventory::v1 as inventory;
use contracts::payment::v1 as payment;
use futures_util::future::BoxFuture;
use saga::{Attempt, Definition, Kind, OnDeadline, Outcome, Step};

use crate::checkout::{later, payment_name, reservation};
use crate::fulfilment::settled;
use crate::order::{Command, Order, Return, Status};
use crate::sagas::{Desk, call, needs_attention, nothing, order_name, outcome, part};

/// The table.
pub(crate) static RETURNING: Definition<Desk> = Definition {
    name: "return",
    version: 1,
    steps: &[
        step("refund_payment", refund, Duration::from_secs(10)),
        step("withdraw_stock", withdraw, Duration::from_secs(5)),
        step("restock", restock, Duration::from_secs(5)),
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
        deadline: Duration::from_secs(24 * 60 * 60),
        on_deadline: OnDeadline::Stick,
        milestone: true,
    }
}

/// How often it is looked whether the parcels are made.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn refund<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let (_, returned) = match find(desk, attempt).await {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let refunded = vec![Command::RecordRefunded { id: part(attempt) }];
        if returned.amount.minor == 0 {
            return desk.done(attempt, refunded);
        }
        let request = payment::RefundPaymentRequest {
            name: payment_name(&order_name(attempt)),
            amount: Some(returned.amount.into()),
            return_id: part(attempt),
            reason: returned.reason.clone(),
            request_id: attempt.key.clone(),
        };
        match desk.payment.clone().refund_payment(call(attempt, request)).await {
            Ok(reply) => match reply.into_inner().attempt {
                // Nothing was charged yet: what may be charged is less now, and the provider was not asked.
                None => desk.done(attempt, refunded),
                Some(tried) => settled(attempt, &tried).unwrap_or_else(|| desk.done(attempt, refunded)),
            },
            Err(error) => outcome(&error),
        }
    })
}

fn withdraw<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let (order, returned) = match find(desk, attempt).await {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        if order.shipments.is_empty() && !is_cancelled(&order) {
            let why = "the parcels are not made yet".to_owned();
            return Outcome::Wait { until: later(attempt.now, LOOK_AGAIN), why, effect: None };
        }
        let lines = units(&order, &returned, |line| line.withdrawn.iter().map(|(_, quantity)| quantity).sum());
        if lines.is_empty() {
            return Outcome::done();
        }
        let request = inventory::FulfillReservationRequest {
            name: reservation(&order_name(attempt)),
            lines,
            shipment: format!("shipments/return-{}", part(attempt)),
            request_id: attempt.key.clone(),
        };
        match desk.inventory.clone().fulfill_reservation(call(attempt, request)).await {
            Ok(_) => Outcome::done(),
            Err(error) => outcome(&error),
        }
    })
}

fn restock<'a>(desk: &'a Desk, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        let (order, returned) = match find(desk, attempt).await {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let finished = vec![Command::FinishReturn { id: part(attempt) }];
        let lines = units(&order, &returned, |line| line.quantity);
        let never_packed = order.shipments.is_empty() && is_cancelled(&order);
        if !returned.restock || lines.is_empty() || never_packed {
            return desk.done(attempt, finished);
        }
        let request = inventory::RestockReservationRequest {
            name: reservation(&order_name(attempt)),
            lines,
            return_id: part(attempt),
            request_id: attempt.key.clone(),
        };
        match desk.inventory.clone().restock_reservation(call(attempt, request)).await {
            Ok(_) => desk.done(attempt, finished),
            Err(error) => outcome(&error),
        }
    })
}

/// Whether a cancellation has put back, or will, what is not in a parcel.
fn is_cancelled(order: &Order) -> bool {
    match order.status {
        Status::Cancelling | Status::Cancelled | Status::PartiallyCancelled => true,
        Status::Pending
        | Status::AwaitingPaymentAction
        | Status::Confirmed
        | Status::PartiallyShipped
        | Status::Shipped
        | Status::Delivered
        | Status::Closed
        | Status::Rejected => false,
    }
}

async fn find(desk: &Desk, attempt: &Attempt) -> Result<(Order, Return), Outcome> {
    let order = desk.order(attempt).await?.order;
    let returned = order.returns.get(&part(attempt)).cloned();
    let returned = returned.ok_or_else(|| Outcome::Retry("the order has no such return".to_owned()))?;
    Ok((order, returned))
}

/// Units with stock of the returned lines, summed by SKU.
fn units(
    order: &Order,
    returned: &Return,
    quantity: impl Fn(&crate::order::ReturnLine) -> i64,
) -> Vec<inventory::ReservationLine> {
    let mut units: BTreeMap<&str, i64> = BTreeMap::new();
    for back in &returned.lines {
        let line = order.placed.lines.iter().find(|line| line.id == back.line && line.stocked);
        if let Some(line) = line {
            *units.entry(&line.sku).or_default() += quantity(back);
        }
    }
    let units = units.into_iter().filter(|(_, quantity)| *quantity > 0);
    units.map(|(sku, quantity)| inventory::ReservationLine { sku: sku.to_owned(), quantity }).collect()
}
