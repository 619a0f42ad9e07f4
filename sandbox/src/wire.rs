//! The JSON of the provider's interface: what is read, what is answered, what a webhook carries.
//!
//! Amounts are integers in minor units; times are RFC 3339.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `POST /v1/authorizations`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuthorizeBody {
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) token: String,
    pub(crate) reference: String,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// `POST .../capture` and `POST .../refund`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveBody {
    pub(crate) amount: i64,
    pub(crate) reference: String,
}

/// `POST .../void`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VoidBody {
    #[serde(default)]
    pub(crate) reference: String,
}

/// `POST /challenges/{id}:complete`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteBody {
    pub(crate) outcome: Outcome,
}

/// What the customer did at the challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Approve,
    Decline,
}

/// `PUT /webhook_endpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) secret: String,
}

/// Where an authorisation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    RequiresAction,
    Authorized,
    Declined,
    Voided,
}

/// An authorisation, as every answer shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Authorization {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) reference: String,
    pub(crate) status: Status,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) captured_amount: i64,
    pub(crate) refunded_amount: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decline_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) challenge: Option<Challenge>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

/// Where the customer finishes a payment that requires action.
#[derive(Debug, Serialize)]
pub(crate) struct Challenge {
    pub(crate) id: String,
    pub(crate) url: String,
}

/// A capture, void or refund, as it is answered and listed.
#[derive(Debug, Serialize)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) object: Kind,
    pub(crate) authorization: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capture: Option<String>,
    pub(crate) reference: String,
    pub(crate) status: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) create_time: Timestamp,
}

/// What an entry of the ledger records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Authorization,
    Challenge,
    Capture,
    Void,
    Refund,
}

/// An authorisation with all that was done to it: the answer of a query.
#[derive(Debug, Serialize)]
pub(crate) struct History {
    #[serde(flatten)]
    pub(crate) authorization: Authorization,
    pub(crate) captures: Vec<Operation>,
    pub(crate) voids: Vec<Operation>,
    pub(crate) refunds: Vec<Operation>,
}

/// The answer of a query by reference, oldest first.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    pub(crate) authorizations: Vec<History>,
}

/// One line of `GET /ledger`.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) seq: i64,
    pub(crate) kind: Kind,
    pub(crate) id: String,
    pub(crate) authorization: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capture: Option<String>,
    pub(crate) reference: String,
    pub(crate) authorization_reference: String,
    pub(crate) idempotency_key: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    /// The outcome when the entry was written.
    pub(crate) status: String,
    /// Where the authorisation stands now.
    pub(crate) authorization_status: Status,
    pub(crate) token: String,
    pub(crate) create_time: Timestamp,
}

/// `GET /ledger/summary`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) entries: i64,
    pub(crate) authorizations: Counts,
    pub(crate) captures: i64,
    pub(crate) voids: i64,
    pub(crate) refunds: i64,
    pub(crate) webhooks_pending: i64,
    /// References that hold more than one authorisation in status `authorized`.
    pub(crate) references_authorized_twice: i64,
    pub(crate) currencies: BTreeMap<String, Sums>,
}

/// Authorisations by their present status.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) total: i64,
    pub(crate) requires_action: i64,
    pub(crate) authorized: i64,
    pub(crate) declined: i64,
    pub(crate) voided: i64,
}

/// Sums of one currency; `authorized` counts what is authorised now, captured or not.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Sums {
    pub(crate) authorized_amount: i64,
    pub(crate) voided_amount: i64,
    pub(crate) captured_amount: i64,
    pub(crate) refunded_amount: i64,
}

/// The body of a webhook.
#[derive(Debug, Serialize)]
pub(crate) struct Event<'a> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) create_time: Timestamp,
    pub(crate) authorization: &'a Authorization,
    /// The capture, void or refund that changed it, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<&'a Operation>,
}

/// The body of every answer that is not a success.
#[derive(Debug, Serialize)]
pub(crate) struct Problem<'a> {
    pub(crate) error: ProblemDetail<'a>,
}

/// A stable code for programs and a sentence for people.
#[derive(Debug, Serialize)]
pub(crate) struct ProblemDetail<'a> {
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::RequiresAction => "requires_action",
            Status::Authorized => "authorized",
            Status::Declined => "declined",
            Status::Voided => "voided",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Status::RequiresAction, Status::Authorized, Status::Declined, Status::Voided]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Authorization => "authorization",
            Kind::Challenge => "challenge",
            Kind::Capture => "capture",
            Kind::Void => "void",
            Kind::Refund => "refund",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Kind::Authorization, Kind::Challenge, Kind::Capture, Kind::Void, Kind::Refund]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}
