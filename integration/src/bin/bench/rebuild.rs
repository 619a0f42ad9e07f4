//! Rebuild: every derived table made again from the logs, on a generated shop of moderate size.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::ledger::Provider;
use integration::{Setup, Stoa, command_line, until};

use crate::Bench;
use crate::generated::{self, Stocktaking};
use crate::load::finish;

const CALLS: u64 = 100;
const ORDERS: usize = 2000;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let folder = bench.folder()?;
    let data = folder.path().join("data");
    let provider = Provider::start().await?;
    let mut stoa = Stoa::start(Setup::default().provider(&provider.url()).data(&data)).await?;
    provider.send_webhooks_to(stoa.address()).await?;
    finish(Stocktaking::begin(stoa.client()).await?.write(CALLS)).await?;
    generated::orders(&stoa, ORDERS).await?;
    until(Duration::from_secs(120), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    ensure!(stoa.stop().await?.success());
    time(bench, "generated", &data, None).await
}

/// Rebuilds the tables of one service, or of all, of a shop that is stopped; no row may come out otherwise than it was.
pub(crate) async fn time(bench: &mut Bench, name: &str, data: &Path, service: Option<&str>) -> Result<()> {
    let data = data.display().to_string();
    let begun = Instant::now();
    let rebuilt = command_line::stoa(["rebuild", "--data", &data].into_iter().chain(service)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(rebuilt.code == Some(0), "{rebuilt:?}");
    println!("rebuild of {}: {seconds:.1} s\n{}", service.unwrap_or("everything"), rebuilt.output.trim());
    bench.figures.add(&format!("{name}.rebuild"), seconds, "s");
    for line in rebuilt.output.lines() {
        ensure!(line.ends_with("; 0 rows were other before"), "rows were not what the log says: {line}");
        let (service, rest) = line.split_once(": ").context("no service")?;
        // A log that is empty or through at once has no rate.
        let rate = rest.split_once(" events/s").and_then(|(before, _)| before.rsplit(' ').next());
        if let Some(rate) = rate {
            bench.figures.add(&format!("{name}.rebuild.{service}"), rate.parse()?, "events/s");
        }
    }
    Ok(())
}
