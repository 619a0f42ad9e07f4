//! A real shop's invoices, replayed through gRPC: every sale an order, the books to the penny.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::ledger::Provider;
use integration::replay::{self, Report};
use integration::retail::Invoices;
use integration::retail_script::{agrees, same_counts};
use integration::{Setup, Stoa, command_line, skip, until};

/// Sale invoices that may be refused, of a whole year.
const REFUSED: u64 = 9;

#[tokio::test]
async fn the_reader_and_the_script_count_the_same() -> Result<()> {
    let made_up = command_line::repository().join("integration/data/retail.csv");
    for (path, day) in [(made_up.as_path(), None), (made_up.as_path(), Some("2010-12-15"))] {
        same_counts(path, day, &Invoices::read(path, day)?).await?;
    }
    let Some(real) = real() else { return Ok(()) };
    same_counts(&real, None, &Invoices::read(&real, None)?).await?;
    Ok(())
}

/// The real file, where there is one.
fn real() -> Option<PathBuf> {
    let path = match std::env::var_os("STOA_RETAIL_CSV") {
        Some(path) => PathBuf::from(path),
        None => command_line::repository().join("../shared/data/online-retail.csv.gz"),
    };
    if path.is_file() {
        return Some(path);
    }
    skip::not_proven(&format!("the real year: no file at {}", path.display()));
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_made_up_quarter_with_the_dirt_of_a_real_one_balances() -> Result<()> {
    let path = command_line::repository().join("integration/data/retail.csv");
    let report = replay(&path, None).await?;
    ensure!(report.unmatched_lines > 0 && report.returned_lines > 0, "{report:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_weeks_of_a_real_december_balance() -> Result<()> {
    let Some(path) = real() else { return Ok(()) };
    let report = replay(&path, Some("2010-12-22")).await?;
    ensure!(report.sales > 1000, "{report:#?}");
    Ok(())
}

async fn replay(path: &Path, until_day: Option<&str>) -> Result<Report> {
    let invoices = Invoices::read(path, until_day)?;
    let counted = same_counts(path, until_day, &invoices).await?;
    let provider = Provider::start().await?;
    let stoa = Stoa::start(Setup::new().provider(&provider.url())).await?;
    let report = replay::play(stoa.address(), &invoices, Arc::new(|_| ())).await?;
    println!("{counted:#}\n{report:#?}");
    agrees(&report, &counted)?;
    ensure!(report.confirmed + REFUSED >= report.sales, "{report:#?}");

    let ledger = provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    let authorized: i64 = ledger.authorized().map(|entry| entry.amount).sum();
    ensure!(
        authorized <= report.confirmed_pence && authorized >= report.confirmed_pence - report.returned_pence,
        "{authorized} pence are authorised for {report:#?}"
    );
    until(Duration::from_secs(60), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    Ok(report)
}
