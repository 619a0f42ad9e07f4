//! The servers of a fleet, started one after the other, and what the map says of each.
//!
//! A server that is needed and cannot be had ends the start with the flag that does without it.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::plan::{Bus, Catalog, Database, Plan};
use super::process::{self, Kind, Process, Stop};
use super::state::{self, State};
use crate::interrupt;
use crate::servers::{Born, Kafka, Kept, Mongo, Place, Postgres, RabbitMq, Redis, Started};

/// A server that is needed and cannot be had.
#[derive(Debug)]
pub(crate) struct Missing {
    reason: String,
    /// The flag that does without it.
    without: &'static str,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; `{}` does without", self.reason, self.without)
    }
}

impl std::error::Error for Missing {}

/// A kind of server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    Redis,
    Mongo,
    RabbitMq,
    Kafka,
}

impl Engine {
    /// Those of a plan, in the order of their start.
    pub(crate) fn of(plan: &Plan) -> Vec<Self> {
        let database = (plan.database == Database::Postgres).then_some(Self::Postgres);
        let redis = plan.redis.then_some(Self::Redis);
        let documents = (plan.catalog == Catalog::Mongodb).then_some(Self::Mongo);
        let broker = match plan.bus {
            Bus::None => None,
            Bus::Rabbitmq => Some(Self::RabbitMq),
            Bus::Kafka => Some(Self::Kafka),
        };
        [database, redis, documents, broker].into_iter().flatten().collect()
    }

    /// The process that its port belongs to.
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Mongo => "mongo",
            Self::RabbitMq => "rabbitmq",
            Self::Kafka => "kafka",
        }
    }

    /// All of its processes, in the order of their start; one is nothing without the others.
    pub(crate) fn processes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres"],
            Self::Redis => &["redis"],
            Self::Mongo => &["mongo"],
            Self::RabbitMq => &["epmd", "rabbitmq"],
            Self::Kafka => &["kafka"],
        }
    }

    fn without(self) -> &'static str {
        match self {
            Self::Postgres => "--database files",
            Self::Redis => "--no-redis",
            Self::Mongo => "--catalog file",
            Self::RabbitMq => "--bus none",
            Self::Kafka => "--bus none",
        }
    }
}

/// Starts servers and remembers their processes.
pub(crate) struct Servers<'a> {
    state: RefCell<&'a mut State>,
    folder: &'a Path,
    logs: PathBuf,
    home: PathBuf,
}

impl<'a> Servers<'a> {
    pub(crate) fn new(state: &'a mut State, folder: &'a Path) -> Result<Self> {
        let home = match &state.servers {
            Some(home) => home.clone(),
            None => {
                let home = home_of_servers(folder)?;
                state.servers = Some(home.clone());
                state.save(folder)?;
                home
            }
        };
        Ok(Self { state: RefCell::new(state), folder, logs: state::logs(folder), home })
    }

    /// Starts one, at the port it had if it is remembered, and leaves it running; answers what the map says of it.
    pub(crate) fn start(&self, engine: Engine) -> Result<String> {
        interrupt::check()?;
        let password = self.state.borrow().server_password.clone();
        match engine {
            Engine::Postgres => {
                let (started, told) = self.begin(engine, Postgres::start_in)?;
                let databases = started.fleet()?;
                self.done(engine, started.version(), told)?;
                started.detach();
                Ok(format!("database = {databases:?}\n"))
            }
            Engine::Redis => {
                let (started, told) = self.begin(engine, Redis::start_in)?;
                let lines = started.lines()?;
                self.done(engine, started.version(), told)?;
                started.detach();
                Ok(lines)
            }
            Engine::Mongo => {
                let (started, told) = self.begin(engine, Mongo::start_in)?;
                let line = format!("mongodb = \"{}/stoa_catalog\"\n", started.url());
                self.done(engine, started.version(), told)?;
                started.detach();
                Ok(line)
            }
            Engine::RabbitMq => {
                let (started, told) = self.begin(engine, RabbitMq::start_in)?;
                let line = format!("\n[bus]\nrabbitmq = {:?}\n", started.url_with(&password));
                self.done(engine, &started.version(), told)?;
                started.detach();
                Ok(line)
            }
            Engine::Kafka => {
                let (started, told) = self.begin(engine, Kafka::start_in)?;
                let line = format!("\n[bus]\nkafka = {:?}\n", started.address());
                self.done(engine, &Kafka::version(), told)?;
                started.detach();
                Ok(line)
            }
        }
    }

    fn begin<S>(&self, engine: Engine, start: impl FnOnce(Place<'_>) -> Result<Started<S>>) -> Result<(S, Instant)> {
        let begun = Instant::now();
        let (port, password) = {
            let state = self.state.borrow();
            (state.process(engine.name()).map(|it| it.address.port()), state.server_password.clone())
        };
        let home = self.home.join(engine.name());
        let born = |born: Born<'_>| self.remember(&born);
        let kept = Kept { folder: &home, logs: &self.logs, password: &password, port, born: &born };
        match start(Place::Kept(&kept))? {
            Started::Ready(server) => Ok((server, begun)),
            Started::Missing(reason) => Err(Missing { reason, without: engine.without() }.into()),
        }
    }

    fn remember(&self, born: &Born<'_>) -> Result<()> {
        let process = Process {
            name: born.name.to_owned(),
            kind: Kind::Server,
            service: String::new(),
            about: String::new(),
            pid: born.pid,
            // One that ended at once is told of by whoever waits for it.
            born: process::born(born.pid).unwrap_or_default(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, born.port)),
            stop: Stop::from(born.stop),
            log: self.logs.join(format!("{}.log", born.name)),
        };
        self.state.borrow_mut().started(self.folder, process)
    }

    fn done(&self, engine: Engine, version: &str, begun: Instant) -> Result<()> {
        let mut state = self.state.borrow_mut();
        state.tell(engine.name(), version);
        state.save(self.folder)?;
        let address = state.process(engine.name()).map(|it| it.address.to_string()).unwrap_or_default();
        println!("  {version} at {address} ({:.1} s)", begun.elapsed().as_secs_f64());
        Ok(())
    }
}

/// A folder that the servers' user may enter: ours, unless we are root in a place that is root's alone.
fn home_of_servers(folder: &Path) -> Result<PathBuf> {
    let open = |path: &Path| fs::metadata(path).is_ok_and(|it| it.mode() & 0o001 != 0);
    if !rustix::process::geteuid().is_root() || folder.ancestors().all(open) {
        let home = folder.join("servers");
        fs::DirBuilder::new().mode(0o711).recursive(true).create(&home)?;
        return Ok(home);
    }
    let home = tempfile::Builder::new().prefix("stoa-fleet-").tempdir_in("/var/tmp")?.keep();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    Ok(home)
}
