//! Orders, folded from ordering's log as far as the audit needs them.

use std::collections::HashMap;
use std::time::Duration;

use bus::Message;
use contracts::ordering::v1::Event;
use jiff::Timestamp;
use server::Windows;

use super::findings::{Findings, Invariant};
use super::logs::Books;

/// How long an order or saga of a shop that runs may take before it is told as not settled.
pub(crate) const SETTLING: Duration = Duration::from_secs(2);
/// How much later than its window a deadline may be noticed.
const NOTICE: Duration = Duration::from_secs(15);

/// What an order came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing yet.
    #[default]
    Open,
    /// Sold.
    Confirmed,
    /// Refused.
    Rejected,
    /// Called off, whole.
    Cancelled,
    /// Called off in part.
    PartlyCancelled,
}

/// One order.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) outcome: Outcome,
    pub(crate) payment: String,
    /// Minor units that ordering knows as charged, over all parcels.
    pub(crate) captured: i64,
    cart: (String, String),
    cancelling: bool,
    in_doubt: bool,
    awaits_until: Option<Timestamp>,
    placed: Option<Timestamp>,
    moved: Option<Timestamp>,
}

/// Every order, as far as the log was read.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) by_name: HashMap<String, Order>,
}

impl Orders {
    /// Applies one event.
    pub(crate) fn note(&mut self, message: &Message, event: &Event) {
        if !message.stream.starts_with("orders/") {
            return;
        }
        let order = self.by_name.entry(message.stream.clone()).or_default();
        order.moved = Some(message.occur_time);
        match event {
            Event::OrderPlaced(it) => {
                order.payment.clone_from(&it.payment);
                order.cart = (it.cart.clone(), it.cart_etag.clone());
                order.placed = Some(message.occur_time);
            }
            Event::PaymentActionRequired(it) => {
                order.awaits_until = it.expire_time.and_then(|time| Timestamp::try_from(time).ok());
            }
            Event::PaymentInDoubt(_) => order.in_doubt = true,
            Event::PaymentAuthorized(_) => {
                order.in_doubt = false;
                order.awaits_until = None;
            }
            Event::OrderConfirmed(_) => order.outcome = Outcome::Confirmed,
            Event::OrderRejected(_) => order.outcome = Outcome::Rejected,
            Event::CancelRequested(_) => order.cancelling = true,
            Event::CancelRefused(_) => order.cancelling = false,
            Event::OrderCancelled(it) => {
                order.cancelling = false;
                order.outcome = if it.partial { Outcome::PartlyCancelled } else { Outcome::Cancelled };
            }
            Event::ShipmentCaptured(it) => order.captured += it.amount_minor,
            Event::StockHeld(_)
            | Event::StockCommitted(_)
            | Event::CartClosed(_)
            | Event::ShipmentCreated(_)
            | Event::ShipmentPacked(_)
            | Event::ShipmentFulfilled(_)
            | Event::ShipmentReleased(_)
            | Event::LinesShipped(_)
            | Event::LinesDelivered(_)
            | Event::ShipmentCancelled(_)
            | Event::LinesReturned(_)
            | Event::ReturnRefunded(_)
            | Event::ReturnCompleted(_)
            | Event::PaymentSettled(_)
            | Event::OrderClosed(_)
            | Event::NeedsAttentionRaised(_)
            | Event::NeedsAttentionCleared(_)
            | Event::SubjectErased(_) => {}
        }
    }
}

impl Order {
    /// Whether it was placed so short a time ago.
    pub(super) fn placed_within(&self, time: Duration, now: Timestamp) -> bool {
        let age = self.placed.map(|placed| Duration::try_from(now.duration_since(placed)).unwrap_or_default());
        age.is_some_and(|age| age < time)
    }

    /// Why an order that is not settled may be so, or that it may not.
    fn may_be_open(&self, windows: &Windows, now: Timestamp) -> bool {
        let since = |time: Option<Timestamp>| {
            time.and_then(|time| Duration::try_from(now.duration_since(time)).ok()).unwrap_or(Duration::ZERO)
        };
        let awaits = self.awaits_until.is_some_and(|until| {
            until > now || Duration::try_from(now.duration_since(until)).is_ok_and(|late| late < NOTICE)
        });
        let in_doubt = self.in_doubt && since(self.placed) < windows.in_doubt + NOTICE;
        since(self.moved) < SETTLING || awaits || in_doubt
    }
}

/// Looks whether every order is settled, and whether one cart became one order.
pub(crate) fn judge(books: &Books, windows: &Windows, now: Timestamp, findings: &mut Findings) {
    let mut counts = [0_u64; 5];
    let mut carts: HashMap<&(String, String), &str> = HashMap::new();
    for (name, order) in &books.orders.by_name {
        let (place, open) = match order.outcome {
            Outcome::Open => (0, true),
            Outcome::Confirmed => (1, order.cancelling),
            Outcome::Rejected => (2, false),
            Outcome::Cancelled => (3, false),
            Outcome::PartlyCancelled => (4, order.cancelling),
        };
        counts[place] += 1;
        if open && !order.may_be_open(windows, now) {
            findings.broken(Invariant::I5, name, "is not settled");
        }
        if order.outcome != Outcome::Rejected
            && let Some(other) = carts.insert(&order.cart, name)
        {
            findings.broken(Invariant::I7, name, format!("is of the same cart at the same version as {other}"));
        }
    }
    let [open, confirmed, rejected, cancelled, partly] = counts;
    findings.checked(
        Invariant::I5,
        format!(
            "orders: {confirmed} confirmed, {rejected} rejected, {cancelled} cancelled, {partly} cancelled in part, \
             {open} under way"
        ),
    );
    findings.checked(Invariant::I7, format!("{} carts, one order each", carts.len()));
}
