//! The lanes: every proof there is, in the order in which a mistake is cheapest to find.

use std::time::Duration;

use anyhow::Result;

use crate::command::{Ended, Run, tail};
use crate::lane::{Context, Outcome};
use crate::servers::Started;
use crate::workspace::Workspace;
use crate::{contracts, deny, deploy, libtest, servers, structure, suites};

/// Finds out; an error counts as a failure of the lane.
type Proof = Box<dyn Fn(&Context) -> Result<Outcome>>;

/// One proof.
pub(crate) struct Lane {
    pub(crate) name: String,
    /// What holds when it passes, in a few words.
    pub(crate) proves: String,
    /// Whether it may be skipped on the continuous integration.
    pub(crate) may_be_missing: bool,
    pub(crate) run: Proof,
}

impl Lane {
    pub(crate) fn new(
        name: impl Into<String>,
        proves: impl Into<String>,
        run: impl Fn(&Context) -> Result<Outcome> + 'static,
    ) -> Self {
        Self { name: name.into(), proves: proves.into(), may_be_missing: false, run: Box::new(run) }
    }
}

/// Everything.
pub(crate) fn all() -> Result<Vec<Lane>> {
    let workspace = Workspace::load()?;
    let mut lanes = checks()?;
    let services: Vec<String> =
        workspace.members_in("services").iter().map(|package| package.name.to_string()).collect();
    let excluded = services.clone();
    lanes.push(Lane::new("unit", "the tests of every crate that is no service", move |context| {
        let mut arguments = vec!["test", "--workspace", "--no-fail-fast", "--exclude", "integration"];
        for service in &excluded {
            arguments.extend(["--exclude", service.as_str()]);
        }
        tests("unit", &arguments, context)
    }));
    for service in services {
        let short = service.strip_prefix("stoa-").unwrap_or(&service);
        let name = format!("service:{short}");
        let lane = name.clone();
        lanes.push(Lane::new(name, format!("{short}'s tests, none of the other eight built in"), move |context| {
            tests(&lane, &["test", "--no-fail-fast", "--package", &service], context)
        }));
    }
    lanes.push(Lane::new("postgres", "store, log, bus and sagas keep their promises on PostgreSQL", postgres));
    lanes.push(Lane::new(
        "redis",
        "limits and revocations keep their promises on Redis, whatever becomes of it",
        redis,
    ));
    lanes.push(Lane::new("kafka", "events reach every consumer once and in order through Kafka, whatever dies", kafka));
    lanes.push(Lane::new(
        "rabbitmq",
        "events reach every consumer once and in order through RabbitMQ, whatever dies",
        rabbitmq,
    ));
    lanes.push(Lane::new("mongo", "the catalogue keeps its promises on documents", mongo));
    lanes.push(Lane::new(
        "helm",
        "the chart renders; probes, budgets, policies and arrows are as the contracts say",
        deploy::helm,
    ));
    lanes.extend(suites::lanes()?);
    Ok(lanes)
}

/// What needs no server.
pub(crate) fn checks() -> Result<Vec<Lane>> {
    let mut advisories = Lane::new("advisories", "no known advisory against a crate we link", deny::advisories);
    advisories.may_be_missing = true;
    Ok(vec![
        Lane::new("fmt", "the sources are formatted", |_| {
            command("fmt", &["fmt", "--all", "--check", "--", "--color", "never"], Duration::from_secs(120))
        }),
        Lane::new("structure", "edges, module docs, short mains, least versions, no drawers", structure::run),
        Lane::new("contracts", "buf lint, buf breaking against main, golden events", contracts::run),
        Lane::new("clippy", "no lint of the workspace fires, nor of the fleet's engine", |_| {
            let lint = |what: &[&str]| {
                let arguments = [&["clippy", "--all-targets"], what, &["--", "-D", "warnings"]].concat();
                command("clippy", &arguments, Duration::from_secs(1500))
            };
            let mut outcome = lint(&["--workspace"])?;
            outcome.add(lint(&["--package", "store", "--features", "fleet"])?);
            outcome.add(lint(&["--package", "cache", "--features", "fleet"])?);
            outcome.add(lint(&["--package", "stoa-catalog", "--features", "fleet"])?);
            outcome.add(lint(&["--package", "bus", "--features", "rabbitmq,planted-bugs"])?);
            Ok(outcome)
        }),
        Lane::new("deny", "licences, sources and bans of every crate we link", deny::run),
        advisories,
    ])
}

/// A cargo command that passes or fails as a whole.
fn command(log: &str, arguments: &[&str], limit: Duration) -> Result<Outcome> {
    let ended = Run::cargo(log).args(arguments).limit(limit).end()?;
    let mut outcome = Outcome::default();
    let problems = if ended.success { Vec::new() } else { vec![tail(&ended.output, 80)] };
    outcome.check(log, problems);
    Ok(outcome)
}

fn tests(log: &str, arguments: &[&str], context: &Context) -> Result<Outcome> {
    let ended = Run::cargo(log).args(arguments).limit(Duration::from_secs(1500)).verbose(context.verbose).end()?;
    Ok(libtest::outcome(&ended))
}

/// The suites of everything that stands on a store, on the engine of the fleet.
fn postgres(context: &Context) -> Result<Outcome> {
    let server = match servers::Postgres::start()? {
        Started::Ready(server) => server,
        Started::Missing(reason) => {
            let mut outcome = Outcome::default();
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    println!("    {}", server.version());
    let crates = ["--package", "store", "--package", "stoa-log", "--package", "bus", "--package", "saga"];
    let suites = ["--test", "postgres", "--test", "conformance", "--test", "in_doubt", "--test", "running_sagas"];
    let ended = Run::cargo("postgres")
        .args(["test", "--no-fail-fast", "--features", "store/fleet,stoa-log/fleet"])
        .args(crates)
        .args(suites)
        .args(["--", "--include-ignored"])
        .env("STORE_TEST_POSTGRES", server.url())
        .env("STORE_TEST_POSTGRES_CA", server.certificate())
        .limit(Duration::from_secs(1500))
        .verbose(context.verbose)
        .end()?;
    Ok(libtest::outcome(&ended))
}

/// What the copies of a service share, on the engine of the fleet.
fn redis(context: &Context) -> Result<Outcome> {
    let server = match servers::Redis::start()? {
        Started::Ready(server) => server,
        Started::Missing(reason) => {
            let mut outcome = Outcome::default();
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    println!("    {}", server.version());
    let ended = Run::cargo("redis")
        .args(["test", "--no-fail-fast", "--features", "cache/fleet,stoa-identity/fleet"])
        .args(["--package", "cache", "--package", "stoa-identity"])
        .args(["--test", "memory", "--test", "redis", "--test", "faults"])
        .args(["--", "--include-ignored"])
        .env("CACHE_TEST_REDIS", server.url())
        .env("CACHE_TEST_REDIS_AUTHORITY", server.authority())
        .env("CACHE_TEST_REDIS_PROGRAM", server.program())
        .limit(Duration::from_secs(1500))
        .verbose(context.verbose)
        .end()?;
    Ok(libtest::outcome(&ended))
}

/// The suites of the bus, with Kafka between producers and consumers.
fn kafka(context: &Context) -> Result<Outcome> {
    let server = match servers::Kafka::start()? {
        Started::Ready(server) => server,
        Started::Missing(reason) => {
            let mut outcome = Outcome::default();
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    println!("    {}", servers::Kafka::version());
    // Not with the rest: it builds the client's library, which takes a C++ compiler and minutes.
    let lint =
        ["clippy", "--all-targets", "--package", "bus", "--features", "kafka,planted-bugs", "--", "-D", "warnings"];
    let mut outcome = command("clippy of kafka", &lint, Duration::from_secs(900))?;
    let address = server.address();
    let control = servers::Control::over(server)?;
    let run = |log: &str, features: &str| {
        Run::cargo(log)
            .args(["test", "--no-fail-fast", "--package", "bus", "--features", features])
            // One after the other: some of them kill the server.
            .args(["--test", "kafka", "--test", "kafka_planted", "--"])
            .args(["--include-ignored", "--test-threads=1", "--show-output"])
            .env("BUS_TEST_KAFKA", &address)
            .env("BUS_TEST_CONTROL", control.address())
            .limit(Duration::from_secs(1500))
            .verbose(context.verbose)
    };
    let mut tell = |ended: Ended| {
        ended.output.lines().filter(|line| line.contains(" of every b")).for_each(|line| println!("{line}"));
        outcome.add(libtest::outcome(&ended));
    };
    tell(run("kafka", "kafka,planted-bugs").end()?);
    // Again where a log has many shards.
    match servers::Postgres::start()? {
        Started::Ready(server) => {
            println!("    {}", server.version());
            let run = run("kafka-postgres", "kafka,planted-bugs,store/fleet");
            tell(run.env("STORE_TEST_POSTGRES", server.url()).end()?);
        }
        Started::Missing(reason) => outcome.skip(reason),
    }
    Ok(outcome)
}

/// The suites of the bus, with RabbitMQ between producers and consumers.
fn rabbitmq(context: &Context) -> Result<Outcome> {
    let server = match servers::RabbitMq::start()? {
        Started::Ready(server) => server,
        Started::Missing(reason) => {
            let mut outcome = Outcome::default();
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    println!("    {}", server.version());
    let url = server.url();
    let control = servers::Control::over(server)?;
    // On the store of the fleet, where a log has more shards than there are queues.
    let store = match servers::Postgres::start()? {
        Started::Ready(store) => store,
        Started::Missing(reason) => {
            let mut outcome = Outcome::default();
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    println!("    {}", store.version());
    let ended = Run::cargo("rabbitmq")
        .args(["test", "--no-fail-fast", "--package", "bus", "--features", "rabbitmq,planted-bugs,store/fleet"])
        // One after the other: some of them kill the server.
        .args(["--test", "rabbitmq", "--", "--include-ignored", "--test-threads=1", "--show-output"])
        .env("BUS_TEST_RABBITMQ", &url)
        .env("BUS_TEST_CONTROL", control.address())
        .env("STORE_TEST_POSTGRES", store.url())
        .limit(Duration::from_secs(1500))
        .verbose(context.verbose)
        .end()?;
    ended.output.lines().filter(|line| line.contains(" of every b")).for_each(|line| println!("{line}"));
    Ok(libtest::outcome(&ended))
}

/// The catalogue over documents, its log in PostgreSQL: its suite, its service's tests, and those of what dies.
fn mongo(context: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let (documents, log) = match (servers::Mongo::start()?, servers::Postgres::start()?) {
        (Started::Ready(documents), Started::Ready(log)) => (documents, log),
        (Started::Missing(reason), _) | (_, Started::Missing(reason)) => {
            outcome.skip(reason);
            return Ok(outcome);
        }
    };
    println!("    {}; {}", documents.version(), log.version());
    let suites = ["importing", "keeping_products", "searching", "signing_prices", "documents"];
    let ended = Run::cargo("mongo")
        .args(["test", "--no-fail-fast", "--package", "stoa-catalog", "--features", "fleet", "--lib"])
        .args(suites.iter().flat_map(|suite| ["--test", suite]))
        .args(["--", "--include-ignored", "--show-output"])
        .env("CATALOG_TEST_MONGODB", documents.url())
        .env("CATALOG_TEST_MONGO_PROGRAM", documents.program())
        .env("STORE_TEST_POSTGRES", log.url())
        .limit(Duration::from_secs(1500))
        .verbose(context.verbose)
        .end()?;
    for line in ended.output.lines().filter(|line| line.starts_with("suite of the catalogue")) {
        println!("    {line}");
    }
    Ok(libtest::outcome(&ended))
}
