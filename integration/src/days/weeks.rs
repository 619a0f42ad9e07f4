//! Some weeks of a shop's invoices, played at both doors of a fleet while processes and engines are killed; then the books.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;

use super::around::Around;
use super::strike::{Striker, victims};
use super::{Engines, PATIENT, Scale, Tally, fleet_that, passed, well};
use crate::calls::Calls;
use crate::fleet::Plan;
use crate::replay::{self, Pace, Report};
use crate::retail::Invoices;
use crate::retail_script::{agrees, same_counts};
use crate::{command_line, skip, until};

/// Where the real year is looked for beside the repository.
const BESIDE: &str = "../shared/data/online-retail.csv.gz";

/// How long one call is repeated, and how long the weeks may stand still.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many invoices that may have begun need not have ended before the next kill.
const BEHIND: u64 = 24;

/// Sale invoices that may be refused, as of a whole year.
const REFUSED: u64 = 9;

/// Whose invoices are played.
#[derive(Clone, Copy, Debug)]
pub enum Weeks {
    /// Those made up for tests, until this day.
    MadeUp(&'static str),
    /// Those of a real shop's year, until this day.
    Real(&'static str),
}

impl Weeks {
    /// The file, where there is one, and the day.
    fn file(self) -> Result<Option<(PathBuf, &'static str)>> {
        let day = match self {
            Self::MadeUp(day) => {
                return Ok(Some((command_line::repository().join("integration/data/retail.csv"), day)));
            }
            Self::Real(day) => day,
        };
        if let Some(path) = std::env::var_os("STOA_RETAIL_CSV").map(PathBuf::from) {
            ensure!(path.is_file(), "STOA_RETAIL_CSV is {}, and no file is there", path.display());
            return Ok(Some((path, day)));
        }
        let path = command_line::repository().join(BESIDE);
        if !path.is_file() {
            skip::not_proven(&format!("the real weeks: no file at {}", path.display()));
            return Ok(None);
        }
        Ok(Some((path, day)))
    }
}

pub(super) async fn part(engines: &Engines, scale: &Scale, tally: &mut Tally) -> Result<()> {
    let Some((path, day)) = scale.weeks.file()? else { return Ok(()) };
    let invoices = Arc::new(Invoices::read(&path, Some(day))?);
    let counted = same_counts(&path, Some(day), &invoices).await?;
    let sales = counted["categories"]["sale"]["invoices"].as_u64().context("no sales")?;
    let mut fleet = fleet_that(engines, "weeks", Plan { windows: &PATIENT, ..Plan::default() }).await?;
    passed(&fleet, tally)?;
    let done = Arc::new(AtomicU64::new(0));
    let (allow, allowed) = watch::channel(0);
    let calls = Calls::default();
    let playing = tokio::spawn({
        let (doors, invoices, done) = (fleet.doors(), Arc::clone(&invoices), Arc::clone(&done));
        let pace = Pace { patience: PATIENCE, allowed, calls: calls.clone() };
        let progress = Arc::new(move |count| done.store(count, Ordering::Relaxed));
        async move { replay::play_at(&doors, &pace, &invoices, progress).await }
    });
    // The goods are there before anything dies: they are nobody's purchase.
    allow.send_replace(1);
    let open = async || Ok((done.load(Ordering::Relaxed) > 0 || playing.is_finished()).then_some(()));
    until(PATIENCE, "the first sale", open).await?;
    let around = Around::begin(&fleet).await?;
    let victims = victims(engines, scale.kills_of_weeks);
    let mut striker = Striker { engines, scale, calls: &calls, tally };
    for (turn, victim) in victims.iter().enumerate() {
        // Some invoices for each kill: nobody runs ahead of those who die, and none dies while nobody buys.
        let begun = sales * (turn as u64 + 1) / (victims.len() as u64 + 1);
        allow.send_replace(begun as usize);
        let over = until(PATIENCE, "the weeks go on", async || {
            let over = playing.is_finished();
            let through = done.load(Ordering::Relaxed);
            let amid = calls.open() > 0 && through + BEHIND >= begun;
            let let_in = *allow.borrow();
            if !amid && through >= let_in as u64 {
                // All of them went through between two looks: another one, to die amid it.
                allow.send_replace(let_in + 1);
            }
            Ok((over || amid).then_some(over))
        })
        .await?;
        if over {
            break;
        }
        striker.strike(&mut fleet, victim).await?;
    }
    allow.send_replace(usize::MAX);
    let report = playing.await??;
    around.end().await?;
    passed(&fleet, tally)?;
    agrees(&report, &counted)?;
    ensure!(report.confirmed + REFUSED >= report.sales, "{report:#?}");
    paid(&fleet.provider.ledger().await?, &report)?;
    well(&mut fleet, tally).await?;
    println!("until {day}: {report:#?}");
    if report.refused.keys().any(|reason| reason.starts_with("Internal")) {
        println!("{}", fleet.complaints());
    }
    tally.sold(report.confirmed as usize);
    for (reason, count) in &report.refused {
        tally.refused(reason, *count as usize);
    }
    Ok(())
}

/// What the provider has authorised is what was sold, less what was cancelled before it was sent.
fn paid(ledger: &crate::ledger::Ledger, report: &Report) -> Result<()> {
    // Those around them pay in euros.
    let pence = ledger.authorized().filter(|entry| entry.currency == "GBP");
    let authorized: i64 = pence.map(|entry| entry.amount).sum();
    ensure!(
        authorized <= report.confirmed_pence && authorized >= report.confirmed_pence - report.returned_pence,
        "{authorized} pence are authorised for {report:#?}"
    );
    Ok(())
}
