//! Spans to a collector, over OTLP/gRPC.
//!
//! Invariants: whoever records a span never waits; what waits for the collector is bounded ([`QUEUE`]), and what does not fit, or
//! what the collector did not take in time, is dropped and counted. Each service of the process is a resource of its own,
//! `service.name` being its short name.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod secure;
mod shape;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use telemetry::metrics;
use telemetry::spans::{self, Span};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// Spans that wait for the collector.
pub const QUEUE: usize = 8192;

/// Spans sent at once.
const BATCH: usize = 512;

/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);

/// How long a collector has for what is left when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where the collector is, and what it wants to see.
#[derive(Clone, Debug)]
pub struct Config {
    /// `http://host:4317`, or `https://...` for TLS.
    pub endpoint: String,
    /// `key=value,key=value`, values percent-encoded: metadata of each call.
    pub headers: String,
    /// File with the certificates (PEM) of who vouches for the collector; the system's without one.
    pub certificate: Option<PathBuf>,
    /// How long one call may take, with all its attempts.
    pub timeout: Duration,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is none.
    #[error("spans cannot be exported: {0}")]
    Misconfigured(String),
}

impl Error {
    pub(crate) fn of(what: &str, error: &dyn std::fmt::Display) -> Self {
        Error::Misconfigured(format!("{what}: {error}"))
    }
}

/// The way to a collector; it must run.
pub struct Exporter {
    channel: Channel,
    headers: MetadataMap,
    timeout: Duration,
    queue: mpsc::Receiver<Span>,
    /// Spans of the batch that is sent, neither taken nor given up yet.
    sending: usize,
    services: HashMap<&'static str, SpanExporter>,
}

/// From now on what is kept goes to a collector, which need not be there yet.
pub fn start(config: &Config) -> Result<Exporter, Error> {
    let wrong = |error: tonic::transport::Error| Error::of(&config.endpoint, &error);
    let endpoint = Endpoint::from_shared(config.endpoint.clone()).map_err(wrong)?.timeout(config.timeout);
    let channel = secure::channel(endpoint, config.certificate.as_deref())?;
    let headers = metadata(&config.headers)?;
    let (sender, queue) = mpsc::channel(QUEUE);
    spans::export(move |span| {
        if sender.try_send(span.clone()).is_err() {
            metrics::spans_dropped(1);
        }
    });
    Ok(Exporter { channel, headers, timeout: config.timeout, queue, sending: 0, services: HashMap::new() })
}

impl Exporter {
    /// Exports until shutdown, and then what is left, for a moment.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let all = tokio::select! {
            () = self.whole(&shutdown) => true,
            () = late => false,
        };
        if !all {
            let left = self.sending + self.queue.len();
            metrics::spans_dropped(left as u64);
            tracing::warn!(left, "the collector did not take the last spans in time");
        }
    }

    async fn whole(&mut self, shutdown: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while shutdown.run_until_cancelled(self.gather(&mut batch)).await.is_some() {
            self.send(std::mem::take(&mut batch)).await;
        }
        loop {
            while batch.len() < BATCH
                && let Ok(span) = self.queue.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Fills the batch, from the first span on for a while.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        if batch.is_empty() {
            // The sender lives as long as the process.
            let Some(first) = self.queue.recv().await else { return std::future::pending().await };
            batch.push(first);
        }
        let filling = async {
            while batch.len() < BATCH
                && let Some(span) = self.queue.recv().await
            {
                batch.push(span);
            }
        };
        let _ = tokio::time::timeout(GATHER, filling).await;
    }

    async fn send(&mut self, batch: Vec<Span>) {
        self.sending = batch.len();
        let mut by_service: HashMap<&'static str, Vec<Span>> = HashMap::new();
        for span in batch {
            by_service.entry(span.service).or_default().push(span);
        }
        for (service, spans) in by_service {
            let count = spans.len();
            let sent = match self.exporter(service) {
                Ok(exporter) => exporter.export(spans.into_iter().map(shape::data).collect()).await,
                Err(error) => {
                    tracing::error!(%error, "spans cannot be exported");
                    self.given_up(count);
                    continue;
                }
            };
            match sent {
                Ok(()) => {
                    self.sending -= count;
                    metrics::spans_exported(count as u64);
                }
                Err(error) => {
                    tracing::debug!(%error, count, "the collector did not take spans");
                    self.given_up(count);
                }
            }
        }
    }

    fn given_up(&mut self, count: usize) {
        self.sending -= count;
        metrics::spans_dropped(count as u64);
    }

    fn exporter(&mut self, service: &'static str) -> Result<&SpanExporter, Error> {
        use std::collections::hash_map::Entry;
        match self.services.entry(service) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(new) => {
                let exporter = SpanExporter::builder()
                    .with_tonic()
                    .with_channel(self.channel.clone())
                    .with_metadata(self.headers.clone())
                    .with_timeout(self.timeout)
                    .build();
                let mut exporter = exporter.map_err(|error| Error::of("OTLP", &error))?;
                exporter.set_resource(&Resource::builder_empty().with_service_name(service).build());
                Ok(new.insert(exporter))
            }
        }
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// `key=value,key=value` as W3C Baggage writes it, which OTEL_EXPORTER_OTLP_HEADERS follows.
fn metadata(text: &str) -> Result<MetadataMap, Error> {
    let mut map = MetadataMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        // A value may be a secret, so only the key is told.
        let (key, value) = pair.split_once('=').ok_or_else(|| Error::of("headers", &"a pair is no key=value"))?;
        let key = key.trim().to_ascii_lowercase();
        let wrong = |what: &str| Error::of("headers", &format!("{key}: {what}"));
        let name = MetadataKey::from_bytes(key.as_bytes()).map_err(|_| wrong("is no name of a header"))?;
        let value = decoded(value.trim()).ok_or_else(|| wrong("its value is not percent-encoded text"))?;
        let mut value = MetadataValue::try_from(value).map_err(|_| wrong("its value is none of a header"))?;
        value.set_sensitive(true);
        map.insert(name, value);
    }
    Ok(map)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_variable_writes_them() {
        let map = metadata("x-team=abc, Authorization=Bearer%20a%3Db ,").unwrap();
        assert_eq!(map.get("x-team").unwrap(), "abc");
        assert_eq!(map.get("authorization").unwrap(), "Bearer a=b");
        assert!(metadata("").unwrap().is_empty());
    }

    #[test]
    fn a_header_that_is_none_is_refused_without_its_value() {
        for wrong in ["key", "a b=secret", "key=secret%2", "key=secret%zz", "key=secret%0a"] {
            let error = metadata(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
