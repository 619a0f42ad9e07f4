//! Where a rejection and a fault meet: the one place that makes a `Status`.

use log::{Refusable, Refusal};
use server::status;
use tonic::{Code, Status};

use crate::shipment::Rejection;

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The domain said no.
    #[error("{name}: {rejection}")]
    Rejected { name: String, rejection: Rejection },
    /// The shipment changed since the caller read it.
    #[error("{0} has changed since it was read")]
    Stale(String),
    /// The same request was refused before.
    #[error("refused before")]
    Replayed(Refusal),
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
            Self::Replayed(_) | Self::Log(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(error) => error.is_conflict(),
            Self::Rejected { .. } | Self::Stale(_) | Self::Replayed(_) => false,
        }
    }
}

impl Error {
    fn status(&self) -> Status {
        match self {
            Self::Rejected { name, rejection } => rejected(name, rejection),
            Self::Stale(name) => status::stale_etag(name),
            Self::Replayed(refusal) => status::status_of(refusal.clone()),
            Self::Log(error) => status::of_log(error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.status()
    }
}

fn rejected(name: &str, rejection: &Rejection) -> Status {
    let resource = ("shipment", name.to_owned());
    let message = rejection.to_string();
    let reason = match rejection {
        Rejection::Missing => return status::not_found(name),
        Rejection::Taken => return status::rejected(Code::AlreadyExists, "SHIPMENT_EXISTS", message, [resource]),
        Rejection::Cancelled => "SHIPMENT_CANCELLED",
        Rejection::NotCaptured => "PAYMENT_NOT_CAPTURED",
        Rejection::AlreadyPacked => "ALREADY_PACKED",
        Rejection::AlreadyDispatched => "ALREADY_DISPATCHED",
        Rejection::WrongState(_) => "WRONG_STATE",
    };
    status::failed_precondition(reason, message, [resource])
}
