//! A consumer: follows its sources, each shard for itself, until it is told to stop. It reads their logs, or, where the hub
//! has a broker, takes what that delivers (see `feed`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use log::{backoff, cursors};
use store::{Site, Store, Tx};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::delivery::Cursor;
use crate::feed::Counts;
use crate::{Error, Handler, Hub, Message, Redriven, Source};

/// The bounds of a consumer.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages read and applied in one transaction.
    pub batch: u32,
    /// Messages parked at most; a consumer with a full lot stops rather than drops.
    pub lot: u64,
    /// The least time between two looks that commits wake, so that a busy producer means larger batches
    /// rather than more of them.
    pub gather: Duration,
    /// How often sources are looked at without being woken, and how long the cursor may stay behind
    /// messages that mean nothing to the handler.
    pub poll: Duration,
    /// With a broker: how long nothing is heard before the producer is asked whether there is more.
    pub doubt: Duration,
    /// The first pause after a failure; it doubles from there.
    pub retry_first: Duration,
    /// The longest pause.
    pub retry_most: Duration,
    /// How often letters that a newer release wrote are looked at, in case this one knows them.
    pub relook: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 256,
            lot: 10_000,
            gather: Duration::from_millis(6),
            poll: Duration::from_secs(1),
            doubt: Duration::from_secs(30),
            retry_first: Duration::from_millis(20),
            retry_most: Duration::from_secs(10),
            relook: Duration::from_secs(15),
        }
    }
}

/// How far a consumer is in one shard of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The producer.
    pub producer: String,
    /// The shard of its log.
    pub shard: u32,
    /// The last position dealt with.
    pub position: u64,
    /// The last position there is.
    pub head: u64,
    /// Why it stands still, while it does.
    pub stalled: Option<String>,
}

/// A consumer of other services' events, or of its own service's. Cheap to clone: one clone runs,
/// others watch it or redrive what it parked.
#[derive(Clone)]
pub struct Consumer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) name: &'static str,
    pub(crate) store: Store,
    pub(crate) hub: Hub,
    pub(crate) producers: Vec<String>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: Limits,
    pub(crate) site: &'static Site,
    /// Set after each step of any shard, for those who wait for a position.
    pub(crate) steps: watch::Sender<u64>,
    pub(crate) paused: watch::Sender<bool>,
    /// How far each shard was dealt with, also where the cursor has yet to be written.
    seen: Mutex<BTreeMap<(String, u32), u64>>,
    stalled: Mutex<BTreeMap<(String, u32), String>>,
    pub(crate) counts: Counts,
}

impl Inner {
    /// Whether something has to be done about events of this name: applied, or parked for somebody who knows them.
    pub(crate) fn concerns(&self, name: &str) -> bool {
        self.handler.wants(name) || !self.handler.knows(name)
    }
}

/// Where a running consumer is in one shard.
#[derive(Default)]
struct Standing {
    /// The stored cursor, once it was read.
    cursor: Option<u64>,
    /// Messages read beyond it that mean nothing to the handler: they wait for company, because a
    /// commit of their own would be a flush for nothing. Lost in a crash, they are read again.
    unsaved: Vec<Message>,
    since: Option<Instant>,
}

/// How often [`Consumer::caught_up`] looks without being woken.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Consumer {
    /// A consumer of the logs of `producers`, with effects in `store`. The name is kept in the
    /// store beside its cursors and must never change; its commits are the crash point `bus.{name}`.
    pub fn new(name: &'static str, store: Store, hub: Hub, producers: &[&str], handler: Arc<dyn Handler>) -> Self {
        Self::with_limits(name, store, hub, producers, handler, Limits::default())
    }

    /// As [`Consumer::new`], with other bounds.
    pub fn with_limits(
        name: &'static str,
        store: Store,
        hub: Hub,
        producers: &[&str],
        handler: Arc<dyn Handler>,
        limits: Limits,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                name,
                store,
                hub,
                producers: producers.iter().map(|&producer| producer.to_owned()).collect(),
                handler,
                limits,
                site: Site::named(&format!("bus.{name}")),
                steps: watch::Sender::new(0),
                paused: watch::Sender::new(false),
                seen: Mutex::new(BTreeMap::new()),
                stalled: Mutex::new(BTreeMap::new()),
                counts: Counts::default(),
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.inner.name
    }

    /// The services it consumes from.
    pub fn producers(&self) -> &[String] {
        &self.inner.producers
    }

    /// Consumes until `shutdown`. Stopping at any moment is safe: a batch commits whole or not at
    /// all, and what did not commit is read again.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let following = join_all(self.inner.producers.iter().map(|producer| self.follow(producer)));
        tokio::select! {
            () = shutdown => {}
            _ = following => tracing::info!(consumer = self.inner.name, "a consumer's store stopped"),
            never = self.relook() => match never {},
        }
    }

    /// Takes up what was parked because an older copy did not know it: at the start, and now and then.
    async fn relook(&self) -> Infallible {
        let mut looks = tokio::time::interval(self.inner.limits.relook);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if self.is_paused() {
                continue;
            }
            let consumer = self.inner.name;
            match self.redrive_known().await {
                Ok(Redriven { applied: 0, .. }) => {}
                Ok(Redriven { applied, .. }) => {
                    tracing::info!(consumer, applied, "messages that an older release had parked are applied");
                }
                // A producer that is away, a store that is busy: the next look may be luckier.
                Err(error) => tracing::warn!(consumer, %error, "parked messages cannot be looked at"),
            }
        }
    }

    /// Stops taking messages until [`Consumer::resume`]; a batch under way is finished.
    pub fn pause(&self) {
        self.inner.paused.send_replace(true);
    }

    /// Goes on after [`Consumer::pause`].
    pub fn resume(&self) {
        self.inner.paused.send_replace(false);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        *self.inner.paused.borrow()
    }

    /// How many messages it has not dealt with yet.
    pub async fn lag(&self) -> Result<u64, Error> {
        let progress = self.progress().await?;
        Ok(progress.iter().map(|shard| shard.head.saturating_sub(shard.position)).sum())
    }

    /// How far it is, shard by shard, for the producers that have published.
    pub async fn progress(&self) -> Result<Vec<Progress>, Error> {
        let mut all = Vec::new();
        for producer in &self.inner.producers {
            let Some(source) = self.inner.hub.source(producer) else {
                continue;
            };
            for (shard, head) in (0..).zip(source.heads().await?) {
                all.push(Progress {
                    producer: producer.clone(),
                    shard,
                    position: self.dealt_with(producer, shard).await?,
                    head,
                    stalled: self.stalls().get(&(producer.clone(), shard)).cloned(),
                });
            }
        }
        Ok(all)
    }

    /// Returns once everything its producers have published by now is dealt with (applied or
    /// parked). It must be running.
    pub async fn caught_up(&self) -> Result<(), Error> {
        let mut steps = self.inner.steps.subscribe();
        for target in self.progress().await? {
            while self.dealt_with(&target.producer, target.shard).await? < target.head {
                // Another copy may move the cursor and wake nobody here.
                let _ = tokio::time::timeout(LOOK_AGAIN, steps.changed()).await;
            }
        }
        Ok(())
    }

    async fn follow(&self, producer: &str) {
        let source = self.inner.hub.wait_for(producer).await;
        let mut attempt = 0;
        let shards = loop {
            match source.heads().await {
                Ok(heads) => break heads.len(),
                Err(error) => {
                    attempt += 1;
                    self.stall(producer, 0, attempt, &error).await;
                }
            }
        };
        let source = &source;
        if let Some(broker) = self.inner.hub.broker() {
            return self.feed(producer, source, broker, u32::try_from(shards).unwrap_or(u32::MAX)).await;
        }
        join_all((0..).take(shards).map(|shard| self.follow_shard(producer, source, shard))).await;
    }

    async fn follow_shard(&self, producer: &str, source: &Arc<dyn Source>, shard: u32) {
        let mut changed = source.changed();
        let mut poll = tokio::time::interval(self.inner.limits.poll);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut paused = self.inner.paused.subscribe();
        let mut standing = Standing::default();
        let mut attempt = 0;
        let mut stepped;
        loop {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = paused.wait_for(|paused| !paused).await;
            // Marked as seen before reading: what is committed after the read wakes again.
            changed.borrow_and_update();
            stepped = Instant::now();
            match self.step(producer, source, shard, &mut standing).await {
                Ok(dealt_with) => {
                    if attempt > 0 {
                        attempt = 0;
                        self.stalls().remove(&(producer.to_owned(), shard));
                    }
                    if dealt_with > 0 {
                        self.inner.steps.send_modify(|steps| *steps += 1);
                        if dealt_with == self.inner.limits.batch as usize {
                            continue;
                        }
                    }
                    tokio::select! {
                        _ = poll.tick() => {}
                        more = changed.changed() => match more {
                            // A first commit after a pause is applied at once.
                            Ok(()) => tokio::time::sleep_until(stepped + self.inner.limits.gather).await,
                            // The producer has closed; only the poll is left.
                            Err(_) => drop(poll.tick().await),
                        }
                    }
                }
                Err(error) if error.is_stopped() => return,
                Err(error) => {
                    // Another copy may have moved on, or part of the batch was committed.
                    standing = Standing::default();
                    attempt += 1;
                    self.stall(producer, shard, attempt, &error).await;
                }
            }
        }
    }

    /// Reads and applies one batch; says how many messages were read.
    async fn step(
        &self,
        producer: &str,
        source: &Arc<dyn Source>,
        shard: u32,
        standing: &mut Standing,
    ) -> Result<usize, Error> {
        let Limits { batch, poll, .. } = self.inner.limits;
        let cursor = match standing.cursor {
            Some(cursor) => cursor,
            None => self.position(producer, shard).await?,
        };
        standing.cursor = Some(cursor);
        let after = standing.unsaved.last().map_or(cursor, |message| message.position);
        let mut messages = source.read(shard, after, batch).await?;
        for (expected, message) in (after + 1..).zip(&messages) {
            if message.position != expected {
                return Err(Error::Hole { service: producer.to_owned(), shard, expected, found: message.position });
            }
        }
        let read = messages.len();
        let wanted = messages.iter().any(|message| self.inner.concerns(&message.name));
        standing.unsaved.append(&mut messages);
        let Some(last) = standing.unsaved.last().map(|message| message.position) else {
            return Ok(0);
        };
        let since = *standing.since.get_or_insert_with(Instant::now);
        let waits = !wanted && standing.unsaved.len() < batch as usize && since.elapsed() < poll;
        if waits {
            // Never applied, so the content need not be held.
            standing.unsaved.iter_mut().for_each(|message| message.payload = Vec::new());
        } else {
            let run = std::mem::take(&mut standing.unsaved);
            standing.since = None;
            let mut at = Cursor { shard, position: cursor };
            let delivered = self.deliver(source, run, &mut at).await;
            standing.cursor = Some(at.position);
            delivered?;
        }
        self.seen().insert((producer.to_owned(), shard), last);
        Ok(read)
    }

    pub(crate) async fn position(&self, producer: &str, shard: u32) -> Result<u64, Error> {
        let (name, producer) = (self.inner.name, producer.to_owned());
        let position =
            self.inner.store.read(async move |tx: &mut Tx| cursors::get(tx, name, &producer, shard).await).await?;
        Ok(position)
    }

    /// The position dealt with, stored or not; for those who only watch.
    async fn dealt_with(&self, producer: &str, shard: u32) -> Result<u64, Error> {
        let seen = self.seen().get(&(producer.to_owned(), shard)).copied().unwrap_or(0);
        Ok(seen.max(self.position(producer, shard).await?))
    }

    pub(crate) async fn stall(&self, producer: &str, shard: u32, attempt: u32, error: &Error) {
        let Limits { retry_first, retry_most, .. } = self.inner.limits;
        let pause = backoff::jittered(attempt, retry_first, retry_most);
        // The first failures are ordinary; one that lasts is for an operator.
        if attempt >= 5 {
            tracing::warn!(
                consumer = self.inner.name, producer, shard, attempt, ?pause, %error,
                "a consumer stands still"
            );
        }
        self.stalls().insert((producer.to_owned(), shard), error.to_string());
        tokio::time::sleep(pause).await;
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, BTreeMap<(String, u32), u64>> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stalls(&self) -> MutexGuard<'_, BTreeMap<(String, u32), String>> {
        self.inner.stalled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Consumer").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
