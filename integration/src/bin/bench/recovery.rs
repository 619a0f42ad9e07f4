//! Recovery: a million events in one log, kill -9 in the middle of writes, and how long until the first answer.
//!
//! The events are made through the public API: a call that adjusts a thousand stock items appends a thousand events in
//! one transaction. What was acknowledged before a kill is looked for after it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::{Setup, Stoa, until};
use tokio::task::JoinHandle;

use crate::Bench;
use crate::figures::Wanted;
use crate::generated::{ITEMS, Stocktaking};
use crate::load::{finish, millis};
use crate::{rebuild, start};

const EVENTS: u64 = 1_000_000;
const KILLS: u64 = 5;

/// Calls that are answered between two kills.
const BETWEEN_KILLS: u64 = 20;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let folder = bench.folder()?;
    let data = folder.path().join("data");
    let mut stoa = Stoa::start(Setup::default().data(&data)).await?;
    let stocktaking = Stocktaking::begin(stoa.client()).await?;
    let begun = Instant::now();
    let before = EVENTS / ITEMS;
    let calls = before + KILLS * BETWEEN_KILLS + 2 * BETWEEN_KILLS;
    let mut writing = tokio::spawn(finish(stocktaking.write(calls)));
    reached(&stocktaking, before, &mut writing).await?;
    let rate = (stocktaking.answered() * ITEMS) as f64 / begun.elapsed().as_secs_f64();
    println!("{EVENTS} events appended through the API in batches of {ITEMS}: {rate:.0} events/s");
    bench.figures.add("recovery.append_by_api", rate, "events/s");
    let mut times = Vec::new();
    for kill in 1..=KILLS {
        reached(&stocktaking, before + kill * BETWEEN_KILLS, &mut writing).await?;
        stoa.kill().await?;
        stoa.restart().await?;
        times.push(stoa.start_time);
    }
    writing.await??;
    stocktaking.judge(&stoa).await.context("after the kills")?;
    times.sort();
    let (middle, longest) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "kill -9 in the middle of writes, {KILLS} times: first answer after {:.0} ms, at most {:.0} ms; every acknowledged event is there",
        millis(middle),
        millis(longest),
    );
    bench.figures.add("recovery.first_answer_p50", millis(middle), "ms");
    bench.figures.judged("recovery.first_answer_max", millis(longest), "ms", Wanted::AtMost(1000.0));
    let memory = start::resident_mib(&stoa)?;
    println!("memory with {} events: {memory:.1} MiB", stocktaking.answered() * ITEMS);
    bench.figures.add("recovery.memory", memory, "MiB");
    until(Duration::from_secs(600), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    ensure!(stoa.stop().await?.success());
    rebuild::time(bench, "recovery", &data, Some("inventory")).await
}

/// Waits until so many calls are answered, while the writers go on.
async fn reached(stocktaking: &Stocktaking, goal: u64, writing: &mut JoinHandle<Result<()>>) -> Result<()> {
    until(Duration::from_secs(900), "the writers go on", async || {
        Ok((writing.is_finished() || stocktaking.answered() >= goal).then_some(()))
    })
    .await?;
    if writing.is_finished() {
        writing.await??;
        bail!("the writers were through before they were to be interrupted");
    }
    Ok(())
}
