//! What every process of a fleet is told on its command line, or by its environment.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use server::{Task, Windows, duration};
use telemetry::Format;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a process of a fleet is run with, whichever service it is.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Map of the fleet, TOML: `secret_file`, the engines, and `[services]` with where each service is
    #[arg(long, value_name = "FILE", env = "STOA_FLEET")]
    pub fleet: PathBuf,
    /// Where this copy listens; needed where the map does not name one address alone. Port 0 takes any
    #[arg(long, value_name = "ADDR:PORT", env = "STOA_BIND")]
    pub bind: Option<SocketAddr>,
    /// Where others reach this copy, if not where it listens: what it tells the registry, where the map names one
    #[arg(long, value_name = "ADDR:PORT", env = "STOA_ADVERTISE")]
    pub advertise: Option<SocketAddr>,
    /// Folder for what is in no database
    #[arg(long, value_name = "DIR", env = "STOA_DATA", default_value = "data")]
    pub data: PathBuf,
    /// Log lines on standard error: `pretty` for people, `json` for machines
    #[arg(long = "log", value_name = "FORMAT", env = "STOA_LOG", default_value = "pretty")]
    pub log: Format,
    /// What is logged, for example `info,store=debug`
    #[arg(long, value_name = "FILTER", env = "STOA_LOG_FILTER", default_value = "warn,audit=info")]
    pub log_filter: String,
    /// How it is watched.
    #[command(flatten)]
    pub watching: Watching,
    /// Before it ends.
    #[command(flatten)]
    pub notice: Notice,
    /// How long things may stay open.
    #[command(flatten)]
    pub times: Times,
    /// Faults for tests.
    #[command(flatten)]
    pub faults: Faults,
}

/// How long things may stay open.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Times (30m, 15s, 200ms)")]
pub struct Times {
    /// How long a payment may stay in doubt before it is cancelled
    #[arg(long, value_name = "TIME", env = "STOA_WINDOW_IN_DOUBT", default_value = "30m", value_parser = duration)]
    window_in_doubt: Duration,
    /// How long a customer has for an action the provider requires
    #[arg(long, value_name = "TIME", env = "STOA_WINDOW_ACTION", default_value = "15m", value_parser = duration)]
    window_action: Duration,
    /// How long stock is held for a checkout
    #[arg(long, value_name = "TIME", env = "STOA_WINDOW_HOLD", default_value = "15m", value_parser = duration)]
    window_hold: Duration,
    /// How long a quote is binding
    #[arg(long, value_name = "TIME", env = "STOA_WINDOW_QUOTE", default_value = "15m", value_parser = duration)]
    window_quote: Duration,
    /// First pause before a background step is tried again; it doubles from there
    #[arg(long, value_name = "TIME", env = "STOA_RETRY_BASE", default_value = "200ms", value_parser = duration)]
    retry_base: Duration,
    /// Longest such pause
    #[arg(long, value_name = "TIME", env = "STOA_RETRY_CAP", default_value = "30s", value_parser = duration)]
    retry_cap: Duration,
    /// How often is looked for what nobody woke
    #[arg(long, value_name = "TIME", env = "STOA_SWEEP", default_value = "5s", value_parser = duration)]
    sweep: Duration,
    /// How long what has begun may take to finish when the process ends
    #[arg(long, value_name = "TIME", env = "STOA_DRAIN", default_value = "10s", value_parser = duration)]
    drain: Duration,
}

impl Times {
    /// The times as the services take them.
    pub fn windows(&self) -> Windows {
        Windows {
            in_doubt: self.window_in_doubt,
            action: self.window_action,
            hold: self.window_hold,
            quote: self.window_quote,
            retry_base: self.retry_base,
            retry_cap: self.retry_cap,
            sweep: self.sweep,
            drain: self.drain,
        }
    }
}

/// How a process is watched.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct Watching {
    /// Where `GET /metrics` is answered, over plain HTTP and to whoever asks; without it, where the process's health is
    #[arg(long, value_name = "ADDR:PORT", env = "STOA_METRICS")]
    pub metrics: Option<SocketAddr>,
}

impl Watching {
    /// Listens where it was told to, if it was, until shutdown; with what to tell whoever starts the process.
    pub async fn listen(&self, shutdown: CancellationToken) -> io::Result<Option<(String, Task)>> {
        let Some(address) = self.metrics else { return Ok(None) };
        let listener = TcpListener::bind(address).await?;
        let line = format!("metrics at http://{}/metrics", listener.local_addr()?);
        Ok(Some((line, Task::endless("metrics", server::metrics::run(listener, shutdown)))))
    }
}

/// What comes before the end.
#[derive(Debug, Clone, Copy, Args)]
pub struct Notice {
    /// How long a process that is asked to stop says so (health: not serving) before it takes no more calls
    #[arg(long, value_name = "TIME", env = "STOA_NOTICE", default_value = "2s", value_parser = duration)]
    pub notice: Duration,
}

/// Faults for tests: a process that dies at a named point.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Faults {
    /// Abort at the N-th hit of a point: KIND:NAME:N
    #[arg(long, value_name = "KIND:NAME:N", hide = true)]
    crash_point: Option<store::crash::Spec>,
    /// Append the first hit of every point to this file
    #[arg(long, value_name = "FILE", hide = true)]
    crash_record: Option<PathBuf>,
}

impl Faults {
    /// Arms what was asked for.
    pub fn arm(&self) -> io::Result<()> {
        if let Some(file) = &self.crash_record {
            store::crash::record(file)?;
        }
        if let Some(spec) = &self.crash_point {
            store::crash::arm(spec.clone());
        }
        Ok(())
    }
}

/// For a service that is told nothing of its own.
#[derive(Debug, Clone, Args)]
pub struct NoFlags {}
