//! Where services are: names, bound when they start to serve, looked up when they are called.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use auth::Fleet;
use contract::{Access, Table};
use store::{Clock, Site};
use tls::Trust;

use crate::channel::{Callee, Channel};
use crate::endpoints::Endpoints;
use crate::stale::Kept;

/// The names this process can call. Clones are handles to the same names.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// A registry as one service uses it: calls made through it are that service's.
#[derive(Clone)]
pub struct Caller {
    registry: Registry,
    name: &'static str,
    kept: Option<Arc<Kept>>,
}

/// A service could not be bound to an address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no URI.
    #[error("{name} cannot be reached at {uri:?}")]
    Address {
        /// The service.
        name: &'static str,
        /// The address as given.
        uri: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// Calls over the network are signed, and this registry was made without the fleet's key.
    #[error("{0} is elsewhere, and this process has no fleet key to sign its calls with")]
    NoFleetKey(&'static str),
}

impl Registry {
    /// A registry whose services all run in this process.
    pub fn new(methods: Table) -> Self {
        Self::build(methods, None)
    }

    /// A registry that can also call other processes, signing each call with the fleet's key.
    pub fn in_fleet(methods: Table, fleet: Fleet, clock: Clock) -> Self {
        Self::build(methods, Some(Signing { fleet, clock, trust: None }))
    }

    /// The same registry without a name bound yet, whose connections to other processes have certificates on both sides.
    #[must_use]
    pub fn trusting(&self, trust: Trust) -> Self {
        let signing = self.inner.signing.as_ref().map(|it| Signing {
            fleet: it.fleet.clone(),
            clock: it.clock.clone(),
            trust: Some(trust),
        });
        Self::build(self.inner.methods, signing)
    }

    /// The registry as this service uses it.
    pub fn as_caller(&self, name: &'static str) -> Caller {
        Caller { registry: self.clone(), name, kept: None }
    }

    /// From now on the name is answered in this process.
    pub fn serve(&self, name: &'static str, callee: Arc<dyn Callee>) {
        self.inner.slot(name).target.store(Some(Arc::new(Target::Here(callee))));
    }

    /// From now on the name is answered at this address; the connection is made by the first call.
    pub fn connect(&self, name: &'static str, uri: &str) -> Result<(), Error> {
        self.locate(name, &[uri.to_owned()])
    }

    /// From now on the name is answered by the copies at these addresses. Copies that stay keep their connections; calls in
    /// flight to those that went are not touched.
    pub fn locate(&self, name: &'static str, uris: &[String]) -> Result<(), Error> {
        let signing = self.inner.signing.clone().ok_or(Error::NoFleetKey(name))?;
        let refused = |(uri, source)| Error::Address { name, uri, source };
        let slot = self.inner.slot(name);
        if let Some(Target::Elsewhere { copies, .. }) = slot.target.load_full().as_deref() {
            return copies.replace(uris).map_err(refused);
        }
        let target =
            Target::Elsewhere { copies: Endpoints::new(name, uris, signing.trust.clone()).map_err(refused)?, signing };
        slot.target.store(Some(Arc::new(target)));
        Ok(())
    }

    fn build(methods: Table, signing: Option<Signing>) -> Self {
        Registry { inner: Arc::new(Inner { methods, signing: signing.map(Arc::new), slots: Mutex::default() }) }
    }
}

impl Caller {
    /// Keeps answers, so many bytes of them over all its channels, to stand in for those that a callee cannot give: where
    /// the contract lets them, and marked with [`STALE_SINCE`](crate::STALE_SINCE).
    #[must_use]
    pub fn keeping(self, bytes: u64, clock: Clock) -> Self {
        Caller { kept: Some(Kept::new(bytes, clock)), ..self }
    }

    /// The channel to a service, which need not serve yet.
    ///
    /// Each method the contract lets this caller call becomes a crash point, so that a test can list them.
    pub fn channel(&self, callee: &'static str) -> Channel {
        let inner = &self.registry.inner;
        // Beside its own methods every service answers operations; its log is read by the bus and not through a channel.
        let operations = inner.methods.owned_by("operations").filter(|method| method.policy.access != Access::Internal);
        for method in inner.methods.owned_by(callee).chain(operations) {
            if method.policy.callers.contains(&self.name) {
                Site::named(&format!("{}->{}", self.name, method.path));
            }
        }
        Channel::new(self.name, inner.methods, inner.slot(callee), self.kept.clone())
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slots = self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Registry").field("names", &slots.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One name and what answers it now.
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) target: ArcSwapOption<Target>,
}

pub(crate) enum Target {
    Here(Arc<dyn Callee>),
    Elsewhere { copies: Endpoints, signing: Arc<Signing> },
}

pub(crate) struct Signing {
    pub(crate) fleet: Fleet,
    pub(crate) clock: Clock,
    pub(crate) trust: Option<Trust>,
}

struct Inner {
    methods: Table,
    signing: Option<Arc<Signing>>,
    slots: Mutex<HashMap<&'static str, Arc<Slot>>>,
}

impl Inner {
    fn slot(&self, name: &'static str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(name).or_insert_with(|| Arc::new(Slot { name, target: ArcSwapOption::empty() }));
        Arc::clone(slot)
    }
}
