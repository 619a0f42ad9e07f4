//! `cargo xtask bench`: builds what is measured and hands over to the benchmark of `integration/`, with the servers that a
//! fleet stands on where one is measured.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::cargo;
use crate::engines::{self, Broker, Engines};
use crate::servers::{Kafka, Postgres, RabbitMq, Started};
use crate::tools::Had;
use crate::{gateways, paths};

/// What measures.
const BENCH: &[&str] = &["--bins", "--package", "integration"];

/// What one process is measured with.
const ONE: [&[&str]; 4] = [
    &["--bins", "--package", "stoa"],
    &["--example", LOG, "--package", "stoa-log"],
    &["--example", PARKED, "--package", "stoa-payment"],
    &["--example", OVERHEAD, "--package", "server"],
];

/// The program that measures the log alone.
const LOG: &str = "log_speed";

/// What measures nothing and kills everything.
const DAYS: &str = "fleet-days";
/// How much of it may be asked for: a part, or as much as the lane does.
const LESS: [&str; 3] = ["sales", "weeks", "small"];

/// What measures gateways beside each other.
const GATEWAY: &str = "gateway";

/// Ours alone, without a fleet.
const DOOR: &[&str] = &["--bins", "--package", "stoa-gateway"];

/// The program that parks calls at payment.
const PARKED: &str = "parked";

/// The program that calls over TCP with more and more switched on.
const OVERHEAD: &str = "overhead";

/// The shop with the engines of the fleet.
const SHOP: &[&str] = &["--bins", "--package", "stoa", "--features", "fleet"];

/// What a fleet is measured with.
const FLEET: [&[&str]; 2] = [
    SHOP,
    &[
        "--package",
        "store",
        "--example",
        "postgres_bench",
        "--package",
        "bus",
        "--example",
        "event_to_effect",
        "--features",
        "store/fleet,bus/kafka,bus/rabbitmq",
    ],
];

/// The measurements of a fleet that have a shop, each with databases of its own.
const SHOPS: [&str; 2] = ["checkouts", "rebuild"];

/// How the names of a fleet's measurements begin.
const FLEET_NAME: &str = "fleet";

/// Builds, then measures; the benchmark's own output is the result.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    if let Some(which) = arguments.strip_prefix(&[DAYS.to_owned()]) {
        return days(which);
    }
    if arguments.first().is_some_and(|word| word == GATEWAY) {
        return gateway(arguments);
    }
    let names: Vec<&String> = arguments.iter().take_while(|word| !word.starts_with("--")).collect();
    match names.iter().filter(|name| name.starts_with(FLEET_NAME)).count() {
        0 => one(arguments),
        all if all == names.len() => fleet(arguments),
        _ => bail!("a fleet is measured by itself: its `stoa` is built with other features"),
    }
}

/// The days on which everything dies, whole: on both brokers one after the other, or on the one that is named; with a binary
/// that has the fleet's engines, that one is not built.
fn days(words: &[String]) -> Result<bool> {
    let (which, binary) = match words {
        [rest @ .., flag, file] if flag == "--binary" => (rest, Some(std::path::absolute(file)?)),
        rest => (rest, None),
    };
    let (which, name) = match which {
        [rest @ .., word] if LESS.contains(&word.as_str()) => (rest, format!("{DAYS}-{word}")),
        rest => (rest, DAYS.to_owned()),
    };
    let brokers: &[Broker] = match which {
        [] => &[Broker::Kafka, Broker::RabbitMq],
        [name] if name == "kafka" => &[Broker::Kafka],
        [name] if name == "rabbitmq" => &[Broker::RabbitMq],
        _ => bail!("after `{DAYS}` come `kafka` or `rabbitmq` or nothing, {LESS:?} or nothing, and `--binary FILE`"),
    };
    let binary = match binary {
        Some(binary) => binary,
        None if built(SHOP)? => paths::release("stoa"),
        None => return Ok(false),
    };
    if !built(BENCH)? {
        return Ok(false);
    }
    for broker in brokers {
        let engines = match Engines::start(*broker, &engines::DAYS, &binary)? {
            Started::Ready(engines) => engines,
            Started::Missing(reason) => bail!("{reason}"),
        };
        engines.versions().iter().for_each(|version| println!("{version}"));
        let mut run = Command::new(paths::release("bench"));
        run.current_dir(paths::root()).arg(&name).envs(engines.environment());
        run.env("STOA_BIN", &binary).env("STOA_FLEET_BIN", &binary);
        if !run.status().context("cannot start the benchmark")?.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn one(arguments: &[String]) -> Result<bool> {
    for what in [BENCH].iter().chain(&ONE) {
        if !built(what)? {
            return Ok(false);
        }
    }
    let stoa = paths::release("stoa");
    let example = |name: &str| paths::release("examples").join(name);
    let mut bench = bench(arguments, stoa);
    bench.env("STOA_LOG_SPEED", example(LOG)).env("STOA_PARKED", example(PARKED));
    measure(bench.env("STOA_OVERHEAD", example(OVERHEAD)))
}

/// Our gateway beside those of others; one that cannot be had is said to be missing.
fn gateway(arguments: &[String]) -> Result<bool> {
    if !built(BENCH)? || !built(DOOR)? {
        return Ok(false);
    }
    let mut bench = Command::new(paths::release("bench"));
    bench.current_dir(paths::root()).args(arguments);
    bench
        .env("STOA_GATEWAY", paths::release("stoa-gateway"))
        .env("STOA_GATEWAY_DESCRIPTORS", gateways::descriptors("library")?);
    for (name, had) in [("STOA_ENVOY", gateways::envoy()?), ("STOA_GRPC_GATEWAY", gateways::grpc_gateway()?)] {
        match had {
            Had::Ready(program) => {
                bench.env(name, program);
            }
            Had::Missing(reason) => println!("{reason}"),
        }
    }
    measure(&mut bench)
}

/// A server that cannot be had is said to be missing, and what needs it is not measured.
fn fleet(arguments: &[String]) -> Result<bool> {
    // One that is there already may be measured instead.
    let given = std::env::var_os("STOA_FLEET_BIN").map(PathBuf::from);
    let [stoa, programs] = FLEET;
    if !built(BENCH)? || !built(programs)? || (given.is_none() && !built(stoa)?) {
        return Ok(false);
    }
    let stoa = given.unwrap_or_else(|| paths::release("stoa"));
    let mut bench = bench(arguments, stoa.clone());
    bench.env("STOA_FLEET_BIN", stoa).env("STOA_FLEET_PROGRAMS", paths::release("examples"));
    let mut processes = Vec::new();
    // All of them run until the end.
    let postgres = ready(Postgres::start()?);
    if let Some(server) = &postgres {
        println!("{}", server.version());
        bench.env("STOA_FLEET_POSTGRES", server.url()).env("STOA_FLEET_PGBENCH", server.program("pgbench"));
        bench.env("STOA_FLEET_DATABASES", server.fleets(&SHOPS)?);
        processes.push(format!("postgresql={}", server.process()));
    }
    let kafka = ready(Kafka::start()?);
    if let Some(server) = &kafka {
        println!("{}", Kafka::version());
        bench.env("STOA_FLEET_KAFKA", server.address());
        processes.push(format!("kafka={}", server.process()));
    }
    let rabbitmq = ready(RabbitMq::start()?);
    if let Some(server) = &rabbitmq {
        println!("{}", server.version());
        bench.env("STOA_FLEET_RABBITMQ", server.url());
    }
    measure(bench.env("STOA_FLEET_PROCESSES", processes.join(" ")))
}

fn ready<S>(started: Started<S>) -> Option<S> {
    match started {
        Started::Ready(server) => Some(server),
        Started::Missing(reason) => {
            println!("{reason}");
            None
        }
    }
}

fn built(what: &[&str]) -> Result<bool> {
    Ok(cargo().args(["build", "--release"]).args(what).status().context("cannot start cargo")?.success())
}

/// The benchmark, to measure this `stoa`.
fn bench(arguments: &[String], stoa: PathBuf) -> Command {
    let mut bench = Command::new(paths::release("bench"));
    bench.current_dir(paths::root()).args(arguments).env("STOA_BIN", stoa);
    bench
}

fn measure(bench: &mut Command) -> Result<bool> {
    let status = bench.status().with_context(|| format!("cannot start {}", paths::release("bench").display()))?;
    Ok(status.success())
}
