//! The only door of the suite: JSON and gRPC on one port, in front of every service.
//!
//! [`transcode::service`] turns every protocol into gRPC by descriptors alone and knows nothing of the suite. Around it stand:
//! who is calling ([`identify`]), where a call goes ([`upstream`]), reflection and health ([`standard`]), and the documents
//! composed for a page ([`storefront`]).
//!
//! Invariants: a service hears who calls from the token this gateway verified, never from a header; of a client's headers only
//! the listed ones travel on; every request has a bound in size, depth and time.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod front;
mod identify;
pub mod keys;
mod peek;
mod sessions;
pub mod standalone;
mod standard;
pub mod storefront;
mod upstream;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use bytes::Bytes;
use contract::{Guard, Table};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use prost_reflect::DescriptorPool;
use telemetry::spans::{self, Kind, Name, Running};
use telemetry::{Trace, metrics};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, service::Routes};
use tower::Service as _;
use transcode::service::{self, Code, Limits, Passing, Problem, Transcoder};

use identify::Doorkeeper;
use server::{Component, Door, Gauge, Places};
use sessions::Sessions;
use upstream::{Behind, Caller, Services};

pub use front::Front;

/// What the gateway is told about the contracts; everything else comes from the process it runs in.
#[derive(Clone, Copy)]
pub struct Config {
    /// The encoded descriptor set of everything that is served, with options and imports.
    pub descriptors: &'static [u8],
    /// The promises of all methods.
    pub methods: Table,
}

/// Why a gateway cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptors cannot be read.
    #[error("the descriptor set cannot be read: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// A rule of the descriptors cannot be followed.
    #[error(transparent)]
    Rule(#[from] transcode::rule::RuleError),
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

/// The most requests that are worked on at once: twice what a service takes, so that one that is full fills no door.
const MOST_REQUESTS: usize = 8192;

/// Answers kept to stand in for those that a service cannot give.
const KEPT_BYTES: u64 = 16 << 20;

/// Metadata with this prefix becomes a response header.
const EXPOSE: &str = "stoa-";

/// The metadata key by which a service chooses another success status, 200 to 399.
const STATUS_KEY: HeaderName = HeaderName::from_static("stoa-http-status");

/// The longest message accepted from a service; contracts page long before that.
const MAX_ANSWER: usize = 64 << 20;

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
    methods: Table,
    standard: Routes,
    places: Places,
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
    let config = Config { descriptors: contracts::DESCRIPTOR_SET, methods: contracts::METHODS };
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
    let pool = DescriptorPool::decode(config.descriptors)?;
    let clients = context.clients.as_caller(auth::GATEWAY).keeping(KEPT_BYTES, context.clock.clone());
    let services = Arc::new(Services::new(&pool, config.methods, &clients));
    let (_, _) = context.mount(operations::traces_of(auth::GATEWAY));
    let methods = config.methods;
    let limits = move |path: &str| match methods.by_path(path) {
        Some(method) if !Guard::MessageSize.stands() => {
            Limits { deadline: method.deadline, max_request_bytes: 64 << 20 }
        }
        Some(method) => Limits { deadline: method.deadline, max_request_bytes: method.max_request_bytes as usize },
        None => Limits { deadline: Duration::from_secs(10), max_request_bytes: 256 << 10 },
    };
    let standard = standard::routes(config.descriptors, &pool, [context.draining.clone(), context.shutdown.clone()])?;
    let transcoding = service::Config {
        limits: Box::new(limits),
        max_response_bytes: MAX_ANSWER,
        forward: Passing::Named(FORWARD.to_vec()),
        expose: Passing::Prefixed(EXPOSE),
        status_key: STATUS_KEY,
        challenge: HeaderValue::from_static("Bearer realm=\"stoa\""),
        ..service::Config::default()
    };
    let transcoder = Transcoder::new(&pool, Behind(services), transcoding)?;
    let inner = Inner {
        doorkeeper: Doorkeeper::new(context.verifier.clone(), Sessions::new(context), {
            let clock = context.clock.clone();
            move || clock.now()
        }),
        transcoder,
        methods,
        standard,
        places: Places::at_a_door("door", MOST_REQUESTS),
        leaving: [context.draining.clone(), context.shutdown.clone()],
    };
    Ok(Gateway { inner: Arc::new(inner) })
}

impl Inner {
    async fn answer(&self, mut request: Request<service::Body>) -> Response<Body> {
        if let Some(response) = self.probe(&request) {
            return response;
        }
        say_where_from(&mut request);
        let verb = metrics::verb(request.method().as_str());
        let mut span = Running::begin(auth::GATEWAY, Kind::Server, verb, &trace_of(&request));
        span.set("http.request.method", verb);
        let trace = span.trace();
        let line = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned()));
        let mut response = spans::within(trace, self.served(request, verb, &mut span)).await;
        if let Some((method, path)) = line {
            tracing::debug!(%method, path, status = response.status().as_u16(), trace_id = trace.id(), "answered");
        }
        let headers = response.headers_mut();
        if let (Ok(id), Ok(parent)) = (HeaderValue::try_from(trace.id()), HeaderValue::try_from(trace.traceparent())) {
            headers.insert(TRACE_ID, id);
            headers.insert(TRACEPARENT, parent);
        }
        ended(span, &response);
        response
    }

    async fn served(
        &self,
        mut request: Request<service::Body>,
        verb: &'static str,
        span: &mut Running,
    ) -> Response<Body> {
        if standard::answers(&request) {
            return self.standard(request).await;
        }
        let response = match self.transcoder.find(&request) {
            Err(response) => *response,
            Ok(matched) => {
                let mut place = None;
                if let Some(method) = self.methods.by_path(&matched.method().path) {
                    // Before anything is looked at that costs: whoever cannot be served is told so for next to nothing.
                    place = match self.places.take_at_the_door(method) {
                        Ok(place) => {
                            request = request.map(|body| service::boxed(place.awaiting(body)));
                            Some(place)
                        }
                        Err(status) => {
                            let problem = Problem::from(upstream::status_of(&status));
                            return self.transcoder.refuse(&matched, &problem).map(Body::new);
                        }
                    };
                    let method = method.path.trim_start_matches('/');
                    span.rename(Name::of(verb, method));
                    span.set("rpc.method", method);
                }
                let answer = match self.doorkeeper.principal(request.headers()).await {
                    Ok(principal) => {
                        request.extensions_mut().insert(Caller { principal, trace: span.trace() });
                        self.transcoder.serve(matched, request).await
                    }
                    Err(problem) => self.transcoder.refuse(&matched, &problem),
                };
                if let Some(mut place) = place
                    && is_well(&answer)
                {
                    place.well();
                }
                answer
            }
        };
        response.map(Body::new)
    }

    /// Reflection and health, for whoever shows no token or a good one.
    async fn standard(&self, request: Request<service::Body>) -> Response<Body> {
        if let Err(problem) = self.doorkeeper.principal(request.headers()).await {
            return upstream::refusal(&problem).map(Body::new);
        }
        match self.standard.clone().call(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Liveness and readiness, for whoever starts and watches the process.
    fn probe<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let ready = match request.uri().path() {
            "/healthz" => true,
            "/readyz" => !self.leaving.iter().any(CancellationToken::is_cancelled),
            _ => return None,
        };
        if request.method() != http::Method::GET && request.method() != http::Method::HEAD {
            let problem =
                Problem::new(Code::Unimplemented, "this path answers GET").with_http(StatusCode::METHOD_NOT_ALLOWED);
            let problem = problem.with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(self.transcoder.problem(&problem).map(Body::new));
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

/// Whether a request was answered with what it asked for.
fn is_well<B>(response: &Response<B>) -> bool {
    let refused = response.headers().get("grpc-status").is_some_and(|code| code.as_bytes() != b"0");
    response.status().is_success() && !refused
}

/// A refusal of gRPC says 200 as everything does, and its own code beside that.
fn ended(span: Running, response: &Response<Body>) {
    let code = response.headers().get("grpc-status").map(|code| tonic::Code::from_bytes(code.as_bytes()));
    match code {
        Some(code) => span.end_rpc(code.into()),
        None => span.end_http(response.status().as_u16()),
    }
}

/// Replaces what the client says about its address by what the listener knows.
fn say_where_from<B>(request: &mut Request<B>) {
    if !Guard::ClientAddress.stands() {
        return;
    }
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
        let request = request.map(upstream::arriving);
        Box::pin(async move { Ok(inner.answer(request).await) })
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("routes", &self.inner.transcoder.routes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_connection_that_grew_old_waits_for_the_longest_call_with_one_answer() {
        // Whoever reads a stream goes on where it broke off, over another connection.
        let one_answer = contracts::METHODS.iter().filter(|method| !method.server_streaming);
        let longest = one_answer.map(|method| method.deadline).max().unwrap();
        assert!(server::Limits::default().farewell > longest, "{longest:?}");
    }
}
