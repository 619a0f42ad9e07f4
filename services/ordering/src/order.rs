//! What an order is and how it changes: `decide` says which events a command causes, `evolve` what an event makes of an
//! order. Nothing else: no store, clock, network or wire format. Times and ids arrive in the command.
//!
//! Invariants: an order is confirmed at most once, and never after it was rejected; a cancellation that was requested
//! before the confirmation wins; no line is shipped and returned beyond its quantity; the values of the shipments add up
//! to the order's total, and what returns pay back never exceeds it.
//!
//! A command whose effect is already there causes no event: whoever retries it is told the same.

mod decide;
mod parcels;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use contract::{Currency, Money};
use jiff::Timestamp;

pub use decide::{decide, evolve};

/// An order as its events make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What was agreed when it was placed.
    pub placed: Placement,
    /// Where it stands.
    pub status: Status,
    /// Why it was rejected.
    pub rejection: Option<RejectReason>,
    /// Which warehouse keeps what for it.
    pub allocations: Vec<Allocation>,
    /// What the customer must do before the payment is authorised.
    pub action: Option<PaymentAction>,
    /// The provider's answer is unknown.
    pub payment_in_doubt: bool,
    /// The payment was authorised.
    pub authorized: bool,
    /// An operator should look at it, and why.
    pub attention: Option<String>,
    /// Its parcels.
    pub shipments: BTreeMap<String, Shipment>,
    /// What was sent or is on its way back.
    pub returns: BTreeMap<String, Return>,
    /// Who asked to cancel it, while that is not decided.
    pub cancel: Option<Cancellation>,
}

/// What a customer and the shop agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The buyer: `users/..` or `guests/..`.
    pub customer: String,
    /// The cart it came from.
    pub cart: String,
    /// That cart's etag.
    pub cart_etag: String,
    /// What is bought, as quoted.
    pub lines: Vec<Line>,
    /// Sum of the lines.
    pub subtotal: Money,
    /// Tax on the order.
    pub tax: Money,
    /// Charge for shipping.
    pub shipping: Money,
    /// What the buyer pays: subtotal + tax + shipping.
    pub total: Money,
    /// The quote's token, which proves the prices.
    pub quote_token: String,
    /// Token of the payment method; never a card number.
    pub payment_token: String,
    /// Where it goes.
    pub address: Address,
    /// Where mail about it goes.
    pub contact_email: String,
    /// Number of the order in a system it was taken over from.
    pub external_reference: String,
    /// When it was placed there.
    pub external_time: Option<Timestamp>,
}

/// One line as quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Id within the order, the cart item's.
    pub id: String,
    /// What.
    pub sku: String,
    /// Its title when it was bought.
    pub title: String,
    /// How many, at least 1.
    pub quantity: i64,
    /// Price of one, net.
    pub unit_price: Money,
    /// Whether stock is kept of it: postage and gift cards have none.
    pub stocked: bool,
}

/// A postal address; every part is personal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Person or company.
    pub recipient: String,
    /// Street lines.
    pub lines: Vec<String>,
    /// Town.
    pub locality: String,
    /// Postal code.
    pub postal_code: String,
    /// ISO 3166-1 alpha-2.
    pub region_code: String,
    /// Telephone.
    pub phone: String,
}

/// A warehouse's part of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Id of the warehouse.
    pub warehouse: String,
    /// What.
    pub sku: String,
    /// How many.
    pub quantity: i64,
}

/// A step the buyer's bank asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentAction {
    /// Id of the challenge.
    pub challenge: String,
    /// Where the buyer completes it.
    pub url: String,
    /// After this the order is rejected.
    pub expire_time: Timestamp,
}

/// The states of DOMAIN: PENDING is the first, REJECTED, CANCELLED and CLOSED are last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Placed; stock and payment are being arranged.
    Pending,
    /// The buyer's bank wants something.
    AwaitingPaymentAction,
    /// Stock is kept and the payment is authorised.
    Confirmed,
    /// Some parcels are on their way.
    PartiallyShipped,
    /// All parcels are on their way.
    Shipped,
    /// All parcels arrived.
    Delivered,
    /// Nothing can change any more.
    Closed,
    /// Never came to be.
    Rejected,
    /// Being undone.
    Cancelling,
    /// Undone.
    Cancelled,
    /// What was not on its way yet is undone.
    PartiallyCancelled,
}

/// Why an order was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// Not all of it is in stock.
    OutOfStock,
    /// The provider declined the payment.
    Declined,
    /// The stock that was kept had expired and was gone.
    StockGone,
    /// The provider gave no answer in time.
    PaymentTimeout,
    /// The buyer did not complete the bank's step in time.
    ActionExpired,
    /// Inventory gave no answer in time.
    Unavailable,
}

/// A parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipment {
    /// The warehouse it leaves from; empty for lines without stock.
    pub warehouse: String,
    /// What is in it.
    pub lines: Vec<ShipmentLine>,
    /// Its part of the order's total: what is captured when it is packed.
    pub value: Money,
    /// Where it stands.
    pub status: ShipmentStatus,
}

/// A line's part in a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShipmentLine {
    /// The order's line.
    pub line: String,
    /// What.
    pub sku: String,
    /// How many, less what was withdrawn.
    pub quantity: i64,
}

/// The part of a parcel's life that ordering steers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShipmentStatus {
    /// Made, not packed.
    Preparing,
    /// Packed; its value is being captured.
    Packed,
    /// Paid for: it may leave.
    Captured,
    /// Left.
    Dispatched,
    /// Arrived.
    Delivered,
}

/// Lines that come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    /// What comes back.
    pub lines: Vec<ReturnLine>,
    /// What the buyer gets back.
    pub amount: Money,
    /// Whether the goods go back to stock.
    pub restock: bool,
    /// Money and goods are back.
    pub complete: bool,
}

/// A part of a return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnLine {
    /// The order's line.
    pub line: String,
    /// How many.
    pub quantity: i64,
    /// Of these, how many had not left: they are taken out of these parcels.
    pub withdrawn: Vec<(String, i64)>,
}

/// A request to cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Where the order stood.
    pub from: Status,
}

/// What may be asked of an order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Place it.
    Place(Box<Placement>),
    /// Stock is kept for it.
    RecordStockHeld(Vec<Allocation>),
    /// The buyer must act.
    RequirePaymentAction(PaymentAction),
    /// The provider's answer is unknown.
    RecordPaymentInDoubt,
    /// The payment is authorised.
    RecordAuthorized {
        /// The payment's name.
        payment: String,
    },
    /// Everything is arranged: the pivot.
    Confirm,
    /// It cannot come to be.
    Reject(RejectReason),
    /// Somebody wants it undone.
    RequestCancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A parcel had left: it stays.
    RefuseCancel,
    /// Everything is undone.
    FinishCancel,
    /// A parcel was made in shipping.
    RecordShipment {
        /// The parcel's name.
        shipment: String,
        /// As planned.
        planned: Shipment,
    },
    /// A parcel was packed.
    RecordPacked {
        /// The parcel's name.
        shipment: String,
    },
    /// A parcel's value was captured.
    RecordCaptured {
        /// The parcel's name.
        shipment: String,
        /// What was captured.
        amount: Money,
    },
    /// A parcel left.
    RecordDispatched {
        /// The parcel's name.
        shipment: String,
        /// Carrier's number.
        tracking: String,
    },
    /// A parcel arrived.
    RecordDelivered {
        /// The parcel's name.
        shipment: String,
    },
    /// Lines come back.
    RequestReturn {
        /// Id of the return.
        id: String,
        /// (line, quantity).
        lines: Vec<(String, i64)>,
        /// Whether the goods go back to stock.
        restock: bool,
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    },
    /// Money and goods are back.
    FinishReturn {
        /// Id of the return.
        id: String,
    },
    /// An operator should look.
    RaiseAttention {
        /// Why.
        reason: String,
    },
}

/// What happened to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was placed.
    Placed(Box<Placement>),
    /// Stock is kept for it.
    StockHeld {
        /// Where.
        allocations: Vec<Allocation>,
    },
    /// The buyer must act.
    PaymentActionRequired(PaymentAction),
    /// The provider's answer is unknown.
    PaymentInDoubt,
    /// The payment is authorised.
    PaymentAuthorized {
        /// The payment's name.
        payment: String,
    },
    /// It is agreed.
    Confirmed,
    /// It never came to be.
    Rejected {
        /// Why.
        reason: RejectReason,
    },
    /// Somebody wants it undone.
    CancelRequested {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It is not undone: a parcel had left.
    CancelRefused,
    /// It is undone.
    Cancelled,
    /// A parcel was made.
    ShipmentCreated {
        /// Its name.
        shipment: String,
        /// As planned.
        planned: Shipment,
    },
    /// A parcel was packed.
    ShipmentPacked {
        /// Its name.
        shipment: String,
    },
    /// A parcel is paid for.
    ShipmentCaptured {
        /// Its name.
        shipment: String,
        /// What was captured.
        amount: Money,
    },
    /// A parcel left.
    ShipmentDispatched {
        /// Its name.
        shipment: String,
        /// Carrier's number.
        tracking: String,
    },
    /// A parcel arrived.
    ShipmentDelivered {
        /// Its name.
        shipment: String,
    },
    /// Lines come back.
    ReturnRequested {
        /// Id of the return.
        id: String,
        /// What comes back, and how.
        returned: Return,
        /// Why.
        reason: String,
        /// Who asked.
        by: String,
    },
    /// Money and goods are back.
    ReturnCompleted {
        /// Id of the return.
        id: String,
    },
    /// An operator should look.
    AttentionRaised {
        /// Why.
        reason: String,
    },
}

/// The domain says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such order.
    #[error("the order does not exist")]
    Missing,
    /// The command does not fit where the order stands.
    #[error("an order that is {status:?} cannot {verb}")]
    WrongState {
        /// Where it stands.
        status: Status,
        /// What was asked.
        verb: &'static str,
    },
    /// A cancellation was requested first.
    #[error("the order is being cancelled")]
    CancelRequested,
    /// A parcel has left.
    #[error("a shipment of the order has been dispatched")]
    AlreadyDispatched,
    /// The order has no such line.
    #[error("the order has no line {0:?}")]
    UnknownLine(String),
    /// The order has no such parcel.
    #[error("the order has no shipment {0:?}")]
    UnknownShipment(String),
    /// More than is left.
    #[error("line {line:?} has {left} left to return, not {asked}")]
    TooMany {
        /// The line.
        line: String,
        /// What is left of it.
        left: i64,
        /// What was asked for.
        asked: i64,
    },
    /// Lines, tax and shipping do not add up, or amounts overflow.
    #[error("the amounts of the order do not add up: {0}")]
    Amounts(String),
}

/// The order after these events; none if they do not begin with its placing.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Order> {
    events.into_iter().fold(None, evolve)
}

impl Order {
    /// Whether its buyer has an answer: no step of the checkout is open.
    pub fn is_settled(&self) -> bool {
        !matches!(
            self.status,
            Status::Pending | Status::AwaitingPaymentAction | Status::Cancelling
        )
    }

    /// Its currency.
    pub fn currency(&self) -> Currency {
        self.placed.total.currency
    }
}

fn amounts(error: contract::MoneyError) -> Rejection {
    Rejection::Amounts(error.to_string())
}
