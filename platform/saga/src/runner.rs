//! The runner: claims due sagas, runs their steps, moves their rows.
//!
//! Any number of runners may share a store. A saga is claimed by moving its epoch; every later write names that epoch, so
//! a runner that was paused past its lease changes nothing when it wakes. What it may have sent meanwhile carries the
//! step's key, like the attempt of whoever took over: one effect.
//!
//! Bounds: `concurrency` sagas at once, a ready queue of `READY_CAP` ids (beyond it a saga waits for the end of its lease),
//! every attempt by the step's `try_timeout`. One saga that panics or fails is parked by itself; others do not notice.

mod driving;

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use store::{Site, Store, Tx};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use driving::site_name;

use crate::properties::Injection;
use crate::rows::{self, Known, Phase, Row, Start};
use crate::{Definition, Error, Kind, Step};

/// Ids that were started here and wait for a free place.
const READY_CAP: usize = 65_536;
/// Due sagas claimed in one look.
const BATCH: usize = 256;
/// How long running steps may take to finish when the process ends.
const DRAIN: Duration = Duration::from_secs(5);
/// Commits of other writers are looked at no more often than this.
const GLANCE: Duration = Duration::from_millis(20);

/// Beats that may be missed before a runner's sagas are taken over.
const BEATS: u32 = 6;

/// How a runner behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sagas run at once.
    pub concurrency: usize,
    /// How long a claim holds; longer than any `try_timeout`.
    pub lease: Duration,
    /// How often due sagas are looked for when nothing wakes the runner.
    pub poll: Duration,
    /// First pause between attempts; doubles up to `backoff_cap`, jittered.
    pub backoff_base: Duration,
    /// Longest pause between attempts.
    pub backoff_cap: Duration,
    /// No other process can hold a saga of this store: claims of a vanished process are void at start. Where others can, each
    /// runner says every `beat` that it lives.
    pub exclusive: bool,
    /// How often a runner says so; one that has not for [`BEATS`] of these is taken for gone.
    pub beat: Duration,
    /// Faults that a property injects; `Injection::None` outside tests.
    pub injection: Injection,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 512,
            lease: Duration::from_secs(60),
            poll: Duration::from_secs(1),
            backoff_base: Duration::from_millis(50),
            backoff_cap: Duration::from_secs(30),
            exclusive: true,
            beat: Duration::from_secs(1),
            injection: Injection::None,
        }
    }
}

/// Runs the sagas of one store. A cheap handle.
pub struct Runner<C: 'static> {
    inner: Arc<Inner<C>>,
}

impl<C> Clone for Runner<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<C: 'static> {
    store: Store,
    context: Arc<C>,
    definitions: Vec<&'static Definition<C>>,
    config: Config,
    owner: String,
    ready: Mutex<VecDeque<String>>,
    running: Mutex<HashSet<String>>,
    watchers: Mutex<HashMap<String, watch::Sender<u64>>>,
    wake: Notify,
    /// Nobody looks for sagas any more.
    ending: AtomicBool,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    sites: HashMap<(String, usize, bool), &'static Site>,
}

/// Told each time a saga passes a milestone, waits, or ends.
pub struct Progress<C: 'static> {
    id: String,
    receiver: watch::Receiver<u64>,
    head: watch::Receiver<u64>,
    inner: Arc<Inner<C>>,
}

impl<C> Progress<C> {
    /// Returns at the next milestone, wait or end since the last call. Of a saga that another process may be running it is
    /// only known that something was committed: the caller looks.
    pub async fn changed(&mut self) {
        let Self { id, receiver, head, inner } = self;
        let elsewhere = async {
            loop {
                // Many commits are one look.
                if inner.config.exclusive || head.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(GLANCE).await;
                head.borrow_and_update();
                if !lock(&inner.running).contains(id.as_str()) {
                    return;
                }
            }
        };
        tokio::select! {
            // The sender lives in the map as long as this watcher does, so the error cannot occur.
            _ = receiver.changed() => {}
            () = elsewhere => {}
        }
    }
}

impl<C> Drop for Progress<C> {
    fn drop(&mut self) {
        let mut watchers = lock(&self.inner.watchers);
        // This receiver still counts: one means nobody else watches.
        if watchers.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            watchers.remove(&self.id);
        }
    }
}

impl<C: Send + Sync + 'static> Runner<C> {
    /// A runner over `store` for these definitions; it runs nothing until `run`.
    pub fn new(store: Store, context: Arc<C>, definitions: Vec<&'static Definition<C>>, config: Config) -> Self {
        let places = Arc::new(Semaphore::new(config.concurrency));
        let mut sites = HashMap::new();
        for definition in &definitions {
            for (index, step) in definition.steps.iter().enumerate() {
                let name = |direction| Site::named(&site_name(definition.name, step.name, direction));
                sites.insert((definition.name.to_owned(), index, false), name("action"));
                if step.compensation.is_some() {
                    sites.insert((definition.name.to_owned(), index, true), name("compensation"));
                }
            }
        }
        let inner = Inner {
            store,
            context,
            definitions,
            config,
            owner: uuid::Uuid::now_v7().to_string(),
            ready: Mutex::default(),
            running: Mutex::default(),
            watchers: Mutex::default(),
            wake: Notify::new(),
            ending: AtomicBool::new(false),
            places,
            tasks: TaskTracker::new(),
            sites,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a saga under this runner's own lease; call `wake` with its id after the commit. Starting the same id twice is
    /// one saga.
    pub async fn start(&self, tx: &mut Tx, definition: &Definition<C>, start: &Start) -> Result<bool, store::Error> {
        let lease_end = after(tx.now(), self.inner.config.lease);
        rows::insert(tx, definition, start, &self.inner.owner, lease_end, true).await
    }

    /// Runs a saga that was just started here, without waiting for the next look at what is due.
    ///
    /// Also while the process ends: whoever started it is still being served, and waits for it.
    pub fn wake(&self, id: &str) {
        self.inner.requeue(id.to_owned());
        if self.inner.ending.load(Ordering::SeqCst) {
            let runner = self.clone();
            self.inner.tasks.spawn(async move { runner.run_ready().await });
        } else {
            self.inner.wake.notify_one();
        }
    }

    /// Makes a waiting or stuck saga due now. False if it is settled, or just being run.
    pub async fn nudge(&self, id: &str) -> Result<bool, store::Error> {
        let id = id.to_owned();
        let done = self
            .inner
            .store
            .write(store::site!("saga.nudge"), async move |tx: &mut Tx| rows::nudge(tx, &id).await)
            .await?;
        self.inner.wake.notify_one();
        Ok(done)
    }

    /// Unwinds a saga that has not passed its pivot. False if it has, or is settled.
    pub async fn force_compensate(&self, id: &str, reason: &str) -> Result<bool, store::Error> {
        let (owned, reason) = (id.to_owned(), reason.to_owned());
        let definitions = self.inner.definitions.clone();
        let done = self
            .inner
            .store
            .write(store::site!("saga.force_compensate"), async move |tx: &mut Tx| {
                let Some(row) = rows::get(tx, &owned).await? else {
                    return Ok::<_, store::Error>(false);
                };
                let last = definitions
                    .iter()
                    .find(|definition| definition.name == row.definition && definition.version == row.version)
                    .and_then(|definition| definition.steps.iter().position(|step| step.kind == Kind::Pivot));
                match last {
                    Some(last) => rows::turn_round(tx, &owned, &reason, last).await,
                    None => Ok(false),
                }
            })
            .await?;
        self.inner.wake.notify_one();
        Ok(done)
    }

    /// Watches one saga; take it before the saga is woken, so that no milestone is missed.
    pub fn watch(&self, id: &str) -> Progress<C> {
        let mut watchers = lock(&self.inner.watchers);
        let sender = watchers.entry(id.to_owned()).or_insert_with(|| watch::channel(0).0);
        let head = self.inner.store.head();
        Progress { id: id.to_owned(), receiver: sender.subscribe(), head, inner: Arc::clone(&self.inner) }
    }

    /// The store whose sagas it runs.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The step a saga stands at, if its table is registered here.
    pub fn step_of(&self, row: &Row) -> Option<&'static Step<C>> {
        self.definition_of(row)?.steps.get(row.step)
    }

    /// Whether a saga can still be undone: it goes forward and has not passed its pivot.
    pub fn can_turn(&self, row: &Row) -> bool {
        let pivot = |definition: &Definition<C>| definition.steps.iter().position(|step| step.kind == Kind::Pivot);
        row.phase == Phase::Running && self.definition_of(row).and_then(pivot).is_some_and(|pivot| row.step <= pivot)
    }

    fn definition_of(&self, row: &Row) -> Option<&'static Definition<C>> {
        let same = |it: &&Definition<C>| it.name == row.definition && it.version == row.version;
        self.inner.definitions.iter().copied().find(same)
    }

    /// Sagas that are run at this moment.
    pub fn running(&self) -> usize {
        lock(&self.inner.running).len()
    }

    /// Runs until `shutdown`, then gives running steps a bounded time to finish; what does not is taken up after restart, or by
    /// another process.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), store::Error> {
        let inner = &self.inner;
        let outcome = if inner.config.exclusive {
            let owner = inner.owner.clone();
            inner
                .store
                .write(store::site!("saga.take_over"), async move |tx: &mut Tx| rows::take_over(tx, &owner).await)
                .await?;
            self.look(&shutdown).await
        } else {
            tokio::select! {
                outcome = self.look(&shutdown) => outcome,
                never = self.live() => match never {},
            }
        };
        // From here on whoever starts a saga has it run; what was started before is run now.
        inner.ending.store(true, Ordering::SeqCst);
        self.run_ready().await;
        inner.tasks.close();
        let _ = tokio::time::timeout(DRAIN, inner.tasks.wait()).await;
        outcome
    }

    /// Runs what was started here and what is due, until shutdown.
    async fn look(&self, shutdown: &CancellationToken) -> Result<(), store::Error> {
        let inner = &self.inner;
        let mut head = inner.store.head();
        let mut failures = 0;
        loop {
            self.run_ready().await;
            let pause = match self.run_due().await {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(error) if passes(&error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "due sagas cannot be looked at; tried again");
                    inner.backoff(failures)
                }
                Err(error) => return Err(error),
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = inner.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
                changed = head.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    // A commit of this store may have queued a saga. Many commits are one look.
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        () = inner.wake.notified() => {}
                        () = tokio::time::sleep(GLANCE) => {}
                    }
                }
            }
        }
    }

    /// Says again and again that this runner lives, and takes over from those that do not.
    async fn live(&self) -> std::convert::Infallible {
        let inner = &self.inner;
        let mut beat = tokio::time::interval(inner.config.beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let owner = inner.owner.clone();
            let lease_end = after(inner.store.clock().now(), inner.config.beat.saturating_mul(BEATS));
            let beaten = inner
                .store
                .write(store::site!("saga.beat"), async move |tx: &mut Tx| rows::beat(tx, &owner, lease_end).await)
                .await;
            match beaten {
                Ok(0) => {}
                Ok(taken) => {
                    tracing::warn!(sagas = taken, "sagas are taken over from a runner that is gone");
                    inner.wake.notify_one();
                }
                Err(error) => tracing::warn!(%error, "a runner cannot say that it lives"),
            }
        }
    }

    async fn run_ready(&self) {
        loop {
            let next = lock(&self.inner.ready).pop_front();
            let Some(id) = next else { return };
            self.spawn(id, None).await;
        }
    }

    /// Claims and runs what is due; returns how long nothing will be.
    async fn run_due(&self) -> Result<Duration, store::Error> {
        let inner = &self.inner;
        let now = inner.store.clock().now();
        let known = Known(inner.definitions.iter().map(|definition| (definition.name, definition.version)).collect());
        let (ids, next) = inner
            .store
            .read(async move |tx: &mut Tx| {
                let ids = rows::due(tx, &known, now, BATCH).await?;
                let next = if ids.is_empty() { rows::next_due(tx, &known).await? } else { Some(now) };
                Ok::<_, store::Error>((ids, next))
            })
            .await?;
        let mut skipped = false;
        for id in ids {
            if lock(&inner.running).contains(&id) {
                skipped = true;
                continue;
            }
            let lease_end = after(now, inner.config.lease);
            let (claimed, owner) = (id.clone(), inner.owner.clone());
            let row = inner
                .store
                .write(store::site!("saga.claim"), async move |tx: &mut Tx| {
                    rows::claim(tx, &claimed, &owner, lease_end).await
                })
                .await?;
            if let Some(row) = row {
                self.spawn(id, Some(row)).await;
            }
        }
        let until = next
            .map_or(inner.config.poll, |next| Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO));
        let floor = if skipped { Duration::from_millis(50) } else { Duration::ZERO };
        Ok(until.clamp(floor, inner.config.poll.max(floor)))
    }

    async fn spawn(&self, id: String, row: Option<Row>) {
        let Ok(place) = Arc::clone(&self.inner.places).acquire_owned().await else {
            return;
        };
        if !lock(&self.inner.running).insert(id.clone()) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(async move {
            let _place = place;
            let ended = AssertUnwindSafe(inner.drive(&id, row)).catch_unwind().await;
            lock(&inner.running).remove(&id);
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(Error::Store(error @ store::Error::Stopped { .. }))) => {
                    tracing::error!(saga = %id, %error, "the saga is left to its next look");
                }
                Ok(Err(error)) => {
                    tracing::warn!(saga = %id, %error, "where a saga stands is looked up");
                    tokio::time::sleep(inner.backoff(1)).await;
                    inner.requeue(id);
                }
                Err(_) => tracing::error!(saga = %id, "the runner of a saga panicked; it is left to its next look"),
            }
            inner.wake.notify_one();
        });
    }
}

impl<C> Inner<C> {
    /// Queues a saga that is held here; beyond the bound it waits for the end of its lease.
    fn requeue(&self, id: String) {
        let mut ready = lock(&self.ready);
        if ready.len() < READY_CAP {
            ready.push_back(id);
        }
    }
}

/// Whether the store may serve again by itself.
fn passes(error: &store::Error) -> bool {
    error.is_transient() || matches!(error, store::Error::InDoubt { .. })
}

fn after(time: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| time.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A poisoned lock still guards valid data here: every critical section is one call on a collection.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
