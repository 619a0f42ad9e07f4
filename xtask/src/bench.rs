//! `cargo xtask bench`: builds the released binary and hands over to the benchmark of `integration/`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::servers::{Kafka, Postgres, Started};

/// What is built, and measured or measures.
const BUILT: [&[&str]; 3] = [
    &["--bins", "--package", "stoa"],
    &["--bins", "--package", "integration"],
    &["--example", LOG, "--package", "stoa-log"],
];

/// The program that measures the log alone.
const LOG: &str = "log_speed";

/// What measures the engines of the fleet, each beside what it is compared with.
const FLEET: [&[&str]; 2] = [
    &["--package", "store", "--features", "fleet", "--example", "postgres_bench"],
    &["--package", "bus", "--features", "kafka", "--example", "event_to_effect"],
];

/// Builds, then measures; the benchmark's own output is the result.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    if arguments.iter().any(|argument| argument == "fleet") {
        if arguments.len() > 1 {
            bail!("`fleet` is measured by itself");
        }
        return fleet();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for what in BUILT {
        let built = Command::new(&cargo)
            .current_dir(paths::root())
            .args(["build", "--release"])
            .args(what)
            .status()
            .context("cannot start cargo")?;
        if !built.success() {
            return Ok(false);
        }
    }
    let bench = paths::release("bench");
    let status = Command::new(&bench)
        .current_dir(paths::root())
        .args(arguments)
        .env("STOA_BIN", paths::release("stoa"))
        .env("STOA_LOG_SPEED", paths::release("examples").join(LOG))
        .status()
        .with_context(|| format!("cannot start {}", bench.display()))?;
    Ok(status.success())
}

/// Commits on PostgreSQL beside `pgbench`, and the way of an event in one process and through Kafka.
fn fleet() -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for what in FLEET {
        let mut build = Command::new(&cargo);
        let built = build.current_dir(paths::root()).args(["build", "--release"]).args(what).status();
        if !built.context("cannot start cargo")?.success() {
            return Ok(false);
        }
    }
    let examples = paths::release("examples");
    let mut good = true;
    match Postgres::start()? {
        Started::Ready(server) => {
            println!("{}", server.version());
            let mut measure = Command::new(examples.join("postgres_bench"));
            good &= measure.arg(server.url()).arg(server.program("pgbench")).status()?.success();
        }
        Started::Missing(reason) => println!("not measured: {reason}"),
    }
    let folder = tempfile::Builder::new().prefix("stoa-bench-").tempdir_in(paths::root().join("target"))?;
    let mut measure = Command::new(examples.join("event_to_effect"));
    measure.arg(folder.path());
    match Kafka::start()? {
        Started::Ready(server) => {
            println!("{}", Kafka::version());
            good &= measure.arg(server.address()).status()?.success();
        }
        Started::Missing(reason) => {
            println!("{reason}");
            good &= measure.status()?.success();
        }
    }
    Ok(good)
}
