//! What the provider answers, and why it says no.

use super::json;
use crate::wire::{Problem, ProblemDetail};

/// Why the provider says no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no such {0}")]
    NotFound(&'static str),
    #[error("this idempotency key was used with another request")]
    KeyReused,
    #[error("the authorization is {0}")]
    WrongStatus(&'static str),
    #[error("the authorization is captured in full")]
    AlreadyCaptured,
    #[error("the authorization is captured; refund it")]
    AuthorizationCaptured,
    #[error("the amount is more than the {0} that are left")]
    AmountTooLarge(i64),
    #[error("the challenge was finished with another outcome")]
    ChallengeClosed,
}

/// What is answered, once it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The key had been answered before: this is that answer.
    pub(crate) replayed: bool,
    /// An event that has to be delivered before this answer is given.
    pub(crate) deliver_first: Option<String>,
    /// An event was put into the outbox.
    pub(crate) told: bool,
}

impl Refusal {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Refusal::NotFound(_) => 404,
            Refusal::KeyReused => 409,
            Refusal::WrongStatus(_)
            | Refusal::AlreadyCaptured
            | Refusal::AuthorizationCaptured
            | Refusal::AmountTooLarge(_)
            | Refusal::ChallengeClosed => 422,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Refusal::NotFound(_) => "not_found",
            Refusal::KeyReused => "idempotency_key_reused",
            Refusal::WrongStatus(_) => "wrong_status",
            Refusal::AlreadyCaptured => "already_captured",
            Refusal::AuthorizationCaptured => "authorization_captured",
            Refusal::AmountTooLarge(_) => "amount_too_large",
            Refusal::ChallengeClosed => "challenge_closed",
        }
    }
}

impl Answer {
    pub(super) fn new(status: u16, body: String) -> Self {
        Self { status, body, replayed: false, deliver_first: None, told: false }
    }

    /// An answer that says no.
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        Self::problem(refusal.status(), refusal.code(), &refusal.to_string())
    }

    /// An answer that is no success.
    pub(crate) fn problem(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, problem(code, message))
    }
}

/// The JSON of an error.
pub(crate) fn problem(code: &str, message: &str) -> String {
    json(&Problem { error: ProblemDetail { code, message } })
}
