//! The reconciler: looks after every payment that is not settled, in rounds, until it is.
//!
//! It reads rows, so a crash loses nothing: the first round after a start takes whatever was left half-way, since no
//! other process has this store. How soon a payment is looked at again is kept in memory and doubles to a bound.

use std::collections::{BTreeSet, HashMap};
use std::sync::PoisonError;
use std::time::Duration;

use log::Meta;
use store::Tx;
use telemetry::Trace;
use telemetry::spans::{self, Kind, Running};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::teller::{Teller, reconciling};
use crate::{receipts, store as rows};

/// Payments looked after at once.
const CONCURRENT: usize = 64;
/// Unsettled attempts read in one round.
const BATCH: u32 = 4096;
/// What the commit of an answer may take, beyond the call.
const GRACE: Duration = Duration::from_secs(1);

/// Reconciles until shutdown.
pub(crate) async fn run(teller: Teller, shutdown: CancellationToken) {
    let mut rounds = Rounds { teller, visits: HashMap::new(), first: true };
    let mut running: JoinSet<()> = JoinSet::new();
    loop {
        let (names, pause) = rounds.due().await;
        for name in names {
            while running.len() >= CONCURRENT {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    ended = running.join_next() => end(ended),
                }
            }
            if rounds.teller.flights.is_taken(&reconciling(&name)) {
                continue;
            }
            let teller = rounds.teller.clone();
            running.spawn(async move { visit(&teller, &name).await });
        }
        if let Err(error) = receipts::redeem(&rounds.teller).await {
            tracing::warn!(%error, "parked webhooks stay until the next round");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = rounds.teller.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
            ended = running.join_next(), if !running.is_empty() => end(ended),
        }
    }
}

/// A panic of one of ours is the supervisor's business.
fn end(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn visit(teller: &Teller, name: &str) {
    let story = story_of(teller, name).await;
    let span = Running::begin("payment", Kind::Internal, "reconcile", &story);
    let trace = span.trace();
    let meta =
        Meta { causation: "payment.reconciler".to_owned(), correlation: trace.id(), traceparent: trace.traceparent() };
    let reconciled = spans::within(trace, teller.reconcile(name, &meta)).await;
    span.end();
    match reconciled {
        Ok((_, resolved)) => tracing::debug!(payment = name, resolved, "reconciled"),
        Err(error) => tracing::warn!(payment = name, %error, "not reconciled; tried again later"),
    }
}

/// The story of the last attempt, which goes on here.
async fn story_of(teller: &Teller, name: &str) -> Trace {
    let loaded = teller.load(name).await.ok();
    let last = loaded.and_then(|it| it.traces.get(&it.payment.attempts.last()?.id).cloned());
    last.and_then(|id| Trace::parse_id(&id).ok()).map_or_else(Trace::new_root, Trace::resumed)
}

struct Rounds {
    teller: Teller,
    /// When each unsettled payment was last looked at, and how often.
    visits: HashMap<String, (Instant, u32)>,
    first: bool,
}

impl Rounds {
    /// The payments to look at now, and how long nothing else is due.
    async fn due(&mut self) -> (Vec<String>, Duration) {
        let urgent = std::mem::take(&mut *self.teller.urgent.lock().unwrap_or_else(PoisonError::into_inner));
        let sweep = self.teller.windows.sweep;
        let mut pause = sweep;
        let unsettled = match self.unsettled().await {
            Ok(unsettled) => unsettled,
            Err(error) => {
                tracing::warn!(%error, "the reconciler cannot read");
                return (urgent.into_iter().collect(), pause);
            }
        };
        let known: BTreeSet<&String> = unsettled.keys().collect();
        self.visits.retain(|name, _| known.contains(name));
        let now = Instant::now();
        let mut due: BTreeSet<String> = urgent;
        for (name, wait) in &unsettled {
            let left = match self.visits.get(name) {
                Some((last, visits)) => self.pause(*visits).saturating_sub(now.duration_since(*last)),
                None if self.first => Duration::ZERO,
                None => *wait,
            };
            if left.is_zero() {
                due.insert(name.clone());
            } else {
                pause = pause.min(left);
            }
        }
        for name in &due {
            let visits = self.visits.get(name).map_or(0, |(_, visits)| *visits);
            self.visits.insert(name.clone(), (now, visits.saturating_add(1)));
        }
        self.first = false;
        (due.into_iter().collect(), pause)
    }

    /// Every payment that is not settled, and how long it need not be looked at for the first time.
    async fn unsettled(&self) -> Result<HashMap<String, Duration>, Error> {
        let windows = &self.teller.windows;
        let clock = self.teller.log.store().clock();
        let now = clock.now();
        let read = self.teller.log.store().read(async move |tx: &mut Tx| {
            let attempts = rows::unsettled(tx, BATCH).await?;
            let stuck = rows::stuck_cancels(tx, BATCH).await?;
            Ok::<_, Error>((attempts, stuck))
        });
        let (attempts, stuck) = read.await?;
        let mut unsettled: HashMap<String, Duration> = HashMap::new();
        let mut add = |name: String, since: jiff::Timestamp, patience: Duration| {
            let age = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
            let left = patience.saturating_sub(age);
            unsettled.entry(name).and_modify(|wait| *wait = left.min(*wait)).or_insert(left);
        };
        for attempt in attempts {
            let patience = match attempt.state.as_str() {
                // Whoever sent it is about to hear of it.
                "SENT" | "PREPARED" => self.teller.config.call_timeout + GRACE,
                "WAITING" => windows.sweep,
                _ => windows.retry_base,
            };
            add(attempt.payment, attempt.update_time, patience);
        }
        for (name, update_time) in stuck {
            add(name, update_time, windows.retry_base);
        }
        Ok(unsettled)
    }

    fn pause(&self, visits: u32) -> Duration {
        let windows = &self.teller.windows;
        windows.retry_base.saturating_mul(1 << visits.saturating_sub(1).min(16)).min(windows.retry_cap)
    }
}
