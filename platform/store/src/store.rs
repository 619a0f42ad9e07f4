//! The handle everybody holds: it queues bodies and waits for their answers.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use telemetry::spans::{self, Name, Running};
use tokio::sync::{mpsc, watch};

use crate::{
    Clock, Config, Engine, Error, Site, Tx,
    job::{self, Job, Message, Queued, Threads},
    sqlite,
};

/// However many are configured.
pub(crate) const MOST_READERS: usize = 16;

/// A service's store; cheap to clone, and closed when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    signals: Arc<Signals>,
    writer: mpsc::Sender<Message>,
    readers: async_channel::Sender<Message>,
    file: Option<PathBuf>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

/// What the engine tells the outside.
pub(crate) struct Signals {
    /// The highest position that is committed.
    pub(crate) head: watch::Sender<u64>,
    stopped: watch::Sender<Option<Error>>,
}

impl Signals {
    fn new() -> Self {
        Self { head: watch::Sender::new(0), stopped: watch::Sender::new(None) }
    }

    /// From now on nothing is served; the first reason stays.
    pub(crate) fn stop(&self, reason: Error) {
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            if first {
                *stopped = Some(reason);
            }
            first
        });
    }

    pub(crate) fn stopped(&self) -> Option<Error> {
        self.stopped.borrow().clone()
    }
}

impl Store {
    /// Opens the store and brings its tables up to date.
    pub async fn open(config: Config) -> Result<Self, Error> {
        #[cfg(feature = "planted-bugs")]
        let config = crate::planted::later(config);
        let signals = Arc::new(Signals::new());
        let Threads { writer, readers, file, handles } = match &config.engine {
            Engine::Sqlite { .. } | Engine::Temporary { .. } | Engine::Scratch { .. } => {
                let (service, config, signals) = (config.name, config.clone(), Arc::clone(&signals));
                let opened = tokio::task::spawn_blocking(move || sqlite::open(&config, &signals)).await;
                opened.map_err(|error| Error::Open { service, detail: error.to_string() })??
            }
            #[cfg(feature = "fleet")]
            Engine::Postgres(_) => crate::postgres::open(&config, &signals).await?,
        };
        Ok(Self { inner: Arc::new(Inner { config, signals, writer, readers, file, handles: Mutex::new(handles) }) })
    }

    /// Runs `body` in a transaction and answers after its COMMIT.
    ///
    /// Once it is queued it runs to its end, whether or not the caller still waits. It may await only
    /// the transaction, and may run again, so it has no effects elsewhere.
    pub async fn write<T, E, F>(&self, site: &'static Site, body: F) -> Result<T, E>
    where
        F: AsyncFnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.told(site, self.run(job::job(Some(site), false, body), true)).await
    }

    /// As [`Store::write`], for a body that takes in what can be had only once: on SQLite it does not run again. It has the
    /// writer to itself, so it is for rare work.
    pub async fn write_alone<T, E, F>(&self, site: &'static Site, body: F) -> Result<T, E>
    where
        F: AsyncFnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.told(site, self.run(job::job(Some(site), true, body), true)).await
    }

    /// Runs `body` on one snapshot; it cannot write.
    pub async fn read<T, E, F>(&self, body: F) -> Result<T, E>
    where
        F: AsyncFnMut(&mut Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.run(job::job(None, false, body), false).await
    }

    /// A transaction that writes is a span of the story it is in, from its place in the queue to its flush. One that is nobody's
    /// work is none.
    async fn told<T, E>(&self, site: &'static Site, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let Some(story) = spans::current() else { return work.await };
        let mut span = Running::begin(self.name(), spans::Kind::Client, Name::of("transaction", site.name()), &story);
        span.set("db.system.name", self.system());
        span.set("db.namespace", self.name());
        let answer = work.await;
        // A refusal of the domain rolls back too, which is no failure of the database.
        span.set("db.operation.name", if answer.is_ok() { "COMMIT" } else { "ROLLBACK" });
        span.end();
        answer
    }

    /// As OpenTelemetry's conventions call the engine.
    fn system(&self) -> &'static str {
        match &self.inner.config.engine {
            Engine::Sqlite { .. } | Engine::Temporary { .. } | Engine::Scratch { .. } => "sqlite",
            #[cfg(feature = "fleet")]
            Engine::Postgres(_) => "postgresql",
        }
    }

    async fn run<T, E: From<Error>>(&self, (job, answer): Queued<T, E>, write: bool) -> Result<T, E> {
        self.queue(job, write).await?;
        // The thread answers every job it takes; it is gone if there is no answer.
        answer.await.unwrap_or_else(|_| Err(E::from(self.gone())))
    }

    async fn queue(&self, job: Box<dyn Job>, write: bool) -> Result<(), Error> {
        if let Some(stopped) = self.inner.signals.stopped() {
            return Err(stopped);
        }
        let queued = if write {
            self.inner.writer.send(Message::Run(job)).await.is_ok()
        } else {
            self.inner.readers.send(Message::Run(job)).await.is_ok()
        };
        if queued { Ok(()) } else { Err(self.gone()) }
    }

    fn gone(&self) -> Error {
        self.inner.signals.stopped().unwrap_or_else(|| Error::Stopped { reason: "its thread is gone".to_owned() })
    }

    /// The highest position committed so far; it changes after each commit that appended.
    ///
    /// With several shards it is a hint that something was appended, not a position of any of them.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.inner.signals.head.subscribe()
    }

    /// Returns when the store has stopped, with the reason: a supervisor ends the process then.
    pub async fn stopped(&self) -> Error {
        let mut stopped = self.inner.signals.stopped.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let reason = stopped.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| self.gone())
    }

    /// Whether other processes may have it open as well.
    pub fn is_shared(&self) -> bool {
        match &self.inner.config.engine {
            Engine::Sqlite { .. } | Engine::Temporary { .. } | Engine::Scratch { .. } => false,
            #[cfg(feature = "fleet")]
            Engine::Postgres(_) => true,
        }
    }

    /// Its file, where it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.inner.file.as_deref()
    }

    /// The clock of its transactions.
    pub fn clock(&self) -> &Clock {
        &self.inner.config.clock
    }

    /// The store's name.
    pub fn name(&self) -> &'static str {
        self.inner.config.name
    }

    /// An empty store with the same tables and clock, beside this one, gone when it is dropped: for rebuilds.
    ///
    /// It is SQLite whatever this one is; the SQL is the same. It stops with the first body that fails.
    pub async fn scratch(&self) -> Result<Self, Error> {
        let folder = match &self.inner.config.engine {
            Engine::Sqlite { path } => path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(PathBuf::from),
            Engine::Temporary { folder } | Engine::Scratch { folder } => folder.clone(),
            #[cfg(feature = "fleet")]
            Engine::Postgres(_) => None,
        };
        Self::open(Config { engine: Engine::Scratch { folder }, readers: 1, ..self.inner.config.clone() }).await
    }

    /// Runs what is queued, closes the engine, and returns when its files are free; other clones get `Error::Stopped`.
    pub async fn close(self) {
        // A closed queue means that its thread has ended by itself.
        for _ in 0..self.inner.config.readers.clamp(1, MOST_READERS) {
            let _ = self.inner.readers.send(Message::Close).await;
        }
        let mut handles = std::mem::take(&mut *self.inner.handles.lock().unwrap_or_else(PoisonError::into_inner));
        let writer = handles.split_off(handles.len().saturating_sub(1));
        join(handles).await;
        // The last connection to go copies the write-ahead log into the file; that is the writer's.
        let _ = self.inner.writer.send(Message::Close).await;
        join(writer).await;
        self.inner.signals.stop(Error::Stopped { reason: "it was closed".to_owned() });
    }
}

impl Drop for Inner {
    /// Waits for the threads, so that the file can be opened again at once.
    fn drop(&mut self) {
        let mut handles = std::mem::take(self.handles.get_mut().unwrap_or_else(PoisonError::into_inner));
        let writer = handles.split_off(handles.len().saturating_sub(1));
        let this = std::thread::current().id();
        let join = |handles: Vec<JoinHandle<()>>| {
            for handle in handles {
                // A body may hold the last clone: its own thread cannot wait for itself.
                if handle.thread().id() != this {
                    let _ = handle.join();
                }
            }
        };
        // A thread ends when its queue is closed, or has no sender left.
        self.readers.close();
        join(handles);
        self.writer = mpsc::channel(1).0;
        join(writer);
    }
}

async fn join(handles: Vec<JoinHandle<()>>) {
    // A panic of a thread has been reported where it happened.
    let _ = tokio::task::spawn_blocking(move || handles.into_iter().try_for_each(JoinHandle::join)).await;
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Store")
            .field("name", &self.inner.config.name)
            .field("engine", &self.inner.config.engine)
            .finish_non_exhaustive()
    }
}
