//! What a process serves: services and the door, each by a name and how it is built.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;

use futures_util::future::{BoxFuture, LocalBoxFuture};
use http::{Request, Response};
use server::{Arriving, Component, Context, Door, Limits, Listener, accept};
use tokio_util::sync::CancellationToken;

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// One of the services of a process, or its door to the outside; not built yet.
pub struct Part {
    pub(crate) name: &'static str,
    /// Where it listens, if it was told.
    pub(crate) bind: Option<SocketAddr>,
    /// Where others reach it, if it was told.
    pub(crate) advertised: Option<SocketAddr>,
    pub(crate) build: Build,
}

type Build = Box<dyn FnOnce(Context) -> LocalBoxFuture<'static, Result<Built, BoxError>>>;

pub(crate) struct Built {
    pub(crate) component: Component,
    pub(crate) door: Option<Listen>,
}

/// Serves a listener until shutdown.
pub(crate) type Listen = Box<dyn FnOnce(Listener, Limits, CancellationToken) -> BoxFuture<'static, ()>>;

impl Part {
    /// A service by its short name.
    pub fn new<C, E>(name: &'static str, build: impl AsyncFnOnce(Context) -> Result<C, E> + 'static) -> Self
    where
        C: Into<Component>,
        E: Into<BoxError>,
    {
        let build: Build = Box::new(move |context| {
            Box::pin(async move {
                let component = build(context).await.map_err(Into::into)?.into();
                Ok(Built { component, door: None })
            })
        });
        Part { name, bind: None, advertised: None, build }
    }

    /// What stands before the services, by its short name.
    pub fn door<S, E>(name: &'static str, build: impl AsyncFnOnce(Context) -> Result<Door<S>, E> + 'static) -> Self
    where
        S: tower::Service<Request<Arriving>, Response = Response<tonic::body::Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
        E: Into<BoxError>,
    {
        let build: Build = Box::new(move |context| {
            Box::pin(async move {
                let Door { component, front, gauge } = build(context).await.map_err(Into::into)?;
                let listen: Listen = Box::new(move |listener, limits, shutdown| {
                    Box::pin(accept::run(listener, front, limits, gauge, shutdown))
                });
                Ok(Built { component, door: Some(listen) })
            })
        });
        Part { name, bind: None, advertised: None, build }
    }

    /// Listens here and not where the map says, if this is an address.
    #[must_use]
    pub fn bind(mut self, address: Option<SocketAddr>) -> Self {
        self.bind = address.or(self.bind);
        self
    }

    /// Others reach it here and not where it listens, if this is an address: for the registry, where the map names one.
    #[must_use]
    pub fn advertise(mut self, address: Option<SocketAddr>) -> Self {
        self.advertised = address;
        self
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("name", &self.name).field("bind", &self.bind).finish_non_exhaustive()
    }
}
