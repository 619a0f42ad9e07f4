//! What a process gives each of its services to be built with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use auth::{Fleet, Issuer, Keyring, SigningKey, Verifier};
use cache::Cache;
use client::Registry;
use contract::Table;
use store::{Clock, MigrationSet, Store};
use tls::Trust;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::pb::health_server::HealthServer;

use crate::accept::Listener;
use crate::call::Process;
use crate::component::{self, Component, Task};
use crate::health::Standing;
use crate::layer::{Layers, Service};
use crate::page::Sealer;
use crate::shedding::Places;
use crate::trail::Trail;

/// The surroundings of a service: stores, other services, events, keys, time, and the end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where stores are kept.
    pub storage: Storage,
    /// Where the catalogue keeps its documents, `mongodb://host:port/database`; none: in its store.
    #[cfg(feature = "fleet")]
    pub mongodb: Option<String>,
    /// The folder for everything that is no store, such as mail.
    pub data: PathBuf,
    /// The other services.
    pub clients: Registry,
    /// The events of the other services.
    pub hub: bus::Hub,
    /// Checks access tokens; identity publishes its keys into its keyring.
    pub verifier: Verifier,
    /// What the copies of a service share and can lose.
    pub cache: Cache,
    /// The key of calls over the network; none when everything runs in this process.
    pub fleet: Option<Fleet>,
    /// The certificates of calls over the network; none where they are signed alone.
    pub trust: Option<Trust>,
    /// The time.
    pub clock: Clock,
    /// Whether the process tells what it counts at an address of its own, and not at its door.
    pub metrics_apart: bool,
    /// The windows a test makes short.
    pub windows: Windows,
    /// Cancelled when the process says that it will end, a moment before it does.
    pub draining: CancellationToken,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    process: Arc<Process>,
}

/// Where the stores of a process are kept.
#[derive(Clone, Debug)]
pub enum Storage {
    /// One SQLite file a service, in this folder.
    Folder(PathBuf),
    /// Nowhere: each store is gone when it is dropped.
    Temporary,
    /// One PostgreSQL database a service.
    #[cfg(feature = "fleet")]
    Postgres(Databases),
}

/// Where the databases of the services are, and how much of a server they may use.
#[cfg(feature = "fleet")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Databases {
    /// `postgres://user:password@host/database`, with `{service}` wherever the service's name belongs: its own database, and
    /// its own role, who is let into no other.
    pub url: String,
    /// The same as the role that owns the tables; see [`store::Database::owner_url`].
    pub owner_url: Option<String>,
    /// Certificates (PEM) of who vouches for the servers; with it every connection has TLS.
    pub authority: Option<PathBuf>,
    /// Connections a process has for writes, each service.
    pub writers: usize,
    /// Shards of a log that is created.
    pub shards: u32,
    /// Also creates databases that are missing: for development, where one role may do everything. The database that the
    /// role connects to first is then `postgres`.
    pub create: bool,
}

#[cfg(feature = "fleet")]
impl Databases {
    /// Databases that are there, sixteen writers and sixteen shards.
    pub fn at(url: impl Into<String>) -> Self {
        Databases { url: url.into(), owner_url: None, authority: None, writers: 16, shards: 16, create: false }
    }

    async fn engine(&self, service: &str) -> Result<store::Engine, store::Error> {
        let url = self.url.replace("{service}", service);
        if self.create
            && let Some((server, name)) = url.rsplit_once('/')
        {
            store::create_database(&format!("{server}/postgres"), name).await?;
        }
        let owner_url = self.owner_url.as_ref().map(|url| url.replace("{service}", service));
        let authority = self.authority.clone();
        let Databases { writers, shards, .. } = *self;
        Ok(store::Engine::Postgres(store::Database { url, owner_url, authority, writers, shards }))
    }
}

impl Storage {
    /// Where the stores of a test are: nowhere, or in databases of its own on the server that a run of the tests for the
    /// engine of the fleet names.
    pub fn of_test() -> Self {
        Self::of_test_named(None).unwrap_or(Storage::Temporary)
    }

    /// The same for stores that are opened again: they belong to the folder.
    pub fn of_test_in(folder: &Path) -> Self {
        Self::of_test_named(Some(folder)).unwrap_or_else(|| Storage::Folder(folder.to_owned()))
    }

    #[cfg(not(feature = "fleet"))]
    fn of_test_named(_: Option<&Path>) -> Option<Self> {
        None
    }

    #[cfg(feature = "fleet")]
    fn of_test_named(folder: Option<&Path>) -> Option<Self> {
        let url = store::conformance::address_of(folder, "{service}")?;
        Some(Storage::Postgres(Databases { writers: 8, shards: 4, create: true, ..Databases::at(url) }))
    }
}

impl Storage {
    /// Whether other processes may have the same stores open: then a lease is short, and nothing is known from memory alone.
    pub fn is_shared(&self) -> bool {
        match self {
            Storage::Folder(_) | Storage::Temporary => false,
            #[cfg(feature = "fleet")]
            Storage::Postgres(_) => true,
        }
    }
}

/// The times that decide how long something may stay open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How long a payment may stay in doubt before it is cancelled.
    pub in_doubt: Duration,
    /// How long a customer has for an action the provider requires.
    pub action: Duration,
    /// How long stock is held for a checkout.
    pub hold: Duration,
    /// How long a quote is binding.
    pub quote: Duration,
    /// The first pause before a background step is tried again.
    pub retry_base: Duration,
    /// The longest such pause.
    pub retry_cap: Duration,
    /// How often a background sweep looks for what nobody woke it for.
    pub sweep: Duration,
    /// How long what has begun may take to finish after shutdown.
    pub drain: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        Windows {
            in_doubt: Duration::from_secs(30 * 60),
            action: Duration::from_secs(15 * 60),
            hold: Duration::from_secs(15 * 60),
            quote: Duration::from_secs(15 * 60),
            retry_base: Duration::from_millis(200),
            retry_cap: Duration::from_secs(30),
            sweep: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// A time as settings write it: `30m`, `15s`, `200ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "is below zero".to_owned())
}

/// Who issues the access tokens of this shop, and for whom.
const ISSUER: &str = "stoa";
const AUDIENCE: &str = "stoa";

impl Context {
    /// The surroundings of a process whose services are all in it. `methods` is the table of all contracts; `secret` binds
    /// page tokens to this installation and must be the same after a restart.
    pub fn new(storage: Storage, data: impl Into<PathBuf>, methods: Table, secret: &[u8; 32]) -> Self {
        Self::build(storage, data.into(), Registry::new(methods), None, secret)
    }

    /// The surroundings of a process that calls and is called over the network; `secret` is the fleet's key seed.
    pub fn in_fleet(
        storage: Storage,
        data: impl Into<PathBuf>,
        methods: Table,
        secret: &[u8; 32],
        clock: Clock,
    ) -> Self {
        let fleet = Fleet::from_seed(secret);
        let registry = Registry::in_fleet(methods, fleet.clone(), clock.clone());
        let cache = Cache::unshared();
        Context { clock, cache, ..Self::build(storage, data.into(), registry, Some(fleet), secret) }
    }

    /// The same surroundings of a process that calls nobody and answers nobody over the network without a certificate on
    /// both sides. To be said before anything is built.
    #[must_use]
    pub fn trusting(self, trust: Trust) -> Self {
        Context { clients: self.clients.trusting(trust.clone()), trust: Some(trust), ..self }
    }

    /// A listener for calls to this service: with its certificate, where there are certificates.
    pub fn listener(&self, tcp: TcpListener, service: &str) -> Result<Listener, tls::Error> {
        match &self.trust {
            Some(trust) => Ok(Listener::certified(tcp, trust.of(service)?)),
            None => Ok(tcp.into()),
        }
    }

    /// The surroundings of a test: everything temporary, a clock the test may replace.
    pub fn temporary(methods: Table) -> Self {
        Self::new(Storage::of_test(), std::env::temp_dir(), methods, &[7; 32])
    }

    /// The same surroundings with stores in the data folder, for a service that needs the embedded engine.
    #[must_use]
    pub fn embedded(&self) -> Self {
        let mut own = self.clone();
        if own.storage.is_shared() {
            own.storage = Storage::Folder(own.data.clone());
        }
        own
    }

    /// Opens a service's store with the tables of the log and then these.
    pub async fn open(&self, name: &'static str, migrations: &[MigrationSet]) -> Result<Store, store::Error> {
        let config = match &self.storage {
            Storage::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| store::Error::Open {
                    service: name,
                    detail: format!("{}: {error}", folder.display()),
                })?;
                store::Config::sqlite(name, folder.join(format!("{name}.db")))
            }
            Storage::Temporary => store::Config::temporary(name),
            #[cfg(feature = "fleet")]
            Storage::Postgres(databases) => store::Config::new(name, databases.engine(name).await?),
        };
        let own = migrations.iter().copied().filter(|set| set.name != log::MIGRATIONS.name);
        let sets = std::iter::once(log::MIGRATIONS).chain(own);
        Store::open(config.migrations(sets).clock(self.clock.clone())).await
    }

    /// An issuer whose tokens this context's verifier believes, once the key is in its keyring.
    pub fn issuer(&self, key: SigningKey, lifetime: Duration) -> Issuer {
        Issuer::new(key, ISSUER, AUDIENCE, lifetime)
    }

    /// The keys that are believed.
    pub fn keyring(&self) -> &Keyring {
        self.verifier.keyring()
    }

    /// Puts the layers around a component, lets the services of this process call it and listen to it, and hands back its
    /// service for a listener and its tasks for [`supervise`](crate::supervise).
    ///
    /// In a fleet the service also answers how it is, to anybody.
    pub fn mount(&self, mut component: Component) -> (Service, Vec<Task>) {
        if self.fleet.is_some() {
            let served = component.methods.iter().filter(|method| method.owner == component.name);
            let mut names: Vec<String> = served.map(|method| method.service.to_owned()).collect();
            names.push(component.name.to_owned());
            names.dedup();
            let health = Standing {
                names: names.into(),
                probe: component.ready.clone(),
                draining: self.draining.clone(),
                shutdown: self.shutdown.clone(),
            };
            component.routes = component.routes.add_service(HealthServer::new(health));
        }
        let service = Service::new(Layers {
            name: component.name,
            methods: component.methods,
            routes: component.routes.prepare(),
            fleet: self.fleet.clone(),
            certified: self.trust.is_some(),
            clock: self.clock.clone(),
            places: Places::new(component.name, component.max_calls),
            trail: Trail::new(component.trail, &self.clock, &self.process),
            process: Arc::clone(&self.process),
        });
        self.clients.serve(component.name, Arc::new(service.clone()));
        if let Some(source) = component.source {
            self.hub.publish(component.name, source);
        }
        if !component.measured.is_empty() {
            let measuring = component::measure(component.measured, self.windows.sweep, self.shutdown.clone());
            component.tasks.push(Task::endless(format!("{}.measures", component.name), measuring));
        }
        (service, component.tasks)
    }

    /// Waits for the writes that have begun, at most `windows.drain`. Correctness does not need it: what is not committed by
    /// then has not been acknowledged either.
    pub async fn finish_writes(&self) {
        self.process.writes.close();
        if tokio::time::timeout(self.windows.drain, self.process.writes.wait()).await.is_err() {
            tracing::warn!(writes = self.process.writes.len(), "writes did not finish in time");
        }
    }

    fn build(storage: Storage, data: PathBuf, clients: Registry, fleet: Option<Fleet>, secret: &[u8; 32]) -> Self {
        let shutdown = CancellationToken::new();
        let process = Process { writes: TaskTracker::new(), pages: Sealer::new(secret), shutdown: shutdown.clone() };
        Context {
            storage,
            #[cfg(feature = "fleet")]
            mongodb: None,
            data,
            clients,
            hub: bus::Hub::default(),
            verifier: Verifier::new(Keyring::new(), ISSUER, AUDIENCE),
            cache: Cache::of_one_process(),
            fleet,
            trust: None,
            clock: Clock::system(),
            metrics_apart: false,
            windows: Windows::default(),
            draining: CancellationToken::new(),
            shutdown,
            process: Arc::new(process),
        }
    }
}
