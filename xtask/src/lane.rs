//! Running lanes one after the other and adding up what they proved.
//!
//! A lane that could not be run proves nothing: it is *skipped, not proven*, and on the continuous
//! integration that is a failure unless the lane is one of the few that may be missing there.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::command::minutes;
use crate::lanes::Lane;
use crate::paths;

/// What a lane found.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// One line for each failure, and whatever else helps to mend it.
    pub(crate) problems: Vec<String>,
    /// Why things were skipped, one line each.
    pub(crate) unproven: Vec<String>,
}

impl Outcome {
    /// One thing checked, with the problems it has.
    pub(crate) fn check(&mut self, name: &str, problems: Vec<String>) {
        if problems.is_empty() {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.problems.push(format!("{name}:"));
            self.problems.extend(problems.into_iter().map(|problem| format!("  {problem}")));
        }
    }

    /// One thing that failed.
    pub(crate) fn fail(&mut self, problem: impl Into<String>) {
        self.failed += 1;
        self.problems.push(problem.into());
    }

    /// One thing that could not be tried.
    pub(crate) fn skip(&mut self, reason: impl Into<String>) {
        self.skipped += 1;
        self.unproven.push(reason.into());
    }

    pub(crate) fn add(&mut self, other: Outcome) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.problems.extend(other.problems);
        self.unproven.extend(other.unproven);
    }
}

/// What every lane is given.
pub(crate) struct Context {
    pub(crate) verbose: bool,
}

/// Runs the lanes, prints one line each and the sum; `false` if anything failed.
pub(crate) fn run_all(lanes: Vec<Lane>, verbose: bool) -> Result<bool> {
    let context = Context { verbose };
    let _ = fs::remove_dir_all(paths::logs());
    fs::create_dir_all(paths::logs())?;
    let start = Instant::now();
    let mut total = Outcome::default();
    let mut table = String::new();
    let count = lanes.len();
    for (index, lane) in lanes.into_iter().enumerate() {
        println!("[{}/{count}] {}: {}", index + 1, lane.name, lane.proves);
        let begun = Instant::now();
        let mut outcome = (lane.run)(&context).unwrap_or_else(|error| {
            let mut broken = Outcome::default();
            broken.fail(format!("{error:#}"));
            broken
        });
        settle_skips(&lane, &mut outcome);
        let line = describe(&lane, &outcome, begun.elapsed());
        println!("    {line}");
        tell(&outcome.problems);
        if !outcome.problems.is_empty() {
            outcome.problems.insert(0, format!("{}:", lane.name));
        }
        writeln!(table, "{line}")?;
        total.add(outcome);
    }
    println!("\nminutes by lane (full output in {}):\n{table}", paths::logs().display());
    for reason in &total.unproven {
        println!("skipped, not proven: {reason}");
    }
    println!("all lanes took {}\n", minutes(start.elapsed()));
    if !total.problems.is_empty() {
        // Again, since whoever sees only the end of what was printed needs it most.
        println!("what failed:");
        tell(&total.problems);
        println!();
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(total.failed == 0)
}

fn tell(problems: &[String]) {
    for problem in problems.iter().flat_map(|text| text.lines()) {
        println!("    | {problem}");
    }
}

/// On the continuous integration what was not proven counts as failed, unless the lane may be missing.
fn settle_skips(lane: &Lane, outcome: &mut Outcome) {
    if !paths::in_ci() || lane.may_be_missing || outcome.skipped == 0 {
        return;
    }
    outcome.failed += outcome.skipped;
    outcome.skipped = 0;
    for reason in outcome.unproven.drain(..) {
        outcome.problems.push(format!("skipped, not proven: {reason}"));
    }
}

fn describe(lane: &Lane, outcome: &Outcome, time: Duration) -> String {
    let verdict = match (outcome.failed, outcome.passed, outcome.skipped) {
        (0, 0, 1..) => "skipped, not proven",
        (0, _, _) => "ok",
        (1.., _, _) => "FAILED",
    };
    format!(
        "{:<28} {:>7}  {verdict} ({} passed, {} failed, {} skipped)",
        lane.name,
        minutes(time),
        outcome.passed,
        outcome.failed,
        outcome.skipped
    )
}
