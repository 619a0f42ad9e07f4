//! Where a rejection and a fault meet: the one place that makes a `Status`.

use log::{Refusable, Refusal};
use server::status;
use tonic::{Code, Status};

use crate::order::Rejection;

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The domain said no.
    #[error("{order}: {rejection}")]
    Rejected { order: String, rejection: Rejection },
    /// The order changed since the caller read it.
    #[error("{0} has changed since it was read")]
    Stale(String),
    /// The same request was refused before.
    #[error("refused before")]
    Replayed(Refusal),
    /// A stored event means nothing here.
    #[error("event {version} of {order} cannot be read: {detail}")]
    Unreadable { order: String, version: u64, detail: String },
    /// The log or the store failed.
    #[error(transparent)]
    Log(#[from] log::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Log(error.into())
    }
}

impl Refusable for Error {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Rejected { .. } | Self::Stale(_) => Some(status::refusal_of(&self.status())),
            Self::Replayed(_) | Self::Unreadable { .. } | Self::Log(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(error) => error.is_conflict(),
            Self::Rejected { .. } | Self::Stale(_) | Self::Replayed(_) | Self::Unreadable { .. } => false,
        }
    }
}

impl Error {
    fn status(&self) -> Status {
        match self {
            Self::Rejected { order, rejection } => rejected(order, rejection),
            Self::Stale(order) => status::stale_etag(order),
            Self::Replayed(refusal) => status::status_of(refusal.clone()),
            Self::Unreadable { .. } => status::fault("ordering", self),
            Self::Log(error) => status::of_log(error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.status()
    }
}

fn rejected(order: &str, rejection: &Rejection) -> Status {
    let resource = ("order", order.to_owned());
    let message = rejection.to_string();
    match rejection {
        Rejection::Missing => status::not_found(order),
        Rejection::WrongState { .. } | Rejection::CancelRequested => {
            status::failed_precondition("WRONG_STATE", message, [resource])
        }
        Rejection::AlreadyDispatched => status::failed_precondition("ALREADY_DISPATCHED", message, [resource]),
        Rejection::UnknownLine(line) => {
            let line = ("line", line.clone());
            status::rejected(Code::InvalidArgument, "UNKNOWN_LINE", message, [resource, line])
        }
        Rejection::UnknownShipment(shipment) => status::not_found(shipment),
        Rejection::UnknownReturn(id) => status::not_found(id),
        Rejection::TooMany { line, left, .. } => {
            let details = [resource, ("line", line.clone()), ("left", left.to_string())];
            status::failed_precondition("TOO_MANY_UNITS", message, details)
        }
        Rejection::Amounts(_) => status::rejected(Code::InvalidArgument, "AMOUNTS", message, [resource]),
    }
}
