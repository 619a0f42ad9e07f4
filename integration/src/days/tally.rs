//! What died in a day, and amid what; what was sold meanwhile.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The sums of a day.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    deaths: BTreeMap<String, Deaths>,
    /// Orders that were confirmed.
    pub sold: u64,
    /// Orders that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    audits: Vec<String>,
    /// All of it.
    pub time: Duration,
}

/// How often one kind of process died.
#[derive(Clone, Copy, Debug, Default)]
struct Deaths {
    all: u64,
    /// While orders were under way.
    under_way: u64,
}

impl Tally {
    /// One more, killed with so many orders under way.
    pub(crate) fn death(&mut self, kind: &str, under_way: usize) {
        let deaths = self.deaths.entry(kind.to_owned()).or_default();
        deaths.all += 1;
        deaths.under_way += u64::from(under_way > 0);
    }

    pub(crate) fn sold(&mut self, count: usize) {
        self.sold += count as u64;
    }

    pub(crate) fn refused(&mut self, reason: &str, count: usize) {
        *self.refused.entry(reason.to_owned()).or_default() += count as u64;
    }

    pub(crate) fn audit(&mut self, said: &str) {
        self.audits.push(said.trim().lines().last().unwrap_or_default().to_owned());
    }

    /// The fewest deaths of any kind.
    pub fn fewest(&self) -> u64 {
        self.deaths.values().map(|deaths| deaths.all).min().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<14} {:>6} {:>24}", "killed", "times", "with orders under way")?;
        let mut sum = Deaths::default();
        for (kind, deaths) in &self.deaths {
            writeln!(out, "{kind:<14} {:>6} {:>24}", deaths.all, deaths.under_way)?;
            sum.all += deaths.all;
            sum.under_way += deaths.under_way;
        }
        writeln!(out, "{:<14} {:>6} {:>24}", "all", sum.all, sum.under_way)?;
        writeln!(out, "sold {}, refused {:?}", self.sold, self.refused)?;
        writeln!(
            out,
            "{} audits, nothing found beside what is known; the last: {}",
            self.audits.len(),
            self.audits.last().map_or("", |said| said)
        )?;
        write!(out, "{:.1} minutes", self.time.as_secs_f64() / 60.0)
    }
}
