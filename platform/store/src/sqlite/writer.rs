//! The one thread that writes: it runs what has queued up as one SQLite transaction and flushes once.
//!
//! A body's failure undoes nothing of the others'. Most bodies do not fail after they wrote something, and a
//! savepoint costs a copy of every page that is changed in it; so a batch first runs without, and if it has
//! to undo a part, all of it is rolled back and runs again, each body in a savepoint of its own.
//!
//! Nobody is answered before COMMIT, not even with a refusal: it may rest on rows that another body of the
//! same transaction wrote. There is no timer; a batch is what arrives while the one before it is flushed,
//! and while its own bodies run.

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
    Clock, Config, Engine, Error, Site, Tx,
    crash::{self, Kind},
    job::{Job, Message, run_now},
    store::Signals,
    tx,
};

/// Bodies in one transaction.
const BATCH: usize = 256;
/// Batches that run with savepoints after one that had to run again: where bodies fail, more will.
const GUARDED: u32 = 32;
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
    /// Taken from the queue for the next batch, which it has to itself.
    held: Option<Box<dyn Job>>,
    batch: Vec<Entry>,
    /// How many batches more run with savepoints.
    guarded: u32,
    /// How many bodies the batch before this one had.
    batch_before: usize,
    wal_pages: Arc<AtomicI32>,
    pages_before: i32,
    /// Pages at which the next copying is tried.
    checkpoint_at: i32,
    /// Whether what a body did can be undone alone; in a scratch store nothing can be.
    undoes: bool,
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
            held: None,
            batch: Vec::with_capacity(BATCH),
            guarded: 0,
            batch_before: 0,
            wal_pages,
            pages_before: 0,
            checkpoint_at: CHECKPOINT,
            undoes: !matches!(config.engine, Engine::Scratch { .. }),
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
        let mut held = self.held.take().map(Message::Run);
        while let Some(message) = held.take().or_else(|| self.queue.try_recv().ok()) {
            if let Message::Run(mut job) = message {
                job.refuse(reason.clone());
                job.answer();
            }
        }
    }

    fn serve(&mut self) -> End {
        loop {
            let held = self.held.take().map(Message::Run);
            let closing = match held.or_else(|| self.queue.blocking_recv()) {
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
        self.tx.undoable = self.undoes && (self.guarded > 0 || first.is_alone());
        self.guarded = self.guarded.saturating_sub(1);
        let filled = match self.fill(vec![first], &mut closing) {
            Ok(Filled::Again) => self.refill(before, &mut closing),
            Ok(Filled::Whole) => Ok(()),
            Err(lost) => Err(lost),
        };
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

    /// Runs the bodies of the batch once more, so that each can be undone by itself.
    fn refill(&mut self, before: u64, closing: &mut bool) -> Result<(), Lost> {
        self.head = before;
        self.guarded = GUARDED;
        self.tx.undoable = true;
        let jobs: Vec<_> = self.batch.drain(..).map(|entry| entry.job).collect();
        match self.control("ROLLBACK") {
            // With savepoints there is no third time.
            Ok(()) => {
                session(&self.tx).let_go();
                self.fill(jobs, closing).map(drop)
            }
            Err(error) => {
                self.batch.extend(jobs.into_iter().map(|job| Entry { job, kept: false }));
                Err(Lost::Run(error))
            }
        }
    }

    /// Runs these bodies, and those that come meanwhile, until none is waiting.
    fn fill(&mut self, jobs: Vec<Box<dyn Job>>, closing: &mut bool) -> Result<Filled, Lost> {
        let mut jobs = jobs.into_iter();
        let mut next = jobs.next();
        let alone = next.as_ref().is_some_and(|job| job.is_alone());
        let mut lost = self.control("BEGIN IMMEDIATE").err().map(Lost::Run);
        let mut again = false;
        while let Some(mut job) = next.take() {
            let mut kept = false;
            // Once the batch is lost, the rest of it only waits to be told.
            if lost.is_none() {
                match self.body(job.as_mut()) {
                    Ok(Ran::Kept) => kept = true,
                    Ok(Ran::Undone) => {}
                    Ok(Ran::Stays) => again = true,
                    Err(error) => lost = Some(error),
                }
            }
            self.batch.push(Entry { job, kept });
            next = jobs.next();
            if next.is_none() && lost.is_none() && !alone && !again && !*closing && self.batch.len() < BATCH {
                next = self.waiting(closing);
            }
        }
        match lost {
            Some(lost) => Err(lost),
            None if again => Ok(Filled::Again),
            None => Ok(Filled::Whole),
        }
    }

    /// The next body of the batch, if one has come by now.
    ///
    /// Whoever was answered with the batch before often comes again at once. So as long as this batch is
    /// smaller, the processor is offered to them a few times, or every second flush would be for a handful.
    fn waiting(&mut self, closing: &mut bool) -> Option<Box<dyn Job>> {
        for offer in 0..=OFFERS {
            match self.queue.try_recv() {
                Ok(Message::Run(job)) if job.is_alone() => {
                    self.held = Some(job);
                    return None;
                }
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

    /// Runs one body; an error if the whole batch is lost.
    fn body(&mut self, job: &mut dyn Job) -> Result<Ran, Lost> {
        let guarded = self.tx.undoable;
        if guarded {
            self.control("SAVEPOINT body").map_err(Lost::Run)?;
        }
        self.tx.reset(self.clock.now());
        let (head, writes) = (self.head, session(&self.tx).writes());
        let wanted = run_now(job, &mut self.tx);
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
            if !self.undoes {
                if wanted && let Some(error) = failed {
                    job.refuse(error);
                }
                return Err(Lost::Body);
            }
            let unchanged = session(&self.tx).writes() == writes && self.head == head;
            if !guarded && !unchanged {
                return Ok(Ran::Stays);
            }
            self.head = head;
            // A body that reports something of its own is answered with that, not with what led to it.
            if wanted && let Some(error) = failed {
                job.refuse(error);
            }
            if guarded {
                self.control("ROLLBACK TO SAVEPOINT body").map_err(Lost::Run)?;
            }
        }
        if guarded {
            self.control("RELEASE SAVEPOINT body").map_err(Lost::Run)?;
        }
        Ok(if keep { Ran::Kept } else { Ran::Undone })
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
        session(&self.tx).let_go();
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
        let ended = Error::Stopped { reason: "a body failed in a scratch store".to_owned() };
        let (error, told, mut stop) = match lost {
            Lost::Body => (&ended, ended.clone(), true),
            Lost::Run(error) => (error, error.clone(), is_io(error) || matches!(error, Error::Damaged { .. })),
            Lost::Commit(error) => match error {
                // These are found before anything is made durable.
                Error::Full { .. } | Error::Constraint { .. } | Error::Busy { .. } => (error, error.clone(), false),
                _ => (error, Error::InDoubt { detail: error.to_string() }, true),
            },
        };
        let answered = usize::from(matches!(lost, Lost::Body));
        let refused = self.batch.len().saturating_sub(answered);
        for entry in self.batch.iter_mut().take(refused) {
            entry.kept = false;
            entry.job.refuse(told.clone());
        }
        if !session(&self.tx).is_broken() && self.control("ROLLBACK").is_err() {
            stop = true;
        }
        session(&self.tx).let_go();
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

/// What became of the bodies of a batch.
enum Filled {
    /// Each is kept or undone.
    Whole,
    /// One must be undone and cannot be: all run again.
    Again,
}

/// What became of a body.
enum Ran {
    Kept,
    /// Nothing of it is left, if there was anything.
    Undone,
    /// It failed, and what it wrote is still there.
    Stays,
}

/// A batch that is lost as a whole, and where.
enum Lost {
    Run(Error),
    /// By its last body, which nothing can undo and which has its answer.
    Body,
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
