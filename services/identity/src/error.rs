//! Where a rejection and a fault meet: the one place that makes a `Status`.

use std::time::Duration;

use log::{Refusable, Refusal};
use server::status;
use tonic::{Code, Status};

use crate::password;

/// Why the domain says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    /// There is no such thing, or none the caller may know of.
    #[error("{0} does not exist")]
    Missing(String),
    /// Somebody has the address already.
    #[error("the e-mail address belongs to another user")]
    EmailTaken,
    /// Address and password do not fit, or the token was never one.
    #[error("the credentials are not valid")]
    Credentials,
    /// The session was ended.
    #[error("the session was ended; sign in again")]
    SessionRevoked,
    /// The session was not refreshed in time.
    #[error("the session has expired; sign in again")]
    SessionExpired,
    /// A new key is published already and does not sign yet.
    #[error("a new signing key is published already and waits for its time")]
    RotationPending,
}

/// Why a call of this service fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The domain said no.
    #[error(transparent)]
    Rejected(Rejected),
    /// Too many sign-ins have failed.
    #[error("too many failed sign-ins")]
    Limited {
        /// When the next one is looked at.
        wait: Duration,
    },
    /// The same request was refused before.
    #[error("refused before")]
    Replayed(Refusal),
    /// A password could not be hashed.
    #[error(transparent)]
    Password(#[from] password::Error),
    /// No token could be signed.
    #[error(transparent)]
    Signing(#[from] auth::Error),
    /// No key signs at this time.
    #[error("there is no signing key")]
    NoSigningKey,
    /// The log or the store failed.
    #[error(transparent)]
    Log(#[from] log::Error),
}

/// A no of the domain, opaque outside.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Rejected(#[from] pub(crate) Rejection);

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(Rejected(rejection))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Log(error.into())
    }
}

impl Refusable for Error {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Rejected(rejected) => Some(status::refusal_of(&rejected.status())),
            Self::Limited { .. }
            | Self::Replayed(_)
            | Self::Password(_)
            | Self::Signing(_)
            | Self::NoSigningKey
            | Self::Log(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Log(error) => error.is_conflict(),
            Self::Rejected(_)
            | Self::Limited { .. }
            | Self::Replayed(_)
            | Self::Password(_)
            | Self::Signing(_)
            | Self::NoSigningKey => false,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(rejected) => rejected.status(),
            Error::Limited { wait } => {
                status::overloaded("TOO_MANY_ATTEMPTS", "too many failed sign-ins; try again later", wait)
            }
            Error::Replayed(refusal) => status::status_of(refusal),
            Error::Password(password::Error::Busy) => {
                status::overloaded("OVERLOADED", "too many passwords are being checked", Duration::from_millis(500))
            }
            Error::Password(ref error @ (password::Error::Parameters(_) | password::Error::Failed(_))) => {
                status::fault("password", error)
            }
            Error::Signing(ref error) => status::fault("signing", error),
            Error::NoSigningKey => status::fault("signing", &error),
            Error::Log(ref error) => status::of_log(error),
        }
    }
}

impl Rejected {
    fn status(&self) -> Status {
        let message = self.0.to_string();
        match &self.0 {
            Rejection::Missing(name) => status::not_found(name),
            Rejection::EmailTaken => status::rejected(Code::AlreadyExists, "EMAIL_TAKEN", message, []),
            Rejection::Credentials => status::rejected(Code::Unauthenticated, "INVALID_CREDENTIALS", message, []),
            Rejection::SessionRevoked => status::rejected(Code::Unauthenticated, "SESSION_REVOKED", message, []),
            Rejection::SessionExpired => status::rejected(Code::Unauthenticated, "SESSION_EXPIRED", message, []),
            Rejection::RotationPending => status::failed_precondition("ROTATION_PENDING", message, []),
        }
    }
}
