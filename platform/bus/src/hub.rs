//! The meeting point of producers and consumers in one process, and where they find the broker between processes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::{Broker, Source};

/// The published logs by service; cheap to clone. Services start in any order: who consumes waits
/// until the producer publishes.
#[derive(Clone)]
pub struct Hub {
    sources: watch::Sender<BTreeMap<String, Arc<dyn Source>>>,
    broker: Arc<OnceLock<Arc<dyn Broker>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { sources: watch::Sender::new(BTreeMap::new()), broker: Arc::default() }
    }
}

impl Hub {
    /// A hub without sources.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on messages come through a broker, and logs are read only for what is missing. To be said before consumers
    /// run, and once: a second broker is not taken.
    pub fn carry(&self, broker: Arc<dyn Broker>) {
        let _ = self.broker.set(broker);
    }

    /// The broker, if there is one.
    pub fn broker(&self) -> Option<&Arc<dyn Broker>> {
        self.broker.get()
    }

    /// Publishes the log of `service`, in place of one published before.
    pub fn publish(&self, service: &str, source: Arc<dyn Source>) {
        self.sources.send_modify(|sources| {
            sources.insert(service.to_owned(), source);
        });
    }

    /// The log of `service`, if it is published.
    pub fn source(&self, service: &str) -> Option<Arc<dyn Source>> {
        self.sources.borrow().get(service).cloned()
    }

    /// The log of `service`, once it is published.
    pub async fn wait_for(&self, service: &str) -> Arc<dyn Source> {
        let mut sources = self.sources.subscribe();
        loop {
            if let Some(source) = sources.borrow_and_update().get(service).cloned() {
                return source;
            }
            if sources.changed().await.is_err() {
                // The sender lives in `self`; this cannot be reached.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The services that publish, sorted.
    pub fn services(&self) -> Vec<String> {
        self.sources.borrow().keys().cloned().collect()
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.services()).finish()
    }
}
