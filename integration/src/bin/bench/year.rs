//! The real year whole, killed once in the middle; memory, recovery and rebuild afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::ledger::Provider;
use integration::replay::{self, Report};
use integration::retail::Invoices;
use integration::retail_script::{agrees, same_counts};
use integration::{Setup, Stoa, command_line, until};
use serde_json::Value;

use crate::figures::Wanted;
use crate::load::millis;
use crate::{Bench, rebuild, start};

/// Where the file is looked for beside the repository.
const BESIDE: &str = "../shared/data/online-retail.csv.gz";

/// Sale invoices that may be refused.
const REFUSED: u64 = 9;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let Some(path) = file()? else { return Ok(()) };
    let invoices = Invoices::read(&path, None)?;
    let counted = same_counts(&path, None, &invoices).await?;
    let number = |category: &str, what: &str| {
        counted["categories"][category][what].as_u64().with_context(|| format!("no {what} of {category}"))
    };
    let (sales, lines) = (number("sale", "invoices")?, number("sale", "lines")?);
    let folder = bench.folder()?;
    let data = folder.path().join("data");
    let provider = Provider::start().await?;
    let mut stoa = Stoa::start(Setup::default().provider(&provider.url()).data(&data)).await?;
    let done = Arc::new(AtomicU64::new(0));
    let progress = {
        let done = Arc::clone(&done);
        Arc::new(move |count| done.store(count, Ordering::Relaxed))
    };
    let address = stoa.address();
    let playing = tokio::spawn(async move { replay::play(address, &invoices, progress).await });
    until(Duration::from_secs(1800), "half of the year", async || {
        Ok((playing.is_finished() || done.load(Ordering::Relaxed) >= sales / 2).then_some(()))
    })
    .await?;
    let killed_after = done.load(Ordering::Relaxed);
    if !playing.is_finished() {
        stoa.kill().await?;
        stoa.restart().await?;
        println!("killed after {killed_after} of {sales} sales, back in {:.0} ms", millis(stoa.start_time));
    }
    let report = playing.await??;
    ensure!((sales / 2..sales).contains(&killed_after), "killed after {killed_after} of {sales} sales");
    tell(&counted, &report);
    agrees(&report, &counted)?;
    ensure!(report.confirmed + REFUSED >= report.sales, "too many refusals");
    ensure!(provider.ledger().await?.doubled().is_empty(), "charged twice");
    let seconds = report.time.as_secs_f64();
    println!("{sales} sales with {lines} lines in {seconds:.1} s ({:.0} lines/s)", lines as f64 / seconds);
    bench.figures.add("year.time", seconds, "s");
    bench.figures.add("year.lines", lines as f64 / seconds, "/s");
    let memory = start::resident_mib(&stoa)?;
    println!("memory after the year: {memory:.1} MiB");
    bench.figures.add("year.memory", memory, "MiB");
    println!(
        "{}",
        until(Duration::from_secs(300), "a clean audit", async || stoa.audit().await.map(Some)).await?.trim()
    );
    stoa.kill().await?;
    stoa.restart().await?;
    println!("recovery after kill -9, the year in the log: {:.0} ms", millis(stoa.start_time));
    bench.figures.judged("year.first_answer", millis(stoa.start_time), "ms", Wanted::AtMost(1000.0));
    ensure!(stoa.stop().await?.success());
    rebuild::time(bench, "year", &data, None).await
}

/// The year's file; nothing, with a word about it, where there is none.
fn file() -> Result<Option<PathBuf>> {
    if let Some(path) = std::env::var_os("STOA_RETAIL_CSV").map(PathBuf::from) {
        ensure!(path.is_file(), "STOA_RETAIL_CSV is {}, and no file is there", path.display());
        return Ok(Some(path));
    }
    let path = command_line::repository().join(BESIDE);
    if path.is_file() {
        return Ok(Some(path));
    }
    println!("skipped, not proven: no file at {}; set STOA_RETAIL_CSV to the real year's file", path.display());
    Ok(None)
}

/// The books: what the script counted in the file, and what became of it, category by category.
fn tell(counted: &Value, report: &Report) {
    println!("{:<14} {:>9} {:>9} {:>11} {:>15}   what became of it", "category", "lines", "invoices", "pieces", "sum");
    for (category, total) in counted["categories"].as_object().into_iter().flatten() {
        let became = match category.as_str() {
            "sale" => format!(
                "{} confirmed for {}, {} refused for {}",
                report.confirmed,
                pounds(report.confirmed_pence),
                report.sales - report.confirmed,
                pounds(report.refused_pence)
            ),
            "cancellation" => format!(
                "{} lines returned for {}, {} lines for {} match no sale",
                report.returned_lines,
                pounds(report.returned_pence),
                report.unmatched_lines,
                pounds(report.unmatched_pence)
            ),
            _ => "no order: not played".to_owned(),
        };
        let sum = pounds(total["sum_minor"].as_i64().unwrap_or_default());
        // A JSON value does not care for the width it is asked to have.
        let [lines, invoices, pieces] = ["lines", "invoices", "pieces"].map(|what| total[what].to_string());
        println!("{category:<14} {lines:>9} {invoices:>9} {pieces:>11} {sum:>15}   {became}");
    }
    for (reason, lines) in counted["rejected"].as_object().into_iter().flatten() {
        let lines = lines.to_string();
        println!("{:<14} {lines:>9} {:>9} {:>11} {:>15}   lines refused: {reason}", "-", "", "", "");
    }
    for (reason, invoices) in &report.refused {
        println!("{:<14} {:>9} {invoices:>9} {:>11} {:>15}   sales refused: {reason}", "-", "", "", "");
    }
}

fn pounds(pence: i64) -> String {
    format!("{}{}.{:02}", if pence < 0 { "-" } else { "" }, pence.unsigned_abs() / 100, pence.unsigned_abs() % 100)
}
