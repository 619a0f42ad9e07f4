//! The reader threads: each runs one read body at a time on the snapshot of its first statement.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    open::{Guard, transaction},
    session::Session,
    writer::session,
};
use crate::{
    Clock, Config, Error, Tx,
    job::{Job, Message, run_now},
    store::Signals,
};

/// Steps of SQLite's machine between two looks at the clock: well under a millisecond.
const STEPS: i32 = 10_000;

pub(super) struct Reader {
    tx: Tx,
    clock: Clock,
    queue: async_channel::Receiver<Message>,
    signals: Arc<Signals>,
    guard: Arc<Guard>,
    limit: Duration,
    started: Instant,
    /// When the running body must end, in milliseconds since `started`.
    deadline_ms: Arc<AtomicU64>,
}

impl Reader {
    pub(super) fn new(
        config: &Config,
        mut session: Session,
        queue: async_channel::Receiver<Message>,
        signals: Arc<Signals>,
        guard: Arc<Guard>,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let deadline_ms = Arc::new(AtomicU64::new(u64::MAX));
        let deadline = Arc::clone(&deadline_ms);
        let late = move || millis(started.elapsed()) > deadline.load(Ordering::Relaxed);
        if let Err(error) = session.connection.progress_handler(STEPS, Some(late)) {
            return Err(session.error(error));
        }
        let tx = transaction(config, session, false);
        Ok(Self {
            tx,
            clock: config.clock.clone(),
            queue,
            signals,
            guard,
            limit: config.read_limit,
            started,
            deadline_ms,
        })
    }

    pub(super) fn run(mut self) {
        loop {
            let Ok(Message::Run(mut job)) = self.queue.recv_blocking() else {
                return;
            };
            if let Some(stopped) = self.signals.stopped() {
                job.refuse(stopped);
            } else {
                self.body(job.as_mut());
            }
            job.answer();
        }
    }

    fn body(&mut self, job: &mut dyn Job) {
        let guard = Arc::clone(&self.guard);
        let _running = guard.running.read().unwrap_or_else(PoisonError::into_inner);
        self.deadline_ms.store(millis(self.started.elapsed() + self.limit), Ordering::Relaxed);
        self.tx.reset(self.clock.now());
        if let Err(error) = session(&self.tx).control("BEGIN DEFERRED") {
            job.refuse(error);
            return;
        }
        let wanted = run_now(job, &mut self.tx);
        if wanted && let Some(error) = self.tx.first_error.take() {
            job.refuse(error);
        }
        self.deadline_ms.store(u64::MAX, Ordering::Relaxed);
        if !session(&self.tx).is_broken()
            && let Err(error) = session(&self.tx).control("ROLLBACK")
        {
            tracing::warn!(service = self.tx.service, %error, "a read transaction does not end");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
