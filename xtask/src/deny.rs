//! Licences, sources and bans over every crate we link, and known advisories where they can be fetched.

use std::time::Duration;

use anyhow::Result;

use crate::command::{Run, tail};
use crate::lane::{Context, Outcome};
use crate::tools::{CARGO_DENY, Had};

/// The checks that need nothing but the lock file and the sources.
pub(crate) fn run(_: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let deny = match CARGO_DENY.get()? {
        Had::Ready(path) => path,
        Had::Missing(reason) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    for check in ["licenses", "bans", "sources"] {
        let ended = Run::new("deny", &deny)
            .args(["--all-features", "check", "--hide-inclusion-graph", check])
            .limit(Duration::from_secs(120))
            .end()?;
        let problems = if ended.success { Vec::new() } else { vec![tail(&ended.output, 40)] };
        outcome.check(check, problems);
    }
    Ok(outcome)
}

/// Known advisories; their database is fetched, so this lane may be missing.
pub(crate) fn advisories(_: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let deny = match CARGO_DENY.get()? {
        Had::Ready(path) => path,
        Had::Missing(reason) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    let ended = Run::new("advisories", &deny)
        .args(["--all-features", "check", "--hide-inclusion-graph", "advisories"])
        .limit(Duration::from_secs(60))
        .end()?;
    let unreachable = ["failed to fetch", "failed to load advisory database", "failed to acquire"];
    if ended.success {
        outcome.passed += 1;
    } else if ended.timed_out || unreachable.iter().any(|sign| ended.output.contains(sign)) {
        outcome.skip("advisories: the database cannot be fetched from here");
    } else {
        outcome.fail(tail(&ended.output, 40));
    }
    Ok(outcome)
}
