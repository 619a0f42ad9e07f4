//! What died in a day, and amid what; what was sold meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::fleet::{GATEWAY, SERVICES};

/// The sums of a day.
#[derive(Clone, Debug)]
pub struct Tally {
    begun: Instant,
    deaths: BTreeMap<String, Deaths>,
    points: BTreeMap<String, Point>,
    /// Every point that a process has passed.
    passed: BTreeSet<String>,
    /// Every point that the binary names.
    named: BTreeSet<String>,
    /// Orders that were confirmed.
    pub sold: u64,
    /// Orders that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    audits: Vec<String>,
}

/// How often one kind of process died.
#[derive(Clone, Copy, Debug, Default)]
struct Deaths {
    all: u64,
    /// At a point in the middle of a commit or a call.
    at_points: u64,
    /// Killed from outside while calls had no answer yet.
    amid_calls: u64,
}

/// What became of one crash point.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    deaths: u64,
    missed: u64,
}

impl Tally {
    /// Of a binary that names these points.
    pub(crate) fn of(named: BTreeSet<String>) -> Self {
        Self {
            begun: Instant::now(),
            deaths: BTreeMap::new(),
            points: BTreeMap::new(),
            passed: BTreeSet::new(),
            named,
            sold: 0,
            refused: BTreeMap::new(),
            audits: Vec::new(),
        }
    }

    pub(crate) fn since_begin(&self) -> Duration {
        self.begun.elapsed()
    }

    /// One more, killed from outside with so many calls open.
    pub(crate) fn killed(&mut self, kind: &str, open: usize) {
        let deaths = self.deaths.entry(kind.to_owned()).or_default();
        deaths.all += 1;
        deaths.amid_calls += u64::from(open > 0);
    }

    /// One more, dead at a point of its own.
    pub(crate) fn fell(&mut self, kind: &str, point: &str) {
        let deaths = self.deaths.entry(kind.to_owned()).or_default();
        deaths.all += 1;
        deaths.at_points += 1;
        self.points.entry(point.to_owned()).or_default().deaths += 1;
    }

    /// A point that a process did not come to in time.
    pub(crate) fn missed(&mut self, point: &str) {
        self.points.entry(point.to_owned()).or_default().missed += 1;
    }

    /// Points that processes have passed.
    pub(crate) fn passed(&mut self, points: impl Iterator<Item = String>) {
        self.passed.extend(points);
    }

    /// Of points, each with the lives in which it was passed, the one to die at next, and how often somebody did: those that
    /// were missed last, those that nobody died at first, and those of many lives; or, where `known`, one that was died at.
    pub(crate) fn next_point(&self, points: &BTreeMap<String, usize>, known: bool) -> Option<(String, u64)> {
        let of = |point: &String| self.points.get(point).copied().unwrap_or_default();
        let order = |(point, lives): &(&String, &usize)| (of(point).missed, of(point).deaths, Reverse(**lives));
        let proven = points.iter().filter(|(point, _)| known && of(point).deaths > 0).min_by_key(order);
        let (next, _) = proven.or_else(|| points.iter().min_by_key(order))?;
        Some((next.clone(), of(next).deaths))
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

    /// The kinds of which fewer than half died amid a commit or a call.
    pub fn idle(&self) -> Vec<&str> {
        // Of processes of ours those at points count: a call that waits somewhere need not be in the one that was killed.
        let ours = |kind: &str| kind == GATEWAY || SERVICES.contains(&kind);
        let amid = |kind: &str, deaths: &Deaths| if ours(kind) { deaths.at_points } else { deaths.amid_calls };
        let idle = self.deaths.iter().filter(|(kind, deaths)| 2 * amid(kind, deaths) < deaths.all);
        idle.map(|(kind, _)| kind.as_str()).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<14} {:>6} {:>12} {:>10} {:>17}",
            "killed", "times", "at a point", "kill -9", "amid open calls"
        )?;
        let mut sum = Deaths::default();
        for (kind, deaths) in &self.deaths {
            row(out, kind, *deaths)?;
            sum.all += deaths.all;
            sum.at_points += deaths.at_points;
            sum.amid_calls += deaths.amid_calls;
        }
        row(out, "all", sum)?;
        self.points(out)?;
        writeln!(out, "sold {}, refused {:?}", self.sold, self.refused)?;
        writeln!(
            out,
            "{} audits, nothing found beside what is known; the last: {}",
            self.audits.len(),
            self.audits.last().map_or("", |said| said)
        )?;
        write!(out, "{:.1} minutes", self.since_begin().as_secs_f64() / 60.0)
    }
}

fn row(out: &mut fmt::Formatter<'_>, kind: &str, deaths: Deaths) -> fmt::Result {
    let outside = deaths.all - deaths.at_points;
    writeln!(out, "{kind:<14} {:>6} {:>12} {outside:>10} {:>17}", deaths.all, deaths.at_points, deaths.amid_calls)
}

impl Tally {
    fn points(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let died = |point: &&String| self.points.get(*point).is_some_and(|known| known.deaths > 0);
        let lived: Vec<&String> = self.passed.iter().filter(|point| !died(point)).collect();
        let never: Vec<&String> = self.named.difference(&self.passed).collect();
        let fallen: Vec<String> = self.points.iter().filter(|(_, known)| known.deaths > 0).map(times).collect();
        writeln!(out, "{} points passed, {} of them died at:", self.passed.len(), fallen.len())?;
        lines(out, &fallen)?;
        writeln!(out, "{} passed and nobody died at:", lived.len())?;
        lines(out, &lived)?;
        writeln!(out, "{} of those the binary names were not passed:", never.len())?;
        lines(out, &never)
    }
}

fn times((point, known): (&String, &Point)) -> String {
    format!("{point} ({})", known.deaths)
}

fn lines<T: fmt::Display>(out: &mut fmt::Formatter<'_>, points: &[T]) -> fmt::Result {
    points.iter().try_for_each(|point| writeln!(out, "    {point}"))
}
