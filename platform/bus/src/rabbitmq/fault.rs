//! What can go wrong with the broker.

use crate::Error;

/// How errors call this kind of broker.
pub(super) const KIND: &str = "RabbitMQ";

/// Why the broker did not do what it was asked. All of them pass, but `Address` and `Differs`.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Address(String),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error(transparent)]
    Protocol(#[from] lapin::Error),
    #[error("it did not {0} in time")]
    Silent(&'static str),
    #[error("it takes no messages until it has room again: {0}")]
    Blocked(String),
    #[error("no queue takes them: the queue of their consumers is gone")]
    Unroutable,
    #[error("no queue takes them: nobody has asked for them yet")]
    Unwanted,
    #[error("it could not store them")]
    Refused,
    #[error("the queue was deleted or is moving")]
    Cancelled,
    #[error("{what} is {found}, not {wanted}")]
    Differs { what: String, found: String, wanted: String },
}

/// The fault as the bus tells it.
pub(super) fn failed(doing: impl Into<String>, fault: Fault) -> Error {
    match fault {
        Fault::Differs { what, found, wanted } => Error::BrokerDiffers { broker: KIND, what, found, wanted },
        fault => Error::Broker { broker: KIND, doing: doing.into(), source: Box::new(fault) },
    }
}
