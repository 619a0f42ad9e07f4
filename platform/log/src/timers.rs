//! Timers: rows `(kind, key, due, expected version)`, set in the transaction that wants to be
//! reminded, fired in one transaction with their effect.
//!
//! A timer is a reminder, not a command: when it fires, the thing it was set for is looked at, and a
//! timer whose expected version is no longer that thing's version does nothing. A firing that fails
//! is tried again later; so *at least once*, and once in effect, because row and effect go together.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use store::{Row, Site, Store, Tx, params};
use tokio::time::MissedTickBehavior;

use crate::{Error, LocalBoxFuture, backoff};

/// A set timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// Which handler it is for.
    pub kind: String,
    /// What it is about; usually a stream.
    pub key: String,
    /// When it fires.
    pub due: Timestamp,
    /// The version at which it was set.
    pub expected_version: u64,
    /// Whatever the handler wants to know.
    pub payload: Vec<u8>,
    /// How often it failed.
    pub attempts: u64,
}

/// Sets the timer `(kind, key)`, in place of one set at the same or an earlier version.
pub async fn schedule(
    tx: &mut Tx,
    kind: &str,
    key: &str,
    due: Timestamp,
    expected_version: u64,
    payload: Vec<u8>,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO timers (kind, key, due, expected_version, payload, attempts, last_error)
         VALUES ($1, $2, $3, $4, $5, 0, '')
         ON CONFLICT (kind, key) DO UPDATE
         SET due = excluded.due, expected_version = excluded.expected_version,
             payload = excluded.payload, attempts = 0, last_error = ''
         WHERE timers.expected_version <= excluded.expected_version",
        params![kind, key, due, expected_version, payload],
    )
    .await?;
    Ok(())
}

/// Removes a timer; nothing happens when it is not set.
pub async fn cancel(tx: &mut Tx, kind: &str, key: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM timers WHERE kind = $1 AND key = $2", params![kind, key]).await?;
    Ok(())
}

/// The timers in order of time: those due until `until`, at most `limit`.
pub async fn due(tx: &mut Tx, until: Timestamp, limit: u32) -> Result<Vec<Timer>, Error> {
    tx.query(
        "SELECT kind, key, due, expected_version, payload, attempts FROM timers
         WHERE due <= $1 ORDER BY due, kind, key LIMIT $2",
        params![until, i64::from(limit)],
    )
    .await?
    .iter()
    .map(timer)
    .collect()
}

/// What a kind of timer does.
pub trait Handler: Send + Sync + 'static {
    /// The kind it handles.
    fn kind(&self) -> &'static str;

    /// The present version of what the timer is about; by default the version of the stream `key`.
    fn version<'a>(&'a self, tx: &'a mut Tx, timer: &'a Timer) -> LocalBoxFuture<'a, Result<u64, Error>> {
        Box::pin(crate::journal::version(tx, &timer.key))
    }

    /// The effect, on `tx` alone. An error is a fault: nothing of it stays and it is tried again.
    fn fire<'a>(&'a self, tx: &'a mut Tx, timer: &'a Timer) -> LocalBoxFuture<'a, Result<(), Error>>;
}

/// Fires due timers of one store.
#[derive(Clone)]
pub struct Runner {
    store: Store,
    site: &'static Site,
    handlers: Arc<[Box<dyn Handler>]>,
}

/// How many timers are fired from one look at the table.
const BATCH: u32 = 64;
/// How often the table is looked at when no commit says so.
const POLL: Duration = Duration::from_secs(1);
/// How long to gather commits before looking, so that a busy log does not mean a busy timer.
const GATHER: Duration = Duration::from_millis(10);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(60);

impl Runner {
    /// A runner; `site` names its commits as crash points. A timer whose kind nobody handles stays.
    pub fn new(store: Store, site: &'static Site, handlers: Vec<Box<dyn Handler>>) -> Self {
        Self { store, site, handlers: handlers.into() }
    }

    /// Fires timers until `shutdown`. Woken by commits (a timer may have been set) and by the time
    /// of the next timer; a slow poll is the fallback.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut head = self.store.head();
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            head.borrow_and_update();
            let next = match self.run_due().await {
                Ok(next) => next,
                Err(Error::Store(store::Error::Stopped { .. })) => return,
                Err(error) => {
                    tracing::warn!(%error, "timers could not be read; trying again");
                    None
                }
            };
            let sleep = self.until(next);
            tokio::select! {
                () = &mut shutdown => return,
                () = sleep => {}
                _ = poll.tick() => {}
                changed = head.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                }
            }
        }
    }

    /// Fires everything that is due now; says when the next timer is.
    pub async fn run_due(&self) -> Result<Option<Timestamp>, Error> {
        loop {
            let now = self.store.clock().now();
            let (timers, next) = self
                .store
                .read(async move |tx: &mut Tx| {
                    let timers = due(tx, now, BATCH).await?;
                    let next = tx
                        .query_opt("SELECT min(due) AS due FROM timers WHERE due > $1", params![now])
                        .await?
                        .map(|row| row.get::<Option<Timestamp>>("due"))
                        .transpose()?
                        .flatten();
                    Ok::<_, Error>((timers, next))
                })
                .await?;
            let more = timers.len() == BATCH as usize;
            let mut fired = 0;
            for timer in timers {
                fired += usize::from(self.fire(timer).await?);
            }
            // Without progress the same unhandled timers would be read for ever.
            if !more || fired == 0 {
                return Ok(next);
            }
        }
    }

    async fn fire(&self, timer: Timer) -> Result<bool, Error> {
        if !self.handlers.iter().any(|handler| handler.kind() == timer.kind) {
            return Ok(false);
        }
        let (handlers, fired) = (self.handlers.clone(), timer.clone());
        let outcome = self
            .store
            .write(self.site, async move |tx: &mut Tx| {
                let Some(handler) = handlers.iter().find(|handler| handler.kind() == fired.kind) else {
                    return Ok(());
                };
                // Taken first: another runner, or a new timer under the same key, wins here.
                let taken = tx
                    .execute(
                        "DELETE FROM timers WHERE kind = $1 AND key = $2
                         AND due = $3 AND expected_version = $4",
                        params![fired.kind.as_str(), fired.key.as_str(), fired.due, fired.expected_version],
                    )
                    .await?;
                if taken == 1 && handler.version(tx, &fired).await? == fired.expected_version {
                    handler.fire(tx, &fired).await?;
                }
                Ok(())
            })
            .await;
        match outcome {
            Ok(()) => Ok(true),
            Err(Error::Store(error @ store::Error::Stopped { .. })) => Err(error.into()),
            Err(error) => {
                self.postpone(timer, error).await?;
                Ok(true)
            }
        }
    }

    async fn postpone(&self, timer: Timer, error: Error) -> Result<(), Error> {
        let attempt = u32::try_from(timer.attempts).unwrap_or(u32::MAX).saturating_add(1);
        let pause = backoff::jittered(attempt, RETRY_FIRST, RETRY_MOST);
        tracing::warn!(
            kind = timer.kind, key = timer.key, attempt, ?pause, %error,
            "a timer failed and is postponed"
        );
        let reason = error.to_string();
        self.store
            .write(self.site, async move |tx: &mut Tx| {
                let due = tx.now().checked_add(pause).unwrap_or(Timestamp::MAX);
                tx.execute(
                    "UPDATE timers SET due = $5, attempts = attempts + 1, last_error = $6
                     WHERE kind = $1 AND key = $2 AND due = $3 AND expected_version = $4",
                    params![
                        timer.kind.as_str(),
                        timer.key.as_str(),
                        timer.due,
                        timer.expected_version,
                        due,
                        reason.as_str()
                    ],
                )
                .await?;
                Ok::<_, Error>(())
            })
            .await
    }

    async fn until(&self, next: Option<Timestamp>) {
        match next {
            Some(due) => self.store.clock().sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

fn timer(row: &Row) -> Result<Timer, Error> {
    Ok(Timer {
        kind: row.get("kind")?,
        key: row.get("key")?,
        due: row.get("due")?,
        expected_version: row.get("expected_version")?,
        payload: row.get("payload")?,
        attempts: row.get("attempts")?,
    })
}
