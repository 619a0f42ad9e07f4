//! Operations: what an operator can see and do inside a service, the same for every service.
//!
//! A service hands its log, the runner of its sagas and its consumers to a [`Desk`], which serves
//! `stoa.operations.v1` beside the service's own contract. Invariants: a desk answers for its own service alone (the name
//! says which); whatever changes something can be tried with `validate_only` first, may be repeated with the same effect,
//! and leaves an audit record of who did it to what.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod derived;
mod kept;
mod letters;
mod measures;
mod names;
mod reading;
mod remote;
mod rpc;
mod sagas;
mod traces;
mod wire;

use std::sync::Arc;

use bus::{Consumer, Source};
use contract::EventSet;
use contracts::operations::v1::operations_service_server::OperationsServiceServer;
use log::Log;
use saga::Runner;
use server::Component;
use store::{Store, Tx};

use derived::Inline;
use kept::Kept;
use rpc::Rpc;
use sagas::Sagas;

pub use derived::Derived;
pub use log::{Difference, Rebuilt};
pub use remote::Remote;
pub use traces::{trace_name, traces_of};

/// What a service has inside, ready to be served.
pub struct Desk {
    service: &'static str,
    store: Store,
    source: Arc<dyn Source>,
    kept: Arc<dyn Kept>,
    sagas: Option<Arc<dyn Sagas>>,
    derived: Vec<Arc<dyn Derived>>,
    consumers: Vec<Consumer>,
}

impl Desk {
    /// A desk over a log, with the projections that are kept with it.
    pub fn new<E: EventSet>(log: &Log<E>) -> Self {
        let inline = |name, tables| -> Arc<dyn Derived> { Arc::new(Inline { log: log.clone(), name, tables }) };
        Self {
            service: E::SERVICE,
            store: log.store().clone(),
            source: bus::source(log.clone()),
            kept: Arc::new(log.clone()),
            sagas: None,
            derived: log.projections().iter().map(|it| inline(it.name(), it.tables())).collect(),
            consumers: Vec::new(),
        }
    }

    /// Also shows the sagas of this runner.
    #[must_use]
    pub fn sagas<C: Send + Sync + 'static>(mut self, runner: &Runner<C>) -> Self {
        self.sagas = Some(Arc::new(runner.clone()));
        self
    }

    /// Also shows these consumers and what they parked.
    #[must_use]
    pub fn consumers<'a>(mut self, consumers: impl IntoIterator<Item = &'a Consumer>) -> Self {
        self.consumers.extend(consumers.into_iter().cloned());
        self
    }

    /// Also shows tables that are derived from the log of another service.
    #[must_use]
    pub fn derived(mut self, derived: Arc<dyn Derived>) -> Self {
        self.derived.push(derived);
        self
    }

    /// Serves it beside what the component serves already.
    #[must_use]
    pub fn serve(self, mut component: Component) -> Component {
        let store = self.store.clone();
        component = component.ready(Arc::new(move || {
            let store = store.clone();
            Box::pin(async move { store.read(async |tx: &mut Tx| tx.heads().await).await.is_ok() })
        }));
        component = component.trail(self.store.clone());
        let rpc = Rpc::new(self);
        component = component.measured(measures::of(&rpc));
        component.routes = component.routes.add_service(OperationsServiceServer::new(rpc));
        component.routes = component.routes.add_service(traces::server(component.name));
        component.methods = contracts::METHODS;
        component
    }
}
