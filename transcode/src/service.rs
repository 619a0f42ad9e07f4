//! REST, gRPC, gRPC-Web and Connect in front of a gRPC service: descriptors in, a [`tower::Service`] out.
//!
//! A [`Transcoder`] answers every request of HTTP and calls the service behind with plain gRPC requests. gRPC and gRPC-Web
//! pass undecoded; JSON is written and read by the codec, a message at a time. It knows no service of its own and asks
//! nobody who is calling: whoever has to stands in front, or between [`find`](Transcoder::find) and
//! [`serve`](Transcoder::serve).
//!
//! Bounds: a URL has at most [`MAX_URL`] bytes; a request message and its JSON what [`Limits`] says, after inflation too; an
//! answer's message `max_response_bytes`; a line of an upload 4 MiB; a call its deadline, streams included. A stream is not
//! read ahead of whoever takes it. Who drops a future or an answer's body cancels the call behind.

mod body;
mod call;
mod connect;
mod details;
mod download;
mod fill;
mod grpc;
mod metadata;
mod negotiate;
mod problem;
mod rest;
mod status;
mod table;
mod upload;
mod web;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::TryFutureExt as _;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use prost_reflect::DescriptorPool;
use tower::ServiceExt as _;

pub use body::{Body, BoxError, boxed};
pub use call::Call;
pub use metadata::Passing;
pub use problem::{Problem, Violation};
pub use status::{Code, Detail, Status};
pub use table::{JSON_FACTOR, Limits, Method};

use problem::Scribe;
use table::{Route, Table};

use crate::{ParseOptions, PrintOptions, Schema, route::Miss, rule::RuleError};

/// The longest request target, in bytes.
pub const MAX_URL: usize = 8 << 10;

/// What a [`Transcoder`] does where there is a choice.
pub struct Config {
    /// Which services are served, by full name.
    pub services: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// Time and size of a method, by the path of its call.
    pub limits: Box<dyn Fn(&str) -> Limits + Send + Sync>,
    /// The longest message of an answer, in bytes.
    pub max_response_bytes: usize,
    /// Unknown fields in JSON and in a query are passed over instead of refused.
    pub ignore_unknown: bool,
    /// How JSON is written.
    pub print: PrintOptions,
    /// The request headers that go on as metadata.
    pub forward: Passing,
    /// The metadata of answers that becomes headers of REST and Connect; gRPC's own protocols show all of it.
    pub expose: Passing,
    /// The metadata by which a service chooses another success status of REST, 200 to 399.
    pub status_key: HeaderName,
    /// `WWW-Authenticate` of every 401.
    pub challenge: HeaderValue,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            services: Box::new(|_| true),
            limits: Box::new(|_| Limits::default()),
            max_response_bytes: 64 << 20,
            ignore_unknown: false,
            print: PrintOptions::default(),
            forward: Passing::Nothing,
            expose: Passing::Nothing,
            status_key: HeaderName::from_static("x-http-code"),
            challenge: HeaderValue::from_static("Bearer"),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("forward", &self.forward).field("expose", &self.expose).finish_non_exhaustive()
    }
}

/// The service: cheap to clone.
#[derive(Clone)]
pub struct Transcoder {
    shared: Arc<Shared>,
}

type Calling = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

struct Shared {
    table: Table,
    scribe: Scribe,
    behind: Box<dyn Fn(Request<Body>) -> Calling + Send + Sync>,
    parse: ParseOptions,
    print: PrintOptions,
    max_response_bytes: usize,
    forward: Passing,
    expose: Passing,
    status_key: HeaderName,
}

/// A request of which is known what it calls.
#[derive(Debug, Clone)]
pub struct Matched {
    method: Arc<Method>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Rest { route: Arc<Route>, captures: Vec<String> },
    Grpc,
    Web { text: bool },
    Connect(connect::Form),
}

impl Matched {
    /// The method that will be called.
    pub fn method(&self) -> &Arc<Method> {
        &self.method
    }
}

impl Transcoder {
    /// Compiles descriptors; `behind` is called with gRPC requests of HTTP/2.
    pub fn new<S, B>(pool: &DescriptorPool, behind: S, config: Config) -> Result<Self, RuleError>
    where
        S: tower::Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let schema = Schema::new(pool);
        let call = move |request| -> Calling {
            let answer = behind.clone().oneshot(request);
            Box::pin(answer.map_ok(|answer| answer.map(boxed)).map_err(Into::into))
        };
        let print = PrintOptions { max_bytes: config.max_response_bytes.saturating_mul(JSON_FACTOR), ..config.print };
        let shared = Shared {
            table: Table::new(&schema, pool, &*config.services, &*config.limits)?,
            scribe: Scribe { schema, print: print.clone(), challenge: config.challenge },
            behind: Box::new(call),
            parse: ParseOptions { ignore_unknown: config.ignore_unknown, ..ParseOptions::default() },
            print,
            max_response_bytes: config.max_response_bytes,
            forward: config.forward,
            expose: config.expose,
            status_key: config.status_key,
        };
        Ok(Transcoder { shared: Arc::new(shared) })
    }

    /// The methods that are served.
    pub fn methods(&self) -> impl Iterator<Item = &Arc<Method>> {
        self.shared.table.methods.values()
    }

    /// How many rules of `google.api.http` are served.
    pub fn routes(&self) -> usize {
        self.shared.table.routes.routes().count()
    }

    /// Finds what a request calls, before a token or a body is looked at; else the answer that says why nothing is called.
    pub fn find<B>(&self, request: &Request<B>) -> Result<Matched, Box<Response<Body>>> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = request.uri().path();
        if let Some(rest) = kind.strip_prefix("application/grpc") {
            return self.find_grpc(request, rest);
        }
        if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > MAX_URL) {
            let problem = Problem::new(Code::InvalidArgument, format!("the URL is longer than {MAX_URL} bytes"));
            return Err(Box::new(self.problem(&problem.with_http(StatusCode::URI_TOO_LONG))));
        }
        if let Some(method) = self.shared.table.methods.get(path) {
            return match connect::Form::of(method, request, kind) {
                Ok(form) => Ok(Matched { method: method.clone(), kind: Kind::Connect(form) }),
                Err(problem) => Err(Box::new(self.shared.scribe.connect(&problem))),
            };
        }
        self.find_route(request.method(), path).map_err(|problem| Box::new(self.problem(&problem)))
    }

    fn find_grpc<B>(&self, request: &Request<B>, rest: &str) -> Result<Matched, Box<Response<Body>>> {
        let is_end = |rest: &str| rest.is_empty() || rest.starts_with(['+', ';']);
        let kind = match rest.strip_prefix("-web") {
            None if is_end(rest) => Kind::Grpc,
            Some(rest) if is_end(rest) => Kind::Web { text: false },
            Some(rest) if rest.strip_prefix("-text").is_some_and(is_end) => Kind::Web { text: true },
            _ => return Err(Box::new(self.problem(&negotiate::unsupported("Content-Type")))),
        };
        if matches!(kind, Kind::Grpc) && request.version() < http::Version::HTTP_2 {
            let mut response = Response::new(body::empty());
            *response.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return Err(Box::new(response));
        }
        let refuse = |status: Status| Err(Box::new(grpc::only_trailers(&kind, &status)));
        let Some(method) = self.shared.table.methods.get(request.uri().path()) else {
            return refuse(Status::new(Code::Unimplemented, "no such method"));
        };
        if request.method() != http::Method::POST {
            return refuse(Status::new(Code::InvalidArgument, "a gRPC call is a POST"));
        }
        Ok(Matched { method: method.clone(), kind })
    }

    fn find_route(&self, method: &http::Method, path: &str) -> Result<Matched, Problem> {
        match self.shared.table.routes.find(method, path) {
            Ok(found) => {
                let route = found.value.clone();
                Ok(Matched { method: route.method.clone(), kind: Kind::Rest { route, captures: found.captures } })
            }
            Err(Miss::NotFound) => Err(Problem::new(Code::NotFound, "no such path")),
            Err(Miss::BadPath(error)) => Err(Problem::field("path", error.to_string())),
            Err(Miss::MethodNotAllowed(allowed)) => Err(not_allowed(&allowed.join(", "))),
        }
    }

    /// Serves a request whose method was found; the extensions of the request reach the service behind.
    pub async fn serve(&self, matched: Matched, request: Request<Body>) -> Response<Body> {
        let Matched { method, kind } = matched;
        match kind {
            Kind::Rest { route, captures } => rest::serve(&self.shared, &route, &captures, request).await,
            Kind::Grpc | Kind::Web { .. } => grpc::serve(&self.shared, &method, &kind, request).await,
            Kind::Connect(form) => connect::serve(&self.shared, &method, form, request).await,
        }
    }

    /// The answer to a request that is not served, in the form of its protocol.
    pub fn refuse(&self, matched: &Matched, problem: &Problem) -> Response<Body> {
        match &matched.kind {
            Kind::Rest { .. } => self.problem(problem),
            kind @ (Kind::Grpc | Kind::Web { .. }) => grpc::only_trailers(kind, &problem.status),
            Kind::Connect(form) => connect::refuse(&self.shared, form, problem),
        }
    }

    /// An error as REST writes it.
    pub fn problem(&self, problem: &Problem) -> Response<Body> {
        self.shared.scribe.answer(problem)
    }
}

/// 405 with the methods that are allowed.
fn not_allowed(allowed: &str) -> Problem {
    let problem = Problem::new(Code::Unimplemented, format!("this path answers {allowed}"))
        .with_http(StatusCode::METHOD_NOT_ALLOWED);
    match HeaderValue::from_str(allowed) {
        Ok(value) => problem.with_header(header::ALLOW, value),
        Err(_) => problem,
    }
}

impl<B> tower::Service<Request<B>> for Transcoder
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// Always ready: a call waits for the service behind, within its deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let transcoder = self.clone();
        Box::pin(async move {
            Ok(match transcoder.find(&request) {
                Ok(matched) => transcoder.serve(matched, request.map(boxed)).await,
                Err(response) => *response,
            })
        })
    }
}

impl fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcoder").field("routes", &self.routes()).finish_non_exhaustive()
    }
}
