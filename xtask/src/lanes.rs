//! The lanes: every proof there is, in the order in which a mistake is cheapest to find.

use std::time::Duration;

use anyhow::Result;

use crate::built::{PROFILE, Program, Shape, Tests, built, documentation};
use crate::command::{Ended, Run, tail};
use crate::lane::{Context, Outcome};
use crate::servers::Started;
use crate::workspace::Workspace;
use crate::{conformance, contracts, deny, deploy, fuzz, libtest, servers, structure, suites};

/// Finds out; an error counts as a failure of the lane.
type Proof = Box<dyn Fn(&Context) -> Result<Outcome>>;

/// One proof.
pub(crate) struct Lane {
    pub(crate) name: String,
    /// What holds when it passes, in a few words.
    pub(crate) proves: String,
    /// Whether it may be skipped on the continuous integration.
    pub(crate) may_be_missing: bool,
    /// Whether it is run only by whoever names it.
    pub(crate) on_request: bool,
    pub(crate) run: Proof,
}

impl Lane {
    pub(crate) fn new(
        name: impl Into<String>,
        proves: impl Into<String>,
        run: impl Fn(&Context) -> Result<Outcome> + 'static,
    ) -> Self {
        Self { name: name.into(), proves: proves.into(), may_be_missing: false, on_request: false, run: Box::new(run) }
    }
}

/// Everything.
pub(crate) fn all() -> Result<Vec<Lane>> {
    let workspace = Workspace::load()?;
    let mut lanes = checks()?;
    lanes.push(Lane::new(
        "build",
        "the shop, plain and with the fleet's engines, and every test build without a warning",
        |_| {
            let mut outcome = Outcome::default();
            for shape in [Shape::Plain, Shape::Fleet] {
                let problems = built(shape).err().map(|error| format!("{error:#}"));
                outcome.check(&format!("{shape:?}").to_lowercase(), problems.into_iter().collect());
            }
            Ok(outcome)
        },
    ));
    let services: Vec<String> =
        workspace.members_in("services").iter().map(|package| package.name.to_string()).collect();
    let excluded = services.clone();
    lanes.push(Lane::new("unit", "the tests of every crate that is no service", move |context| {
        let wanted = |program: &Program| program.package != suites::PACKAGE && !excluded.contains(&program.package);
        tests("unit", wanted, context)
    }));
    for service in services {
        let short = service.strip_prefix("stoa-").unwrap_or(&service);
        let name = format!("service:{short}");
        let lane = name.clone();
        lanes.push(Lane::new(name, format!("{short}'s tests"), move |context| {
            tests(&lane, |program| program.package == service, context)
        }));
    }
    lanes.push(Lane::new("doctests", "what the documentation of the crates shows compiles and does it", |context| {
        Ok(libtest::outcome(&documentation(context)?))
    }));
    let suite = "the codec answers protobuf's own suite, JSON on either side";
    let mut conformance = Lane::new("conformance", suite, conformance::run);
    // Its runner is somebody else's program, built for a newer C library than many machines have.
    conformance.may_be_missing = true;
    lanes.push(conformance);
    lanes.push(Lane::new(
        "fuzz",
        "no input breaks what reads bytes of strangers: a minute at each parser",
        fuzz::prove,
    ));
    lanes.push(Lane::new("engines", "what the engines' own files say of themselves", engines));
    lanes.push(Lane::new("postgres", "store, log, bus and sagas keep their promises on PostgreSQL", postgres));
    lanes.push(Lane::new(
        "redis",
        "limits and revocations keep their promises on Redis, whatever becomes of it",
        redis,
    ));
    lanes.push(Lane::new("etcd", "copies are found through etcd, whatever becomes of them and of it", etcd));
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
    let mut cluster =
        Lane::new("kubernetes", "a kube-apiserver takes the chart, and no misspelt field of it", deploy::kubernetes);
    cluster.on_request = true;
    lanes.push(cluster);
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
        Lane::new("clippy", "no lint fires, with the fleet's engines and without them", |_| {
            let lint = |what: &[&str]| {
                // With the profile of what is built, so that C sources and what runs while building are compiled once.
                let arguments =
                    [&["clippy", "--profile", PROFILE, "--all-targets"], what, &["--", "-D", "warnings"]].concat();
                command("clippy", &arguments, Duration::from_secs(1500))
            };
            let mut outcome = lint(&["--workspace", "--features", &format!("stoa/fleet,stoa/planted,{ENGINES}")])?;
            // Only these read differently without; the others have cargo choose the same features of outside crates.
            let read = WITH_ENGINES.into_iter().chain(["outside", "integration", "xtask"]);
            let without: Vec<&str> = read.flat_map(|package| ["--package", package]).collect();
            outcome.add(lint(&without)?);
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

/// Test programs of the plain build.
fn tests(log: &str, wanted: impl Fn(&Program) -> bool, context: &Context) -> Result<Outcome> {
    let programs = built(Shape::Plain)?.programs(wanted);
    Ok(libtest::outcome(&Tests::new(log, programs, context).end()?))
}

/// Everything that has an engine of the fleet, and its features.
const WITH_ENGINES: [&str; 8] =
    ["store", "stoa-log", "bus", "cache", "server", "process", "stoa-identity", "stoa-catalog"];
pub(crate) const ENGINES: &str = "store/fleet,stoa-log/fleet,cache/fleet,stoa-identity/fleet,stoa-catalog/fleet,\
                                  bus/kafka,bus/rabbitmq,bus/planted-bugs";

/// Test programs of what has an engine: those with these names.
fn on_engines(log: &str, context: &Context, names: &[&str]) -> Result<Tests> {
    let named = |program: &Program| program.test.as_deref().is_some_and(|test| names.contains(&test));
    let programs = built(Shape::Fleet)?.programs(|program| has_engine(program) && named(program));
    Ok(Tests::new(log, programs, context))
}

/// The tests inside what has an engine.
fn inside_engines(log: &str, context: &Context) -> Result<Tests> {
    let programs = built(Shape::Fleet)?.programs(|program| has_engine(program) && program.is_library());
    Ok(Tests::new(log, programs, context))
}

fn has_engine(program: &Program) -> bool {
    WITH_ENGINES.contains(&&*program.package) || program.package == "saga"
}

/// What is proven on this server, if it can be had.
fn with<S>(server: Result<Started<S>>, proof: impl FnOnce(S) -> Result<Outcome>) -> Result<Outcome> {
    match server? {
        Started::Ready(server) => proof(server),
        Started::Missing(reason) => {
            let mut outcome = Outcome::default();
            outcome.skip(reason);
            Ok(outcome)
        }
    }
}

/// What the engines' own files say of themselves, which needs no server.
fn engines(context: &Context) -> Result<Outcome> {
    Ok(libtest::outcome(&inside_engines("engines", context)?.end()?))
}

/// The suites of everything that stands on a store, on the engine of the fleet.
fn postgres(context: &Context) -> Result<Outcome> {
    with(servers::Postgres::start(), |server| {
        println!("    {}", server.version());
        let ended = on_engines("postgres", context, &["postgres", "conformance", "in_doubt", "running_sagas"])?
            .args(&["--include-ignored"])
            .env("STORE_TEST_POSTGRES", server.url())
            .env("STORE_TEST_POSTGRES_CA", server.certificate())
            .end()?;
        Ok(libtest::outcome(&ended))
    })
}

/// What the copies of a service share, on the engine of the fleet.
fn redis(context: &Context) -> Result<Outcome> {
    with(servers::Redis::start(), |server| {
        println!("    {}", server.version());
        let ended = on_engines("redis", context, &["memory", "redis", "faults"])?
            .args(&["--include-ignored"])
            .env("CACHE_TEST_REDIS", server.url())
            .env("CACHE_TEST_REDIS_AUTHORITY", server.authority())
            .env("CACHE_TEST_REDIS_PROGRAM", server.program())
            .end()?;
        Ok(libtest::outcome(&ended))
    })
}

/// The suites of the bus through a broker; one after the other, since some of them kill the server.
fn through_a_broker(log: &str, context: &Context, suites: &[&str]) -> Result<Tests> {
    Ok(on_engines(log, context, suites)?.args(&["--include-ignored", "--test-threads=1", "--show-output"]))
}

/// The outcome, after the lines that tell how much was shown.
fn told(ended: &Ended) -> Outcome {
    ended.output.lines().filter(|line| line.contains(" of every b")).for_each(|line| println!("{line}"));
    libtest::outcome(ended)
}

/// The registry of copies, on servers that its tests start and kill themselves.
fn etcd(context: &Context) -> Result<Outcome> {
    with(servers::Etcd::start(), |server| {
        println!("    {}", server.version());
        let programs = built(Shape::Plain)?.programs(|program| program.package == "registry");
        let ended = Tests::new("etcd", programs, context)
            .args(&["--include-ignored"])
            .env("REGISTRY_TEST_ETCD", server.program())
            .end()?;
        Ok(libtest::outcome(&ended))
    })
}

/// The suites of the bus, with Kafka between producers and consumers.
fn kafka(context: &Context) -> Result<Outcome> {
    with(servers::Kafka::start(), |server| {
        println!("    {}", servers::Kafka::version());
        let address = server.address();
        let control = servers::Control::over(server)?;
        let run = |log: &str| -> Result<Tests> {
            Ok(through_a_broker(log, context, &["kafka", "kafka_planted"])?
                .env("BUS_TEST_KAFKA", &address)
                .env("BUS_TEST_CONTROL", control.address()))
        };
        let mut outcome = told(&run("kafka")?.end()?);
        // Again where a log has many shards.
        outcome.add(with(servers::Postgres::start(), |store| {
            println!("    {}", store.version());
            Ok(told(&run("kafka-postgres")?.env("STORE_TEST_POSTGRES", store.url()).end()?))
        })?);
        Ok(outcome)
    })
}

/// The suites of the bus, with RabbitMQ between producers and consumers.
fn rabbitmq(context: &Context) -> Result<Outcome> {
    with(servers::RabbitMq::start(), |server| {
        println!("    {}", server.version());
        let url = server.url();
        let control = servers::Control::over(server)?;
        // On the store of the fleet, where a log has more shards than there are queues.
        with(servers::Postgres::start(), |store| {
            println!("    {}", store.version());
            let ended = through_a_broker("rabbitmq", context, &["rabbitmq"])?
                .env("BUS_TEST_RABBITMQ", &url)
                .env("BUS_TEST_CONTROL", control.address())
                .env("STORE_TEST_POSTGRES", store.url())
                .end()?;
            Ok(told(&ended))
        })
    })
}

/// The catalogue over documents, its log in PostgreSQL: its suite, its service's tests, and those of what dies.
fn mongo(context: &Context) -> Result<Outcome> {
    with(servers::Mongo::start(), |documents| {
        with(servers::Postgres::start(), |log| {
            println!("    {}; {}", documents.version(), log.version());
            let suites = ["importing", "keeping_products", "searching", "signing_prices", "documents"];
            let prove = |tests: Tests| {
                tests
                    .env("CATALOG_TEST_MONGODB", documents.url())
                    .env("CATALOG_TEST_MONGO_PROGRAM", documents.program())
                    .env("STORE_TEST_POSTGRES", log.url())
                    .end()
            };
            let served = on_engines("mongo", context, &suites)?.args(&["--include-ignored"]);
            let mut outcome = libtest::outcome(&prove(served)?);
            let suite = inside_engines("mongo-suite", context)?;
            let ended = prove(suite.args(&["--include-ignored", "--show-output", "conformance_of_"]))?;
            for line in ended.output.lines().filter(|line| line.starts_with("suite of the catalogue")) {
                println!("    {line}");
            }
            outcome.add(libtest::outcome(&ended));
            Ok(outcome)
        })
    })
}
