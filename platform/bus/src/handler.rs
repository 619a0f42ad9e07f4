//! What a consumer does with a message.

use log::LocalBoxFuture;
use store::Tx;

use crate::Message;

/// The effect of messages. It has effects on `tx` alone and awaits nothing else: what must happen
/// outside is written down as an intent, or as a saga, and done by its own runner.
pub trait Handler: Send + Sync + 'static {
    /// False for events that mean nothing here; they are dealt with by not looking at them.
    fn wants(&self, name: &str) -> bool {
        let _ = name;
        true
    }

    /// False for events this release has never heard of: a newer one of the producer wrote them, and a newer one of this
    /// consumer may want them. They are parked, their stream behind them, until somebody comes who knows them.
    fn knows(&self, name: &str) -> bool {
        let _ = name;
        true
    }

    /// Applies one message. It is called again with the same message after a crash or a failure, but
    /// never after its effect committed.
    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>>;
}

/// Whether `name` is among the events of a package, as the contracts list them.
pub fn listed(name: &str, events: &[(&str, u32)]) -> bool {
    events.iter().any(|(listed, _)| *listed == name)
}

/// How the reason of a letter begins that waits for a newer release of its consumer.
const NEWER: &str = "a newer release wrote it: ";

/// Why a message could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It may work later: it is tried again in its place, and later messages wait.
    Transient(String),
    /// It will not work without someone's help: its stream is parked, others flow.
    Permanent(String),
}

impl Failure {
    /// This release does not know the event, or not as it was written.
    pub(crate) fn newer(what: &dyn std::fmt::Display) -> Self {
        Self::Permanent(format!("{NEWER}{what}"))
    }

    /// Whether a letter with this reason may be understood by a newer release.
    pub(crate) fn was_newer(reason: &str) -> bool {
        reason.starts_with(NEWER)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let reason = error.to_string();
        match error {
            store::Error::Conflict { .. }
            | store::Error::Busy { .. }
            | store::Error::Full { .. }
            | store::Error::Damaged { .. }
            | store::Error::Locked { .. }
            | store::Error::InDoubt { .. }
            | store::Error::Stopped { .. }
            | store::Error::Open { .. }
            | store::Error::Migration { .. } => Self::Transient(reason),
            // Where the engine itself is ill, parking fails too, so nothing is parked in vain.
            store::Error::Constraint { .. }
            | store::Error::Corrupt { .. }
            | store::Error::ReadOnly
            | store::Error::Panicked { .. }
            | store::Error::Suspended
            | store::Error::Mismatch { .. }
            | store::Error::Engine(_) => Self::Permanent(reason),
        }
    }
}

impl From<log::Error> for Failure {
    fn from(error: log::Error) -> Self {
        let reason = error.to_string();
        match error {
            log::Error::Store(error) => error.into(),
            log::Error::Conflict { .. }
            | log::Error::LotFull { .. }
            | log::Error::Random(_)
            | log::Error::Rebuild { .. } => Self::Transient(reason),
            log::Error::RequestIdReused { .. }
            | log::Error::Refused { .. }
            | log::Error::StoredReply { .. }
            | log::Error::Decode { .. }
            | log::Error::NotUnderstood { .. }
            | log::Error::NoSubject { .. }
            | log::Error::Unreadable { .. }
            | log::Error::Hole { .. }
            | log::Error::NoSuchProjection(_) => Self::Permanent(reason),
        }
    }
}
