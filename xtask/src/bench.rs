//! `cargo xtask bench`: builds the released binary and hands over to the benchmark of `integration/`.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::engines::{self, Broker, Engines};
use crate::servers::{Kafka, Postgres, Started};
use crate::{paths, suites};

/// What is built, and measured or measures.
const BUILT: [&[&str]; 4] = [
    &["--bins", "--package", "stoa"],
    &["--bins", "--package", "integration"],
    &["--example", LOG, "--package", "stoa-log"],
    &["--example", PARKED, "--package", "stoa-payment"],
];

/// The program that measures the log alone.
const LOG: &str = "log_speed";

/// What measures nothing and kills everything.
const DAYS: &str = "fleet-days";

/// The program that parks calls at payment.
const PARKED: &str = "parked";

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
    if let Some(which) = arguments.strip_prefix(&[DAYS.to_owned()]) {
        return days(which);
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
        .env("STOA_PARKED", paths::release("examples").join(PARKED))
        .status()
        .with_context(|| format!("cannot start {}", bench.display()))?;
    Ok(status.success())
}

/// The days on which everything dies, whole: on both brokers one after the other, or on the one that is named; with a binary
/// that has the fleet's engines, that one is not built.
fn days(words: &[String]) -> Result<bool> {
    let (which, binary) = match words {
        [rest @ .., flag, file] if flag == "--binary" => (rest, Some(std::path::absolute(file)?)),
        rest => (rest, None),
    };
    let brokers: &[Broker] = match which {
        [] => &[Broker::Kafka, Broker::RabbitMq],
        [name] if name == "kafka" => &[Broker::Kafka],
        [name] if name == "rabbitmq" => &[Broker::RabbitMq],
        _ => bail!("after `{DAYS}` comes `kafka` or `rabbitmq` or nothing, and `--binary FILE`"),
    };
    let binary = match binary {
        Some(binary) => binary,
        None => {
            suites::build_planted()?;
            paths::release("stoa-planted")
        }
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(paths::root()).args(["build", "--release", "--bins", "--package", "integration"]);
    if !build.status().context("cannot start cargo")?.success() {
        return Ok(false);
    }
    for broker in brokers {
        let engines = match Engines::start(*broker, &engines::DAYS)? {
            Started::Ready(engines) => engines,
            Started::Missing(reason) => bail!("{reason}"),
        };
        engines.versions().iter().for_each(|version| println!("{version}"));
        let mut run = Command::new(paths::release("bench"));
        run.current_dir(paths::root()).arg(DAYS).envs(engines.environment());
        run.env("STOA_BIN", &binary).env("STOA_FLEET_BIN", &binary);
        if !run.status().context("cannot start the benchmark")?.success() {
            return Ok(false);
        }
    }
    Ok(true)
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
