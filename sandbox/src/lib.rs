//! A payment provider to try a shop against: the outside world, with a durable ledger of its own.
//!
//! It speaks HTTP/1.1 and JSON (README.md beside this crate), keeps authorisations, captures, voids and
//! refunds in its own file, and misbehaves on request: the payment token decides how. It shares no code with
//! the shop, so its ledger can judge from outside whether anybody was charged twice. What it owes:
//!
//! * every answer and every webhook tells of something that is already on disk;
//! * one idempotency key has one effect and one answer, over restarts too;
//! * refunded <= captured <= authorised, and nothing is voided once captured;
//! * two requests with *different* keys have two effects, whatever reference they carry.

mod clock;
mod flags;
mod http;
mod journal;
mod ledger;
mod token;
mod webhook;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use flags::Flags;
pub use ledger::Error;
pub use token::{Token, Webhooks};
pub use webhook::signature;

/// Connections at once, unless told otherwise.
const CONNECTIONS: usize = 8192;
const DRAIN: Duration = Duration::from_secs(2);

/// Everything the provider can be told before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder of the ledger; made when absent, locked while in use.
    pub data: PathBuf,
    /// Where webhooks go (`http://`); without it, what was last set by `PUT /webhook_endpoint`, or nowhere yet.
    pub webhook_url: Option<String>,
    /// The key of webhook signatures.
    pub webhook_secret: String,
    /// Which changes are told by webhook.
    pub webhooks: Webhooks,
    /// How long `tok_webhook_late` holds its webhooks back.
    pub late: Duration,
    /// How long `tok_slow` waits with its answer.
    pub slow: Duration,
    /// Connections at once; more wait until one is closed.
    pub connections: usize,
    /// How long `tok_webhook_first` waits for its webhook to be accepted before it answers all the same.
    pub patience: Duration,
    /// The address that challenges are told to live at; by default the listener's.
    pub public_url: Option<String>,
    /// Abort the process at this commit, when it is on disk and nobody has been answered: a crash for tests.
    pub abort_at_commit: Option<u64>,
}

impl Config {
    /// The defaults, for a ledger in `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            webhook_url: None,
            webhook_secret: "sandbox-webhook-secret".to_owned(),
            webhooks: Webhooks::default(),
            late: Duration::from_secs(5),
            slow: Duration::from_secs(3),
            connections: CONNECTIONS,
            patience: Duration::from_secs(5),
            public_url: None,
            abort_at_commit: None,
        }
    }
}

/// The provider, ready to listen.
pub struct Sandbox {
    config: Config,
    journal: journal::Journal,
    threads: journal::Threads,
    deliveries: webhook::Deliveries,
}

/// Opens the ledger and takes its lock.
pub async fn build(config: Config) -> Result<Sandbox, Error> {
    let (journal, threads) = journal::Journal::open(&config.data, config.abort_at_commit)?;
    let kept = journal.read(|ledger| ledger.endpoint()).await?;
    let endpoint = match &config.webhook_url {
        Some(url) => Some(wire::Endpoint { url: url.clone(), secret: config.webhook_secret.clone() }),
        None => kept,
    };
    let deliveries = webhook::Deliveries::new(journal.clone(), endpoint);
    Ok(Sandbox { config, journal, threads, deliveries })
}

impl Sandbox {
    /// Serves until `shutdown`, lets requests in progress end for two seconds, and closes the ledger.
    ///
    /// Fails when the ledger can no longer be written.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let base = match &self.config.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", listener.local_addr()?),
        };
        let desk = http::Desk {
            journal: self.journal.clone(),
            deliveries: self.deliveries.clone(),
            telling: ledger::Telling { policy: self.config.webhooks, late: self.config.late },
            slow: self.config.slow,
            patience: self.config.patience,
            base,
        };
        // Ends the connections and the deliveries, whatever they wait for.
        let abort = CancellationToken::new();
        let tasks = TaskTracker::new();
        let deliveries = tokio::spawn(self.deliveries.run(abort.clone()));
        let outcome = accept(&listener, self.config.connections, &desk, &tasks, &shutdown, &abort, &self.threads).await;
        drop(listener);
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::info!("requests that were still waiting are cut");
        }
        abort.cancel();
        tasks.wait().await;
        if let Err(error) = deliveries.await {
            tracing::error!(%error, "the deliveries ended badly");
        }
        drop((desk, self.journal));
        let joined = tokio::task::spawn_blocking(move || self.threads.join()).await;
        if let Err(error) = joined {
            tracing::error!(%error, "the ledger did not close");
        }
        outcome
    }
}

async fn accept(
    listener: &TcpListener,
    connections: usize,
    desk: &http::Desk,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    abort: &CancellationToken,
    threads: &journal::Threads,
) -> Result<(), Error> {
    let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut watch = tokio::time::interval(Duration::from_secs(1));
    watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.map_err(|_| Error::Stopped)?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let stream = loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = watch.tick() => if !threads.alive() { return Err(Error::Stopped) },
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => break stream,
                    Err(error) => {
                        // Out of descriptors, or a client that vanished: neither ends the provider.
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                },
            }
        };
        let (desk, shutdown, abort) = (desk.clone(), shutdown.clone(), abort.clone());
        tasks.spawn(async move {
            serve(stream, desk, shutdown, abort).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, desk: http::Desk, shutdown: CancellationToken, abort: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let service = service_fn(move |request| desk.clone().answer(request));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = shutdown.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = abort.cancelled() => return,
        }
    }
}
