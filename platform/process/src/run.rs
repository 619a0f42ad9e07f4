//! The life of a process: parts are built, ways to the others bound, listeners opened; then it serves until it is asked to
//! stop or a part of it fails, and drains.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bus::{Broker, Relay};
use contract::Table;
use operations::Remote;
use server::{Context, Failed, Gauge, Limits, Storage, Task, Windows, accept, descriptors};
use store::Clock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::map::{self, Map, Plain};
use crate::part::{BoxError, Built, Part};
#[cfg(feature = "fleet")]
use crate::registration::Registration;
use crate::settings::{Unwatched, Watching};
use crate::signals::until_asked_to_stop;

/// What a process is given beside its parts.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the others are, and the engines.
    pub map: Map,
    /// Folder for what is in no database.
    pub data: PathBuf,
    /// How long things may stay open.
    pub windows: Windows,
    /// How the process is watched.
    pub watching: Watching,
    /// How long the process says that it will end before it takes no more calls.
    pub notice: Duration,
    /// All methods of all services.
    pub methods: Table,
}

/// Why a process did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The map does not do.
    #[error(transparent)]
    Map(#[from] map::Error),
    /// A process cannot prove who it is.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The broker of events cannot be used.
    #[error(transparent)]
    Bus(#[from] bus::Error),
    /// What the copies share cannot be used as the map says.
    #[error(transparent)]
    Cache(#[from] cache::Misconfigured),
    /// Another service cannot be bound.
    #[error(transparent)]
    Connect(#[from] client::Error),
    /// A part cannot be built.
    #[error("{name} cannot be opened")]
    Build {
        /// The part.
        name: &'static str,
        /// Why.
        source: BoxError,
    },
    /// An address cannot be listened at.
    #[error("{name} cannot listen at {address}")]
    Listen {
        /// The part.
        name: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Others on the network could call it unseen, and read along.
    #[error(
        "{name} would listen at {address} without certificates: give the map [tls], or let it listen on loopback, where a \
         sidecar has them"
    )]
    Exposed {
        /// The part.
        name: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Nobody can watch it as was wanted.
    #[error(transparent)]
    Watch(#[from] Unwatched),
    /// Others cannot be told where a copy is.
    #[error(
        "{name} listens at {address}, where nobody reaches it: tell with --advertise under which address others do"
    )]
    Unadvertised {
        /// The part.
        name: &'static str,
        /// Where it listens.
        address: SocketAddr,
    },
    /// Names cannot be looked up at all.
    #[error("names cannot be looked up: {0}")]
    Names(String),
    /// The data folder cannot be made.
    #[error("the data folder {} cannot be used", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system said no to something every process needs.
    #[error("the process cannot be run")]
    System(#[from] io::Error),
    /// Something that has to run does not run any more.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// What watches over the tasks failed itself.
    #[error("the tasks are not watched any more")]
    Unwatched(#[from] tokio::task::JoinError),
}

/// Whose log the methods of operations let others read.
const READ_LOG: &str = "/stoa.operations.v1.OperationsService/ReadLog";

/// Runs the parts until asked to stop, or until something of one fails.
pub async fn run(surroundings: Surroundings, parts: Vec<Part>) -> Result<(), Error> {
    let Surroundings { map, data, windows, watching, notice, methods } = surroundings;
    descriptors::raise();
    make_private(&data)?;
    let mut context = Context::in_fleet(storage(&map, &data), &data, methods, &map.secret()?, Clock::system());
    context.windows = windows;
    context.metrics_apart = watching.metrics.is_some();
    let (mut lines, mut tasks, mut listeners) = (vec![], vec![], vec![]);
    let (told, watched) = watching.start(&context.shutdown).await?;
    lines.extend(told);
    tasks.extend(watched);
    match map.trust()? {
        Some(trust) => {
            context = context.trusting(trust.clone());
            tasks.push(Task::endless("certificates", until_shutdown(trust.follow(), &context)));
        }
        None if map.plain() == Some(Plain::Network) => {
            tracing::warn!("calls between processes are signed and not encrypted: the map has no [tls]");
        }
        None => {
            tracing::info!("calls between processes are not encrypted on this machine: beyond it a sidecar does that")
        }
    }
    #[cfg(feature = "fleet")]
    {
        context.mongodb = map.mongodb.clone();
    }
    let broker = broker(&map)?;
    if let Some(broker) = &broker {
        context.hub.carry(broker.clone());
    }
    #[cfg(feature = "fleet")]
    if let Some(address) = map.cache()? {
        context.cache = cache::Cache::shared(&address)?;
    }

    #[cfg(feature = "fleet")]
    let mut registration = Registration::new(&map)?;
    let mut here = BTreeSet::new();
    for part in parts {
        let Part { name, bind, advertised, build } = part;
        here.insert(name);
        // Whoever cannot prove itself is told so before anything is opened.
        context.trust.as_ref().map(|trust| trust.of(name)).transpose()?;
        let Built { component, door } = build(context.clone()).await.map_err(|source| Error::Build { name, source })?;
        here.insert(component.name);
        lines.extend(component.notices.iter().cloned());
        let address = match bind {
            Some(address) => address,
            None => map.address(name)?,
        };
        // The door is for whoever is outside.
        if door.is_none() && !map.may_listen(address) {
            return Err(Error::Exposed { name, address });
        }
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { name, address, source })?;
        let local = listener.local_addr()?;
        let listener = if door.is_some() { listener.into() } else { context.listener(listener, name)? };
        let scheme = if context.trust.is_some() && door.is_none() { "https" } else { "http" };
        lines.push(format!("serving {name}\nlistening on {scheme}://{local}"));
        #[cfg(feature = "fleet")]
        registration.add(&map, name, local, advertised, component.ready.clone())?;
        #[cfg(not(feature = "fleet"))]
        let _ = advertised;
        let (service, more) = context.mount(component);
        tasks.extend(more);
        listeners.push((name, listener, service, door));
    }
    let elsewhere = connect(&map, methods, &here, &context, &mut tasks)?;
    // Cancelled when the process has been asked to stop and is in no registry any more.
    let left = CancellationToken::new();
    #[cfg(feature = "fleet")]
    {
        tasks.extend(registration.follow(&map, &elsewhere, &context));
        tasks.push(Task::endless("registration", registration.keep(context.clone(), left.clone())));
    }
    #[cfg(not(feature = "fleet"))]
    {
        let _ = elsewhere;
        left.cancel();
    }
    if let Some(broker) = &broker {
        tasks.extend(here.iter().filter_map(|name| relay(name, broker, &context)));
    }
    let limits = Limits { drain: context.windows.drain, ..Limits::default() };
    for (name, listener, service, door) in listeners {
        let (limits, shutdown) = (limits.clone(), context.shutdown.clone());
        let listening = match door {
            Some(listen) => listen(listener, limits, shutdown),
            None => Box::pin(accept::run(listener, service, limits, Gauge::default(), shutdown)),
        };
        tasks.push(Task::endless(format!("{name}.listener"), listening));
    }

    until_asked_to_stop(context.draining.clone())?;
    tasks.push(Task::endless("notice", give_notice(notice, context.clone(), left)));
    let running = tokio::spawn({
        let context = context.clone();
        async move { server::supervise(tasks, &context).await }
    });
    let mut out = io::stdout();
    writeln!(out, "{}", lines.join("\n"))?;
    out.flush()?;
    let outcome = running.await?;
    context.finish_writes().await;
    Ok(outcome?)
}

/// Whoever balances over the copies is told first, and has a moment to send no more.
async fn give_notice(notice: Duration, context: Context, left: CancellationToken) {
    let given = async {
        context.draining.cancelled().await;
        left.cancelled().await;
        tokio::time::sleep(notice).await;
        context.shutdown.cancel();
    };
    context.shutdown.run_until_cancelled(given).await;
}

/// Binds the services that are not here, and their logs for whoever here may read them; hands back who was bound.
fn connect(
    map: &Map,
    methods: Table,
    here: &BTreeSet<&'static str>,
    context: &Context,
    tasks: &mut Vec<Task>,
) -> Result<Vec<&'static str>, Error> {
    let mut elsewhere = vec![];
    let read_log = methods.by_path(READ_LOG);
    let reader = here.iter().copied().find(|name| read_log.is_some_and(|it| it.policy.callers.contains(name)));
    let owners: BTreeSet<&'static str> = methods.iter().map(|method| method.owner).collect();
    for peer in owners {
        // Operations are answered by every service and are none.
        if here.contains(peer) || read_log.is_some_and(|method| method.owner == peer) {
            continue;
        }
        let called = methods.owned_by(peer).any(|it| it.policy.callers.iter().any(|caller| here.contains(caller)));
        let place = match map.place(peer) {
            Ok(place) => place,
            Err(map::Error::Missing { .. }) if !called => continue,
            Err(error) => return Err(error.into()),
        };
        context.clients.locate(peer, &place.listed())?;
        elsewhere.push(peer);
        #[cfg(feature = "fleet")]
        if place.is_looked_up() {
            let following = names(map)?.follow(peer, place.clone(), {
                let clients = context.clients.clone();
                move |uris: &[String]| clients.locate(peer, uris)
            });
            tasks.push(Task::endless(format!("discovery.{peer}"), until_shutdown(following, context)));
        }
        let Some(reader) = reader else { continue };
        let remote = Remote::new(peer, context.clients.as_caller(reader).channel(peer));
        context.hub.publish(peer, Arc::new(remote.clone()));
        // Where a broker says what is new, the log is read only for what is missing.
        if context.hub.broker().is_some() {
            continue;
        }
        let shutdown = context.shutdown.clone();
        tasks.push(Task::endless(format!("bus.{peer}"), async move {
            tokio::select! {
                () = remote.watch() => {}
                () = shutdown.cancelled() => {}
            }
        }));
    }
    Ok(elsewhere)
}

/// Binds a service to where its copies are now, for whoever asks a fleet once and is gone; hands back where they are.
pub async fn locate(map: &Map, service: &'static str, context: &Context) -> Result<Vec<String>, Error> {
    let copies = copies(map, service).await?;
    context.clients.locate(service, &copies)?;
    Ok(copies)
}

async fn copies(map: &Map, service: &'static str) -> Result<Vec<String>, Error> {
    let place = map.place(service)?;
    #[cfg(feature = "fleet")]
    if place.is_looked_up() {
        return names(map)?.once(place).await.map_err(|error| Error::Names(format!("{service}: {error}")));
    }
    #[cfg(feature = "fleet")]
    if let map::Place::Etcd(prefix) = place {
        return Registration::new(map)?.find(prefix, service).await;
    }
    Ok(place.listed())
}

#[cfg(feature = "fleet")]
fn names(map: &Map) -> Result<crate::discovery::Names, Error> {
    crate::discovery::Names::new(map.discovery.dns).map_err(|error| Error::Names(error.to_string()))
}

pub(crate) fn until_shutdown(
    work: impl Future<Output = ()> + Send + 'static,
    context: &Context,
) -> impl Future<Output = ()> + Send + 'static {
    let shutdown = context.shutdown.clone();
    async move {
        shutdown.run_until_cancelled(work).await;
    }
}

/// What carries events between processes, where the map names something.
fn broker(map: &Map) -> Result<Option<Arc<dyn Broker>>, Error> {
    #[cfg(feature = "fleet")]
    match &map.bus {
        Some(map::Bus::Kafka(address)) => {
            return Ok(Some(Arc::new(bus::kafka::Kafka::new(bus::kafka::Config::at(address)))));
        }
        Some(map::Bus::RabbitMq(url)) => return Ok(Some(Arc::new(bus::rabbitmq::RabbitMq::new(url, "stoa")?))),
        None => {}
    }
    // The map was refused if it names what is not built in.
    let _ = map;
    Ok(None)
}

/// Passes the log of a service that is here on to the broker; each copy of the service offers itself.
fn relay(name: &str, broker: &Arc<dyn Broker>, context: &Context) -> Option<Task> {
    let source = context.hub.source(name).filter(|source| source.outbox().is_some())?;
    let relay = Relay::new(source, broker.clone());
    Some(Task::endless(format!("{name}.relay"), relay.run(context.shutdown.clone().cancelled_owned())))
}

fn storage(map: &Map, data: &Path) -> Storage {
    #[cfg(feature = "fleet")]
    if let Some(url) = &map.database {
        return Storage::Postgres(server::Databases {
            owner_url: map.database_owner.clone(),
            authority: map.database_authority(),
            ..server::Databases::at(url.clone())
        });
    }
    let _ = map;
    Storage::Folder(data.to_owned())
}

/// Makes the data folder where there is none, for its owner alone.
fn make_private(path: &Path) -> Result<(), Error> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Data { path: path.to_owned(), source })
}
