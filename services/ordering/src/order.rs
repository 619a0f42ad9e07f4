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
    /// What was charged so far.
    pub captured: Money,
    /// What was given back so far.
    pub refunded: Money,
    /// Why it was rejected, in words.
    pub rejection_detail: String,
    /// Why it was cancelled.
    pub cancel_reason: String,
    /// The stock is sold to it.
    pub stock_committed: bool,
    /// Its cart is closed.
    pub cart_closed: bool,
    /// The money of its cancellation is back.
    pub settled: bool,
    /// Why an operator should look at it.
    pub attention: Vec<String>,
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
    /// Id of the quote that priced it.
    pub quote_id: String,
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
    /// Who placed it, where not the customer.
    pub actor: String,
}

/// One line as quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Id within the order.
    pub id: String,
    /// Line of the cart it was.
    pub item: String,
    /// What.
    pub sku: String,
    /// `products/{product}/variants/{variant}`.
    pub variant: String,
    /// Its title when it was bought.
    pub title: String,
    /// How many, at least 1.
    pub quantity: i64,
    /// Price of one, net.
    pub unit_price: Money,
    /// Tax of the line.
    pub tax: Money,
    /// Whether stock is kept of it: postage and gift cards have none.
    pub stocked: bool,
}

/// A postal address; every part but the country is personal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Person or firm.
    pub recipient: String,
    /// Firm or department.
    pub organization: String,
    /// Street and number.
    pub street: String,
    /// Second line.
    pub street_extra: String,
    /// City or town.
    pub city: String,
    /// State, province or county.
    pub region: String,
    /// Postal code.
    pub postal_code: String,
    /// ISO 3166-1, two capital letters.
    pub country_code: String,
    /// Phone number.
    pub phone: String,
}

impl Address {
    /// Whether its person was erased: an address that was given keeps its country.
    pub fn is_erased(&self) -> bool {
        self.recipient.is_empty() && !self.country_code.is_empty()
    }
}

/// A warehouse's part of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// `warehouses/{warehouse}`.
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
    StockTimeout,
    /// Refused for another reason.
    Invalid,
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
    /// How many, less what was withdrawn.
    pub quantity: i64,
}

/// The part of a parcel's life that ordering steers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShipmentStatus {
    /// Made, not packed.
    Created,
    /// Packed; its value is being captured.
    Packed,
    /// Charged.
    Captured,
    /// Its units left the stock.
    Fulfilled,
    /// It may leave.
    Released,
    /// Left.
    Shipped,
    /// Arrived.
    Delivered,
    /// Will not leave.
    Cancelled,
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
    /// Why.
    pub reason: String,
    /// Who took them back.
    pub actor: String,
    /// Number in another system.
    pub external_reference: String,
    /// When they came back there.
    pub external_time: Option<Timestamp>,
    /// The money is back.
    pub refunded: bool,
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
    /// What is given back for them, tax included.
    pub amount: Money,
    /// Of these, how many had not left: they were taken out of these parcels. Not stored: a fold finds the same.
    pub withdrawn: Vec<(String, i64)>,
}

/// A request to cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// Who asked.
    pub by: String,
    /// Where the order stood.
    pub from: Status,
}

/// What may be asked of an order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Place it.
    Place(Box<Placement>),
    /// Stock is kept for it.
    RecordStockHeld {
        /// Where.
        allocations: Vec<Allocation>,
        /// Until when.
        expire_time: Option<Timestamp>,
    },
    /// The buyer must act.
    RequirePaymentAction(PaymentAction),
    /// The provider's answer is unknown.
    RecordPaymentInDoubt {
        /// What is known.
        detail: String,
    },
    /// The payment is authorised.
    RecordAuthorized,
    /// The stock is sold to it.
    RecordStockCommitted,
    /// Everything is arranged: the pivot.
    Confirm,
    /// It cannot come to be.
    Reject {
        /// Why.
        reason: RejectReason,
        /// In words.
        detail: String,
        /// SKUs that lack.
        skus: Vec<String>,
    },
    /// Its cart is closed.
    RecordCartClosed,
    /// Somebody wants it undone.
    RequestCancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It stays: everything had been packed.
    RefuseCancel,
    /// A parcel will not leave.
    RecordShipmentCancelled {
        /// The parcel's name.
        shipment: String,
    },
    /// The money of a cancelled order is back.
    RecordSettled {
        /// What was refunded; zero where it was only voided.
        refunded: Money,
    },
    /// Everything is undone.
    FinishCancel,
    /// A parcel was made in shipping.
    RecordShipment {
        /// The parcel's name.
        shipment: String,
        /// As planned.
        planned: Shipment,
    },
    /// A parcel moved on.
    MoveShipment {
        /// The parcel's name.
        shipment: String,
        /// How.
        step: ShipmentStep,
    },
    /// Lines come back.
    ReturnLines {
        /// Id of the return.
        id: String,
        /// (line, quantity).
        lines: Vec<(String, i64)>,
        /// Whether the goods go back to stock.
        restock: bool,
        /// Why.
        reason: String,
        /// Who took them back.
        actor: String,
        /// Number in another system.
        external_reference: String,
        /// When they came back there.
        external_time: Option<Timestamp>,
    },
    /// The money of a return is back.
    RecordRefunded {
        /// Id of the return.
        id: String,
    },
    /// Money and goods are back.
    FinishReturn {
        /// Id of the return.
        id: String,
    },
    /// An operator should look.
    RaiseAttention {
        /// Why, in upper snake case.
        reason: String,
        /// What is known.
        detail: String,
    },
}

/// A step of a parcel's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShipmentStep {
    /// The warehouse packed it.
    Pack,
    /// Its value was charged.
    Capture {
        /// How much.
        amount: Money,
    },
    /// Its units left the stock.
    Fulfill,
    /// It may leave.
    Release,
    /// It left.
    Ship {
        /// Who carries it.
        carrier: String,
        /// Number to follow it by.
        tracking: String,
    },
    /// It arrived.
    Deliver,
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
        /// Until when.
        expire_time: Option<Timestamp>,
    },
    /// The buyer must act.
    PaymentActionRequired(PaymentAction),
    /// The provider's answer is unknown.
    PaymentInDoubt {
        /// What is known.
        detail: String,
    },
    /// The payment is authorised.
    PaymentAuthorized {
        /// How much.
        amount: Money,
    },
    /// The stock is sold to it.
    StockCommitted,
    /// It is agreed.
    Confirmed,
    /// It never came to be.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// In words.
        detail: String,
        /// SKUs that lack.
        skus: Vec<String>,
    },
    /// Its cart is closed.
    CartClosed,
    /// Somebody wants it undone.
    CancelRequested {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It is not undone: everything had been packed.
    CancelRefused,
    /// A parcel will not leave.
    ShipmentCancelled {
        /// Its name.
        shipment: String,
    },
    /// The money of a cancelled order is back.
    PaymentSettled {
        /// What was refunded.
        refunded: Money,
    },
    /// What had not left is undone.
    Cancelled {
        /// (line, quantity) that is undone.
        lines: Vec<(String, i64)>,
        /// Some of it had left.
        partial: bool,
    },
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
    /// A parcel's units left the stock.
    ShipmentFulfilled {
        /// Its name.
        shipment: String,
    },
    /// A parcel may leave.
    ShipmentReleased {
        /// Its name.
        shipment: String,
    },
    /// A parcel left.
    LinesShipped {
        /// Its name.
        shipment: String,
        /// (line, quantity) in it.
        lines: Vec<(String, i64)>,
        /// Nothing is left to ship.
        complete: bool,
        /// Who carries it.
        carrier: String,
        /// Number to follow it by.
        tracking: String,
    },
    /// A parcel arrived.
    LinesDelivered {
        /// Its name.
        shipment: String,
        /// All of the order arrived.
        complete: bool,
    },
    /// Lines came back; the refund is under way.
    LinesReturned {
        /// Id of the return.
        id: String,
        /// What came back.
        returned: Box<Return>,
    },
    /// The money of a return is back.
    ReturnRefunded {
        /// Id of the return.
        id: String,
        /// How much.
        amount: Money,
    },
    /// Money and goods are back.
    ReturnCompleted {
        /// Id of the return.
        id: String,
    },
    /// An operator should look.
    AttentionRaised {
        /// Why, in upper snake case.
        reason: String,
        /// What is known.
        detail: String,
    },
    /// A reason to look is gone.
    AttentionCleared {
        /// The reason.
        reason: String,
    },
    /// Nothing can happen any more.
    Closed,
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
    /// What is asked for has been packed or has left.
    #[error("the order has been packed or dispatched")]
    AlreadyDispatched,
    /// The order has no such line.
    #[error("the order has no line {0:?}")]
    UnknownLine(String),
    /// The order has no such parcel.
    #[error("the order has no shipment {0:?}")]
    UnknownShipment(String),
    /// The order has no such return.
    #[error("the order has no return {0:?}")]
    UnknownReturn(String),
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
    /// Whether the checkout has not decided yet.
    pub fn is_open(&self) -> bool {
        matches!(self.status, Status::Pending | Status::AwaitingPaymentAction)
    }

    /// Whether its buyer has an answer: no step of the checkout is open.
    pub fn is_settled(&self) -> bool {
        !matches!(self.status, Status::Pending | Status::AwaitingPaymentAction | Status::Cancelling)
    }

    /// Its currency.
    pub fn currency(&self) -> Currency {
        self.placed.total.currency
    }
}

fn amounts(error: contract::MoneyError) -> Rejection {
    Rejection::Amounts(error.to_string())
}
