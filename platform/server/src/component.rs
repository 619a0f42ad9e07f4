//! A service as a value: its routes, its tasks, and what runs them until the process ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use contract::Table;
use store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::accept::{self, Gauge, Limits};
use crate::context::Context;
use crate::health::Probe;

/// What a service's `build` gives: everything it is, not running yet.
pub struct Component {
    /// Its short name, `ordering`.
    pub name: &'static str,
    /// The methods it answers, with their policies; a path that is not in here is not served.
    pub methods: Table,
    /// The generated servers over its handlers.
    pub routes: Routes,
    /// What it does besides answering calls; each ends when the context's shutdown is cancelled.
    pub tasks: Vec<Task>,
    /// Its log, for whoever listens to its events.
    pub source: Option<Arc<dyn bus::Source>>,
    /// The most calls it has at once, those that wait for others included; how many of them it works on follows how long they
    /// keep each other waiting.
    pub max_calls: usize,
    /// Whether it can do its work now: what it stands on is reachable.
    pub ready: Option<Probe>,
    /// What is looked up now and then for who watches the process.
    pub measured: Vec<Measure>,
    /// Where it writes down which calls were refused and what operators did; without one that stands in the log alone.
    pub trail: Option<Store>,
    /// What whoever starts the process is told once.
    pub notices: Vec<String>,
}

impl Component {
    /// A component that answers calls and does nothing else.
    pub fn new(name: &'static str, methods: Table, routes: Routes) -> Self {
        Component {
            name,
            methods,
            routes,
            tasks: Vec::new(),
            source: None,
            max_calls: 4096,
            ready: None,
            measured: Vec::new(),
            trail: None,
            notices: Vec::new(),
        }
    }

    /// Also runs this.
    #[must_use]
    pub fn task(mut self, task: Task) -> Self {
        self.tasks.push(task);
        self
    }

    /// Also tells whoever starts the process this line.
    #[must_use]
    pub fn notice(mut self, line: impl Into<String>) -> Self {
        self.notices.push(line.into());
        self
    }

    /// Also tells by this whether it can do its work.
    #[must_use]
    pub fn ready(mut self, probe: Probe) -> Self {
        self.ready = Some(probe);
        self
    }

    /// Also sets gauges now and then.
    #[must_use]
    pub fn measured(mut self, measure: Measure) -> Self {
        self.measured.push(measure);
        self
    }

    /// Also writes down in this store which calls were refused and what operators did.
    #[must_use]
    pub fn trail(mut self, store: Store) -> Self {
        self.trail = Some(store);
        self
    }

    /// Also publishes its log.
    #[must_use]
    pub fn source(mut self, source: Arc<dyn bus::Source>) -> Self {
        self.source = Some(source);
        self
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Component").field("name", &self.name).field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

/// Looks at something of a service and sets its gauges; run every `windows.sweep`, one after the other.
pub type Measure = Arc<dyn Fn() -> futures_util::future::BoxFuture<'static, ()> + Send + Sync>;

/// Measures until shutdown.
pub(crate) async fn measure(measures: Vec<Measure>, every: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = async move {
        loop {
            ticks.tick().await;
            for measure in &measures {
                measure().await;
            }
        }
    };
    shutdown.run_until_cancelled(looking).await;
}

/// A service that outsiders reach: what answers them, beside the component it keeps for itself.
pub struct Door<S> {
    /// What it composes itself, with what has to run meanwhile.
    pub component: Component,
    /// What answers on the listener.
    pub front: S,
    /// The counts of the listener, if the front shows them.
    pub gauge: Gauge,
}

/// A part of a service that runs by itself until shutdown: a saga runner, a consumer, a timer.
pub struct Task {
    name: String,
    work: futures_util::future::BoxFuture<'static, Result<(), BoxError>>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Task {
    /// A task by this name, for example `ordering.checkout`; the future is given the context's shutdown by its maker.
    pub fn new<E>(name: impl Into<String>, work: impl Future<Output = Result<(), E>> + Send + 'static) -> Self
    where
        E: Into<BoxError>,
    {
        Task { name: name.into(), work: Box::pin(async move { work.await.map_err(Into::into) }) }
    }

    /// A task that cannot fail.
    pub fn endless(name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Task {
            name: name.into(),
            work: Box::pin(async move {
                work.await;
                Ok(())
            }),
        }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a process must end: something that has to run does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A task gave up.
    #[error("task {name} failed")]
    Task {
        /// The task.
        name: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A task panicked; what it left half done in memory is not to be trusted.
    #[error("task {name} panicked: {message}")]
    Panic {
        /// The task.
        name: String,
        /// What the panic said.
        message: String,
    },
}

/// Runs tasks until shutdown, then gives them `Context::windows.drain` to end. A task that fails or panics cancels the shutdown
/// token and is the result: a process with a dead part ends instead of looking alive.
pub async fn supervise(tasks: Vec<Task>, context: &Context) -> Result<(), Failed> {
    let shutdown = &context.shutdown;
    let mut running = JoinSet::new();
    let mut names = std::collections::HashMap::new();
    for task in tasks {
        let handle = running.spawn(task.work);
        names.insert(handle.id(), task.name);
    }
    let mut name_of = move |id| names.remove(&id).unwrap_or_default();
    let mut first = Ok(());
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(context.windows.drain).await;
    };
    tokio::pin!(drained);
    loop {
        let ended = tokio::select! {
            ended = running.join_next_with_id() => ended,
            () = &mut drained => {
                tracing::warn!(tasks = running.len(), "tasks did not end in time");
                running.abort_all();
                return first;
            }
        };
        let failed = match ended {
            None => return first,
            Some(Ok((id, Ok(())))) => {
                tracing::debug!(task = name_of(id), "ended");
                continue;
            }
            Some(Ok((id, Err(source)))) => Failed::Task { name: name_of(id), source },
            Some(Err(error)) => {
                let name = name_of(error.id());
                match error.try_into_panic() {
                    Ok(panic) => Failed::Panic { name, message: message_of(&*panic) },
                    Err(_cancelled) => continue,
                }
            }
        };
        tracing::error!(error = %failed, "the process must end");
        shutdown.cancel();
        if first.is_ok() {
            first = Err(failed);
        }
    }
}

/// Runs one component as a process of its own: calls from the network, calls from this process, tasks; until shutdown.
pub async fn serve(listener: TcpListener, component: Component, context: &Context) -> Result<(), Failed> {
    let unproven = |source: tls::Error| Failed::Task { name: "listener".to_owned(), source: source.into() };
    let listener = context.listener(listener, component.name).map_err(unproven)?;
    let (service, mut tasks) = context.mount(component);
    let stop = context.shutdown.clone();
    let drain = context.windows.drain;
    tasks.push(Task::endless("listener", async move {
        accept::run(listener, service, Limits { drain, ..Limits::default() }, Gauge::default(), stop).await;
    }));
    let outcome = supervise(tasks, context).await;
    context.finish_writes().await;
    outcome
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
