//! Where a rejection and a fault meet: the one place that makes a `Status`.

use log::{Refusable, Refusal};
use server::status;
use tonic::Status;

use crate::payment::Rejection;

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The domain said no to something about a payment.
    #[error("{name}: {rejection}")]
    Rejected { name: String, rejection: Rejection },
    /// An amount in another currency than the payment's.
    #[error("{name} is in another currency")]
    CurrencyMismatch { name: String },
    /// Too many messages about unknown payments are kept already.
    #[error("too many parked messages")]
    LotFull,
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
            Self::Rejected { .. } | Self::CurrencyMismatch { .. } => Some(status::refusal_of(&self.status())),
            Self::LotFull | Self::Replayed(_) | Self::Log(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(log::Error::Store(error)) => error.is_transient(),
            Self::Log(error) => error.is_conflict(),
            Self::Rejected { .. } | Self::CurrencyMismatch { .. } | Self::LotFull | Self::Replayed(_) => false,
        }
    }
}

impl Error {
    fn status(&self) -> Status {
        match self {
            Self::Rejected { name, rejection } => rejected(name, rejection),
            Self::CurrencyMismatch { name } => {
                let resource = ("payment", name.clone());
                status::failed_precondition("CURRENCY_MISMATCH", self.to_string(), [resource])
            }
            Self::LotFull => {
                status::unavailable("too many messages about unknown payments", std::time::Duration::from_secs(30))
            }
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
    let resource = ("payment", name.to_owned());
    let message = rejection.to_string();
    match rejection {
        Rejection::Missing => status::not_found(name),
        Rejection::NoSuchAttempt(attempt) => status::not_found(&crate::wire::attempt_name(name, attempt)),
        Rejection::OtherTerms => status::failed_precondition("PAYMENT_EXISTS", message, [resource]),
        Rejection::WrongState(_) => status::failed_precondition("WRONG_STATE", message, [resource]),
        Rejection::Cancelled => status::failed_precondition("PAYMENT_CANCELLED", message, [resource]),
        Rejection::TooMuch { left, .. } => {
            status::failed_precondition("AMOUNT_TOO_LARGE", message, [resource, ("leftMinor", left.to_string())])
        }
        Rejection::OtherAmount(about) => {
            status::failed_precondition("AMOUNT_MISMATCH", message, [resource, ("about", about.clone())])
        }
        Rejection::NotInDoubt => status::failed_precondition("NOT_IN_DOUBT", message, [resource]),
    }
}
