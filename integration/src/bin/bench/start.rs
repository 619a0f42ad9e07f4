//! Cold starts, and what an idle server holds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{Setup, Stoa, machine};

use crate::Bench;
use crate::load::millis;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let folder = bench.folder()?;
    let mut stoa = Stoa::start(Setup::default().data(folder.path().join("data"))).await?;
    println!("start on an empty folder to first answer: {:.0} ms", millis(stoa.start_time));
    bench.figures.add("start.empty", millis(stoa.start_time), "ms");
    ensure!(stoa.stop().await?.success());
    let mut times = Vec::new();
    for _ in 0..5 {
        stoa.restart().await?;
        times.push(stoa.start_time);
        ensure!(stoa.stop().await?.success());
    }
    times.sort();
    println!("start on an existing folder to first answer: {:.0} ms", millis(times[2]));
    bench.figures.add("start.existing", millis(times[2]), "ms");
    stoa.restart().await?;
    // Idle means after the start's own work is over, not before.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let memory = resident_mib(&stoa)?;
    println!("idle memory: {memory:.1} MiB");
    bench.figures.add("start.idle_memory", memory, "MiB");
    Ok(())
}

/// What the server holds now.
pub(crate) fn resident_mib(stoa: &Stoa) -> Result<f64> {
    Ok(machine::resident_kib(stoa.pid().context("no process")?)? as f64 / 1024.0)
}
