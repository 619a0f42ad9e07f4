//! The copies of this process in the registry, and those of others that are found there.
//!
//! A copy registers when it is ready: when what it stands on has answered once. It stays registered while it runs, also when
//! its store is away for a while: callers notice that themselves, and all copies of a service share one store. Asked to stop,
//! it leaves the registry before it does anything else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use registry::{Copy, Registry};
use server::{Context, Probe, Task};
use tokio_util::sync::CancellationToken;

use crate::map::{Map, Place};
use crate::run::{Error, until_shutdown};

/// Between two looks at a copy that is not ready yet.
const LOOK: Duration = Duration::from_millis(200);

/// The registry, and who of this process is to be found there.
pub(crate) struct Registration {
    registry: Option<Registry>,
    copies: Vec<Copy>,
    probes: Vec<Probe>,
}

impl Registration {
    pub(crate) fn new(map: &Map) -> Result<Self, Error> {
        let registry = match map.registry()? {
            Some(config) => Some(Registry::new(&config).map_err(|error| Error::Names(error.to_string()))?),
            None => None,
        };
        Ok(Registration { registry, copies: vec![], probes: vec![] })
    }

    /// This copy of a service is to be found where it listens, or where it was told it is reached.
    pub(crate) fn add(
        &mut self,
        map: &Map,
        name: &'static str,
        listening: SocketAddr,
        advertised: Option<SocketAddr>,
        probe: Option<Probe>,
    ) -> Result<(), Error> {
        // The door is in no map.
        let Ok(Place::Etcd(prefix)) = map.place(name) else { return Ok(()) };
        let address = advertised.unwrap_or(listening);
        if address.ip().is_unspecified() {
            return Err(Error::Unadvertised { name, address });
        }
        self.copies.push(Copy { prefix: prefix.clone(), service: name.to_owned(), address });
        self.probes.extend(probe);
        Ok(())
    }

    /// What keeps the ways to those services true that are found in the registry.
    pub(crate) fn follow(&self, map: &Map, services: &[&'static str], context: &Context) -> Vec<Task> {
        let Some(registry) = &self.registry else { return vec![] };
        let registered = services.iter().copied().filter_map(|service| match map.place(service) {
            Ok(Place::Etcd(prefix)) => Some((service, prefix.clone())),
            Ok(Place::Listed(_) | Place::Dns { .. } | Place::Srv(_)) | Err(_) => None,
        });
        let followed = registered.map(|(service, prefix)| {
            let (registry, clients) = (registry.clone(), context.clients.clone());
            let following = async move {
                let tell = |found: &BTreeSet<SocketAddr>| clients.locate(service, &uris(found));
                registry.follow(&prefix, service, tell).await;
            };
            Task::endless(format!("discovery.{service}"), until_shutdown(following, context))
        });
        followed.collect()
    }

    /// Where the copies of a service are now.
    pub(crate) async fn find(&self, prefix: &str, service: &'static str) -> Result<Vec<String>, Error> {
        let Some(registry) = &self.registry else { return Ok(vec![]) };
        let found = registry.find(prefix, service).await;
        Ok(uris(&found.map_err(|error| Error::Names(format!("{service}: {error}")))?))
    }

    /// Keeps the copies registered until the process says that it will end; `left` is cancelled when they are off the list.
    pub(crate) async fn keep(self, context: Context, left: CancellationToken) {
        let leave = CancellationToken::new();
        let keeping = async {
            let (Some(registry), false) = (&self.registry, self.copies.is_empty()) else { return };
            if leave.run_until_cancelled(ready(&self.probes)).await.is_some() {
                registry.keep(&self.copies, leave.clone()).await;
            }
        };
        let asked = async {
            tokio::select! {
                () = context.draining.cancelled() => {}
                // A part of it failed.
                () = context.shutdown.cancelled() => {}
            }
            leave.cancel();
        };
        tokio::join!(keeping, asked);
        left.cancel();
        context.shutdown.cancelled().await;
    }
}

/// When everything that is to be found has been able to do its work.
async fn ready(probes: &[Probe]) {
    for probe in probes {
        while !probe().await {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The addresses as they are called.
fn uris(found: &BTreeSet<SocketAddr>) -> Vec<String> {
    found.iter().map(|address| format!("http://{address}")).collect()
}
