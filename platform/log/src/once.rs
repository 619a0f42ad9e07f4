//! Request ids: one effect and one answer per (principal, method, key).
//!
//! The first statement of the transaction claims the key; the effect and the answer commit with it.
//! So there is no moment at which an effect exists without its key, or a key without its answer. A
//! concurrent duplicate waits for the first (SQLite has one writer, PostgreSQL makes the second
//! insert wait for the first transaction) and then finds the stored answer.
//!
//! A commit whose outcome was lost with the connection is looked up by running again under the same key.
//!
//! Kept: the reply, or the refusal (the domain said no; its effects are rolled back to where the
//! key was claimed). Not kept: faults. They roll the claim back, and the retry starts afresh.

use std::time::Duration;

use contract::Guard;
use prost::Message;
use store::{Site, Store, Tx, params};
use tokio::time::Instant;

use crate::{Error, backoff};

/// How long an answer is kept for repeats.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// One claim in so many drops old answers, [`PURGED`] at most: more than come in between, so that none outstays its time for
/// long where requests come, and nothing grows where they do not.
const PURGING: u8 = 128;
const PURGED: u32 = 512;

/// How often a body runs again after a version conflict before the conflict is the caller's.
pub const CONFLICT_ATTEMPTS: u32 = 8;

/// The identity of a request with effects: who, which method, which key, and what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks: `users/..`, `guests/..` or a service's name.
    pub principal: String,
    /// The full method path.
    pub method: &'static str,
    /// The request id the caller chose.
    pub key: String,
    /// A digest of the request without its id: another body under the same key is refused.
    pub fingerprint: [u8; 32],
}

impl Request {
    /// A request whose fingerprint is the BLAKE3 digest of `body`, the encoded request message with
    /// its request id cleared.
    pub fn new(principal: impl Into<String>, method: &'static str, key: impl Into<String>, body: &[u8]) -> Self {
        Self { principal: principal.into(), method, key: key.into(), fingerprint: *blake3::hash(body).as_bytes() }
    }

    /// The error that answers this request when its key was used for another.
    pub fn reused(&self) -> Error {
        Error::RequestIdReused { method: self.method.to_owned(), key: self.key.clone() }
    }

    /// The reply that was stored for this request.
    pub fn reply<Reply: Message + Default>(&self, body: &[u8]) -> Result<Reply, Error> {
        Reply::decode(body)
            .map_err(|error| Error::StoredReply { method: self.method.to_owned(), detail: error.to_string() })
    }

    /// True for the one claim in [`PURGING`] that drops old answers.
    pub(crate) fn purges(&self) -> bool {
        self.fingerprint[0].is_multiple_of(PURGING)
    }
}

/// What the domain answered when it said no, as it is stored for repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: i32,
    /// The status message.
    pub message: String,
    /// The encoded `google.rpc.Status`, with its details.
    pub details: Vec<u8>,
}

/// An error of a service, as far as request ids must know it.
pub trait Refusable: Sized {
    /// The refusal to store, when this is a deterministic no of the domain; nothing for a fault.
    fn refusal(&self) -> Option<Refusal>;
    /// The error that answers a repeat of a refused request.
    fn replayed(refusal: Refusal) -> Self;
    /// True when the body lost a race for a stream's version and is worth running again. A service
    /// that wraps [`Error`] answers with [`Error::is_conflict`].
    fn is_conflict(&self) -> bool {
        false
    }
}

impl Refusable for Error {
    fn refusal(&self) -> Option<Refusal> {
        None
    }

    fn replayed(refusal: Refusal) -> Self {
        Self::Refused { code: refusal.code, message: refusal.message }
    }

    fn is_conflict(&self) -> bool {
        Error::is_conflict(self)
    }
}

/// Runs `body` once per request id; see [`crate::Log::once`].
pub(crate) async fn once<Reply, X, F>(
    store: &Store,
    site: &'static Site,
    request: Option<Request>,
    body: F,
) -> Result<Reply, X>
where
    Reply: Message + Default + 'static,
    X: From<Error> + From<store::Error> + Refusable + Send + 'static,
    F: AsyncFnMut(&mut Tx) -> Result<Reply, X> + Send + 'static,
{
    // The closure travels into the store and comes back only through here, so that a conflict found
    // at COMMIT can run it again.
    let body = std::sync::Arc::new(tokio::sync::Mutex::new(body));
    let mut attempt = 0;
    // Since when nobody knows whether the commit happened.
    let mut in_doubt: Option<Instant> = None;
    loop {
        attempt += 1;
        let (body, request) = (body.clone(), request.clone());
        let identified = request.is_some();
        let outcome: Result<Result<Reply, X>, Lost<X>> = store
            .write(site, async move |tx: &mut Tx| {
                let mut body = body.lock().await;
                let answer = match &request {
                    None => (*body)(tx).await.map(Ok),
                    Some(request) => claimed(tx, request, &mut *body).await,
                };
                answer.map_err(Lost::Body)
            })
            .await;
        let lost = match outcome {
            Ok(answer) => return answer,
            Err(lost) => lost,
        };
        // Under its request id the next attempt finds the answer that was stored, or is the first to have an effect.
        if let Lost::Store(store::Error::InDoubt { detail }) = &lost
            && identified
        {
            tracing::warn!(service = store.name(), site = site.name(), detail, "a commit is in doubt and is looked up");
            in_doubt.get_or_insert_with(Instant::now);
        }
        let busy = matches!(&lost, Lost::Store(store::Error::InDoubt { .. } | store::Error::Busy { .. }));
        let looked_up = identified && busy && in_doubt.is_some_and(|since| since.elapsed() < LOOK_UP);
        let error = lost.into_error();
        let again = looked_up || (error.is_conflict() && attempt < CONFLICT_ATTEMPTS);
        if !again {
            return Err(error);
        }
        let (first, most) = if looked_up { (LOOK_UP_FIRST, LOOK_UP_MOST) } else { (CONFLICT_FIRST, CONFLICT_MOST) };
        tokio::time::sleep(backoff::jittered(attempt, first, most)).await;
    }
}

/// Why a transaction came to nothing, or may have.
enum Lost<X> {
    /// The body said so.
    Body(X),
    /// The store did, before the body ran or after it.
    Store(store::Error),
}

impl<X> From<store::Error> for Lost<X> {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl<X: From<store::Error>> Lost<X> {
    fn into_error(self) -> X {
        match self {
            Self::Body(error) => error,
            Self::Store(error) => error.into(),
        }
    }
}

const CONFLICT_FIRST: Duration = Duration::from_millis(1);
const CONFLICT_MOST: Duration = Duration::from_millis(50);

/// How long a commit in doubt is looked up: long enough for a server to come back.
const LOOK_UP: Duration = Duration::from_secs(10);
const LOOK_UP_FIRST: Duration = Duration::from_millis(50);
const LOOK_UP_MOST: Duration = Duration::from_secs(1);

async fn claimed<Reply, X, F>(tx: &mut Tx, request: &Request, body: &mut F) -> Result<Result<Reply, X>, X>
where
    Reply: Message + Default,
    X: From<Error> + From<store::Error> + Refusable,
    F: AsyncFnMut(&mut Tx) -> Result<Reply, X>,
{
    let now = tx.now();
    let claimed = tx
        .execute(
            "INSERT INTO requests
                 (principal, method, key, fingerprint, state, code, message, body, claim_time)
             VALUES ($1, $2, $3, $4, 'CLAIMED', 0, '', $5, $6)
             ON CONFLICT (principal, method, key) DO NOTHING",
            params![
                request.principal.as_str(),
                request.method,
                request.key.as_str(),
                request.fingerprint.to_vec(),
                Vec::<u8>::new(),
                now
            ],
        )
        .await?;
    if claimed == 0 {
        return replay(tx, request).await;
    }
    if request.purges() {
        purge(tx, PURGED).await?;
    }
    // Behind a savepoint, because a refusal must undo the effects and still commit the claim.
    let answer = tx.savepoint(async |tx: &mut Tx| body(tx).await).await?;
    let (state, code, message, bytes) = match &answer {
        Ok(reply) => ("DONE", 0, String::new(), reply.encode_to_vec()),
        Err(error) => match error.refusal() {
            Some(refusal) => ("REFUSED", i64::from(refusal.code), refusal.message, refusal.details),
            None => return answer.map(Ok),
        },
    };
    tx.execute(
        "UPDATE requests SET state = $4, code = $5, message = $6, body = $7
         WHERE principal = $1 AND method = $2 AND key = $3",
        params![request.principal.as_str(), request.method, request.key.as_str(), state, code, message, bytes],
    )
    .await?;
    Ok(answer)
}

async fn replay<Reply, X>(tx: &mut Tx, request: &Request) -> Result<Result<Reply, X>, X>
where
    Reply: Message + Default,
    X: From<Error> + From<store::Error> + Refusable,
{
    match recall(tx, request).await?.ok_or_else(|| request.reused())? {
        Ok(body) => Ok(Ok(request.reply(&body)?)),
        Err(refusal) => Ok(Err(X::replayed(refusal))),
    }
}

/// What a request was answered with: the encoded reply, or the refusal; nothing if it is not known here. Another body under
/// the same key is an error.
pub async fn recall(tx: &mut Tx, request: &Request) -> Result<Option<Result<Vec<u8>, Refusal>>, Error> {
    let row = tx
        .query_opt(
            "SELECT fingerprint, state, code, message, body FROM requests
             WHERE principal = $1 AND method = $2 AND key = $3",
            params![request.principal.as_str(), request.method, request.key.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.get::<Vec<u8>>("fingerprint")? != request.fingerprint && Guard::RequestBody.stands() {
        return Err(request.reused());
    }
    let body: Vec<u8> = row.get("body")?;
    if row.get::<String>("state")? == "REFUSED" {
        let code = i32::try_from(row.get::<i64>("code")?).unwrap_or(2);
        return Ok(Some(Err(Refusal { code, message: row.get("message")?, details: body })));
    }
    Ok(Some(Ok(body)))
}

/// Keeps an answer that was given at `time` by one who keeps its answers elsewhere at first, beside their effects; call it
/// in the transaction that takes over those effects. An answer that is kept already stays.
pub async fn keep(
    tx: &mut Tx,
    request: &Request,
    time: jiff::Timestamp,
    answer: &Result<Vec<u8>, Refusal>,
) -> Result<(), Error> {
    let (state, code, message, body) = match answer {
        Ok(reply) => ("DONE", 0, "", reply),
        Err(refusal) => ("REFUSED", i64::from(refusal.code), refusal.message.as_str(), &refusal.details),
    };
    tx.execute(
        "INSERT INTO requests (principal, method, key, fingerprint, state, code, message, body, claim_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (principal, method, key) DO NOTHING",
        params![
            request.principal.as_str(),
            request.method,
            request.key.as_str(),
            request.fingerprint.to_vec(),
            state,
            code,
            message,
            body.clone(),
            time
        ],
    )
    .await?;
    Ok(())
}

/// The reply a request was answered with before, for those who answer a repeat without doing its work again; nothing if the
/// request is new, was refused, or is being answered right now. Another body under the same key is an error.
pub async fn find<Reply: Message + Default>(tx: &mut Tx, request: &Request) -> Result<Option<Reply>, Error> {
    let row = tx
        .query_opt(
            "SELECT fingerprint, state, body FROM requests WHERE principal = $1 AND method = $2 AND key = $3",
            params![request.principal.as_str(), request.method, request.key.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.get::<Vec<u8>>("fingerprint")? != request.fingerprint && Guard::RequestBody.stands() {
        return Err(request.reused());
    }
    if row.get::<String>("state")? != "DONE" {
        return Ok(None);
    }
    Ok(Some(request.reply(&row.get::<Vec<u8>>("body")?)?))
}

/// Drops answers older than [`RETENTION`], at most `limit` at a time; returns how many went.
pub async fn purge(tx: &mut Tx, limit: u32) -> Result<u64, Error> {
    let before = tx.now().as_microsecond() - RETENTION.as_micros() as i64;
    let purged = tx
        .execute(
            "DELETE FROM requests WHERE (principal, method, key) IN
                 (SELECT principal, method, key FROM requests
                  WHERE claim_time < $1 ORDER BY claim_time LIMIT $2)",
            params![before, i64::from(limit)],
        )
        .await?;
    Ok(purged)
}

/// A request id that was taken, as it is kept for repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub principal: String,
    /// The full method path.
    pub method: String,
    /// The request id.
    pub key: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The encoded reply of one that was done.
    pub reply: Vec<u8>,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it was claimed. No commit leaves it so.
    #[default]
    Claimed,
    /// It was done.
    Done,
    /// The domain said no.
    Refused,
}

/// The kept answers behind `after` in their order (of principal, method and key), at most `limit`: all of them, page by page,
/// for who looks whether what was answered is still true.
pub async fn answers(tx: &mut Tx, after: &Answer, limit: u32) -> Result<Vec<Answer>, Error> {
    let rows = tx
        .query(
            "SELECT principal, method, key, state, CASE state WHEN 'DONE' THEN body ELSE $5 END AS reply FROM requests
             WHERE (principal, method, key) > ($1, $2, $3) ORDER BY principal, method, key LIMIT $4",
            params![
                after.principal.as_str(),
                after.method.as_str(),
                after.key.as_str(),
                i64::from(limit),
                Vec::<u8>::new()
            ],
        )
        .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Answer {
                principal: row.get("principal")?,
                method: row.get("method")?,
                key: row.get("key")?,
                outcome: match row.get::<String>("state")?.as_str() {
                    "DONE" => Outcome::Done,
                    "REFUSED" => Outcome::Refused,
                    _ => Outcome::Claimed,
                },
                reply: row.get("reply")?,
            })
        })
        .collect()
}
