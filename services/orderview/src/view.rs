//! What the view of an order keeps of its story: a fold of the order's events, pure and total.
//!
//! The states follow ordering's own fold event by event, so that the view at a version says what ordering says at that
//! version. Lines are not in it: they are kept event by event and summed when they are shown.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where an order stands and how it came there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it stands.
    pub state: State,
    /// Where it stood when somebody wanted out.
    pub cancelling_from: Option<State>,
    /// Why it was rejected.
    pub reject_reason: Option<RejectReason>,
    /// What the buyer must do to pay.
    pub action: Option<Action>,
    /// The provider's answer is unknown.
    pub payment_in_doubt: bool,
    /// What was charged, in minor units.
    pub captured: i64,
    /// What was given back, in minor units.
    pub refunded: i64,
    /// Its parcels, in the order they were made.
    pub parcels: Vec<Parcel>,
    /// Why an operator should look.
    pub attention: Vec<String>,
    /// Its returns.
    pub returns: Vec<String>,
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Placed.
    Pending,
    /// The buyer must act.
    AwaitingPaymentAction,
    /// Agreed.
    Confirmed,
    /// Some of it left.
    PartiallyShipped,
    /// All of it left.
    Shipped,
    /// All of it arrived.
    Delivered,
    /// Nothing can happen any more.
    Closed,
    /// Not to be had.
    Rejected,
    /// Being cancelled.
    Cancelling,
    /// Cancelled.
    Cancelled,
    /// What had not left is cancelled.
    PartiallyCancelled,
}

/// Why an order was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RejectReason {
    /// Some line could not be held.
    OutOfStock,
    /// The payment was declined.
    Declined,
    /// The hold had ended and the stock was gone.
    StockGone,
    /// The provider gave no answer in time.
    PaymentTimeout,
    /// The buyer did not act in time.
    ActionExpired,
    /// Inventory gave no answer in time.
    StockTimeout,
    /// Another reason.
    Invalid,
}

/// What a buyer must do to pay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Where.
    pub uri: String,
    /// Id of the challenge at the provider.
    pub challenge: String,
    /// Until when.
    pub expire_time: Option<Timestamp>,
}

/// A parcel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Its name.
    pub shipment: String,
    /// Where it stands.
    pub state: ParcelState,
    /// Who carries it.
    pub carrier: String,
    /// Number to follow it by.
    pub tracking_number: String,
}

/// Where a parcel stands, seen from its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ParcelState {
    /// To be packed.
    Created,
    /// Packed.
    Packed,
    /// Charged.
    Captured,
    /// May leave.
    Released,
    /// Left.
    Shipped,
    /// Arrived.
    Delivered,
    /// Will not leave.
    Cancelled,
}

/// What an event changes in the progress of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The buyer must act.
    ActionRequired(Action),
    /// The provider's answer is unknown.
    InDoubt,
    /// The amount is set aside.
    Authorized,
    /// It is agreed.
    Confirmed,
    /// It is not to be had.
    Rejected(RejectReason),
    /// Somebody wants out.
    CancelRequested,
    /// They stay.
    CancelRefused,
    /// What had not left is undone.
    Cancelled {
        /// Some of it had left.
        partial: bool,
    },
    /// A parcel was made.
    ParcelMade(String),
    /// A parcel moved on.
    ParcelMoved {
        /// Which.
        shipment: String,
        /// Where to.
        state: ParcelState,
    },
    /// A parcel's value was charged.
    Captured {
        /// Which parcel.
        shipment: String,
        /// How much, in minor units.
        amount: i64,
    },
    /// A parcel left.
    Shipped {
        /// Which.
        shipment: String,
        /// Nothing is left to ship.
        complete: bool,
        /// Who carries it.
        carrier: String,
        /// Number to follow it by.
        tracking_number: String,
    },
    /// A parcel arrived.
    Delivered {
        /// Which.
        shipment: String,
        /// All of the order arrived.
        complete: bool,
    },
    /// Lines came back.
    Returned(String),
    /// Money was given back, in minor units.
    Refunded(i64),
    /// An operator should look.
    AttentionRaised(String),
    /// A reason to look is gone.
    AttentionCleared(String),
    /// Nothing can happen any more.
    Closed,
}

impl Progress {
    /// An order that was just placed.
    pub fn placed() -> Self {
        Self {
            state: State::Pending,
            cancelling_from: None,
            reject_reason: None,
            action: None,
            payment_in_doubt: false,
            captured: 0,
            refunded: 0,
            parcels: vec![],
            attention: vec![],
            returns: vec![],
        }
    }

    /// The progress after `change`.
    #[must_use]
    pub fn evolve(mut self, change: Change) -> Self {
        match change {
            Change::ActionRequired(action) => {
                self.action = Some(action);
                self.state = State::AwaitingPaymentAction;
            }
            Change::InDoubt => self.payment_in_doubt = true,
            Change::Authorized => self.nothing_to_pay(),
            Change::Confirmed => self.state = State::Confirmed,
            Change::Rejected(reason) => {
                self.state = State::Rejected;
                self.reject_reason = Some(reason);
                self.nothing_to_pay();
            }
            Change::CancelRequested => {
                self.cancelling_from = Some(self.state);
                // Until it is confirmed the checkout unwinds by itself and says when.
                if !matches!(self.state, State::Pending | State::AwaitingPaymentAction) {
                    self.state = State::Cancelling;
                }
            }
            Change::CancelRefused => {
                if let Some(before) = self.cancelling_from.take() {
                    self.state = before;
                }
            }
            Change::Cancelled { partial } => {
                self.state = if partial { State::PartiallyCancelled } else { State::Cancelled };
                self.nothing_to_pay();
            }
            Change::ParcelMade(shipment) => {
                self.parcels.retain(|parcel| parcel.shipment != shipment);
                let (carrier, tracking_number) = (String::new(), String::new());
                self.parcels.push(Parcel { shipment, state: ParcelState::Created, carrier, tracking_number });
            }
            Change::ParcelMoved { shipment, state } => self.move_parcel(&shipment, state),
            Change::Captured { shipment, amount } => {
                self.captured = self.captured.saturating_add(amount);
                self.move_parcel(&shipment, ParcelState::Captured);
            }
            Change::Shipped { shipment, complete, carrier, tracking_number } => {
                self.state = if complete { State::Shipped } else { State::PartiallyShipped };
                self.move_parcel(&shipment, ParcelState::Shipped);
                if let Some(parcel) = self.parcel(&shipment) {
                    parcel.carrier = carrier;
                    parcel.tracking_number = tracking_number;
                }
            }
            Change::Delivered { shipment, complete } => {
                self.move_parcel(&shipment, ParcelState::Delivered);
                if complete {
                    self.state = State::Delivered;
                }
            }
            Change::Returned(id) => self.returns.push(id),
            Change::Refunded(amount) => self.refunded = self.refunded.saturating_add(amount),
            Change::AttentionRaised(reason) => self.attention.push(reason),
            Change::AttentionCleared(reason) => self.attention.retain(|raised| *raised != reason),
            Change::Closed => self.state = State::Closed,
        }
        self
    }

    fn nothing_to_pay(&mut self) {
        self.action = None;
        self.payment_in_doubt = false;
    }

    fn move_parcel(&mut self, shipment: &str, state: ParcelState) {
        if let Some(parcel) = self.parcel(shipment) {
            parcel.state = state;
        }
    }

    fn parcel(&mut self, shipment: &str) -> Option<&mut Parcel> {
        self.parcels.iter_mut().find(|parcel| parcel.shipment == shipment)
    }
}

impl State {
    /// Whether nothing more is to be watched: it is through, or it came to nothing.
    pub fn is_final(self) -> bool {
        match self {
            Self::Delivered | Self::Closed | Self::Rejected | Self::Cancelled => true,
            Self::Pending
            | Self::AwaitingPaymentAction
            | Self::Confirmed
            | Self::PartiallyShipped
            | Self::Shipped
            | Self::Cancelling
            | Self::PartiallyCancelled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(changes: impl IntoIterator<Item = Change>) -> Progress {
        changes.into_iter().fold(Progress::placed(), Progress::evolve)
    }

    fn action() -> Change {
        let (uri, challenge) = ("https://bank".to_owned(), "c1".to_owned());
        Change::ActionRequired(Action { uri, challenge, expire_time: None })
    }

    fn shipped(shipment: &str, complete: bool) -> Change {
        let (carrier, tracking_number) = ("Post".to_owned(), "T1".to_owned());
        Change::Shipped { shipment: shipment.to_owned(), complete, carrier, tracking_number }
    }

    #[test]
    fn an_action_is_shown_until_it_is_done() {
        let asked = after([action()]);
        assert_eq!((asked.state, asked.action.is_some()), (State::AwaitingPaymentAction, true));
        let done = asked.evolve(Change::Authorized).evolve(Change::Confirmed);
        assert_eq!((done.state, done.action), (State::Confirmed, None));
    }

    #[test]
    fn a_rejected_order_is_final_and_says_why() {
        let rejected = after([Change::InDoubt, Change::Rejected(RejectReason::PaymentTimeout)]);
        assert!(rejected.state.is_final() && !rejected.payment_in_doubt);
        assert_eq!(rejected.reject_reason, Some(RejectReason::PaymentTimeout));
    }

    #[test]
    fn a_refused_cancellation_goes_back_to_where_it_was() {
        let asked = after([Change::Confirmed, Change::CancelRequested]);
        assert_eq!(asked.state, State::Cancelling);
        assert_eq!(asked.evolve(Change::CancelRefused).state, State::Confirmed);
        let early = after([Change::CancelRequested]);
        assert_eq!(early.state, State::Pending);
        assert_eq!(early.evolve(Change::Cancelled { partial: false }).state, State::Cancelled);
    }

    #[test]
    fn parcels_move_each_for_itself() {
        let made = ["a", "b"].map(|name| Change::ParcelMade(name.to_owned()));
        let charged = Change::Captured { shipment: "a".to_owned(), amount: 700 };
        let partly = after([Change::Confirmed].into_iter().chain(made).chain([charged, shipped("a", false)]));
        assert_eq!((partly.state, partly.captured), (State::PartiallyShipped, 700));
        let states: Vec<_> = partly.parcels.iter().map(|parcel| (parcel.state, parcel.carrier.as_str())).collect();
        assert_eq!(states, [(ParcelState::Shipped, "Post"), (ParcelState::Created, "")]);
        let all = partly.evolve(shipped("b", true));
        assert_eq!(all.state, State::Shipped);
        let arrived = Change::Delivered { shipment: "a".to_owned(), complete: false };
        assert_eq!(all.evolve(arrived).state, State::Shipped);
    }

    #[test]
    fn what_is_stored_reads_back_the_same() {
        let progress = after([action(), Change::ParcelMade("a".to_owned()), Change::AttentionRaised("X".to_owned())]);
        let text = serde_json::to_string(&progress).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
    }
}
