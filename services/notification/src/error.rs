//! Where a rejection and a fault meet: the one place that makes a `Status`.

use log::{Refusable, Refusal};
use server::status;
use tonic::Status;

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A dry run: everything was checked and nothing is kept.
    #[error("a dry run")]
    DryRun(Box<contracts::notification::v1::Notification>),
    /// The same request was refused before.
    #[error("refused before")]
    Replayed(Refusal),
    /// The configuration does not hold.
    #[error("{0}")]
    Configuration(String),
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
        None
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(error) => error.is_conflict(),
            Self::DryRun(_) | Self::Replayed(_) | Self::Configuration(_) => false,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::DryRun(_) | Error::Configuration(_) => status::fault("notification", &error),
            Error::Replayed(refusal) => status::status_of(refusal),
            Error::Log(ref error) => status::of_log(error),
        }
    }
}
