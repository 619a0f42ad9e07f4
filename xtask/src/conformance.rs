//! Protobuf's own conformance suite against the codec of `stoa-transcode`.
//!
//! The runner is somebody else's program; it asks the example `conformance` some thousands of times over a pipe. The
//! example answers what has JSON on either side and skips the rest, so the count of what it answered is checked too: a
//! suite of which everything is skipped proves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::built::{Shape, built};
use crate::command::{Run, tail};
use crate::lane::{Context, Outcome};
use crate::paths;
use crate::tools::{CONFORMANCE, Had};

/// The cases with JSON on either side, of proto2 and proto3, in the runner's version.
const ANSWERED: u64 = 1378;

/// How long the suite may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the suite; it is one thing that passes or fails.
pub(crate) fn run(context: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let runner = match runner()? {
        Ok(runner) => runner,
        Err(reason) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    let testee = built(Shape::Plain)?.conformance()?;
    let folder = paths::logs().join("conformance");
    fs::create_dir_all(&folder)?;
    let ended = runner
        .command()
        .args(["--enforce_recommended", "--maximum_edition", "PROTO3", "--failure_list"])
        .args([paths::root().join("transcode/tests/conformance.txt")])
        .args([Path::new("--output_dir"), &folder, testee, &runner.protos])
        .limit(LIMIT)
        .verbose(context.verbose)
        .end()?;
    let suites: Vec<Suite> = ended.output.lines().filter_map(Suite::read).collect();
    suites.iter().for_each(|suite| println!("    {}", suite.line));
    let answered: u64 = suites.iter().map(|suite| suite.successes).sum();
    let mut problems = Vec::new();
    if !ended.success {
        problems.push(tail(&ended.output, 60));
    } else if answered != ANSWERED {
        problems.push(format!("{answered} cases were answered rightly, of {ANSWERED} that have JSON on either side"));
    }
    outcome.check("conformance", problems);
    Ok(outcome)
}

/// What the runner says at the end of a suite.
struct Suite {
    line: String,
    successes: u64,
}

impl Suite {
    /// `CONFORMANCE SUITE PASSED: 1378 successes, 2311 skipped, 0 expected failures, 0 unexpected failures.`
    fn read(line: &str) -> Option<Self> {
        let (_, counts) = line.split_once("CONFORMANCE SUITE ")?.1.split_once(": ")?;
        let successes = counts.split(", ").find_map(|count| count.strip_suffix(" successes"))?.parse().ok()?;
        Some(Suite { line: line.trim().to_owned(), successes })
    }
}

/// The runner and what it brings with it.
struct Runner {
    program: PathBuf,
    /// The folder of its `.proto` files.
    protos: PathBuf,
    /// A C library that is new enough for it, where the machine's own is not.
    library: Option<PathBuf>,
}

impl Runner {
    fn command(&self) -> Run {
        let log = "conformance";
        match &self.library {
            None => Run::new(log, &self.program),
            Some(folder) => Run::new(log, folder.join("ld-linux-x86-64.so.2")).args([
                Path::new("--library-path"),
                folder,
                &self.program,
            ]),
        }
    }

    /// Whether it runs at all: asked for what it does not know, it says how it is used.
    fn starts(&self) -> bool {
        let asked = self.command().args(["--help"]).limit(Duration::from_secs(10)).end();
        asked.is_ok_and(|ended| ended.output.contains("Usage: conformance-test-runner"))
    }
}

/// The runner, or why it cannot be had.
fn runner() -> Result<Result<Runner, String>> {
    let program = match CONFORMANCE.get()? {
        Had::Ready(program) => program,
        Had::Missing(reason) => return Ok(Err(reason)),
    };
    let package = fs::canonicalize(&program)?;
    let package = package.parent().context("the runner lies nowhere")?;
    let binary = package.join(format!("bin/conformance_test_runner-{}-x64", std::env::consts::OS));
    let mut runner = Runner { program: binary, protos: package.join("include"), library: None };
    if !runner.program.exists() {
        return Ok(Err(format!("there is no conformance runner for {}", std::env::consts::OS)));
    }
    if runner.starts() {
        return Ok(Ok(runner));
    }
    // It is built against a C library of 2023. An older system gets one beside its own, for the runner alone.
    runner.library = Some(match newer_library(package)? {
        Ok(folder) => folder,
        Err(reason) => return Ok(Err(reason)),
    });
    let starts = runner.starts();
    Ok(if starts { Ok(runner) } else { Err("the conformance runner does not start on this machine".to_owned()) })
}

/// The folder with the C library of a newer release of Debian, fetched if it is not there.
fn newer_library(package: &Path) -> Result<Result<PathBuf, String>> {
    let root = package.join("library");
    let folder = root.join("usr/lib/x86_64-linux-gnu");
    if folder.join("libc.so.6").exists() && folder.join("libstdc++.so.6").exists() {
        return Ok(Ok(folder));
    }
    let apt = package.join("apt");
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("archives/partial"))?;
    let Some(mirror) = mirror() else {
        return Ok(Err("the conformance runner needs a newer C library, and the machine names no mirror".to_owned()));
    };
    let source = format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} trixie main\n");
    fs::write(apt.join("sources.list"), source)?;
    println!("    fetching a C library for the runner into {} (at most 2 minutes)", root.display());
    // Lists and archives of its own: what the machine has installed or may install is not touched.
    let options = [
        format!("Dir::Etc::SourceList={}", apt.join("sources.list").display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", apt.join("lists").display()),
        format!("Dir::Cache={}", apt.display()),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let get = |words: &[&str]| {
        let run =
            options.iter().fold(Run::new("install-conformance", "apt-get"), |run, option| run.args(["-o", option]));
        run.args(words).folder(&apt).limit(Duration::from_secs(60)).end()
    };
    for words in [&["update"][..], &["download", "libc6", "libstdc++6", "libgcc-s1"]] {
        match get(words) {
            Ok(ended) if ended.success => {}
            Ok(ended) => {
                return Ok(Err(format!("no C library for the conformance runner: {}", tail(&ended.output, 3))));
            }
            Err(error) => return Ok(Err(format!("no C library for the conformance runner: {error:#}"))),
        }
    }
    for entry in fs::read_dir(&apt)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let unpacked = Run::new("install-conformance", "dpkg-deb").args([Path::new("-x"), &path, &root]).end()?;
            if !unpacked.success {
                return Ok(Err(format!("{} cannot be unpacked: {}", path.display(), tail(&unpacked.output, 3))));
            }
        }
    }
    fs::remove_dir_all(&apt)?;
    Ok(Ok(folder))
}

/// Where the machine itself gets Debian's packages from.
fn mirror() -> Option<String> {
    let asked = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let ended = Run::new("install-conformance", "apt-get").args(asked).limit(Duration::from_secs(30)).end().ok()?;
    ended.output.lines().find(|line| line.trim_end_matches('/').ends_with("/debian")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_suite_are_read() {
        let line =
            "CONFORMANCE SUITE PASSED: 1378 successes, 2311 skipped, 0 expected failures, 0 unexpected failures.";
        assert_eq!(Suite::read(line).unwrap().successes, 1378);
        assert!(Suite::read("CONFORMANCE TEST BEGIN ====================================").is_none());
    }
}
