//! The ledger: what the provider decided and did, and the rules it decides by.
//!
//! Invariants, each also a constraint of the schema: refunded <= captured <= authorised; one answer per
//! idempotency key; entries are only ever added. A reference is *not* unique: a client that authorises or
//! captures twice is charged twice, and the ledger shows it.

mod answer;
mod outbox;
mod queries;
mod record;
mod rows;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};
use uuid::Uuid;

pub(crate) use self::answer::{Answer, Refusal, problem};
pub(crate) use self::outbox::Webhook;
use self::rows::{Lookup, decline_code};

use crate::token::{Token, Webhooks};
use crate::wire::{Authorization, Challenge, Kind, Operation, Outcome, Status};

/// A fault of the ledger itself; a refusal of the provider is [`Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("ledger: {0}")]
    Database(#[from] rusqlite::Error),
    /// The file system failed.
    #[error("ledger folder: {0}")]
    Folder(#[from] std::io::Error),
    /// Another process holds the ledger.
    #[error("another process holds the ledger {0}")]
    Locked(String),
    /// A stored value is none that this program writes.
    #[error("ledger: stored value {0:?} is damaged")]
    Damaged(String),
    /// The change was rolled back with others; it may be asked for again.
    #[error("the change was rolled back")]
    RolledBack,
    /// The writer has ended, so nothing can be recorded any more.
    #[error("the ledger has stopped")]
    Stopped,
}

/// What a client asks to be done, already validated.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Authorize {
        reference: String,
        amount: i64,
        currency: String,
        token: Token,
        metadata: String,
        /// The address of the provider, for the challenge.
        base: String,
    },
    Capture {
        authorization: String,
        amount: i64,
        reference: String,
    },
    Void {
        authorization: String,
        reference: String,
    },
    RefundAuthorization {
        authorization: String,
        amount: i64,
        reference: String,
    },
    RefundCapture {
        capture: String,
        amount: i64,
        reference: String,
    },
}

/// A request with the key that makes it safe to repeat.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) key: String,
    pub(crate) fingerprint: [u8; 32],
    pub(crate) action: Action,
}

/// What a change is made under.
#[derive(Clone, Copy)]
struct Occasion<'a> {
    key: &'a str,
    telling: Telling,
    now: Timestamp,
}

/// How the ledger tells of changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Telling {
    pub(crate) policy: Webhooks,
    pub(crate) late: Duration,
}

/// One connection to the ledger.
pub(crate) struct Ledger {
    connection: Connection,
}

/// An outcome of a decision, before it is kept under its key.
struct Decided {
    status: u16,
    body: String,
    event: Option<Queued>,
}

struct Queued {
    id: String,
    first: bool,
}

impl Ledger {
    /// Opens the ledger, creating it when absent; every commit is on disk before it returns.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        if synchronous < 2 {
            return Err(Error::Damaged(format!("synchronous = {synchronous}")));
        }
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch(include_str!("schema.sql"))?;
        Ok(Self { connection })
    }

    /// Starts the transaction that the following changes share.
    pub(crate) fn begin(&self) -> Result<(), Error> {
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Makes the changes durable.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    /// Forgets the changes; harmless when the database has already done so.
    pub(crate) fn rollback(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "ledger: rollback failed");
        }
    }

    /// Answers a request: the stored answer for a known key, a decision otherwise.
    pub(crate) fn perform(&self, command: &Command, telling: Telling, now: Timestamp) -> Result<Answer, Error> {
        if let Some((fingerprint, status, body)) = self.stored_answer(&command.key)? {
            return Ok(if fingerprint == command.fingerprint {
                Answer { replayed: true, ..Answer::new(status, body) }
            } else {
                Answer::refused(&Refusal::KeyReused)
            });
        }
        if let Action::Authorize { token: Token::FailsOnce, .. } = command.action
            && self.first_failure(&command.key)?
        {
            return Ok(Answer::problem(500, "internal", "the provider failed; try again with the same key"));
        }
        let occasion = Occasion { key: &command.key, telling, now };
        let decided = match self.decide(command, occasion)? {
            Ok(decided) => decided,
            // Not kept: what is not found now may exist when the client tries again.
            Err(refusal @ Refusal::NotFound(_)) => return Ok(Answer::refused(&refusal)),
            Err(refusal) => {
                Decided { status: refusal.status(), body: problem(refusal.code(), &refusal.to_string()), event: None }
            }
        };
        self.connection
            .prepare_cached("INSERT INTO answers (idempotency_key, fingerprint, status, body) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![command.key, command.fingerprint.as_slice(), decided.status, decided.body])?;
        let told = decided.event.is_some();
        Ok(Answer {
            deliver_first: decided.event.filter(|event| event.first).map(|event| event.id),
            told,
            ..Answer::new(decided.status, decided.body)
        })
    }

    /// Finishes a challenge; finishing it again the same way changes nothing.
    pub(crate) fn complete(
        &self,
        challenge: &str,
        outcome: Outcome,
        telling: Telling,
        now: Timestamp,
    ) -> Result<Answer, Error> {
        let Some((mut authorization, token)) = self.authorization_where(Lookup::Challenge, challenge)? else {
            return Ok(Answer::refused(&Refusal::NotFound("challenge")));
        };
        let wanted = match outcome {
            Outcome::Approve => Status::Authorized,
            Outcome::Decline => Status::Declined,
        };
        if authorization.status == wanted {
            return Ok(Answer::new(200, json(&authorization)));
        }
        if authorization.status != Status::RequiresAction {
            return Ok(Answer::refused(&Refusal::ChallengeClosed));
        }
        self.set_status(&mut authorization, wanted, now)?;
        let operation = Operation {
            id: identifier("chd"),
            object: Kind::Challenge,
            authorization: authorization.id.clone(),
            capture: None,
            reference: authorization.reference.clone(),
            status: wanted.as_str().to_owned(),
            amount: authorization.amount,
            currency: authorization.currency.clone(),
            create_time: now,
        };
        self.add_entry(&operation, challenge)?;
        let event = self.tell(
            token,
            event_of(wanted),
            &authorization,
            Some(&operation),
            Occasion { key: challenge, telling, now },
        )?;
        Ok(Answer { told: event.is_some(), ..Answer::new(200, json(&authorization)) })
    }

    fn decide(&self, command: &Command, occasion: Occasion<'_>) -> Result<Result<Decided, Refusal>, Error> {
        match &command.action {
            Action::Authorize { reference, amount, currency, token, metadata, base } => {
                let status = match token {
                    Token::Declined => Status::Declined,
                    Token::RequiresAction => Status::RequiresAction,
                    Token::Ok
                    | Token::AnswerLost
                    | Token::FailsOnce
                    | Token::Slow
                    | Token::Never
                    | Token::WebhookFirst
                    | Token::WebhookTwice
                    | Token::WebhookLate
                    | Token::WebhookNever => Status::Authorized,
                };
                let challenge = (status == Status::RequiresAction).then(|| {
                    let id = identifier("chl");
                    let url = format!("{base}/challenges/{id}");
                    Challenge { id, url }
                });
                let authorization = Authorization {
                    id: identifier("auth"),
                    object: "authorization",
                    reference: reference.clone(),
                    status,
                    amount: *amount,
                    currency: currency.clone(),
                    captured_amount: 0,
                    refunded_amount: 0,
                    decline_code: decline_code(status),
                    challenge,
                    metadata: serde_json::from_str(metadata).map_err(|_| Error::Damaged(metadata.clone()))?,
                    create_time: occasion.now,
                    update_time: occasion.now,
                };
                self.add_authorization(&authorization, *token, metadata, occasion.key)?;
                let event = self.tell(*token, event_of(status), &authorization, None, occasion)?;
                Ok(Ok(Decided { status: 200, body: json(&authorization), event }))
            }
            Action::Capture { authorization, amount, reference } => {
                let Some((mut authorization, token)) = self.authorization_where(Lookup::Id, authorization)? else {
                    return Ok(Err(Refusal::NotFound("authorization")));
                };
                if let Err(refusal) = may_capture(&authorization, *amount) {
                    return Ok(Err(refusal));
                }
                authorization.captured_amount += amount;
                let made = Made::new(Kind::Capture, "cap", *amount, reference, None);
                self.record(&mut authorization, token, &made, "capture.succeeded", occasion).map(Ok)
            }
            Action::Void { authorization, reference } => {
                let Some((mut authorization, token)) = self.authorization_where(Lookup::Id, authorization)? else {
                    return Ok(Err(Refusal::NotFound("authorization")));
                };
                if let Err(refusal) = may_void(&authorization) {
                    return Ok(Err(refusal));
                }
                self.set_status(&mut authorization, Status::Voided, occasion.now)?;
                let made = Made::new(Kind::Void, "void", authorization.amount, reference, None);
                self.record(&mut authorization, token, &made, "authorization.voided", occasion).map(Ok)
            }
            Action::RefundAuthorization { authorization, amount, reference } => {
                let Some((mut authorization, token)) = self.authorization_where(Lookup::Id, authorization)? else {
                    return Ok(Err(Refusal::NotFound("authorization")));
                };
                if let Err(refusal) = may_refund(&authorization, *amount) {
                    return Ok(Err(refusal));
                }
                authorization.refunded_amount += amount;
                let made = Made::new(Kind::Refund, "ref", *amount, reference, None);
                self.record(&mut authorization, token, &made, "refund.succeeded", occasion).map(Ok)
            }
            Action::RefundCapture { capture, amount, reference } => {
                let Some((parent, captured)) = self.capture(capture)? else {
                    return Ok(Err(Refusal::NotFound("capture")));
                };
                let Some((mut authorization, token)) = self.authorization_where(Lookup::Id, &parent)? else {
                    return Ok(Err(Refusal::NotFound("authorization")));
                };
                let left = captured - self.refunded_of(&parent, capture)?;
                if *amount > left {
                    return Ok(Err(Refusal::AmountTooLarge(left)));
                }
                if let Err(refusal) = may_refund(&authorization, *amount) {
                    return Ok(Err(refusal));
                }
                authorization.refunded_amount += amount;
                let made = Made::new(Kind::Refund, "ref", *amount, reference, Some(capture));
                self.record(&mut authorization, token, &made, "refund.succeeded", occasion).map(Ok)
            }
        }
    }

    /// Writes a capture, void or refund: the new totals, the entry, the event.
    fn record(
        &self,
        authorization: &mut Authorization,
        token: Token,
        made: &Made<'_>,
        event: &'static str,
        occasion: Occasion<'_>,
    ) -> Result<Decided, Error> {
        let now = occasion.now;
        authorization.update_time = now;
        self.connection
            .prepare_cached("UPDATE authorizations SET captured = ?2, refunded = ?3, update_time = ?4 WHERE id = ?1")?
            .execute(params![
                authorization.id,
                authorization.captured_amount,
                authorization.refunded_amount,
                now.as_microsecond()
            ])?;
        let operation = Operation {
            id: identifier(made.prefix),
            object: made.kind,
            authorization: authorization.id.clone(),
            capture: made.capture.map(str::to_owned),
            reference: made.reference.to_owned(),
            status: "succeeded".to_owned(),
            amount: made.amount,
            currency: authorization.currency.clone(),
            create_time: now,
        };
        self.add_entry(&operation, occasion.key)?;
        let event = self.tell(token, event, authorization, Some(&operation), occasion)?;
        Ok(Decided { status: 200, body: json(&operation), event })
    }
}

fn may_capture(authorization: &Authorization, amount: i64) -> Result<(), Refusal> {
    let left = authorization.amount - authorization.captured_amount;
    match authorization.status {
        Status::RequiresAction | Status::Declined | Status::Voided => {
            Err(Refusal::WrongStatus(authorization.status.as_str()))
        }
        Status::Authorized if left == 0 => Err(Refusal::AlreadyCaptured),
        Status::Authorized if amount > left => Err(Refusal::AmountTooLarge(left)),
        Status::Authorized => Ok(()),
    }
}

fn may_void(authorization: &Authorization) -> Result<(), Refusal> {
    match authorization.status {
        Status::Declined | Status::Voided => Err(Refusal::WrongStatus(authorization.status.as_str())),
        Status::Authorized if authorization.captured_amount > 0 => Err(Refusal::AuthorizationCaptured),
        Status::Authorized | Status::RequiresAction => Ok(()),
    }
}

fn may_refund(authorization: &Authorization, amount: i64) -> Result<(), Refusal> {
    let left = authorization.captured_amount - authorization.refunded_amount;
    if amount > left {
        return Err(Refusal::AmountTooLarge(left));
    }
    Ok(())
}

/// A capture, void or refund about to be written.
struct Made<'a> {
    kind: Kind,
    prefix: &'static str,
    amount: i64,
    reference: &'a str,
    capture: Option<&'a str>,
}

impl<'a> Made<'a> {
    fn new(kind: Kind, prefix: &'static str, amount: i64, reference: &'a str, capture: Option<&'a str>) -> Self {
        Self { kind, prefix, amount, reference, capture }
    }
}

fn identifier(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}

/// The JSON of one of our own shapes, none of which can fail to serialise.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn event_of(status: Status) -> &'static str {
    match status {
        Status::RequiresAction => "authorization.requires_action",
        Status::Authorized => "authorization.authorized",
        Status::Declined => "authorization.declined",
        Status::Voided => "authorization.voided",
    }
}
