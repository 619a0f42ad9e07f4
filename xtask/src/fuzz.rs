//! Inputs that nobody thought of, at every parser of the transcoder, steered by which code they reach.
//!
//! `fuzz/` is no member of the workspace: it is compiled with the coverage that libFuzzer steers by. What was found before is
//! kept in `fuzz/corpus`, an input a line, and is where a run begins; `cargo xtask fuzz --keep` writes it anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::command::{Ended, Run, tail};
use crate::lane::{Context, Outcome};
use crate::paths;

/// What is fuzzed, each a binary.
const TARGETS: [&str; 4] = ["json", "wire", "path", "request"];

/// How many are fuzzed at a time.
const AT_ONCE: usize = 2;

/// How long the lane looks for something new in each.
const SECONDS: u64 = 60;

/// The longest input, in bytes; the longest that is kept.
const LONGEST: usize = 4096;
/// See [`LONGEST`].
const LONGEST_KEPT: usize = 1024;

/// Most memory of a target, in MiB: what its coverage takes and many times what one input may.
const MEMORY: u64 = 512;

/// How long one input may take, in seconds: a thousand times what any does.
const PATIENCE: u64 = 10;

/// How long the build may take, from nothing.
const BUILD: Duration = Duration::from_secs(900);

/// Coverage as libFuzzer reads it; not of what runs while building.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// The lane.
pub(crate) fn prove(_: &Context) -> Result<Outcome> {
    let programs = build()?;
    let mut outcome = Outcome::default();
    for some in TARGETS.chunks(AT_ONCE) {
        for (target, ended) in side_by_side(some, &programs, SECONDS)? {
            println!("    {target}: {}", reached(&ended));
            let problems = if ended.success { Vec::new() } else { vec![tail(&ended.output, 40)] };
            outcome.check(target, problems);
        }
    }
    Ok(outcome)
}

/// The command: longer, if it is wanted, and with what was found kept.
pub(crate) fn run(seconds: u64, keep: bool) -> Result<bool> {
    let programs = build()?;
    let mut sound = true;
    for some in TARGETS.chunks(AT_ONCE) {
        for (target, ended) in side_by_side(some, &programs, seconds)? {
            println!("{target}: {}", reached(&ended));
            if !ended.success {
                println!("{}", tail(&ended.output, 40));
                sound = false;
            } else if keep {
                println!("{target}: {} inputs are kept", self::keep(target, &programs)?);
            }
        }
    }
    Ok(sound)
}

/// The folder of the targets, compiled.
fn build() -> Result<PathBuf> {
    let host = Run::new("fuzz", "rustc").args(["--print", "host-tuple"]).end()?;
    ensure!(host.success, "{}", tail(&host.output, 3));
    let host = host.output.trim().to_owned();
    let folder = paths::target().join("fuzz/build");
    let ended = Run::cargo("fuzz")
        .args(["build", "--release", "--locked", "--manifest-path"])
        .args([paths::root().join("fuzz/Cargo.toml")])
        .args(["--target", &host, "--target-dir"])
        .args([&folder])
        .env("RUSTFLAGS", COVERAGE)
        .limit(BUILD)
        .end()?;
    ensure!(ended.success, "{}", tail(&ended.output, 40));
    Ok(folder.join(host).join("release"))
}

fn side_by_side<'a>(targets: &'a [&'a str], programs: &Path, seconds: u64) -> Result<Vec<(&'a str, Ended)>> {
    thread::scope(|scope| {
        let running: Vec<_> =
            targets.iter().map(|target| (*target, scope.spawn(|| fuzz(target, programs, seconds)))).collect();
        let ended = running.into_iter().map(|(target, thread)| {
            let ended = thread.join().map_err(|_| anyhow!("{target} was not run"))?;
            Ok((target, ended?))
        });
        ended.collect()
    })
}

/// One target for so long; an input that breaks it lies in `target/fuzz/broken` then.
fn fuzz(target: &str, programs: &Path, seconds: u64) -> Result<Ended> {
    let (found, broken) = (folder("found", target)?, folder("broken", target)?);
    let limits = [
        format!("-max_total_time={seconds}"),
        format!("-timeout={PATIENCE}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-max_len={LONGEST}"),
        "-print_final_stats=1".to_owned(),
        format!("-artifact_prefix={}/", broken.display()),
    ];
    Run::new(&format!("fuzz-{target}"), programs.join(target))
        .args(limits)
        .args([found, known(target)?, seeds(target)])
        .env("RUST_BACKTRACE", "0")
        .limit(Duration::from_secs(seconds + 120))
        .end()
}

/// Writes down a smallest set of inputs that reaches all that was reached; says how many they are.
fn keep(target: &str, programs: &Path) -> Result<usize> {
    let (found, kept) = (folder("found", target)?, folder("kept", target)?);
    fs::remove_dir_all(&kept)?;
    fs::create_dir_all(&kept)?;
    let ended = Run::new(&format!("fuzz-{target}"), programs.join(target))
        .args(["-set_cover_merge=1".to_owned(), format!("-max_len={LONGEST_KEPT}")])
        .args([&kept, &seeds(target), &known(target)?, &found])
        .end()?;
    ensure!(ended.success, "{}", tail(&ended.output, 10));
    let mut inputs = BTreeSet::new();
    for entry in fs::read_dir(&kept)? {
        let input = fs::read(entry?.path())?;
        inputs.insert((input.len(), input));
    }
    let lines: Vec<String> = inputs.iter().map(|(_, input)| STANDARD.encode(input) + "\n").collect();
    fs::write(corpus(target), lines.concat())?;
    Ok(lines.len())
}

/// A folder with what `fuzz/corpus` has.
fn known(target: &str) -> Result<PathBuf> {
    let known = folder("known", target)?;
    let file = corpus(target);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    for (number, line) in text.lines().enumerate() {
        let input = STANDARD.decode(line).with_context(|| format!("{}, line {}", file.display(), number + 1))?;
        fs::write(known.join(number.to_string()), input)?;
    }
    Ok(known)
}

fn corpus(target: &str) -> PathBuf {
    paths::root().join("fuzz/corpus").join(target).with_extension("txt")
}

fn seeds(target: &str) -> PathBuf {
    paths::root().join("fuzz/seeds").join(target)
}

fn folder(what: &str, target: &str) -> Result<PathBuf> {
    let folder = paths::target().join("fuzz").join(what).join(target);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What a target says at its end: how many inputs it tried, and how much code they reached.
fn reached(ended: &Ended) -> String {
    let tried = ended.output.lines().rev().find_map(|line| line.strip_prefix("stat::number_of_executed_units: "));
    let edges = ended.output.lines().rev().find_map(|line| line.split_once(" cov: ")?.1.split_whitespace().next());
    format!("{} inputs reached {} edges", tried.unwrap_or("?").trim(), edges.unwrap_or("?"))
}
