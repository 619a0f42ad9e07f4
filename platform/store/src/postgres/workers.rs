//! The threads that poll bodies: one for writes, one for reads, each with a pool of connections.

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use deadpool_postgres::{Object, Pool};
use futures_util::{Stream, StreamExt as _};
use tokio::{sync::Semaphore, task::LocalSet, time::MissedTickBehavior};

use super::{
    append,
    session::{READ, Session, WRITE},
};
use crate::{
    Clock, Config, Error, Tx,
    crash::{self, Kind},
    job::{Job, Message},
    store::Signals,
    tx,
};

/// How often a body runs that PostgreSQL gave up for the sake of another (deadlock, serialisation, lost connection).
const ATTEMPTS: u32 = 8;
/// How often the log is looked at for what other processes appended; their commits wake nobody here.
const POLL: Duration = Duration::from_millis(250);

pub(super) struct Workers {
    service: &'static str,
    clock: Clock,
    pool: Pool,
    limit: usize,
    signals: Arc<Signals>,
    /// The number of shards; readers append to none.
    shards: Option<u32>,
}

impl Workers {
    pub(super) fn readers(config: &Config, pool: Pool, limit: usize, signals: &Arc<Signals>) -> Self {
        Self {
            service: config.name,
            clock: config.clock.clone(),
            pool,
            limit,
            signals: Arc::clone(signals),
            shards: None,
        }
    }

    pub(super) fn writers(config: &Config, pool: Pool, limit: usize, shards: u32, signals: &Arc<Signals>) -> Self {
        Self { shards: Some(shards), ..Self::readers(config, pool, limit, signals) }
    }

    pub(super) fn run(self, queue: impl Stream<Item = Message>) {
        let service = self.service;
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => LocalSet::new().block_on(&runtime, Rc::new(self).serve(queue)),
            Err(error) => tracing::error!(service, %error, "the store has no runtime"),
        }
    }

    async fn serve(self: Rc<Self>, queue: impl Stream<Item = Message>) {
        let mut queue = pin!(queue);
        let places = Arc::new(Semaphore::new(self.limit));
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                message = queue.next() => message,
                // Only the readers look; the writers' connections are for writes.
                _ = poll.tick(), if self.shards.is_none() => {
                    self.look().await;
                    continue;
                }
            };
            let Some(Message::Run(job)) = message else {
                break;
            };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            let workers = Rc::clone(&self);
            tokio::task::spawn_local(async move {
                workers.transact(job).await;
                drop(place);
            });
        }
        // Whatever was taken from the queue is finished before the connections go.
        let _ = places.acquire_many(u32::try_from(self.limit).unwrap_or(u32::MAX)).await;
        self.pool.close();
    }

    /// Notices what other processes have appended.
    async fn look(&self) {
        let Ok(client) = self.pool.get().await else {
            return;
        };
        let Ok(row) = client.query_one("SELECT CAST(coalesce(sum(head), 0) AS BIGINT) FROM shards", &[]).await else {
            return;
        };
        let appended = row.try_get::<_, i64>(0).ok().and_then(|sum| u64::try_from(sum).ok()).unwrap_or(0);
        self.signals.head.send_if_modified(|head| {
            let more = appended > *head;
            *head = appended.max(*head);
            more
        });
    }

    async fn transact(&self, mut job: Box<dyn Job>) {
        for attempt in 1..=ATTEMPTS {
            let error = match self.pool.get().await {
                Ok(client) => match self.attempt(client, job.as_mut()).await {
                    Ok(()) => break,
                    Err(error) => error,
                },
                Err(error) => Error::Busy { detail: format!("no connection: {error}") },
            };
            let again = matches!(error, Error::Busy { .. }) && attempt < ATTEMPTS;
            if !again {
                job.refuse(error);
                break;
            }
            // Those that collided wait for different times, by where their jobs lie in memory.
            let jitter = (std::ptr::from_ref(job.as_ref()).cast::<()>().addr() >> 4) % 8;
            tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 2 + jitter as u64)).await;
        }
        job.answer();
    }

    /// Runs the body once. `Ok` if the job knows its outcome, an error if that did not happen.
    async fn attempt(&self, client: Object, job: &mut dyn Job) -> Result<(), Error> {
        let mut tx = Tx {
            undoable: true,
            session: tx::Session::Postgres(Session::new(
                client,
                self.service,
                if self.shards.is_some() { WRITE } else { READ },
            )),
            service: self.service,
            writable: self.shards.is_some(),
            now: self.clock.now(),
            appended: Vec::new(),
            seen: None,
            first_error: None,
        };
        let wanted = job.run(&mut tx).await;
        let Tx { session, appended, first_error, now, .. } = tx;
        let mut session = match session {
            tx::Session::Postgres(session) => session,
            tx::Session::Sqlite(_) => {
                unreachable!("the threads of PostgreSQL make their own transactions")
            }
        };
        let outcome = match (wanted, first_error, self.shards) {
            (true, None, Some(shards)) if session.has_begun() || !appended.is_empty() => {
                hit(Kind::CommitBefore, job);
                let committed = append::commit(&mut session, self.service, &appended, shards, now).await;
                if committed.is_ok() {
                    hit(Kind::CommitAfter, job);
                    if !appended.is_empty() {
                        self.signals.head.send_modify(|head| *head += appended.len() as u64);
                    }
                    return Ok(());
                }
                committed
            }
            (true, None, _) => Ok(()),
            (true, Some(error), _) => Err(error),
            // What the body says is the answer, unless another attempt may say something else.
            (false, Some(error @ Error::Busy { .. }), _) => Err(error),
            (false, _, _) => Ok(()),
        };
        if session.has_begun() && session.client.batch_execute("ROLLBACK").await.is_err() {
            // A connection that is not known to be out of its transaction serves nobody else.
            drop(Object::take(session.client));
        }
        outcome
    }
}

fn hit(kind: Kind, job: &dyn Job) {
    if let Some(site) = job.site() {
        crash::hit(kind, site.name());
    }
}
