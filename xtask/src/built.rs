//! What the lanes run, built once for each of two shapes.
//!
//! A shape is one command: one profile, one selection of packages and features, whichever lane asks first. So nothing is
//! compiled twice, and a lane that is run alone drives what the sources say now. Lanes run the test programs themselves, as
//! cargo listed them when it built them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use cargo_metadata::{Artifact, Message};

use crate::command::{Ended, Run, tail};
use crate::lane::Context;
use crate::lanes::ENGINES;
use crate::paths;
use crate::workspace::{Workspace, place};

/// How everything is built that a lane runs; `Cargo.toml` says why it is a profile of its own.
pub(crate) const PROFILE: &str = "proof";

/// How long a build may take, from nothing and on two cores.
const LIMIT: Duration = Duration::from_secs(2400);

/// How long the test programs of a lane may take together.
const PATIENCE: Duration = Duration::from_secs(1500);

/// What the second shape builds: everything that has an engine, and besides what makes cargo choose the features of outside
/// crates as for the first, so that these are not compiled again.
const WITH_ENGINES: [&str; 11] = [
    "stoa",
    "store",
    "stoa-log",
    "bus",
    "saga",
    "cache",
    "stoa-identity",
    "stoa-catalog",
    "integration",
    "xtask",
    "outside",
];

/// The example that answers protobuf's conformance suite.
const CONFORMANCE: &str = "conformance";

/// The gateway that stands alone.
const GATEWAY: &str = "stoa-gateway";

/// What is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The shop as it is released, and the tests of every crate.
    Plain,
    /// The shop with the engines of the fleet and the planted bugs (without one switched on it is as sound as the other), and
    /// the tests of what has an engine.
    Fleet,
}

/// What a shape's build left.
pub(crate) struct Built {
    /// The shop.
    pub(crate) stoa: PathBuf,
    conformance: Option<PathBuf>,
    gateway: Option<PathBuf>,
    programs: Vec<Program>,
}

/// A test program.
pub(crate) struct Program {
    pub(crate) package: String,
    /// That of the file in `tests/`, or nothing for the tests inside a library or a binary.
    pub(crate) test: Option<String>,
    library: bool,
    file: PathBuf,
    /// Where its package lies; it is run there.
    folder: PathBuf,
}

/// The shape, built if this process has not done so yet.
pub(crate) fn built(shape: Shape) -> Result<&'static Built> {
    static PLAIN: OnceLock<Result<Built, String>> = OnceLock::new();
    static FLEET: OnceLock<Result<Built, String>> = OnceLock::new();
    let once = match shape {
        Shape::Plain => &PLAIN,
        Shape::Fleet => &FLEET,
    };
    once.get_or_init(|| build(shape).map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}

impl Built {
    /// The test programs that are wanted.
    pub(crate) fn programs(&self, wanted: impl Fn(&Program) -> bool) -> Vec<&Program> {
        self.programs.iter().filter(|program| wanted(program)).collect()
    }

    /// What answers protobuf's conformance suite; the plain shape has it.
    pub(crate) fn conformance(&self) -> Result<&Path> {
        self.conformance.as_deref().context("cargo did not say where it put `conformance`")
    }

    /// The gateway that stands alone; the plain shape has it.
    pub(crate) fn gateway(&self) -> Result<&Path> {
        self.gateway.as_deref().context("cargo did not say where it put `stoa-gateway`")
    }
}

impl Program {
    /// Whether it holds the tests inside a library.
    pub(crate) fn is_library(&self) -> bool {
        self.library
    }
}

fn build(shape: Shape) -> Result<Built> {
    let run = Run::cargo(&format!("build-{shape:?}").to_lowercase())
        .args(["build", "--profile", PROFILE, "--lib", "--bins", "--tests"])
        .args(["--message-format", "json-render-diagnostics"])
        .limit(LIMIT);
    let run = match shape {
        Shape::Plain => run.args(["--workspace", "--example", CONFORMANCE]).args(unhurried()?),
        Shape::Fleet => run
            .args(WITH_ENGINES.iter().flat_map(|package| ["--package", package]))
            .args(["--features", &format!("stoa/fleet,stoa/planted,{ENGINES}")]),
    };
    let ended = run.end()?;
    let said: Vec<&str> = ended.output.lines().filter(|line| !line.starts_with('{')).collect();
    ensure!(ended.success, "{}", tail(&said.join("\n"), 60));
    ensure!(!said.iter().any(|line| line.starts_with("warning: ")), "it warns:\n{}", tail(&said.join("\n"), 60));
    let artifacts = artifacts(&ended.output)?;
    let stoa = executable(&artifacts, "stoa").context("cargo did not say where it put `stoa`")?;
    let conformance = executable(&artifacts, CONFORMANCE).map(Path::to_owned);
    let gateway = executable(&artifacts, GATEWAY).map(Path::to_owned);
    Ok(Built { stoa: aside(shape, stoa)?, conformance, gateway, programs: programs(&artifacts) })
}

/// Leaves everything above the platform as it is written: that many test programs take four times as long to optimise as they
/// gain by it. A fleet's processes, which have to keep their times on two cores, are built by the other shape.
fn unhurried() -> Result<Vec<String>> {
    let workspace = Workspace::load()?;
    let members = workspace.members();
    let above = members.iter().filter(|package| !place(package).starts_with("platform"));
    let settings = above.map(|package| format!("profile.{PROFILE}.package.{}.opt-level=0", package.name));
    Ok(settings.flat_map(|setting| ["--config".to_owned(), setting]).collect())
}

/// The program of this name that is no test program.
fn executable<'a>(artifacts: &'a [Artifact], name: &str) -> Option<&'a Path> {
    let programs = artifacts.iter().filter(|artifact| artifact.target.name == name && !artifact.profile.test);
    programs.filter_map(|artifact| artifact.executable.as_deref()).map(|path| path.as_std_path()).next()
}

/// The examples in the documentation of every crate, compiled and run by cargo with what the plain build has made.
pub(crate) fn documentation(context: &Context) -> Result<Ended> {
    built(Shape::Plain)?;
    // The same profile and the same selection as the build, so that nothing is compiled twice.
    Run::cargo("doctests")
        .args(["test", "--doc", "--profile", PROFILE, "--workspace"])
        .args(unhurried()?)
        .limit(PATIENCE)
        .verbose(context.verbose)
        .end()
}

fn artifacts(output: &str) -> Result<Vec<Artifact>> {
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let messages = lines.map(|line| serde_json::from_str(line).context("cargo's messages cannot be read"));
    let kept = messages.filter_map(|message| match message {
        Ok(Message::CompilerArtifact(artifact)) => Some(Ok(artifact)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    });
    kept.collect()
}

/// Both shapes have a `stoa`, and cargo has one place for it.
fn aside(shape: Shape, stoa: &Path) -> Result<PathBuf> {
    let folder = paths::target().join(PROFILE).join(format!("{shape:?}").to_lowercase());
    fs::create_dir_all(&folder)?;
    let kept = folder.join("stoa");
    // Somebody may be running the last one: its file is left to him.
    let _ = fs::remove_file(&kept);
    fs::copy(stoa, &kept).with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(kept)
}

/// In an order that does not depend on which was built first.
fn programs(artifacts: &[Artifact]) -> Vec<Program> {
    let tests = artifacts.iter().filter(|artifact| artifact.profile.test);
    let named: BTreeMap<_, _> =
        tests.filter_map(|artifact| program(artifact).map(|found| (key(&found), found))).collect();
    named.into_values().collect()
}

fn key(program: &Program) -> (String, Option<String>, PathBuf) {
    (program.package.clone(), program.test.clone(), program.file.clone())
}

fn program(artifact: &Artifact) -> Option<Program> {
    let folder = artifact.manifest_path.parent()?.as_std_path().to_owned();
    Some(Program {
        package: package(&artifact.package_id.repr, &folder),
        test: artifact.target.is_test().then(|| artifact.target.name.clone()),
        library: artifact.target.is_lib(),
        file: artifact.executable.as_deref()?.as_std_path().to_owned(),
        folder,
    })
}

/// The name in an id such as `path+file:///shop/platform/log#stoa-log@0.1.0`, which has none where it is that of the folder.
fn package(id: &str, folder: &Path) -> String {
    let end = id.rsplit_once('#').map_or("", |(_, end)| end);
    match end.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// Test programs to be run one after the other, with one outcome.
pub(crate) struct Tests {
    log: String,
    programs: Vec<&'static Program>,
    arguments: Vec<String>,
    environment: Vec<(String, OsString)>,
    limit: Duration,
    verbose: bool,
}

impl Tests {
    /// These programs; their output goes to the log of that name.
    pub(crate) fn new(log: &str, programs: Vec<&'static Program>, context: &Context) -> Self {
        let verbose = context.verbose;
        Self { log: log.to_owned(), programs, arguments: vec![], environment: vec![], limit: PATIENCE, verbose }
    }

    /// What each of them is told.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// How long all of them may take together.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs every one of them, also after one that fails.
    pub(crate) fn end(self) -> Result<Ended> {
        ensure!(!self.programs.is_empty(), "there is no test program for {}", self.log);
        let start = Instant::now();
        let mut all = Ended { success: true, timed_out: false, output: String::new() };
        for program in &self.programs {
            let ended = self.one(program, self.limit.saturating_sub(start.elapsed()))?;
            all.success &= ended.success;
            all.timed_out |= ended.timed_out;
            all.output.push_str(&ended.output);
            if all.timed_out {
                break;
            }
        }
        Ok(all)
    }

    fn one(&self, program: &Program, limit: Duration) -> Result<Ended> {
        let mut run = Run::new(&self.log, &program.file)
            .args(&self.arguments)
            .env("RUST_LIB_BACKTRACE", "0")
            .folder(&program.folder)
            .limit(limit)
            .verbose(self.verbose);
        for (name, value) in &self.environment {
            run = run.env(name, value);
        }
        run.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_id_or_by_its_folder() {
        let folder = Path::new("/shop/platform/store");
        assert_eq!(package("path+file:///shop/platform/log#stoa-log@0.1.0", folder), "stoa-log");
        assert_eq!(package("path+file:///shop/platform/store#0.1.0", folder), "store");
    }
}
