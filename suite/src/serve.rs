//! Some of the services in a process of their own, as a part of a fleet.
//!
//! Calls between processes carry the fleet's signature; events are read from the producer's log over the network, each
//! consumer from where it stands in its own store. Everything else is what it is in one process.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use contract::Table;
use operations::Remote;
use server::{Component, Context, Gauge, Limits, Storage, Task, accept};
use store::Clock;
use tokio::net::TcpListener;

use crate::fleet::Map;
use crate::folder::Folder;
use crate::front::Front;
use crate::run::until_asked_to_stop;
use crate::settings::Settings;
use crate::shop::SERVICES;

/// What to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Line {
    /// Services to run in this process, by their short names; `gateway` is the door and the pages composed for it
    #[arg(required = true, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    names: Vec<String>,
    /// Map of the fleet, TOML: `secret_file`, and `[services]` with the address of each service
    #[arg(long, value_name = "FILE", env = "STOA_FLEET")]
    fleet: PathBuf,
}

const DOOR: &str = "gateway";

/// Whose log the methods of operations let others read.
const READ_LOG: &str = "/stoa.operations.v1.OperationsService/ReadLog";

fn names() -> impl Iterator<Item = &'static str> {
    SERVICES.into_iter().chain([DOOR])
}

/// Runs the services until asked to stop, or until a part of one fails.
pub(crate) async fn run(line: Line, settings: Settings) -> anyhow::Result<ExitCode> {
    let map = Map::load(&line.fleet)?;
    settings.arm().context("the crash points cannot be armed")?;
    let folder = Folder::open(&settings.data)?;
    let here: Vec<&'static str> = names().filter(|name| line.names.iter().any(|wanted| wanted == name)).collect();
    let mut context =
        Context::in_fleet(storage(&map, &folder), folder.path(), contracts::METHODS, &map.secret()?, Clock::system());
    context.windows = settings.windows();

    let mut tasks = vec![];
    for peer in SERVICES.into_iter().filter(|name| !here.contains(name)) {
        context.clients.connect(peer, &format!("http://{}", map.address(peer)?))?;
        if let Some(reader) = here.iter().copied().find(|name| may_read_logs(contracts::METHODS, name)) {
            let remote = Remote::new(peer, context.clients.as_caller(reader).channel(peer));
            context.hub.publish(peer, Arc::new(remote.clone()));
            let shutdown = context.shutdown.clone();
            tasks.push(Task::endless(format!("bus.{peer}"), async move {
                tokio::select! {
                    () = remote.watch() => {}
                    () = shutdown.cancelled() => {}
                }
            }));
        }
    }

    let mut lines = vec![];
    for name in here.iter().copied().filter(|name| *name != DOOR) {
        let (component, said) = component(name, &settings, &context).await?;
        lines.extend(said);
        let listener = listen(map.address(name)?).await?;
        lines.push(format!("serving {name}\nlistening on http://{}", listener.local_addr()?));
        let (service, more) = context.mount(component);
        tasks.extend(more);
        tasks.push(listening(name, listener, service, Gauge::default(), &context));
    }
    if here.contains(&DOOR) {
        let storefront = gateway::storefront::build(gateway::storefront::Deadlines::default(), &context);
        tasks.extend(context.mount(storefront).1);
        if !here.contains(&"identity") {
            tasks.push(gateway::keys::follow(&context, context.windows.sweep));
        }
        let config = gateway::Config {
            descriptors: contracts::DESCRIPTOR_SET,
            methods: contracts::METHODS,
            json: contracts::json::TABLE,
        };
        let gauge = Gauge::default();
        let front = Front { gateway: gateway::build(config, &context)?, gauge: gauge.clone() };
        let listener = listen(settings.listen).await?;
        lines.push(format!("serving {DOOR}\nlistening on http://{}", listener.local_addr()?));
        tasks.push(listening(DOOR, listener, front, gauge, &context));
    }

    until_asked_to_stop(context.shutdown.clone())?;
    let running = tokio::spawn({
        let context = context.clone();
        async move { server::supervise(tasks, &context).await }
    });
    let mut out = std::io::stdout();
    writeln!(out, "{}", lines.join("\n"))?;
    out.flush()?;
    let outcome = running.await?;
    context.finish_writes().await;
    outcome?;
    Ok(ExitCode::SUCCESS)
}

fn storage(map: &Map, folder: &Folder) -> Storage {
    #[cfg(feature = "fleet")]
    if let Some(url) = &map.database {
        return Storage::Postgres(server::Databases::at(url.clone()));
    }
    let _ = map;
    Storage::Folder(folder.path().to_owned())
}

fn may_read_logs(methods: Table, name: &str) -> bool {
    methods.by_path(READ_LOG).is_some_and(|method| method.policy.callers.contains(&name))
}

async fn listen(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))
}

fn listening<S>(name: &str, listener: TcpListener, service: S, gauge: Gauge, context: &Context) -> Task
where
    S: tower::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let limits = Limits { drain: context.windows.drain, ..Limits::default() };
    let shutdown = context.shutdown.clone();
    Task::endless(format!("{name}.listener"), accept::run(listener, service, limits, gauge, shutdown))
}

/// One service, and what is to be said of its first start.
async fn component(name: &str, settings: &Settings, context: &Context) -> anyhow::Result<(Component, Option<String>)> {
    let currency = settings.currency;
    let built = match name {
        "identity" => {
            let identity = identity::build(settings.identity(), context).await?;
            let password = identity.operator_password.as_ref();
            let said = password.map(|made_up| format!("operator@stoa.local has the password {}", made_up.expose()));
            return Ok((identity.component, said));
        }
        "catalog" => {
            // Its words are found by SQLite, whatever the others keep their rows in.
            let mut own = context.clone();
            own.storage = Storage::Folder(settings.data.clone());
            catalog::build(catalog::Config { currency, ..Default::default() }, &own).await?
        }
        "inventory" => inventory::build(inventory::Config::default(), context).await?,
        "cart" => cart::build(cart::Config { currency, ..Default::default() }, context).await?,
        "ordering" => ordering::build(ordering::Config::default(), context).await?,
        "payment" => {
            let provider = settings.psp().context("payment needs its provider: set --psp or STOA_PSP")?;
            payment::build(settings.payment(provider.to_owned(), None), context).await?
        }
        "shipping" => shipping::build(shipping::Config::default(), context).await?,
        "notification" => notification::build(settings.notification(), context).await?,
        "orderview" => orderview::build(orderview::Config::default(), context).await?,
        unknown => anyhow::bail!("{unknown} is no service"),
    };
    Ok((built, None))
}
