//! The threads that poll bodies: one for writes, one for reads, each with a pool of connections.

use std::{borrow::Cow, pin::pin, rc::Rc, sync::Arc, time::Duration};

use deadpool_postgres::{Object, Pool};
use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio::{
    sync::{Notify, Semaphore},
    task::LocalSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    append,
    hints::Hints,
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
/// How often the log is looked at for what other processes appended, should their hints be lost.
const POLL: Duration = Duration::from_millis(500);

pub(super) struct Workers {
    service: &'static str,
    clock: Clock,
    pool: Pool,
    limit: usize,
    statement_limit: Duration,
    signals: Arc<Signals>,
    hints: Hints,
    /// The number of shards; readers append to none.
    shards: Option<u32>,
}

/// A pool of connections and how many they are.
pub(super) struct Connections {
    pub(super) pool: Pool,
    pub(super) count: usize,
    /// What one statement may take on them.
    pub(super) statement_limit: Duration,
}

impl Workers {
    pub(super) fn readers(config: &Config, connections: Connections, hints: Hints, signals: &Arc<Signals>) -> Self {
        Self {
            service: config.name,
            clock: config.clock.clone(),
            pool: connections.pool,
            limit: connections.count,
            statement_limit: connections.statement_limit,
            signals: Arc::clone(signals),
            hints,
            shards: None,
        }
    }

    pub(super) fn writers(
        config: &Config,
        connections: Connections,
        hints: Hints,
        shards: u32,
        signals: &Arc<Signals>,
    ) -> Self {
        Self { shards: Some(shards), ..Self::readers(config, connections, hints, signals) }
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
        let hinted = Rc::new(Notify::new());
        let hints = self.hints.clone();
        // Writers tell the others, readers listen to them.
        let hints = tokio::task::spawn_local(match self.shards {
            Some(_) => hints.tell(Rc::clone(&hinted)).left_future(),
            None => self.clone().look_when(hints, Rc::clone(&hinted)).right_future(),
        });
        loop {
            let message = queue.next().await;
            let Some(Message::Run(job)) = message else {
                break;
            };
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                break;
            };
            let (workers, hinted) = (Rc::clone(&self), Rc::clone(&hinted));
            tokio::task::spawn_local(async move {
                if workers.transact(job).await {
                    hinted.notify_one();
                }
                drop(place);
            });
        }
        // Whatever was taken from the queue is finished before the connections go.
        let _ = places.acquire_many(u32::try_from(self.limit).unwrap_or(u32::MAX)).await;
        hints.abort();
        self.pool.close();
    }

    /// Looks whenever another process says so, and now and then.
    async fn look_when(self: Rc<Self>, hints: Hints, heard: Rc<Notify>) {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looking = async {
            loop {
                tokio::select! {
                    () = heard.notified() => {}
                    _ = poll.tick() => {}
                }
                self.look().await;
            }
        };
        tokio::join!(hints.listen(Rc::clone(&heard)), looking);
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

    /// Runs a body until its outcome is known, and answers; true if it appended.
    async fn transact(&self, mut job: Box<dyn Job>) -> bool {
        let mut appended = false;
        let deadline = job.deadline();
        let over = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        for attempt in 1..=ATTEMPTS {
            if over() {
                job.refuse(Error::Busy { detail: "nobody waits for it any more".to_owned() });
                break;
            }
            let error = match self.pool.get().await {
                Ok(client) => match self.attempt(client, job.as_mut()).await {
                    Ok(more) => {
                        appended = more;
                        break;
                    }
                    Err(error) => error,
                },
                Err(error) => Error::Busy { detail: format!("no connection: {error}") },
            };
            let again = matches!(error, Error::Busy { .. }) && attempt < ATTEMPTS && !over();
            if !again {
                job.refuse(error);
                break;
            }
            // Those that collided wait for different times, by where their jobs lie in memory.
            let jitter = (std::ptr::from_ref(job.as_ref()).cast::<()>().addr() >> 4) % 8;
            tokio::time::sleep(Duration::from_millis(u64::from(attempt) * 2 + jitter as u64)).await;
        }
        job.answer();
        appended
    }

    /// How its transaction begins: each statement may take what is left of the deadline, if that is less than it may anyway.
    fn begin(&self, deadline: Option<Instant>) -> Cow<'static, str> {
        let begin = if self.shards.is_some() { WRITE } else { READ };
        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            // Zero would mean no limit.
            Some(left) if left < self.statement_limit => {
                format!("{begin}; SET LOCAL statement_timeout = {}", left.as_millis().max(1)).into()
            }
            Some(_) | None => begin.into(),
        }
    }

    /// Runs the body once. `Ok` if the job knows its outcome, and whether it appended; an error if that did not happen.
    async fn attempt(&self, client: Object, job: &mut dyn Job) -> Result<bool, Error> {
        let mut tx = Tx {
            undoable: true,
            session: tx::Session::Postgres(Session::new(client, self.service, self.begin(job.deadline()))),
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
                    return Ok(!appended.is_empty());
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
        outcome.map(|()| false)
    }
}

fn hit(kind: Kind, job: &dyn Job) {
    if let Some(site) = job.site() {
        crash::hit(kind, site.name());
    }
}
