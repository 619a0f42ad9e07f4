//! The only door of the suite: JSON and gRPC on one port, in front of every service.
//!
//! [`transcode`] turns REST and JSON into gRPC by descriptors alone and knows nothing of the suite. Around it stand: who is
//! calling ([`identify`]), where a call goes ([`upstream`]), gRPC as it is ([`passthrough`]), reflection and health
//! ([`standard`]), and the documents composed for a page ([`storefront`]).
//!
//! Invariants: a service hears who calls from the token this gateway verified, never from a header; of a client's headers only
//! the listed ones travel on; every request has a bound in size, depth and time.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod front;
mod identify;
pub mod keys;
mod passthrough;
mod sessions;
mod standard;
pub mod storefront;
pub mod transcode;
mod upstream;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use contract::{JsonTable, Table};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use prost_reflect::DescriptorPool;
use telemetry::spans::{self, Kind, Running};
use telemetry::{Trace, metrics};
use tokio_util::sync::CancellationToken;
use tonic::{Code, body::Body};
use transcode::{Transcoder, codec::Tables, problem::Problem, table::Limits};

use identify::Doorkeeper;
use passthrough::Passthrough;
use server::{Component, Door, Gauge};
use sessions::Sessions;
use upstream::{Caller, Services};

pub use front::Front;

/// What the gateway is told about the contracts; everything else comes from the process it runs in.
#[derive(Clone, Copy)]
pub struct Config {
    /// The encoded descriptor set of everything that is served, with options and imports.
    pub descriptors: &'static [u8],
    /// The promises of all methods.
    pub methods: Table,
    /// The JSON of all messages.
    pub json: JsonTable,
}

/// Why a gateway cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors cannot be served.
    #[error(transparent)]
    Load(#[from] transcode::table::LoadError),
    /// The descriptors cannot be told to clients that ask for them.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Request headers that travel on as metadata.
const FORWARD: [HeaderName; 4] = [
    CLIENT_ADDRESS,
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("stoa-signature"),
    HeaderName::from_static("accept-language"),
];

/// Where a call comes from, for services that bound what one source may do. What a client says under this name is dropped.
const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("stoa-client-address");

/// Answers kept to stand in for those that a service cannot give.
const KEPT_BYTES: u64 = 16 << 20;

/// Metadata with this prefix becomes a response header.
const EXPOSE: &str = "stoa-";

const TRACE_ID: HeaderName = HeaderName::from_static("stoa-trace-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The gateway as a tower service for a listener; clones are handles.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    doorkeeper: Doorkeeper,
    transcoder: Transcoder,
    passthrough: Passthrough,
    leaving: [CancellationToken; 2],
}

/// Where identity is, whose keys the gateway verifies tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// In this process, where it publishes them itself.
    Here,
    /// In another one, which is asked now and then.
    Elsewhere,
}

/// All of the gateway for a process that serves it: what answers outsiders, and the pages it composes.
pub fn door(context: &server::Context, keys: Keys) -> Result<Door<Front>, Error> {
    let config =
        Config { descriptors: contracts::DESCRIPTOR_SET, methods: contracts::METHODS, json: contracts::json::TABLE };
    let mut component: Component = storefront::build(storefront::Deadlines::default(), context);
    if keys == Keys::Elsewhere {
        component = component.task(keys::follow(context, context.windows.sweep));
    }
    let gauge = Gauge::default();
    let front = Front::new(build(config, context)?, &gauge, !context.metrics_apart);
    Ok(Door { component, front, gauge })
}

/// Compiles the contracts and takes its place in front of the services of this process.
pub fn build(config: Config, context: &server::Context) -> Result<Gateway, Error> {
    let pool = DescriptorPool::decode(config.descriptors).map_err(transcode::table::LoadError::from)?;
    let clients = context.clients.as_caller(auth::GATEWAY).keeping(KEPT_BYTES, context.clock.clone());
    let services = Arc::new(Services::new(&pool, config.methods, &clients));
    let (_, _) = context.mount(operations::traces_of(auth::GATEWAY));
    let methods = config.methods;
    let limits = move |path: &str| match methods.by_path(path) {
        Some(method) => Limits { deadline: method.deadline, max_request_bytes: method.max_request_bytes as usize },
        None => Limits::default(),
    };
    let standard = standard::routes(config.descriptors, &pool, [context.draining.clone(), context.shutdown.clone()])?;
    let transcoder = Transcoder::new(transcode::Config {
        pool,
        limits: Box::new(limits),
        codec: Arc::new(Tables::new(config.json)),
        upstream: services.clone(),
        forward: FORWARD.to_vec(),
        expose: EXPOSE,
    })?;
    let inner = Inner {
        doorkeeper: Doorkeeper::new(context.verifier.clone(), Sessions::new(context), {
            let clock = context.clock.clone();
            move || clock.now()
        }),
        transcoder,
        passthrough: Passthrough::new(methods, services, standard, FORWARD.to_vec()),
        leaving: [context.draining.clone(), context.shutdown.clone()],
    };
    Ok(Gateway { inner: Arc::new(inner) })
}

impl Inner {
    async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        say_where_from(&mut request);
        let mut span = Running::begin(auth::GATEWAY, Kind::Server, "HTTP", &trace_of(&request));
        let verb = metrics::verb(request.method().as_str());
        span.set("http.request.method", verb);
        let trace = span.trace();
        let grpc = passthrough::is_grpc(request.headers());
        let line = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned()));
        let work = async {
            if grpc { self.passthrough(request, &mut span).await } else { self.rest(request, verb, &mut span).await }
        };
        let mut response = spans::within(trace, work).await;
        if let Some((method, path)) = line {
            tracing::debug!(%method, path, status = response.status().as_u16(), trace_id = trace.id(), "answered");
        }
        let headers = response.headers_mut();
        if let (Ok(id), Ok(parent)) = (HeaderValue::try_from(trace.id()), HeaderValue::try_from(trace.traceparent())) {
            headers.insert(TRACE_ID, id);
            headers.insert(TRACEPARENT, parent);
        }
        span.end_http(response.status().as_u16());
        response
    }

    async fn rest(&self, mut request: Request<Body>, verb: &'static str, span: &mut Running) -> Response<Body> {
        let trace = span.trace();
        if let Some(response) = self.probe(&request) {
            return response;
        }
        let served = async {
            let matched = self.transcoder.find(request.method(), request.uri())?;
            let method = matched.method().path.trim_start_matches('/');
            span.rename(format!("{verb} {method}"));
            span.set("rpc.method", method.to_owned());
            let principal = self.doorkeeper.principal(request.headers()).await?;
            request.extensions_mut().insert(Caller { principal, trace });
            Ok::<_, Problem>(self.transcoder.serve(&matched, request).await)
        };
        served.await.unwrap_or_else(|problem| self.transcoder.problem(&problem))
    }

    async fn passthrough(&self, mut request: Request<Body>, span: &mut Running) -> Response<Body> {
        let trace = span.trace();
        if let Some(method) = self.passthrough.method(request.uri().path()) {
            let name = method.path.trim_start_matches('/');
            span.rename(name);
            span.set("rpc.method", name);
        }
        match self.doorkeeper.principal(request.headers()).await {
            Ok(principal) => {
                request.extensions_mut().insert(Caller { principal, trace });
                self.passthrough.answer(request).await
            }
            Err(problem) => problem.to_status().into_http(),
        }
    }

    /// Liveness and readiness, for whoever starts and watches the process.
    fn probe(&self, request: &Request<Body>) -> Option<Response<Body>> {
        let ready = match request.uri().path() {
            "/healthz" => true,
            "/readyz" => !self.leaving.iter().any(CancellationToken::is_cancelled),
            _ => return None,
        };
        if request.method() != http::Method::GET && request.method() != http::Method::HEAD {
            let problem =
                Problem::new(Code::Unimplemented, "this path answers GET").with_status(StatusCode::METHOD_NOT_ALLOWED);
            return Some(
                self.transcoder.problem(&problem.with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD"))),
            );
        }
        let mut response = Response::new(Body::new(http_body_util::Full::new(Bytes::from_static(if ready {
            b"ok\n"
        } else {
            b"draining\n"
        }))));
        *response.status_mut() = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }
}

/// Replaces what the client says about its address by what the listener knows.
fn say_where_from<B>(request: &mut Request<B>) {
    let peer =
        request.extensions().get::<server::Peer>().and_then(|peer| HeaderValue::try_from(peer.0.to_string()).ok());
    match peer {
        Some(address) => request.headers_mut().insert(CLIENT_ADDRESS, address),
        None => request.headers_mut().remove(CLIENT_ADDRESS),
    };
}

/// The client's story if it names one, else a new one.
fn trace_of<B>(request: &Request<B>) -> Trace {
    let mut given = request.headers().get_all(TRACEPARENT).iter();
    match (given.next().and_then(|value| value.to_str().ok()), given.next()) {
        (Some(text), None) => Trace::parse(text).unwrap_or_else(|_| Trace::new_root()),
        _ => Trace::new_root(),
    }
}

impl<B> tower::Service<Request<B>> for Gateway
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        let request = request.map(Body::new);
        Box::pin(async move { Ok(inner.answer(request).await) })
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("routes", &self.inner.transcoder.table().routes.routes().count())
            .finish_non_exhaustive()
    }
}
