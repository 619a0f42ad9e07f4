//! What a process is made of: nine services over their stores, the gateway, and a provider to try payments with.
//!
//! Everything is opened at once, for the stores do not wait for each other and calls find their callee when it is there.
//! Opening starts nothing: a command that only looks opens a shop and closes it again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use gateway::Gateway;
use operations::Remote;
use process::Map;
use server::{Context, Failed, Storage, Task};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::folder::Folder;
use crate::psp;
use crate::settings::Settings;

/// The short names of the services, in the order of a sale.
pub(crate) const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "payment", "shipping", "notification", "orderview"];

/// A shop as commands see it.
pub(crate) struct Shop {
    /// What its services share.
    pub(crate) context: Context,
    /// Where the payment provider is.
    pub(crate) provider: String,
    /// Where the copies of each service are, if they are elsewhere.
    pub(crate) copies: BTreeMap<&'static str, Vec<String>>,
}

/// A shop that was opened, with what of it has yet to be started.
pub(crate) struct Opened {
    /// The shop.
    pub(crate) shop: Arc<Shop>,
    /// The door.
    pub(crate) gateway: Gateway,
    /// The operator's password, if this opening made it up.
    pub(crate) operator_password: Option<identity::Secret>,
    tasks: Vec<Task>,
    inside: Option<(sandbox::Sandbox, TcpListener)>,
}

/// The running parts of a shop.
pub(crate) struct Live {
    context: Context,
    tasks: JoinHandle<Result<(), Failed>>,
    provider: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Opened {
    /// Opens the shop in a folder; `listening` is where its webhooks arrive.
    pub(crate) async fn open(
        settings: &Settings,
        folder: &Folder,
        listening: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let secret = folder.secret()?;
        let mut context =
            Context::new(Storage::Folder(folder.path().to_owned()), folder.path(), contracts::METHODS, &secret);
        context.windows = settings.windows();
        match settings.psp() {
            Some(url) => Box::pin(Self::build(settings, context, url.to_owned(), None, None)).await,
            None => {
                let key = blake3::derive_key("stoa webhooks v1", &secret);
                let key = blake3::Hash::from_bytes(key).to_hex().to_string();
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("the provider cannot listen")?;
                let url = format!("http://{}", listener.local_addr()?);
                let inside = sandbox::Config {
                    webhook_url: listening.map(|at| format!("http://{}/v1/webhooks/sandbox", reachable(at))),
                    webhook_secret: key.clone(),
                    ..sandbox::Config::new(psp::ledger(folder.path()))
                };
                Box::pin(Self::build(settings, context, url, Some(key), Some((inside, listener)))).await
            }
        }
    }

    /// Builds a shop whose stores are gone when it ends: for listing what it is made of.
    pub(crate) async fn temporary(settings: &Settings) -> anyhow::Result<Self> {
        let context = Context::temporary(contracts::METHODS);
        Box::pin(Self::build(settings, context, "http://127.0.0.1:9".to_owned(), None, None)).await
    }

    async fn build(
        settings: &Settings,
        context: Context,
        provider: String,
        webhook_key: Option<String>,
        inside: Option<(sandbox::Config, TcpListener)>,
    ) -> anyhow::Result<Self> {
        let currency = settings.currency;
        let opened = tokio::try_join!(
            named("identity", identity::build(settings.identity(), &context)),
            named("catalog", catalog::build(catalog::Config { currency, ..Default::default() }, &context)),
            named("inventory", inventory::build(inventory::Config::default(), &context)),
            named("cart", cart::build(cart::Config { currency, ..Default::default() }, &context)),
            named("ordering", ordering::build(ordering::Config::default(), &context)),
            named("payment", payment::build(settings.payment(provider.clone(), webhook_key), &context)),
            named("shipping", shipping::build(shipping::Config::default(), &context)),
            named("notification", notification::build(settings.notification(), &context)),
            named("orderview", orderview::build(orderview::Config::default(), &context)),
            async {
                match inside {
                    Some((config, listener)) => {
                        let built = named("the provider", sandbox::build(config)).await?;
                        Ok(Some((built, listener)))
                    }
                    None => Ok(None),
                }
            },
        )?;
        let (identity, catalog, inventory, cart, ordering, payment, shipping, notification, orderview, inside) = opened;
        let storefront = gateway::storefront::build(gateway::storefront::Deadlines::default(), &context);
        let mut tasks = Vec::new();
        for component in [
            identity.component,
            catalog,
            inventory,
            cart,
            ordering,
            payment,
            shipping,
            notification,
            orderview,
            storefront,
        ] {
            let (_, more) = context.mount(component);
            tasks.extend(more);
        }
        let gateway = gateway::build(
            gateway::Config { descriptors: contracts::DESCRIPTOR_SET, methods: contracts::METHODS },
            &context,
        )?;
        let shop = Arc::new(Shop { context, provider, copies: BTreeMap::new() });
        Ok(Self { shop, gateway, operator_password: identity.operator_password, tasks, inside })
    }

    /// Starts what runs by itself: sagas, consumers, sweeps, and the provider if it is inside.
    pub(crate) fn start(&mut self, also: impl IntoIterator<Item = Task>) -> Live {
        let mut tasks = std::mem::take(&mut self.tasks);
        tasks.extend(also);
        self.start_with(tasks)
    }

    /// Starts the provider alone, if it is inside: enough to look into its ledger.
    pub(crate) fn start_provider(&mut self) -> Live {
        self.start_with(Vec::new())
    }

    fn start_with(&mut self, tasks: Vec<Task>) -> Live {
        let context = self.shop.context.clone();
        let supervised = context.clone();
        let tasks = tokio::spawn(async move { server::supervise(tasks, &supervised).await });
        let provider = self.inside.take().map(|(provider, listener)| {
            let (stop, shutdown) = (CancellationToken::new(), context.shutdown.clone());
            let ended = provider.run(listener, stop.clone());
            let handle = tokio::spawn(async move {
                if let Err(error) = ended.await {
                    tracing::error!(%error, "the provider inside ended, and the process with it");
                    shutdown.cancel();
                }
            });
            (handle, stop)
        });
        Live { context, tasks, provider }
    }
}

/// A part of the shop that gives no answer: nothing can be said of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {service} ({why}): nothing is known of it until it answers")]
pub(crate) struct Unreached {
    service: String,
    why: String,
}

impl Unreached {
    /// What a service's status is to a command: that it did not answer, or what it said.
    pub(crate) fn or_said(service: &str, status: &Status) -> anyhow::Error {
        if server::status::unreached(status) {
            let why = format!("{:?}, {}", status.code(), status.message());
            return Self { service: service.to_owned(), why }.into();
        }
        anyhow::anyhow!("{}", status.message())
    }

    /// What it is to a command that a log cannot be read.
    pub(crate) fn or_failed(error: bus::Error) -> anyhow::Error {
        match error {
            bus::Error::Away { service, reason } => Self { service, why: reason }.into(),
            error => error.into(),
        }
    }
}

/// Under which name the logs of a fleet are read; the contract lets it read and nothing else.
pub(crate) const AUDITOR: &str = "audit";

impl Shop {
    /// The shop that a fleet is: nothing of it is opened here, everything is asked of its processes.
    pub(crate) async fn of_fleet(settings: &Settings, map: &Map) -> anyhow::Result<Self> {
        let mut context = Context::in_fleet(
            Storage::Temporary,
            &settings.data,
            contracts::METHODS,
            &map.secret()?,
            store::Clock::system(),
        );
        context.windows = settings.windows();
        if let Some(trust) = map.trust()? {
            [auth::OPERATOR, AUDITOR].into_iter().try_for_each(|name| trust.of(name).map(drop))?;
            context = context.trusting(trust);
        }
        let mut copies = BTreeMap::new();
        for service in SERVICES {
            // All copies stand on one store: whichever is asked answers for the service.
            copies.insert(service, process::locate(map, service, &context).await?);
            let log = Remote::new(service, context.clients.as_caller(AUDITOR).channel(service));
            context.hub.publish(service, Arc::new(log));
        }
        Ok(Self { context, provider: settings.psp().unwrap_or_default().to_owned(), copies })
    }

    /// The way to a service, as the operator has it.
    pub(crate) fn channel(&self, service: &'static str) -> Channel {
        self.context.clients.as_caller(auth::OPERATOR).channel(service)
    }

    /// A call by the operator at this machine, whom the data folder's own permissions let in.
    pub(crate) fn by_operator<T>(message: T) -> Request<T> {
        let subject = Subject { id: "users/local".to_owned(), role: Role::Operator, session: String::new() };
        Outgoing { principal: Principal::User(subject), ..Outgoing::default() }.request(message)
    }
}

impl Live {
    /// Ends when the shop has ended, by request or because a part of it failed; what has begun is finished first.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        let outcome = self.tasks.await;
        self.context.finish_writes().await;
        if let Some((handle, stop)) = self.provider {
            stop.cancel();
            handle.await?;
        }
        Ok(outcome??)
    }
}

/// Says which part of the shop failed to open.
async fn named<T, E>(name: &'static str, opening: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    opening.await.with_context(|| format!("{name} cannot be opened"))
}

/// An address that reaches a listener of all interfaces.
fn reachable(at: SocketAddr) -> SocketAddr {
    if !at.ip().is_unspecified() {
        return at;
    }
    let loopback = if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(loopback, at.port())
}
