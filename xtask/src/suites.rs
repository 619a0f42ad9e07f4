//! The lanes of `integration/`: the binary, driven from outside, one lane a file.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use crate::built::{Shape, Tests, built};
use crate::engines::{Broker, DAYS, Engines};
use crate::lane::{Context, Outcome};
use crate::lanes::Lane;
use crate::servers::{self, Started};
use crate::tools::{ENVOY, GRPCURL, Had};
use crate::workspace::files;
use crate::{fleet, foreign, gateways, libtest, paths};

/// Beside Envoy, which is a download from one index alone.
const WITH_ENVOY: [&str; 2] = ["differential", "sidecar"];

/// What drives it.
pub(crate) const PACKAGE: &str = "integration";

/// Each file of `integration/tests`.
pub(crate) fn lanes() -> Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    for source in files(&paths::root().join("integration/tests"), &["rs"])? {
        if source.path.components().count() != 3 {
            continue;
        }
        let Some(name) = source.path.file_stem().and_then(|name| name.to_str()).map(str::to_owned) else {
            continue;
        };
        let proves = source
            .text
            .lines()
            .find_map(|line| line.strip_prefix("//! "))
            .unwrap_or("what its name says")
            .trim_end_matches('.')
            .to_owned();
        // Jaeger takes minutes of both cores to build.
        let on_request = name == "collector";
        let may_be_missing = WITH_ENVOY.contains(&name.as_str()) || on_request;
        let lane = Lane::new(format!("integration:{name}"), proves, move |context| drive(&name, context));
        lanes.push(Lane { may_be_missing, on_request, ..lane });
    }
    let whole =
        "the whole fleet: `up`, the README's tour unchanged, `status`, kill -9 and `up`, `down`, `up` on the same data";
    lanes.push(Lane::new("fleet", whole, fleet::prove));
    Ok(lanes)
}

fn drive(name: &str, context: &Context) -> Result<Outcome> {
    let log = format!("integration-{name}");
    let skips = paths::logs().join(format!("{log}.skipped"));
    let plain = built(Shape::Plain)?;
    let with_engines = &built(Shape::Fleet)?.stoa;
    let programs = plain.programs(|program| program.package == PACKAGE && program.test.as_deref() == Some(name));
    let mut run = Tests::new(&log, programs, context)
        .env("STOA_BIN", &plain.stoa)
        .env("STOA_PLANTED_BIN", with_engines)
        .env("STOA_SKIPS", &skips)
        .limit(Duration::from_secs(900));
    // Stopped when the lane has ended.
    let mut server = None;
    let mut broker = None;
    let mut redis = None;
    let mut other = None;
    if name == "fleet" {
        match servers::Kafka::start()? {
            Started::Ready(started) => {
                println!("    {}", servers::Kafka::version());
                run = run.env("STOA_FLEET_KAFKA", started.address());
                broker = Some(started);
                match foreign::consumer()? {
                    Had::Ready(folder) => run = run.env("STOA_FOREIGN", folder),
                    Had::Missing(reason) => println!("    {reason}"),
                }
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
        match servers::RabbitMq::start()? {
            Started::Ready(started) => {
                println!("    {}", started.version());
                run = run.env("STOA_FLEET_RABBITMQ", started.fleets(&["e", "f"])?);
                other = Some(started);
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
        match servers::Redis::start()? {
            Started::Ready(started) => {
                println!("    {}", started.version());
                run = run
                    .env("STOA_FLEET_BIN", with_engines)
                    .env("STOA_FLEET_REDIS", started.lines()?)
                    .env("STOA_FLEET_REDIS_PROCESS", started.process().to_string());
                redis = Some(started);
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
        match servers::Postgres::start()? {
            Started::Ready(started) => {
                println!("    {}", started.version());
                run = run
                    .env("STOA_FLEET_BIN", with_engines)
                    .env("STOA_FLEET_DATABASES", started.fleets(&["a", "b", "c", "d", "e", "f"])?);
                server = Some(started);
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
    }
    if ["grpcurl", "tour"].contains(&name) {
        // Without it the tests say themselves what they cannot prove.
        match GRPCURL.get()? {
            Had::Ready(path) => run = run.env("STOA_GRPCURL", path),
            Had::Missing(reason) => println!("    {reason}"),
        }
    }
    if name == "differential" {
        run = run.env("STOA_GATEWAY", plain.gateway()?);
        run = run.env("STOA_GALLERY", gateways::descriptors("gallery")?);
    }
    if WITH_ENVOY.contains(&name) {
        // Without Envoy they are skipped on the continuous integration too.
        run = run.args(&["--show-output"]).env("CI", "");
        match ENVOY.get()? {
            Had::Ready(path) => run = run.env("STOA_ENVOY", path),
            Had::Missing(reason) => println!("    {reason}"),
        }
    }
    let mut collector = None;
    if name == "collector" {
        match servers::Jaeger::start()? {
            Started::Ready(started) => {
                println!("    {}", servers::Jaeger::version());
                run = run.env("STOA_TEST_OTLP", started.takes()).env("STOA_TEST_JAEGER", started.answers());
                collector = Some(started);
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
    }
    let mut grown = None;
    if ["roll", "scale"].contains(&name) {
        run = run.args(&["--show-output"]);
        match servers::Postgres::start()? {
            Started::Ready(started) => {
                println!("    {}", started.version());
                run = run.env("STOA_FLEET_BIN", with_engines).env("STOA_FLEET_DATABASES", started.fleets(&["a"])?);
                grown = Some(started);
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
    }
    // What the fleet that is rolled stands on besides.
    let mut rolled = None;
    if name == "roll" {
        let (broker, documents) = (servers::Kafka::start()?, servers::Mongo::start()?);
        match &broker {
            Started::Ready(broker) => {
                println!("    {}", servers::Kafka::version());
                run = run.env("STOA_FLEET_KAFKA", broker.address());
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
        match &documents {
            Started::Ready(documents) => {
                println!("    {}", documents.version());
                run = run.env("STOA_FLEET_MONGODB", documents.url());
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
        rolled = Some((broker, documents));
    }
    let mut controls = Vec::new();
    if name == "fleet_copies" {
        // One fleet at a time: each is twenty processes, and one kills what the others stand on.
        run = run.args(&["--test-threads=1"]);
        if let (Started::Ready(database), Started::Ready(broker)) =
            (servers::Postgres::start()?, servers::Kafka::start()?)
        {
            println!("    {}\n    {}", database.version(), servers::Kafka::version());
            run = run
                .env("STOA_FLEET_BIN", with_engines)
                .env("STOA_FLEET_DATABASES", database.fleets(&["a", "b", "c", "d"])?)
                .env("STOA_FLEET_KAFKA", broker.address());
            controls = vec![servers::Control::over(database)?, servers::Control::over(broker)?];
            let addresses: Vec<String> = controls.iter().map(servers::Control::address).collect();
            run = run.env("STOA_FLEET_CONTROLS", addresses.join(" "));
        }
    }
    let mut engines = None;
    if name == "fleet_days" {
        run = run.args(&["--test-threads=1", "--show-output"]);
        match Engines::start(Broker::Kafka, &DAYS, with_engines)? {
            Started::Ready(started) => {
                started.versions().iter().for_each(|version| println!("    {version}"));
                for (name, value) in started.environment() {
                    run = run.env(name, value);
                }
                engines = Some(started);
            }
            Started::Missing(reason) => println!("    {reason}"),
        }
    }
    if name == "registry"
        && let (Started::Ready(database), Started::Ready(etcd)) = (servers::Postgres::start()?, servers::Etcd::start()?)
    {
        println!("    {}\n    {}", database.version(), etcd.version());
        run = run
            .env("STOA_FLEET_BIN", with_engines)
            .env("STOA_FLEET_DATABASES", database.fleets(&["a"])?)
            .env("STOA_FLEET_ETCD", etcd.url());
        let control = servers::Control::over(etcd)?;
        run = run.env("STOA_FLEET_CONTROLS", control.address());
        controls = vec![servers::Control::over(database)?, control];
    }
    let ended = run.end()?;
    drop((server, broker, redis, other, collector, controls, engines, grown, rolled));
    for line in ended.output.lines().filter(|line| line.starts_with("measured: ")) {
        println!("    {line}");
    }
    let mut outcome = libtest::outcome(&ended);
    // A test that lacks something says so in a file: the harness knows only passed and failed.
    for reason in fs::read_to_string(&skips).unwrap_or_default().lines() {
        outcome.passed = outcome.passed.saturating_sub(1);
        outcome.skip(reason);
    }
    Ok(outcome)
}
