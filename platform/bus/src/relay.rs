//! The relay: passes the log of a service in this process on to a broker.
//!
//! **It cannot skip a late commit**: it reads by dense position and moves on only to the last position it has read, after
//! the broker confirmed everything up to it. **On a crash**, or when another copy takes over, what was published and not
//! yet noted is published again: consumers know positions and take it for a duplicate.
//!
//! Any number of copies of a service run a relay; each shard is passed on by the one that holds its lease
//! ([`log::relays`]). Who was asleep for longer than its lease may publish one batch again, and then fails to note it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use log::backoff;
use log::relays::Lease;
use telemetry::Trace;
use telemetry::spans::{Kind, Name, Running};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{Broker, Envelope, Error, Source};

/// The bounds of a relay.
#[derive(Debug, Clone, Copy)]
pub struct RelayLimits {
    /// Messages read and published at once.
    pub batch: u32,
    /// How long commits are gathered after a wake-up: each batch costs a commit.
    pub gather: Duration,
    /// How long a shard stays with a copy that is not heard of; it renews its leases three times as often.
    pub lease: Duration,
    /// How often the log is looked at without being woken.
    pub poll: Duration,
    /// The first pause after a failure; it doubles from there.
    pub retry_first: Duration,
    /// The longest pause.
    pub retry_most: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            batch: 256,
            gather: Duration::from_millis(2),
            lease: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            retry_first: Duration::from_millis(20),
            retry_most: Duration::from_secs(2),
        }
    }
}

/// What a relay has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relayed {
    /// Messages that the broker confirmed.
    pub published: u64,
    /// Batches that could not be noted, because another copy had taken the shard.
    pub fenced: u64,
}

/// The relay of one service's log. Cheap to clone: one clone runs, others watch it.
#[derive(Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn Source>,
    broker: Arc<dyn Broker>,
    limits: RelayLimits,
    /// The service whose log it is; as many as there are relays.
    service: &'static str,
    /// Who this is to the other copies.
    holder: String,
    published: AtomicU64,
    fenced: AtomicU64,
}

/// A lease as this process knows it.
#[derive(Debug, Clone, Copy)]
struct Held {
    lease: Lease,
    /// When it ends, if it is not renewed; by the clock of this process, which stands still for no one.
    end: Instant,
}

type Holdings = Arc<watch::Sender<Vec<Option<Held>>>>;

/// The last position of each shard at the last look.
type Heads = Arc<watch::Sender<Vec<u64>>>;

impl Relay {
    /// A relay of a log in this process.
    pub fn new(source: Arc<dyn Source>, broker: Arc<dyn Broker>) -> Self {
        Self::with_limits(source, broker, RelayLimits::default())
    }

    /// As [`Relay::new`], with other bounds.
    pub fn with_limits(source: Arc<dyn Source>, broker: Arc<dyn Broker>, limits: RelayLimits) -> Self {
        let holder = uuid::Uuid::new_v4().to_string();
        let (published, fenced) = (AtomicU64::new(0), AtomicU64::new(0));
        let service = source.service().to_owned().leak();
        Self { inner: Arc::new(Inner { source, broker, limits, service, holder, published, fenced }) }
    }

    /// What it has done.
    pub fn relayed(&self) -> Relayed {
        let Inner { published, fenced, .. } = &*self.inner;
        Relayed { published: published.load(Ordering::Relaxed), fenced: fenced.load(Ordering::Relaxed) }
    }

    /// Relays until `shutdown`, then gives up its shards. Stopping at any moment is safe.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let service = self.inner.source.service().to_owned();
        let Some(outbox) = self.inner.source.outbox() else {
            tracing::error!(service, "the log of a service elsewhere is relayed there");
            return;
        };
        tokio::select! {
            () = shutdown => {
                if let Err(error) = outbox.release(&self.inner.holder).await {
                    tracing::debug!(service, %error, "a relay's leases are left to end by themselves");
                }
            }
            () = self.relay() => tracing::info!(service, "the store of a relay stopped"),
        }
    }

    async fn relay(&self) {
        let Some(shards) = self.prepared_at_last().await else { return };
        let holdings: Holdings = Arc::new(watch::Sender::new(vec![None; shards as usize]));
        let heads: Heads = Arc::new(watch::Sender::new(vec![0; shards as usize]));
        let relaying = join_all((0..shards).map(|shard| self.relay_shard(&holdings, &heads, shard)));
        tokio::select! {
            () = self.hold(&holdings) => {}
            () = self.look(&heads) => {}
            _ = relaying => {}
        }
    }

    async fn prepared(&self) -> Result<u32, Error> {
        let Inner { source, broker, .. } = &*self.inner;
        let shards = u32::try_from(source.heads().await?.len()).unwrap_or(u32::MAX);
        broker.prepare(source.service(), shards).await?;
        Ok(shards)
    }

    /// Keeps the leases of this copy, and takes those that nobody keeps.
    async fn hold(&self, holdings: &Holdings) {
        let Inner { source, limits, holder, .. } = &*self.inner;
        let Some(outbox) = source.outbox() else { return };
        let mut renew = tokio::time::interval((limits.lease / 3).max(Duration::from_millis(1)));
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            renew.tick().await;
            // Before the store is asked: its answer may be long on the way.
            let end = Instant::now() + limits.lease;
            match outbox.hold(holder, limits.lease).await {
                Ok(leases) => holdings.send_modify(|held| {
                    held.fill(None);
                    for lease in leases {
                        if let Some(held) = held.get_mut(lease.shard as usize) {
                            *held = Some(Held { lease, end });
                        }
                    }
                }),
                Err(error) if error.is_stopped() => return,
                Err(error) => self.warn("hold", 0, &error),
            }
        }
    }

    /// Looks how far the log has come, at all shards with one read: most commits append to one of them, and if each shard
    /// looked for itself a commit would cost as many reads as there are shards.
    async fn look(&self, heads: &Heads) {
        let Inner { source, limits, .. } = &*self.inner;
        let mut changed = source.changed();
        let mut attempt = 0;
        loop {
            // Marked as seen before reading: what is committed after the read wakes again.
            changed.borrow_and_update();
            match source.heads().await {
                Ok(now) => {
                    attempt = 0;
                    heads.send_if_modified(|seen| std::mem::replace(seen, now) != *seen);
                }
                Err(error) if error.is_stopped() => return,
                Err(error) => {
                    attempt += 1;
                    self.warn("look", attempt, &error);
                    tokio::time::sleep(backoff::jittered(attempt, limits.retry_first, limits.retry_most)).await;
                    continue;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(limits.poll) => {}
                more = changed.changed() => match more {
                    Ok(()) => tokio::time::sleep(limits.gather).await,
                    // The store has closed; only the poll is left.
                    Err(_) => tokio::time::sleep(limits.poll).await,
                }
            }
        }
    }

    async fn relay_shard(&self, holdings: &Holdings, heads: &Heads, shard: u32) {
        let mut held = holdings.subscribe();
        let mut over = None;
        loop {
            let mine = |held: &Vec<Option<Held>>| held.get(shard as usize).copied().flatten();
            let lease = loop {
                match mine(&held.borrow_and_update()) {
                    Some(Held { lease, end }) if over != Some(lease.epoch) && Instant::now() < end => break lease,
                    _ => {}
                }
                // The sender lives in `holdings`, so waiting cannot fail.
                let _ = held.changed().await;
            };
            let still = || {
                mine(&holdings.borrow()).is_some_and(|now| now.lease.epoch == lease.epoch && Instant::now() < now.end)
            };
            match self.relay_while(lease, heads, still).await {
                Ok(()) => {}
                Err(Fenced) => over = Some(lease.epoch),
            }
        }
    }

    /// Relays a shard as long as its lease is held.
    async fn relay_while(&self, mut lease: Lease, heads: &Heads, held: impl Fn() -> bool) -> Result<(), Fenced> {
        let Inner { source, broker, limits, published, fenced, .. } = &*self.inner;
        let Some(outbox) = source.outbox() else { return Err(Fenced) };
        let shard = lease.shard;
        let mut heads = heads.subscribe();
        let mut attempt = 0;
        while held() {
            let head = heads.borrow_and_update().get(shard as usize).copied().unwrap_or_default();
            if head <= lease.position {
                // Not only for a look: a lease ends while nothing is appended too.
                let _ = tokio::time::timeout(limits.poll, heads.changed()).await;
                continue;
            }
            let step = async {
                let batch = outbox.read(shard, lease.position, limits.batch).await?;
                let Some(last) = batch.last().map(|envelope| envelope.message.position) else {
                    return Ok(Step::Idle);
                };
                #[cfg(feature = "planted-bugs")]
                let last = crate::planted::last_by_sequence(source, shard).await.unwrap_or(last);
                if !held() {
                    return Ok(Step::Lost);
                }
                let begun = Instant::now();
                broker.publish(&batch).await?;
                sent(self.inner.service, &batch, begun.elapsed());
                published.fetch_add(batch.len() as u64, Ordering::Relaxed);
                let noted = outbox.advance(lease, last).await?;
                Ok::<_, Error>(if noted { Step::To(last) } else { Step::Fenced })
            };
            match step.await {
                Ok(Step::Idle) => {
                    // The head is past what can be read; asking at once again would not help.
                    attempt = 0;
                    tokio::time::sleep(limits.poll).await;
                }
                Ok(Step::To(last)) => {
                    attempt = 0;
                    lease.position = last;
                }
                Ok(Step::Lost) => return Ok(()),
                Ok(Step::Fenced) => {
                    fenced.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(service = source.service(), shard, "another copy has taken a shard from this relay");
                    return Err(Fenced);
                }
                Err(error) => {
                    attempt += 1;
                    self.warn("relay", attempt, &error);
                    tokio::time::sleep(backoff::jittered(attempt, limits.retry_first, limits.retry_most)).await;
                }
            }
        }
        Ok(())
    }

    /// Tries until it works; nothing once the store has stopped.
    async fn prepared_at_last(&self) -> Option<u32> {
        let RelayLimits { retry_first, retry_most, .. } = self.inner.limits;
        let mut attempt = 0;
        loop {
            match self.prepared().await {
                Ok(shards) => return Some(shards),
                Err(error) if error.is_stopped() => return None,
                Err(error) => {
                    attempt += 1;
                    self.warn("prepare", attempt, &error);
                    tokio::time::sleep(backoff::jittered(attempt, retry_first, retry_most)).await;
                }
            }
        }
    }

    fn warn(&self, what: &'static str, attempt: u32, error: &Error) {
        let service = self.inner.source.service();
        // The first failures are ordinary; one that lasts is for an operator.
        if attempt < 5 {
            tracing::debug!(service, what, attempt, %error, "a relay tries again");
        } else {
            tracing::warn!(service, what, attempt, %error, "a relay stands still");
        }
    }
}

/// The broker has confirmed a batch: a span for each message, in its story.
fn sent(service: &'static str, batch: &[Envelope], took: Duration) {
    for Envelope { message, .. } in batch {
        let Ok(story) = Trace::parse(&message.traceparent) else { continue };
        let mut span = Running::since(service, Kind::Producer, Name::of("send", service), &story, took);
        if span.is_recorded() {
            span.set("messaging.operation.type", "send");
            span.set("messaging.destination.name", service);
            span.set("stoa.event", message.name.clone());
        }
        span.end();
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Relay").field("service", &self.inner.source.service()).finish_non_exhaustive()
    }
}

enum Step {
    /// Published and noted up to a position.
    To(u64),
    /// There was nothing to read.
    Idle,
    /// The lease ended before anything was published.
    Lost,
    /// Another has the shard.
    Fenced,
}

/// Another copy has the shard.
struct Fenced;
