//! The payment of an order: what was asked of the provider, what it answered, and what may be asked next.
//!
//! Invariants: `refunded <= captured <= authorized - voided`; an attempt whose outcome is unknown is never replaced by a
//! new one, only asked about again under its own key; what the provider did is recorded even after the payment was
//! closed, and then undone. Answers, queries and webhooks say the same things in any order, so an outcome that is known
//! changes nothing.

mod decide;
pub mod postings;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

/// Reason of a cancel that the payment itself asks for, when nobody acted in time.
pub const ACTION_EXPIRED: &str = "ACTION_EXPIRED";
/// Code of a payment that was cancelled before anything was set aside.
pub const CANCELLED: &str = "CANCELLED";
/// Code of a payment whose authorization never reached the provider.
pub const NEVER_ARRIVED: &str = "NEVER_ARRIVED";

/// A payment as its events make it; the default does not exist yet. Amounts are in minor units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payment {
    /// `payments/{payment}`.
    pub name: String,
    /// `orders/{order}`.
    pub order: String,
    /// Who pays; empty where it was cancelled before it was created.
    pub customer: String,
    /// ISO 4217 code.
    pub currency: String,
    /// What is to be paid.
    pub amount: i64,
    /// The provider's token of the payment method; empty once its owner is erased.
    pub token: String,
    /// Which provider.
    pub provider: String,
    /// Where it stands; none before its first event.
    pub state: Option<State>,
    /// What was set aside, charged, freed and given back.
    pub balance: Balance,
    /// The provider's id of the authorization, once known.
    pub reference: String,
    /// What the buyer must do, while they must.
    pub action: Option<Action>,
    /// Why the provider declined.
    pub decline_code: String,
    /// Until when the amount is set aside.
    pub authorization_expire_time: Option<Timestamp>,
    /// Whether the net is to be zero.
    pub cancel: Cancel,
    /// Why it is.
    pub cancel_reason: String,
    /// Every call to the provider, oldest first.
    pub attempts: Vec<Attempt>,
    /// When it was created.
    pub create_time: Option<Timestamp>,
    /// When it last changed.
    pub update_time: Option<Timestamp>,
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not sure yet.
    Created,
    /// The buyer must act.
    RequiresAction,
    /// Set aside.
    Authorized,
    /// Some of it charged.
    PartiallyCaptured,
    /// All of it charged.
    Captured,
    /// Some of it given back.
    PartiallyRefunded,
    /// All of it given back.
    Refunded,
    /// Set aside no more, nothing charged.
    Voided,
    /// Not acted on in time.
    Expired,
    /// Declined, or cancelled before it began.
    Failed,
}

/// The sums of a payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Set aside in all.
    pub authorized: i64,
    /// Of that, freed without a charge.
    pub voided: i64,
    /// Of that, charged.
    pub captured: i64,
    /// Of that, given back.
    pub refunded: i64,
}

/// How far bringing the net to zero is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cancel {
    /// Not asked for.
    #[default]
    No,
    /// Asked for, not reached.
    Requested,
    /// Reached.
    Completed,
}

/// What the buyer must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Where.
    pub uri: String,
    /// The provider's id of the challenge.
    pub challenge: String,
    /// Until when.
    pub expire_time: Timestamp,
}

/// One call to the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Last part of its name: its ordinal.
    pub id: String,
    /// What it asks.
    pub kind: Kind,
    /// What became of it.
    pub state: AttemptState,
    /// How much.
    pub amount: i64,
    /// The key the provider knows it by, the same on every try.
    pub key: String,
    /// How often it was sent; 0 for what needed no call.
    pub tries: i32,
    /// The provider's id of it.
    pub reference: String,
    /// Why it was declined.
    pub decline_code: String,
    /// What went wrong in the last try.
    pub last_error: String,
    /// Shipment it charges for.
    pub shipment: String,
    /// Return it refunds.
    pub return_id: String,
    /// How its outcome was learnt.
    pub source: Option<Source>,
    /// When it was written down.
    pub create_time: Timestamp,
    /// When it last changed.
    pub update_time: Timestamp,
}

/// What an attempt asks of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Set aside.
    Authorize,
    /// Charge.
    Capture,
    /// Set aside no more.
    Void,
    /// Give back.
    Refund,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// Written down.
    Prepared,
    /// Sent, not answered yet.
    Sent,
    /// Answered: the buyer must act before there is an outcome.
    Waiting,
    /// Sent, outcome unknown.
    InDoubt,
    /// Done.
    Succeeded,
    /// Refused.
    Declined,
    /// Never arrived.
    Abandoned,
}

/// How an outcome was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The provider answered the call.
    Answer,
    /// The provider was asked later.
    Query,
    /// The provider sent a message.
    Webhook,
    /// An operator said so.
    Operator,
}

/// Who told an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// How it was learnt.
    pub source: Source,
    /// The operator, or empty.
    pub actor: String,
    /// How they learnt it, or empty.
    pub note: String,
}

/// What the provider says of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The buyer must act first.
    ActionRequired {
        /// The provider's id of the authorization.
        reference: String,
        /// Where to act.
        uri: String,
        /// Id of the challenge.
        challenge: String,
    },
    /// Done.
    Done {
        /// The provider's id of what was done.
        reference: String,
    },
    /// Refused.
    Declined {
        /// Why.
        code: String,
    },
    /// It never arrived, and cannot any more.
    NotFound,
    /// Nothing: cut off, timed out, broken.
    Unknown {
        /// What went wrong.
        error: String,
    },
}

/// What may be asked of a payment.
#[derive(Clone, Debug)]
pub enum Command {
    /// Set the amount aside.
    Authorize {
        /// The order.
        order: String,
        /// Who pays.
        customer: String,
        /// ISO 4217 code.
        currency: String,
        /// How much.
        amount: i64,
        /// The provider's token.
        token: String,
        /// Which provider.
        provider: String,
    },
    /// Charge for a shipment.
    Capture {
        /// `shipments/{shipment}`.
        shipment: String,
        /// How much.
        amount: i64,
    },
    /// Give back what is charged, or free what is not.
    Refund {
        /// How much.
        amount: i64,
        /// The return, or empty.
        return_id: String,
        /// Why.
        reason: String,
        /// The operator, or empty.
        actor: String,
    },
    /// Bring the net to zero.
    Cancel {
        /// The order.
        order: String,
        /// Why.
        reason: String,
    },
    /// Give up waiting for the buyer.
    Expire {
        /// The time now.
        now: Timestamp,
    },
    /// Send an open attempt once more.
    Resend {
        /// Which.
        attempt: String,
    },
    /// Take note of what the provider says of an attempt.
    Settle {
        /// Which.
        attempt: String,
        /// What it says.
        outcome: Outcome,
        /// How that was learnt.
        said: Said,
        /// Until when the buyer may act, should they have to.
        action_expire_time: Timestamp,
        /// Until when the amount is set aside, should it be.
        authorization_expire_time: Timestamp,
    },
    /// Try once more to bring the net to zero, after a refusal.
    Continue,
}

/// What happened to a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the state and of the commands")]
pub enum Event {
    /// It exists.
    Created { order: String, customer: String, currency: String, amount: i64, token: String, provider: String },
    /// A call is written down.
    Prepared {
        attempt: String,
        kind: Kind,
        amount: i64,
        key: String,
        shipment: String,
        return_id: String,
        reason: String,
        actor: String,
        parent: String,
    },
    /// The call is about to be made.
    Sent { attempt: String, tries: i32 },
    /// The provider did it.
    Succeeded { attempt: String, kind: Kind, amount: i64, reference: String, said: Said },
    /// The provider refused.
    Declined { attempt: String, kind: Kind, code: String, said: Said },
    /// The outcome is unknown.
    InDoubt { attempt: String, error: String },
    /// It never arrived.
    Abandoned { attempt: String, said: Said },
    /// The buyer must act.
    ActionRequired { attempt: String, action: Action, reference: String },
    /// The amount is set aside.
    Authorized { attempt: String, amount: i64, expire_time: Timestamp },
    /// Part of it is charged.
    Captured { attempt: String, amount: i64, shipment: String, captured: i64 },
    /// Part of it is free.
    Voided { attempt: String, amount: i64 },
    /// Part of what was charged is given back.
    Refunded { attempt: String, amount: i64, return_id: String, refunded: i64 },
    /// It will not be paid.
    Failed { code: String },
    /// Nobody acted in time.
    Expired { released: i64 },
    /// The net is to be zero.
    CancelRequested { order: String, reason: String },
    /// The net is zero.
    CancelCompleted,
}

/// The domain says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such payment.
    #[error("the payment does not exist")]
    Missing,
    /// There is no such attempt.
    #[error("the payment has no attempt {0}")]
    NoSuchAttempt(String),
    /// It exists with another order, customer or amount.
    #[error("the payment exists with another order, customer or amount")]
    OtherTerms,
    /// Its state does not allow it.
    #[error("a payment that is {0:?} does not allow this")]
    WrongState(State),
    /// The net is being brought to zero.
    #[error("the payment is cancelled")]
    Cancelled,
    /// More than there is.
    #[error("{asked} was asked for and {left} is left")]
    TooMuch {
        /// What is left.
        left: i64,
        /// What was asked for.
        asked: i64,
    },
    /// The shipment, or return, was charged, or refunded, with another amount.
    #[error("{0} was settled with another amount")]
    OtherAmount(String),
    /// The attempt's outcome is known, or still to come.
    #[error("the attempt is not in doubt")]
    NotInDoubt,
}

impl Balance {
    /// What may still be charged.
    pub fn open(&self) -> i64 {
        self.authorized - self.voided - self.captured
    }

    /// Where a payment with this balance stands; nothing while nothing was set aside.
    pub fn state(&self) -> Option<State> {
        if self.authorized == 0 {
            return None;
        }
        let open = self.open();
        Some(match (self.captured, self.refunded) {
            (0, _) if open == 0 => State::Voided,
            (0, _) => State::Authorized,
            (_, 0) if open == 0 => State::Captured,
            (_, 0) => State::PartiallyCaptured,
            (captured, refunded) if captured == refunded && open == 0 => State::Refunded,
            _ => State::PartiallyRefunded,
        })
    }

    /// The balance after an event.
    #[must_use]
    pub fn after(mut self, event: &Event) -> Self {
        match event {
            Event::Authorized { amount, .. } => self.authorized += amount,
            Event::Captured { amount, .. } => self.captured += amount,
            Event::Voided { amount, .. } => self.voided += amount,
            Event::Refunded { amount, .. } => self.refunded += amount,
            Event::Expired { released } => self.voided += released,
            Event::Created { .. }
            | Event::Prepared { .. }
            | Event::Sent { .. }
            | Event::Succeeded { .. }
            | Event::Declined { .. }
            | Event::InDoubt { .. }
            | Event::Abandoned { .. }
            | Event::ActionRequired { .. }
            | Event::Failed { .. }
            | Event::CancelRequested { .. }
            | Event::CancelCompleted => {}
        }
        self
    }
}

impl Attempt {
    /// Whether the provider may have done it, or may yet do it, and nobody knows.
    pub fn is_open(&self) -> bool {
        matches!(self.state, AttemptState::Prepared | AttemptState::Sent | AttemptState::InDoubt)
    }

    /// Whether it came to nothing.
    pub fn is_void(&self) -> bool {
        matches!(self.state, AttemptState::Declined | AttemptState::Abandoned)
    }
}

impl Payment {
    /// A payment of that name that does not exist yet.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// One of its attempts.
    pub fn attempt(&self, id: &str) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id)
    }

    /// Whether the outcome of an attempt is unknown.
    pub fn in_doubt(&self) -> bool {
        self.attempts.iter().any(Attempt::is_open)
    }

    /// The state after an event that happened at `when`.
    #[must_use]
    pub fn evolve(mut self, event: &Event, when: Timestamp) -> Self {
        self.create_time = self.create_time.or(Some(when));
        self.update_time = Some(when);
        self.balance = self.balance.after(event);
        match event {
            Event::Created { order, customer, currency, amount, token, provider } => {
                self.order = order.clone();
                self.customer = customer.clone();
                self.currency = currency.clone();
                self.amount = *amount;
                self.token = token.clone();
                self.provider = provider.clone();
                self.state = Some(State::Created);
            }
            Event::Prepared { attempt, kind, amount, key, shipment, return_id, .. } => self.attempts.push(Attempt {
                id: attempt.clone(),
                kind: *kind,
                state: AttemptState::Prepared,
                amount: *amount,
                key: key.clone(),
                tries: 0,
                reference: String::new(),
                decline_code: String::new(),
                last_error: String::new(),
                shipment: shipment.clone(),
                return_id: return_id.clone(),
                source: None,
                create_time: when,
                update_time: when,
            }),
            Event::Sent { attempt, tries } => self.change(attempt, when, |attempt| {
                attempt.state = AttemptState::Sent;
                attempt.tries = *tries;
            }),
            Event::Succeeded { attempt, kind, reference, said, .. } => {
                if *kind == Kind::Authorize {
                    self.reference = reference.clone();
                }
                self.change(attempt, when, |attempt| {
                    attempt.state = AttemptState::Succeeded;
                    attempt.reference = reference.clone();
                    attempt.source = Some(said.source);
                });
            }
            Event::Declined { attempt, code, said, .. } => self.change(attempt, when, |attempt| {
                attempt.state = AttemptState::Declined;
                attempt.decline_code = code.clone();
                attempt.source = Some(said.source);
            }),
            Event::InDoubt { attempt, error } => self.change(attempt, when, |attempt| {
                attempt.state = AttemptState::InDoubt;
                attempt.last_error = error.clone();
            }),
            Event::Abandoned { attempt, said } => self.change(attempt, when, |attempt| {
                attempt.state = AttemptState::Abandoned;
                attempt.source = Some(said.source);
            }),
            Event::ActionRequired { attempt, action, reference } => {
                self.state = Some(State::RequiresAction);
                self.action = Some(action.clone());
                self.reference = reference.clone();
                self.change(attempt, when, |attempt| {
                    attempt.state = AttemptState::Waiting;
                    attempt.reference = reference.clone();
                });
            }
            Event::Authorized { expire_time, .. } => {
                self.authorization_expire_time = Some(*expire_time);
                self.stand();
            }
            Event::Captured { .. } | Event::Voided { .. } | Event::Refunded { .. } => self.stand(),
            Event::Failed { code } => {
                self.state = Some(State::Failed);
                self.decline_code = code.clone();
                self.action = None;
            }
            Event::Expired { .. } => {
                self.state = Some(State::Expired);
                self.action = None;
            }
            Event::CancelRequested { order, reason } => {
                if self.order.is_empty() {
                    self.order = order.clone();
                }
                self.cancel = Cancel::Requested;
                self.cancel_reason = reason.clone();
            }
            Event::CancelCompleted => self.cancel = Cancel::Completed,
        }
        self
    }

    fn stand(&mut self) {
        self.state = self.balance.state().or(self.state);
        self.action = None;
    }

    fn change(&mut self, id: &str, when: Timestamp, with: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.id == id) {
            attempt.update_time = when;
            with(attempt);
        }
    }
}
