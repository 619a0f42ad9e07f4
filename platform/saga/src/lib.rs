//! Sagas: a business transaction over several services as a table of steps, run by a durable runner.
//!
//! A saga is a row. Its row says which step is next *before* that step's action is sent, so a compensation is always
//! registered before the action it undoes. A step may run more than once (the process died between the action and the
//! row's update), never out of order; every action carries a key derived from (saga, step), the same at every attempt.
//!
//! A technical failure is a delay: the step is retried with capped, jittered back-off. A business refusal, or the step's
//! own deadline, is a reason to unwind. Past the pivot nothing is undone: a step that cannot succeed makes the saga
//! *stuck*, which an operator sees.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod rows;
mod runner;

pub mod properties;

use std::time::Duration;

use futures_util::future::{BoxFuture, LocalBoxFuture};
use jiff::Timestamp;
use store::Tx;

pub use rows::{History, MIGRATIONS, Phase, Row, Start, enqueue, get, history, list, nudge, open};
pub use runner::{Config, Progress, Runner};

/// A saga as a table. The version is pinned in each instance: a row started under an older table is run by that table.
pub struct Definition<C: 'static> {
    /// Stable name, stored in each instance.
    pub name: &'static str,
    /// Grows when steps change; the older definition stays registered until its last instance is settled.
    pub version: u32,
    /// The steps in order: compensatable ones, one pivot, retriable ones.
    pub steps: &'static [Step<C>],
    /// What is recorded, in the transaction that ends the unwinding, when every compensation is done.
    pub unwound: Hook<C>,
    /// What is recorded, in the transaction that gives up, when a step past the pivot cannot succeed.
    pub stuck: Hook<C>,
}

/// One row of the table: an action and what undoes it.
pub struct Step<C: 'static> {
    /// Stable name; part of the step's key.
    pub name: &'static str,
    /// Whether the step can be undone, decides, or must succeed.
    pub kind: Kind,
    /// The work. It may run twice with the same key, and must then have one effect.
    pub action: Action<C>,
    /// Undoes the action, also one that only may have happened. Retried for ever.
    pub compensation: Option<Action<C>>,
    /// Bound on one attempt of the action or its compensation.
    pub try_timeout: Duration,
    /// Bound on all attempts of the action, counted from the first.
    pub deadline: Duration,
    /// What the end of that bound means.
    pub on_deadline: OnDeadline,
    /// Waiters are woken when this step is done: its outcome is what a caller waits for.
    pub milestone: bool,
}

/// The three kinds of steps; a table has them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Can be undone: a refusal unwinds this step and those before it.
    Compensatable,
    /// Decides: once done, the saga only goes forward.
    Pivot,
    /// Must succeed: a refusal makes the saga stuck, for an operator.
    Retriable,
}

/// What happens when all attempts of an action together took longer than its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeadline {
    /// Unwind: the action may have happened, so its compensation runs too.
    Compensate,
    /// Keep trying.
    Retry,
    /// Give up and tell an operator.
    Stick,
}

/// An action or a compensation.
pub type Action<C> = for<'a> fn(&'a C, &'a Attempt) -> BoxFuture<'a, Outcome>;

/// Makes the effect that records the end of a saga.
pub type Hook<C> = fn(&C, &Attempt, &Refusal) -> Effect;

/// A change of the saga's own store, run in the transaction that moves the saga. It may run again after a rollback.
pub trait Change: Send {
    /// Makes the change.
    fn apply<'a>(&'a mut self, tx: &'a mut Tx) -> LocalBoxFuture<'a, Result<(), Stop>>;
}

impl<F> Change for F
where
    F: AsyncFnMut(&mut Tx) -> Result<(), Stop> + Send,
{
    fn apply<'a>(&'a mut self, tx: &'a mut Tx) -> LocalBoxFuture<'a, Result<(), Stop>> {
        Box::pin(self(tx))
    }
}

/// A boxed [`Change`].
pub type Effect = Box<dyn Change>;

/// One attempt at a step: what the action is given.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The saga's id.
    pub saga: String,
    /// What the saga was started with.
    pub data: Vec<u8>,
    /// The step's name.
    pub step: &'static str,
    /// 1 for the first attempt.
    pub number: u32,
    /// Idempotency key of this (saga, step, direction): a UUID in text form, the same at every attempt.
    pub key: String,
    /// The first attempt at this step.
    pub started: Timestamp,
    /// The time now.
    pub now: Timestamp,
    /// End of this attempt.
    pub until: Timestamp,
    /// Correlation id of the request that started the saga.
    pub correlation: String,
    /// W3C trace context of the request that started the saga.
    pub traceparent: String,
    /// Why the saga unwinds; empty while it runs forward.
    pub reason: String,
}

/// How an attempt ended.
pub enum Outcome {
    /// Succeeded; the effect is recorded in the transaction that moves the saga on.
    Done(Option<Effect>),
    /// The answer is no, and will stay no.
    Refused(Refusal),
    /// Given up for this reason, although it may have happened: its own compensation runs too.
    Abandoned(Refusal),
    /// Unknown or failed for a technical reason: try again with back-off.
    Retry(String),
    /// Nothing to do before this time, or before somebody wakes the saga; the effect is recorded now.
    Wait {
        /// When to look again at the latest.
        until: Timestamp,
        /// For the operator.
        why: String,
        /// Recorded in the transaction that parks the saga; idempotent, since a wait may repeat.
        effect: Option<Effect>,
    },
}

impl Outcome {
    /// Done, with nothing to record.
    pub fn done() -> Self {
        Self::Done(None)
    }

    /// Done, with an effect on the saga's own store.
    pub fn done_with(change: impl Change + 'static) -> Self {
        Self::Done(Some(Box::new(change)))
    }

    /// Refused for a stable reason.
    pub fn refused(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Refused(Refusal { reason: reason.into(), detail: detail.into() })
    }
}

impl Refusal {
    /// A refusal for a stable reason.
    pub fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

/// A business "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, upper-snake-case.
    pub reason: String,
    /// For a person.
    pub detail: String,
}

/// Why an effect did not happen.
#[derive(Debug)]
pub enum Stop {
    /// The store failed or a version moved: the step is tried again.
    Fault(String),
    /// The domain said no at the moment of commit: treated like a refused action.
    Refused(Refusal),
}

impl From<store::Error> for Stop {
    fn from(error: store::Error) -> Self {
        Self::Fault(error.to_string())
    }
}

/// Why a saga could not be looked at or moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The saga's own store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What a step wanted to record could not be recorded.
    #[error("saga {saga}: {detail}")]
    Effect {
        /// The saga's id.
        saga: String,
        /// What is in the way.
        detail: String,
    },
    /// A law waited for a saga longer than it may take.
    #[error("saga {saga} is not settled in time")]
    Unsettled {
        /// The saga's id.
        saga: String,
    },
}

/// The idempotency key of a step: a version-5-shaped UUID over (saga, step, direction), so that every attempt, also after
/// a restart, carries the same one.
pub fn key(saga: &str, step: &str, compensation: bool) -> String {
    let direction = if compensation { "compensation" } else { "action" };
    let name = format!("{saga}/{step}/{direction}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}
