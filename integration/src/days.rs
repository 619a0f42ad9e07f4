//! Days on which everything dies: a fleet with two copies of every process, on every engine, and kills of all of them.
//!
//! One driver with parts, each on a fleet of its own: flash sales, and some weeks of a real shop. After each part the books
//! are looked at from outside: the provider's ledger, `stoa audit` over the network, and what every caller was told. How
//! large a day is, is its [`Scale`]; what died in it, and amid what, is counted in a [`Tally`] and printed as a table.

mod around;
mod engines;
mod sale;
mod strike;
mod tally;
mod weeks;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command_line::Ended;
use crate::fleet::{Copy, Fleet, GATEWAY, Plan, SERVICES};
use crate::until;

pub use engines::Engines;
pub use tally::Tally;
pub use weeks::Weeks;

/// From the last fault until nothing is under way any more.
const SETTLED: Duration = Duration::from_secs(120);

/// Times under which nobody is refused for waiting while two cores carry it all: a buyer who holds a piece may be minutes
/// from paying for it, and a payment in doubt is asked about until somebody answers.
const PATIENT: [&str; 18] = [
    // An act whose steps are minutes apart is not ended by its token.
    "--access-token",
    "30m",
    "--window-in-doubt",
    "10m",
    "--window-action",
    "10m",
    "--window-hold",
    "15m",
    "--psp-timeout",
    "10s",
    "--psp-late-window",
    "15s",
    "--retry-base",
    "50ms",
    "--retry-cap",
    "1s",
    "--drain",
    "5s",
];

/// How often services look for what nobody told them of, in the flash sales. The weeks leave it at what a fleet has: with
/// thousands of products the stand-in for MongoDB, which reads through all of them for it, would do nothing else.
const WATCHFUL: [&str; 2] = ["--sweep", "500ms"];

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Who wants one in each flash sale.
    pub buyers: usize,
    /// How many there are in each.
    pub pieces: usize,
    /// How often each engine is killed under flash sales; a process has its turn in every third round.
    pub kills: usize,
    /// At how many points a process dies in its turn, after it was killed from outside.
    pub least_points: usize,
    /// How many are tried in a turn, the points not met included: beyond the least while nobody died at them yet, or the copy
    /// was killed from outside more often.
    pub most_points: usize,
    /// The invoices that are played.
    pub weeks: Weeks,
    /// How often each engine is killed while they are.
    pub kills_of_weeks: usize,
}

impl Scale {
    /// Minutes on two cores.
    pub const SMALL: Self = Self {
        buyers: 200,
        pieces: 20,
        kills: 1,
        least_points: 1,
        most_points: 1,
        weeks: Weeks::MadeUp("2010-12-08"),
        kills_of_weeks: 1,
    };
    /// All of it.
    pub const WHOLE: Self = Self {
        buyers: 2000,
        pieces: 100,
        kills: 10,
        least_points: 2,
        most_points: 6,
        weeks: Weeks::Real("2010-12-22"),
        kills_of_weeks: 10,
    };
}

/// What a day is made of, each on a fleet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Flash sales at both doors.
    Sales,
    /// Weeks of a shop's invoices.
    Weeks,
}

/// Lives through some of a day; an error if anything is not as it must be.
pub async fn live(engines: &Engines, scale: &Scale, parts: &[Part]) -> Result<Tally> {
    let mut tally = Tally::of(engines.points().await?);
    for part in parts {
        let lived = match part {
            Part::Sales => Box::pin(sale::part(engines, scale, &mut tally)).await,
            Part::Weeks => Box::pin(weeks::part(engines, scale, &mut tally)).await,
        };
        lived.with_context(|| format!("{part:?}, after this:\n{tally}\n"))?;
        println!("{part:?} is over after {:.1} minutes", tally.since_begin().as_secs_f64() / 60.0);
    }
    Ok(tally)
}

/// Two copies of everything, on every engine.
async fn fleet_that(engines: &Engines, name: &str, plan: Plan<'_>) -> Result<Fleet> {
    let lines = engines.lines(name)?;
    Fleet::start_as(engines.binary.clone(), &Plan { engines: &lines, more: 1, records: true, ..plan }).await
}

/// Tells the tally of the points passed so far; from now on those of the start are passed only by who starts again.
fn passed(fleet: &Fleet, tally: &mut Tally) -> Result<()> {
    for name in SERVICES.into_iter().chain([GATEWAY]) {
        tally.passed(fleet.passed(name)?.into_keys());
    }
    fleet.forget_passed()
}

/// What an audit said that found nothing.
fn judged(ended: &Ended) -> Result<String> {
    ensure!(ended.code == Some(0) && ended.output.contains("I12 ok"), "{ended:#?}");
    Ok(ended.output.clone())
}

/// Everybody lives, nobody panicked, nobody pays twice, and the audit is clean.
async fn well(fleet: &mut Fleet, tally: &mut Tally) -> Result<()> {
    let ended = fleet.ended()?;
    ensure!(ended.is_empty(), "ended by themselves: {ended:?}\n{}", tails(fleet, ended.iter().map(|(copy, _)| *copy)));
    if let Some(copy) = fleet.said("panicked at") {
        anyhow::bail!("{copy:?} panicked:\n{}", fleet.tail(copy, 100));
    }
    let audit = until(SETTLED, "the audit is clean", async || judged(&fleet.ask(&["audit"]).await?).map(Some)).await;
    let audit =
        audit.with_context(|| tails(fleet, fleet.running().into_iter().filter(|copy| fleet.complains(*copy))))?;
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    tally.audit(&audit);
    Ok(())
}

fn tails(fleet: &Fleet, copies: impl Iterator<Item = Copy>) -> String {
    copies.map(|copy| format!("{copy:?}:\n{}\n", fleet.tail(copy, 30))).collect()
}
