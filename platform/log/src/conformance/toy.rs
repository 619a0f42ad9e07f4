//! A toy service for conformance suites: accounts with an owner's name, which is personal, and a
//! balance that never falls below zero.

use std::sync::Arc;

use contract::{DecodeEventError, EventSet};
use prost::Message;
use store::{Store, Tx, params};

use crate::{Aggregate, At, Error, LocalBoxFuture, Log, Projection, Refusable, Refusal};

/// An account was opened.
#[derive(Clone, PartialEq, Message)]
pub struct Opened {
    /// Personal.
    #[prost(string, tag = "1")]
    pub owner: String,
}

/// Money went in, or out where negative.
#[derive(Clone, PartialEq, Message)]
pub struct Moved {
    /// In minor units.
    #[prost(int64, tag = "1")]
    pub amount: i64,
}

/// The events of the toy service.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// See [`Opened`].
    Opened(Opened),
    /// See [`Moved`].
    Moved(Moved),
}

/// An account opened by `owner`.
pub fn opened(owner: &str) -> Event {
    Event::Opened(Opened { owner: owner.to_owned() })
}

/// Money moved.
pub fn moved(amount: i64) -> Event {
    Event::Moved(Moved { amount })
}

const OPENED: &str = "stoa.toy.v1.Opened";
const MOVED: &str = "stoa.toy.v1.Moved";

impl EventSet for Event {
    const SERVICE: &'static str = "toy";

    fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => OPENED,
            Self::Moved(_) => MOVED,
        }
    }

    fn schema(&self) -> u32 {
        1
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Opened(event) => event.encode_to_vec(),
            Self::Moved(event) => event.encode_to_vec(),
        }
    }

    fn decode(name: &str, _schema: u32, bytes: &[u8]) -> Result<Self, DecodeEventError> {
        let malformed =
            |name| move |error: prost::DecodeError| DecodeEventError::Malformed { name, reason: error.to_string() };
        match name {
            OPENED => Opened::decode(bytes).map(Self::Opened).map_err(malformed(OPENED)),
            MOVED => Moved::decode(bytes).map(Self::Moved).map_err(malformed(MOVED)),
            other => Err(DecodeEventError::UnknownName { service: "toy", name: other.to_owned() }),
        }
    }

    fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut String)) {
        match self {
            Self::Opened(event) => visit(&mut event.owner),
            Self::Moved(_) => {}
        }
    }
}

/// The rows of the toy service.
#[derive(Debug)]
pub struct Accounts;

impl Projection<Event> for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["toy_accounts", "toy_entries"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a Event,
    ) -> LocalBoxFuture<'a, Result<(), store::Error>> {
        Box::pin(async move {
            match event {
                Event::Opened(opened) => {
                    let subject = at.subject.clone().unwrap_or_default();
                    tx.execute(
                        "INSERT INTO toy_accounts (name, subject, owner, balance, version)
                         VALUES ($1, $2, $3, 0, $4)",
                        params![&at.stream, subject, &opened.owner, at.version],
                    )
                    .await?;
                }
                Event::Moved(moved) => {
                    tx.execute(
                        "UPDATE toy_accounts SET balance = balance + $2, version = $3
                         WHERE name = $1",
                        params![&at.stream, moved.amount, at.version],
                    )
                    .await?;
                    tx.execute(
                        "INSERT INTO toy_entries (account, version, amount, occur_time)
                         VALUES ($1, $2, $3, $4)",
                        params![&at.stream, at.version, moved.amount, at.occur_time],
                    )
                    .await?;
                }
            }
            Ok(())
        })
    }
}

/// What all accounts hold together: one row of every stream.
#[derive(Debug)]
pub struct Fund;

impl Projection<Event> for Fund {
    fn name(&self) -> &'static str {
        "fund"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["toy_fund"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        _at: &'a At,
        event: &'a Event,
    ) -> LocalBoxFuture<'a, Result<(), store::Error>> {
        Box::pin(async move {
            let Event::Moved(moved) = event else { return Ok(()) };
            if tx.execute("UPDATE toy_fund SET total = total + $1", params![moved.amount]).await? == 0 {
                tx.execute("INSERT INTO toy_fund (id, total) VALUES (1, $1)", params![moved.amount]).await?;
            }
            Ok(())
        })
    }
}

/// The log of the toy service over a store made for the suite.
pub fn log(store: Store) -> Log<Event> {
    Log::new(store, vec![Arc::new(Accounts)])
}

/// An account as the fold of its stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Whether it was opened.
    pub open: bool,
    /// In minor units.
    pub balance: i64,
}

/// What may be asked of an account.
#[derive(Debug, Clone)]
pub enum Command {
    /// Open it.
    Open {
        /// By whom.
        owner: String,
    },
    /// Put in or take out.
    Move {
        /// In minor units.
        amount: i64,
    },
}

/// Why an account says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// It is not open.
    NotOpen,
    /// There is not enough in it.
    TooLittle,
}

impl Aggregate for Account {
    type Stored = Event;
    type Event = Event;
    type Command = Command;
    type Rejection = Rejection;

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Open { .. } if self.open => Ok(Vec::new()),
            Command::Open { owner } => Ok(vec![opened(owner)]),
            Command::Move { .. } if !self.open => Err(Rejection::NotOpen),
            Command::Move { amount } if self.balance + amount < 0 => Err(Rejection::TooLittle),
            Command::Move { amount } => Ok(vec![moved(*amount)]),
        }
    }

    fn evolve(self, event: &Event) -> Self {
        match event {
            Event::Opened(_) => Self { open: true, ..self },
            Event::Moved(moved) => Self { balance: self.balance + moved.amount, ..self },
        }
    }

    fn to_stored(event: &Event) -> Event {
        event.clone()
    }

    fn from_stored(stored: Event) -> Result<Event, String> {
        Ok(stored)
    }
}

/// The error of the toy service.
#[derive(Debug)]
pub enum Failure {
    /// The domain said no.
    Rejected(Rejection),
    /// The domain said no, some time ago.
    Replayed(Refusal),
    /// The world failed.
    Fault(Error),
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Fault(error.into())
    }
}

impl Refusable for Failure {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Rejected(rejection) => {
                Some(Refusal { code: 9, message: format!("{rejection:?}"), details: b"details".to_vec() })
            }
            Self::Replayed(refusal) => Some(refusal.clone()),
            Self::Fault(_) => None,
        }
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Replayed(refusal)
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Rejected(_) | Self::Replayed(_) => false,
            Self::Fault(error) => error.is_conflict(),
        }
    }
}

/// A request of a toy method.
pub fn request(principal: &str, key: &str, body: &str) -> crate::Request {
    crate::Request::new(principal, "/stoa.toy.v1.Toy/Move", key, body.as_bytes())
}

/// Appends in a transaction of its own at whatever version the stream has.
pub async fn append(log: &Log<Event>, stream: &str, subject: Option<&str>, events: Vec<Event>) -> Result<u64, Error> {
    let (writer, stream) = (log.clone(), stream.to_owned());
    let subject = subject.map(str::to_owned);
    log.store()
        .write(store::Site::named("toy.append"), async move |tx: &mut Tx| {
            let meta = meta();
            writer.append_next(tx, &stream, &meta, subject.as_deref(), events.clone()).await
        })
        .await
}

/// The name of an event that only a newer release of the toy service has: an account has another owner.
pub const RENAMED: &str = "stoa.toy.v1.Renamed";

/// As a newer release appends: an event of this name, with a sealed text, and a field behind it that this one does not know.
pub async fn append_newer(log: &Log<Event>, stream: &str, subject: &str, name: &'static str, owner: &str) {
    let (stream, subject, owner) = (stream.to_owned(), subject.to_owned(), owner.to_owned());
    let appended: Result<(), Error> = log
        .store()
        .write(store::Site::named("toy.append_newer"), async move |tx: &mut Tx| {
            tx.take_stream(&stream).await?;
            let owner = crate::personal::seal_text(tx, &subject, &owner).await?;
            let mut payload = Opened { owner }.encode_to_vec();
            payload.extend_from_slice(BEYOND);
            let meta = meta();
            let version = tx.version(&stream).await? + 1;
            tx.append(store::NewEvent {
                stream: stream.clone(),
                version,
                name,
                schema: 1,
                payload,
                subject: Some(subject.clone()),
                causation: meta.causation,
                correlation: meta.correlation,
                traceparent: meta.traceparent,
            });
            Ok(())
        })
        .await;
    appended.expect("append");
}

/// A field with number 15 and the text `new`.
pub const BEYOND: &[u8] = b"\x7a\x03new";

/// The cause of everything here.
pub fn meta() -> crate::Meta {
    crate::Meta {
        causation: "requests/1".to_owned(),
        correlation: "correlation-1".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    }
}

/// Every row of the derived tables, in the order of their keys.
pub async fn rows(store: &Store) -> Vec<store::Row> {
    store
        .read(async |tx: &mut Tx| {
            let mut rows = tx.query("SELECT * FROM toy_accounts ORDER BY name", params![]).await?;
            let entries = "SELECT * FROM toy_entries ORDER BY account, version";
            rows.extend(tx.query(entries, params![]).await?);
            Ok::<_, Error>(rows)
        })
        .await
        .expect("the derived tables can be read")
}

/// Runs one statement in a transaction of its own.
pub async fn execute(store: &Store, sql: &'static str) {
    store
        .write(store::Site::named("toy.execute"), async move |tx: &mut Tx| tx.execute(sql, params![]).await)
        .await
        .map(drop)
        .unwrap_or_else(|error: store::Error| panic!("{sql}: {error}"));
}
