//! The two threads that own the ledger's connections, and the handle that talks to them.
//!
//! The writer takes whatever has queued up while the previous commit was in flight, performs it as one
//! transaction, and lets no answer out before that transaction is on disk. A change that fails takes its
//! whole batch with it: every client of the batch is told "failed", and none of it happened. After a COMMIT
//! that failed the writer ends, because nobody can know what is on disk.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::ledger::{Error, Ledger};

const QUEUE: usize = 4096;
const BATCH: usize = 256;

type Acknowledge = Box<dyn FnOnce() + Send>;
/// Work on the ledger; nothing comes back when it failed, and its client has been told so.
type Job = Box<dyn FnOnce(&Ledger, Timestamp) -> Option<Acknowledge> + Send>;

/// A cheap handle on the ledger.
#[derive(Clone)]
pub(crate) struct Journal {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
}

/// The threads behind a journal; they end when its last handle is gone.
pub(crate) struct Threads {
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
    lock: File,
}

impl Journal {
    /// Opens the ledger in a folder and starts its threads; one process at a time.
    ///
    /// With `abort_at_commit`, the process ends at that commit, after it is on disk and before anyone is told.
    pub(crate) fn open(folder: &Path, abort_at_commit: Option<u64>) -> Result<(Self, Threads), Error> {
        std::fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).append(true).open(folder.join("sandbox.lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::Locked(folder.display().to_string()),
            TryLockError::Error(error) => Error::Folder(error),
        })?;
        let file = folder.join("sandbox.sqlite");
        let write_side = Ledger::open(&file)?;
        let read_side = Ledger::open(&file)?;
        let (writer, write_jobs) = mpsc::channel(QUEUE);
        let (reader, read_jobs) = mpsc::channel(QUEUE);
        let threads = Threads {
            writer: std::thread::Builder::new()
                .name("sandbox-writer".to_owned())
                .spawn(move || write(&write_side, write_jobs, abort_at_commit))?,
            reader: std::thread::Builder::new()
                .name("sandbox-reader".to_owned())
                .spawn(move || read(&read_side, read_jobs))?,
            lock,
        };
        Ok((Self { writer, reader }, threads))
    }

    /// Performs a change and returns once it is durable.
    pub(crate) async fn write<T, F>(&self, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Ledger, Timestamp) -> Result<T, Error> + Send + 'static,
    {
        submit(&self.writer, change).await
    }

    /// Runs a query over what is committed.
    pub(crate) async fn read<T, F>(&self, query: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Ledger) -> Result<T, Error> + Send + 'static,
    {
        submit(&self.reader, move |ledger: &Ledger, _| query(ledger)).await
    }
}

impl Threads {
    /// Whether the writer still runs.
    pub(crate) fn alive(&self) -> bool {
        !self.writer.is_finished()
    }

    /// Waits for the threads, whose last handle must be gone, and frees the folder.
    pub(crate) fn join(self) {
        if self.writer.join().is_err() || self.reader.join().is_err() {
            tracing::error!("a thread of the ledger panicked");
        }
        drop(self.lock);
    }
}

async fn submit<T, F>(queue: &mpsc::Sender<Job>, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce(&Ledger, Timestamp) -> Result<T, Error> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move |ledger, now| match work(ledger, now) {
        // A client that has gone away changes nothing: what it asked for is done.
        Ok(value) => Some(Box::new(move || drop(reply.send(Ok(value)))) as Acknowledge),
        Err(error) => {
            tracing::error!(%error, "ledger: failed");
            drop(reply.send(Err(error)));
            None
        }
    });
    queue.send(job).await.map_err(|_| Error::Stopped)?;
    answer.await.map_err(|_| Error::RolledBack)?
}

fn write(ledger: &Ledger, mut jobs: mpsc::Receiver<Job>, abort_at_commit: Option<u64>) {
    let mut commits = 0;
    let mut acknowledged = Vec::with_capacity(BATCH);
    while let Some(first) = jobs.blocking_recv() {
        if let Err(error) = ledger.begin() {
            tracing::error!(%error, "ledger: no transaction could be started");
            continue;
        }
        if !batch(ledger, first, &mut jobs, &mut acknowledged) {
            ledger.rollback();
            acknowledged.clear();
            continue;
        }
        if let Err(error) = ledger.commit() {
            tracing::error!(%error, "ledger: commit failed, the writer ends");
            return;
        }
        commits += 1;
        if abort_at_commit == Some(commits) {
            std::process::abort();
        }
        for acknowledge in acknowledged.drain(..) {
            acknowledge();
        }
    }
}

/// Performs what has queued up; false as soon as one change failed.
fn batch(ledger: &Ledger, first: Job, jobs: &mut mpsc::Receiver<Job>, acknowledged: &mut Vec<Acknowledge>) -> bool {
    let now = clock::now();
    let mut next = Some(first);
    while let Some(job) = next {
        match job(ledger, now) {
            Some(acknowledge) => acknowledged.push(acknowledge),
            None => return false,
        }
        next = if acknowledged.len() < BATCH { jobs.try_recv().ok() } else { None };
    }
    true
}

fn read(ledger: &Ledger, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        if let Some(acknowledge) = job(ledger, clock::now()) {
            acknowledge();
        }
    }
}
