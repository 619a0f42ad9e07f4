//! Where a refusal and a fault meet: the one place that makes a `Status`.

use server::status;
use tonic::{Code, Status};

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such order, or none the caller may know of.
    #[error("{0} does not exist")]
    Missing(String),
    /// The view has not come to the version that was asked for.
    #[error("the view of {name} is at version {version}")]
    Behind { name: String, version: u64 },
    /// As many orders are watched as may be.
    #[error("too many orders are watched")]
    TooManyWatchers,
    /// A stored view cannot be read.
    #[error("the view of {name} cannot be read: {detail}")]
    Unreadable { name: String, detail: String },
    /// A rebuild or a check could not be finished.
    #[error("the views could not be folded anew: {0}")]
    Rebuild(String),
    /// The log of ordering could not be read.
    #[error(transparent)]
    Source(#[from] bus::Error),
    /// The log or the store failed.
    #[error(transparent)]
    Log(#[from] log::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Log(error.into())
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::Missing(name) => status::not_found(name),
            Error::Behind { name, version } => status::rejected(
                Code::DeadlineExceeded,
                "VIEW_BEHIND",
                error.to_string(),
                [("order", name.clone()), ("version", version.to_string())],
            ),
            Error::TooManyWatchers => {
                status::overloaded("TOO_MANY_WATCHERS", error.to_string(), std::time::Duration::from_secs(1))
            }
            Error::Unreadable { .. } | Error::Rebuild(_) => status::fault("orderview", &error),
            Error::Source(source) => status::fault("ordering's log", source),
            Error::Log(error) => status::of_log(error),
        }
    }
}
