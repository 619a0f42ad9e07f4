//! A collector that is away, or takes connections and never answers, keeps nobody waiting; what it does not take is counted.

use std::time::{Duration, Instant};

use telemetry::Trace;
use telemetry::spans::{self, Kind, Limits, Running};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(20);

fn dropped() -> u64 {
    let text = telemetry::metrics::text();
    let line = text.lines().find_map(|line| line.strip_prefix("stoa_spans_dropped_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or_default()
}

// One test, since where spans go and what is counted belong to the process.
#[tokio::test]
async fn what_does_not_fit_or_is_not_taken_is_dropped_and_counted() -> anyhow::Result<()> {
    spans::configure(Limits { ratio: 1.0, ..Limits::default() });
    // Connections are made by the machine, and nobody ever reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let exporter = otlp::start(&otlp::Config {
        endpoint: format!("http://{}", silent.local_addr()?),
        headers: String::new(),
        certificate: None,
        timeout: Duration::from_secs(60),
    })?;
    let record = |count: usize| {
        (0..count).for_each(|_| Running::begin("ordering", Kind::Internal, "work", &Trace::new_root()).end());
    };
    record(otlp::QUEUE + 100);
    assert_eq!(dropped(), 100, "the queue holds as many as it says");

    let shutdown = CancellationToken::new();
    let running = tokio::spawn(exporter.run(shutdown.clone()));
    // It waits for the collector by now, with a batch in its hands, and whoever records does not.
    silent.accept().await?;
    let begun = Instant::now();
    record(otlp::QUEUE);
    assert!(begun.elapsed() < Duration::from_secs(5), "recording took {:?}", begun.elapsed());
    shutdown.cancel();
    tokio::time::timeout(SOON, running).await??;
    assert_eq!(dropped(), (2 * otlp::QUEUE + 100) as u64, "every span is accounted for");
    Ok(())
}

#[tokio::test]
async fn settings_that_are_none_are_refused() {
    let config = |endpoint: &str, headers: &str| otlp::Config {
        endpoint: endpoint.to_owned(),
        headers: headers.to_owned(),
        certificate: None,
        timeout: Duration::from_secs(1),
    };
    for wrong in [config("collector:4317", ""), config("ftp://collector", ""), config("http://collector", "key")] {
        assert!(otlp::start(&wrong).is_err(), "{wrong:?}");
    }
    let mut missing = config("https://collector", "");
    missing.certificate = Some("/nowhere/authority.pem".into());
    assert!(otlp::start(&missing).is_err());
}
