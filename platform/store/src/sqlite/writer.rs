//! The one thread that writes: it runs what has queued up as one SQLite transaction and flushes once.
//!
//! Each body runs in a savepoint of its own, so that its failure undoes nothing of the others'. Nobody is
//! answered before COMMIT, not even with a refusal: it may rest on rows that another body of the same
//! transaction wrote. There is no timer; a batch is what arrives while the one before it is flushed, and
//! while its own bodies run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
};

use rusqlite::hooks::Wal;
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    open::{Guard, transaction},
    session::{SHARD, Session, is_io},
};
use crate::{
    Clock, Config, Error, Site, Tx,
    crash::{self, Kind},
    job::{Job, Message, run_now},
    store::Signals,
    tx,
};

/// Bodies in one transaction.
const BATCH: usize = 256;
/// How often in a row the processor is offered to callers that may be on their way.
const OFFERS: u32 = 4;
/// Pages in the WAL from which the writer copies them into the database: 16 MiB. A page that many commits
/// changed is copied once, so a larger WAL costs less; a smaller one is sooner read again after a crash.
const CHECKPOINT: i32 = 4_000;
/// Pages in the WAL from which it is emptied when no reader is running: 64 MiB.
const WAL_EMPTIED: i32 = 16_000;
/// Pages in the WAL from which the writer waits until no reader is running: 128 MiB.
const WAL_LIMIT: i32 = 32_000;

pub(super) struct Writer {
    tx: Tx,
    clock: Clock,
    /// The last position given out, ahead of the counter row until the end of the batch.
    head: u64,
    queue: mpsc::Receiver<Message>,
    batch: Vec<Entry>,
    /// How many bodies the batch before this one had.
    batch_before: usize,
    wal_pages: Arc<AtomicI32>,
    pages_before: i32,
    /// Pages at which the next copying is tried.
    checkpoint_at: i32,
    signals: Arc<Signals>,
    guard: Arc<Guard>,
}

struct Entry {
    job: Box<dyn Job>,
    kept: bool,
}

/// Why the thread ends.
enum End {
    Closed,
    Failed(Error),
}

impl Writer {
    pub(super) fn new(
        config: &Config,
        mut session: Session,
        head: u64,
        queue: mpsc::Receiver<Message>,
        signals: Arc<Signals>,
        guard: Arc<Guard>,
    ) -> Result<Self, Error> {
        let wal_pages = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&wal_pages);
        let hook = move |_: &mut Wal, pages: i32| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        };
        if let Err(error) = session.connection.wal_hook(Some(hook)) {
            return Err(session.error(error));
        }
        Ok(Self {
            tx: transaction(config, session, true),
            clock: config.clock.clone(),
            head,
            queue,
            batch: Vec::with_capacity(BATCH),
            batch_before: 0,
            wal_pages,
            pages_before: 0,
            checkpoint_at: CHECKPOINT,
            signals,
            guard,
        })
    }

    pub(super) fn run(mut self) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let reason = match served.unwrap_or_else(|_| End::Failed(Error::Panicked { message: "its writer".to_owned() }))
        {
            End::Closed => Error::Stopped { reason: "it was closed".to_owned() },
            End::Failed(error) => {
                tracing::error!(service = self.tx.service, %error, "the store stops");
                Error::Stopped { reason: error.to_string() }
            }
        };
        self.signals.stop(reason.clone());
        self.queue.close();
        while let Ok(message) = self.queue.try_recv() {
            if let Message::Run(mut job) = message {
                job.refuse(reason.clone());
                job.answer();
            }
        }
    }

    fn serve(&mut self) -> End {
        loop {
            let closing = match self.queue.blocking_recv() {
                None => return End::Closed,
                Some(Message::Close) => true,
                Some(Message::Run(job)) => match self.transact(job) {
                    Ok(closing) => closing,
                    Err(error) => return End::Failed(error),
                },
            };
            if let Err(error) = self.checkpoint() {
                return End::Failed(error);
            }
            if closing {
                return End::Closed;
            }
        }
    }

    /// One batch from BEGIN to the answers; `Ok(true)` if the queue is closed behind it.
    ///
    /// An error means that the store must stop; whoever was in the batch has been told.
    fn transact(&mut self, first: Box<dyn Job>) -> Result<bool, Error> {
        let before = self.head;
        let mut closing = false;
        let filled = self.fill(first, &mut closing);
        self.batch_before = self.batch.len();
        let outcome = filled.and_then(|()| self.commit(before));
        if let Err(lost) = outcome {
            self.head = before;
            let stop = self.abandon(&lost);
            self.answer();
            stop?;
        }
        Ok(closing)
    }

    /// Runs bodies until none is waiting.
    fn fill(&mut self, first: Box<dyn Job>, closing: &mut bool) -> Result<(), Lost> {
        let mut next = Some(first);
        let begun = self.control("BEGIN IMMEDIATE");
        while let Some(mut job) = next.take() {
            let ran = begun.clone().map_err(Lost::Run).and_then(|()| self.body(job.as_mut()));
            self.batch.push(Entry { job, kept: matches!(ran, Ok(true)) });
            ran?;
            if self.batch.len() < BATCH {
                next = self.waiting(closing);
            }
        }
        Ok(())
    }

    /// The next body of the batch, if one has come by now.
    ///
    /// Whoever was answered with the batch before often comes again at once. So as long as this batch is
    /// smaller, the processor is offered to them a few times, or every second flush would be for a handful.
    fn waiting(&mut self, closing: &mut bool) -> Option<Box<dyn Job>> {
        for offer in 0..=OFFERS {
            match self.queue.try_recv() {
                Ok(Message::Run(job)) => return Some(job),
                Ok(Message::Close) => {
                    *closing = true;
                    return None;
                }
                Err(TryRecvError::Empty) if offer < OFFERS && self.batch.len() < self.batch_before => {
                    std::thread::yield_now()
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
        None
    }

    /// Runs one body in its savepoint; `Ok(true)` if its work is kept, an error if the whole batch is lost.
    fn body(&mut self, job: &mut dyn Job) -> Result<bool, Lost> {
        self.control("SAVEPOINT body").map_err(Lost::Run)?;
        self.tx.reset(self.clock.now());
        let wanted = run_now(job, &mut self.tx);
        let head = self.head;
        let failed = match self.tx.first_error.take() {
            None if wanted => self.append().err(),
            first_error => first_error,
        };
        if let Some(error) = &failed
            && (session(&self.tx).is_broken() || is_io(error) || matches!(error, Error::Damaged { .. }))
        {
            return Err(Lost::Run(error.clone()));
        }
        let keep = wanted && failed.is_none();
        if !keep {
            self.head = head;
            // A body that reports something of its own is answered with that, not with what led to it.
            if wanted && let Some(error) = failed {
                job.refuse(error);
            }
            self.control("ROLLBACK TO SAVEPOINT body").map_err(Lost::Run)?;
        }
        self.control("RELEASE SAVEPOINT body").map_err(Lost::Run)?;
        Ok(keep)
    }

    /// Gives the body's events their positions and writes them.
    fn append(&mut self) -> Result<(), Error> {
        let session = session(&self.tx);
        for event in &self.tx.appended {
            session.append(event, self.head + 1, self.tx.now)?;
            self.head += 1;
        }
        Ok(())
    }

    fn commit(&mut self, before: u64) -> Result<(), Lost> {
        if self.head != before {
            let sql = "UPDATE shards SET head = $1 WHERE shard = $2";
            let changed = session(&self.tx).execute(sql, &[self.head.into(), SHARD.into()]).map_err(Lost::Run)?;
            if changed != 1 {
                let detail = "the counter of the log's positions is gone".to_owned();
                return Err(Lost::Run(Error::Damaged { service: self.tx.service, detail }));
            }
        }
        let sites = self.sites();
        #[cfg(feature = "planted-bugs")]
        if crate::planted::answers_before_commit() {
            self.answer();
        }
        sites.iter().for_each(|site| crash::hit(Kind::CommitBefore, site.name()));
        self.control("COMMIT").map_err(Lost::Commit)?;
        sites.iter().for_each(|site| crash::hit(Kind::CommitAfter, site.name()));
        if self.head != before {
            self.signals.head.send_replace(self.head);
        }
        self.answer();
        Ok(())
    }

    /// Whose work the batch holds, if anybody wants to know.
    fn sites(&self) -> Vec<&'static Site> {
        if crash::active() {
            self.batch.iter().filter(|entry| entry.kept).filter_map(|entry| entry.job.site()).collect()
        } else {
            Vec::new()
        }
    }

    fn answer(&mut self) {
        for entry in self.batch.drain(..) {
            entry.job.answer();
        }
    }

    /// Rolls the batch back and tells every caller in it; an error if the store must stop.
    fn abandon(&mut self, lost: &Lost) -> Result<(), Error> {
        let (error, told, mut stop) = match lost {
            Lost::Run(error) => (error, error.clone(), is_io(error) || matches!(error, Error::Damaged { .. })),
            Lost::Commit(error) => match error {
                // These are found before anything is made durable.
                Error::Full { .. } | Error::Constraint { .. } | Error::Busy { .. } => (error, error.clone(), false),
                _ => (error, Error::InDoubt { detail: error.to_string() }, true),
            },
        };
        for entry in &mut self.batch {
            entry.kept = false;
            entry.job.refuse(told.clone());
        }
        if !session(&self.tx).is_broken() && self.control("ROLLBACK").is_err() {
            stop = true;
        }
        if stop { Err(error.clone()) } else { Ok(()) }
    }

    /// Copies the WAL into the database when it has grown, and empties it when readers kept it growing.
    fn checkpoint(&mut self) -> Result<(), Error> {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if pages < self.pages_before {
            // Everything was copied and no reader held on to it, so the WAL has started over.
            self.checkpoint_at = CHECKPOINT;
        }
        self.pages_before = pages;
        if pages < self.checkpoint_at {
            return Ok(());
        }
        self.checkpoint_at = pages + CHECKPOINT;
        let alone = match pages {
            ..WAL_EMPTIED => None,
            WAL_EMPTIED..WAL_LIMIT => self.guard.running.try_write().ok(),
            WAL_LIMIT.. => Some(self.guard.running.write().unwrap_or_else(PoisonError::into_inner)),
        };
        let pragma = if alone.is_some() { "PRAGMA wal_checkpoint(TRUNCATE)" } else { "PRAGMA wal_checkpoint(PASSIVE)" };
        match session(&self.tx).query(pragma, &[], &mut |_| Ok(())) {
            Ok(()) => {
                if alone.is_some() {
                    self.wal_pages.store(0, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(error) if is_io(&error) || matches!(error, Error::Damaged { .. }) => Err(error),
            Err(error) => {
                // A full disk: the WAL keeps everything, and a later commit tries again.
                tracing::warn!(service = self.tx.service, %error, "the write-ahead log is not copied");
                Ok(())
            }
        }
    }

    fn control(&self, sql: &'static str) -> Result<(), Error> {
        session(&self.tx).control(sql)
    }
}

/// A batch that is lost as a whole, and where.
enum Lost {
    Run(Error),
    Commit(Error),
}

pub(super) fn session(tx: &Tx) -> &Session {
    match &tx.session {
        tx::Session::Sqlite(session) => session,
        #[cfg(feature = "fleet")]
        tx::Session::Postgres(_) => {
            unreachable!("the threads of SQLite make their own transactions")
        }
    }
}
