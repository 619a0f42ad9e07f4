//! Reading what Rust's test harness prints, summed over all binaries of one run.

use crate::command::{Ended, tail};
use crate::lane::Outcome;

/// How the reason begins that an ignored test gives when nothing stays unproven without it: it is one half
/// of another test, or proves nothing at all.
const NO_PROOF: [&str; 2] = ["run by ", "a measurement"];

/// The counts and the names of what failed; a run that ended badly without a failing test (a build
/// error, an abort, a time-out) counts as one failure.
pub(crate) fn outcome(ended: &Ended) -> Outcome {
    let mut outcome = Outcome::default();
    for line in ended.output.lines() {
        if let Some(counts) = line.strip_prefix("test result: ") {
            outcome.passed += count(counts, " passed");
            outcome.failed += count(counts, " failed");
        } else if let Some((name, reason)) = ignored(line) {
            if !NO_PROOF.iter().any(|begin| reason.starts_with(begin)) {
                outcome
                    .skip(format!("{name}: {}", if reason.is_empty() { "ignored, no reason given" } else { reason }));
            }
        } else if line.starts_with("test ") && line.ends_with("FAILED") {
            outcome.problems.push(line.to_owned());
        }
    }
    if ended.success {
        return outcome;
    }
    if ended.timed_out {
        outcome.fail("ran out of time");
    } else if outcome.failed == 0 {
        outcome.failed += 1;
    }
    outcome.problems.push(tail(&ended.output, 120));
    outcome
}

/// The name of an ignored test and the reason it gives.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = verdict.strip_prefix("ignored")?;
    Some((name, reason.strip_prefix(", ").unwrap_or(reason)))
}

/// The number before the word, as in `ok. 5 passed; 0 failed; 1 ignored; ...`.
fn count(counts: &str, word: &str) -> u64 {
    counts
        .split([';', '.'])
        .find_map(|part| part.strip_suffix(word))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(success: bool, output: &str) -> Ended {
        Ended { success, timed_out: false, output: output.to_owned() }
    }

    #[test]
    fn counts_are_summed_over_binaries() {
        let found = outcome(&ended(
            true,
            "test a ... ok\ntest b ... ignored\ntest result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n",
        ));
        assert_eq!((found.passed, found.failed, found.skipped), (7, 0, 1));
    }

    #[test]
    fn what_is_not_run_is_named_unless_it_proves_nothing() {
        let found = outcome(&ended(
            true,
            "test slow - should panic ... ignored, needs a server\ntest fast ... ignored, a measurement\n\
             test child ... ignored, run by the other tests\n\
             test result: ok. 0 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        ));
        assert_eq!((found.passed, found.skipped), (0, 1));
        assert_eq!(found.unproven, ["slow - should panic: needs a server"]);
    }

    #[test]
    fn a_failing_test_is_named() {
        let found = outcome(&ended(
            false,
            "test deep::inside ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        ));
        assert_eq!((found.passed, found.failed), (1, 1));
        assert_eq!(found.problems[0], "test deep::inside ... FAILED");
    }

    #[test]
    fn a_build_that_breaks_is_a_failure() {
        let found = outcome(&ended(false, "error: could not compile"));
        assert_eq!((found.passed, found.failed), (0, 1));
    }
}
