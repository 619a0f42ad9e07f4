//! What every process of a fleet is told on its command line, or by its environment.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use server::{Task, Windows, duration};
use telemetry::{Format, spans};
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
    /// Share of the stories whose spans are kept and exported, 0 to 1; what failed or was slow is kept beside it
    #[arg(long, value_name = "SHARE", env = "STOA_TRACE_RATIO", default_value = "0.01", value_parser = share)]
    trace_ratio: f64,
    /// How long what a process does of a story may take before it is slow
    #[arg(long, value_name = "TIME", env = "STOA_TRACE_SLOW", default_value = "1s", value_parser = duration)]
    trace_slow: Duration,
    /// Memory for the spans that can be read, half of it for what is kept
    #[arg(long, value_name = "KIB", env = "STOA_TRACE_MEMORY_KIB", default_value_t = 16 * 1024)]
    trace_memory_kib: usize,
    /// Collector that takes what is kept over OTLP/gRPC, `http://HOST:4317` or `https://...`
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// Headers it wants to see, `KEY=VALUE,...`, values percent-encoded
    #[arg(
        long,
        value_name = "HEADERS",
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        hide_env_values = true,
        default_value = ""
    )]
    otlp_headers: String,
    /// Certificates (PEM) of who vouches for it; the system's without them
    #[arg(long, value_name = "FILE", env = "OTEL_EXPORTER_OTLP_CERTIFICATE")]
    otlp_certificate: Option<PathBuf>,
    /// How long it may take for one batch, in milliseconds
    #[arg(long, value_name = "MS", env = "OTEL_EXPORTER_OTLP_TIMEOUT", default_value_t = 10_000)]
    otlp_timeout: u64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("is not between 0 and 1".to_owned()) }
}

impl Watching {
    /// Keeps spans as it was told to, and hands back what goes on until shutdown, with what to tell whoever starts the process.
    pub async fn start(&self, shutdown: &CancellationToken) -> Result<(Vec<String>, Vec<Task>), Unwatched> {
        spans::configure(spans::Limits {
            ratio: self.trace_ratio,
            slow: self.trace_slow,
            bytes: self.trace_memory_kib.saturating_mul(1024),
        });
        let (mut lines, mut tasks) = (vec![], vec![]);
        // A variable that is empty is none, as OpenTelemetry has it.
        if let Some(endpoint) = self.otlp_endpoint.as_ref().filter(|it| !it.is_empty()) {
            let exporter = otlp::start(&otlp::Config {
                endpoint: endpoint.clone(),
                headers: self.otlp_headers.clone(),
                certificate: self.otlp_certificate.clone(),
                timeout: Duration::from_millis(self.otlp_timeout),
            })?;
            tasks.push(Task::endless("otlp", exporter.run(shutdown.clone())));
        }
        if let Some(address) = self.metrics {
            let listener = TcpListener::bind(address).await.map_err(|source| Unwatched::Metrics { address, source })?;
            let local = listener.local_addr().map_err(|source| Unwatched::Metrics { address, source })?;
            lines.push(format!("metrics at http://{local}/metrics"));
            tasks.push(Task::endless("metrics", server::metrics::run(listener, shutdown.clone())));
        }
        Ok((lines, tasks))
    }
}

/// Why a process cannot be watched as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Unwatched {
    /// Nobody can ask for its metrics.
    #[error("metrics cannot be told at {address}")]
    Metrics {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why it cannot.
        source: io::Error,
    },
    /// Spans cannot be exported.
    #[error(transparent)]
    Export(#[from] otlp::Error),
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
