//! The layers around a service's routes, as one tower service, written out in the order they apply:
//! trace -> identity -> policy -> deadline -> load shedding -> routes. Whatever becomes of a call is counted.
//!
//! Every refusal is a gRPC answer of headers only. A denied call, and a call that needs an operator, leave one audit record.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use auth::{Fleet, Identity, Role};
use bytes::Bytes;
use client::{Answer, Arrival, Callee};
use contract::{Access, Method, Table};
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use store::Clock;
use telemetry::{Trace, spans};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;
use tracing::Instrument as _;

use crate::accept::Certified;
use crate::answering::Answering;
use crate::body::{Bounded, Counted, Held};
use crate::call::{Call, Process};
use crate::messages::Messages;
use crate::shedding::{Places, Rank};
use crate::trail::{Trail, Written};
use crate::{deadline, status};

/// A service with its layers: answers calls of this process and of the network. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    layers: Arc<Layers>,
}

pub(crate) struct Layers {
    pub(crate) name: &'static str,
    pub(crate) methods: Table,
    pub(crate) routes: Routes,
    pub(crate) fleet: Option<Fleet>,
    /// Whether a call over the network has to come by a connection with a certificate.
    pub(crate) certified: bool,
    pub(crate) clock: Clock,
    pub(crate) places: Places,
    pub(crate) trail: Trail,
    pub(crate) process: Arc<Process>,
}

impl Service {
    pub(crate) fn new(layers: Layers) -> Self {
        Service { layers: Arc::new(layers) }
    }
}

impl Callee for Service {
    fn call(&self, request: Request<Body>) -> Answer {
        let layers = Arc::clone(&self.layers);
        Box::pin(async move { layers.answer(request).await })
    }
}

impl<B> tower::Service<Request<B>> for Service
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
        if crate::metrics::asked(&request) {
            return Box::pin(std::future::ready(Ok(crate::metrics::answer())));
        }
        let layers = Arc::clone(&self.layers);
        let request = request.map(Body::new);
        Box::pin(async move { Ok(layers.answer(request).await) })
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({})", self.layers.name)
    }
}

/// What every caller may ask for that no contract describes: is it alive, what does it serve.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

impl Layers {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        self.pass(request).await.unwrap_or_else(Status::into_http)
    }

    async fn pass(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let path = request.uri().path();
        let Some(method) = self.methods.by_path(path) else {
            if OPEN.iter().any(|open| path.starts_with(open)) {
                return Ok(self.route(request).await);
            }
            return Err(Status::unimplemented(format!("{} has no such method", self.name)));
        };

        let (arrival, from_here) = match request.extensions_mut().remove::<Arrival>() {
            Some(arrival) => (Ok(arrival), true),
            None => (self.arrival(method, &mut request), false),
        };
        let parent = arrival.as_ref().map_or_else(|_| Trace::new_root(), |arrival| arrival.trace);
        let serving = Answering::begin(self.name, method, &parent);
        let answer = match arrival {
            Ok(arrival) => {
                let arrival = Arrival { trace: serving.trace(), ..arrival };
                self.admitted(method, arrival, from_here, request).await
            }
            Err(status) => Err(status),
        };
        match answer {
            // A stream is over with its last message.
            Ok(response) if method.server_streaming && code(response.headers()) == Code::Ok => {
                Ok(response.map(|body| Body::new(Counted::new(body, serving))))
            }
            Ok(response) => {
                serving.end(code(response.headers()));
                Ok(response)
            }
            Err(status) => {
                serving.end(status.code());
                Err(status)
            }
        }
    }

    async fn admitted(
        &self,
        method: &'static Method,
        arrival: Arrival,
        from_here: bool,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let trace = arrival.trace;
        let span = tracing::info_span!(
            "call",
            method = method.path,
            trace_id = %trace.id(),
            caller = %arrival.identity.caller,
        );
        let work = self.admit(method, arrival, from_here, request).instrument(span);
        spans::within(trace, work).await
    }

    async fn admit(
        &self,
        method: &'static Method,
        arrival: Arrival,
        from_here: bool,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let decision = auth::decide(method, &arrival.identity);
        let written = Written { method, identity: &arrival.identity, trace: arrival.trace };
        if let Err(denied) = decision {
            self.trail.denied(&written, &denied.to_string());
            return Err(refusal(denied));
        }
        if arrival.deadline <= Instant::now() {
            return Err(Status::deadline_exceeded("the deadline had passed before the call arrived"));
        }
        #[cfg(feature = "planted-bugs")]
        crate::planted::failure()?;
        let mut place = self.places.take(method, rank(method, &arrival.identity))?;
        if method.policy.access == Access::Operator {
            let writing = store::deadline::within(arrival.deadline, self.trail.admitted(&written));
            writing.await.map_err(|error| status::of_log(&error))?;
        }

        request.extensions_mut().insert(Call {
            identity: Arc::new(arrival.identity),
            trace: arrival.trace,
            deadline: arrival.deadline,
            method,
            trail: self.trail.clone(),
            process: Arc::clone(&self.process),
            place: place.holder(),
        });
        let body = std::mem::replace(request.body_mut(), Body::empty());
        let body = Body::new(place.awaiting(body));
        *request.body_mut() = Body::new(Messages::new(body, method.max_request_bytes as usize));
        let work = store::deadline::within(arrival.deadline, self.route(request));
        let answer = AssertUnwindSafe(work).catch_unwind();
        let answer = if from_here {
            // The caller holds the clock of its own call, and drops this future when it is over.
            answer.await
        } else {
            let late = |_| Status::deadline_exceeded(format!("{} was not done in time", method.name));
            tokio::time::timeout_at(arrival.deadline, answer).await.map_err(late)?
        };
        match answer {
            Ok(response) if method.server_streaming => Ok(response.map(|body| Body::new(Held::new(body, place)))),
            Ok(response) => {
                if code(response.headers()) == Code::Ok {
                    place.well();
                }
                Ok(response)
            }
            Err(_) => {
                tracing::error!(method = method.path, "the handler panicked");
                Err(Status::internal("an internal error; it has been logged"))
            }
        }
    }

    async fn route(&self, request: Request<Body>) -> Response<Body> {
        let mut routes = self.routes.clone();
        routes.call(request).await.unwrap_or_else(|never| match never {})
    }

    /// What a call from the network says about itself, as far as it is believed.
    fn arrival(&self, method: &'static Method, request: &mut Request<Body>) -> Result<Arrival, Status> {
        let certified = request.extensions_mut().remove::<Certified>();
        let headers = request.headers_mut();
        let identity = self.identity(headers)?;
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let trace = traceparent.and_then(|text| Trace::parse(text).ok()).unwrap_or_else(Trace::new_root);
        // Whoever proved nothing is refused by the policy. A token is signed by whoever has the fleet's key, a certificate by
        // the authority: neither opens anything alone.
        let shown = certified.as_ref().map(|Certified(name)| name.as_str());
        if self.certified && !identity.caller.is_empty() && shown != Some(identity.caller.as_ref()) {
            let reason = auth::Denied::OtherProcess;
            let certificate = shown.unwrap_or("nobody");
            self.trail.denied(&Written { method, identity: &identity, trace }, &format!("{reason}: {certificate}"));
            return Err(refusal(reason));
        }
        headers.remove(http::header::AUTHORIZATION);
        let timeout = deadline::requested(headers)?.unwrap_or(method.deadline);
        if !method.client_streaming {
            // gRPC puts five bytes before the message.
            let limit = 5 + method.max_request_bytes as usize;
            let body = std::mem::replace(request.body_mut(), Body::empty());
            *request.body_mut() = Body::new(Bounded::new(body, limit));
        }
        Ok(Arrival { identity, trace, deadline: Instant::now() + timeout.min(method.deadline) })
    }

    /// Whoever does not show exactly one token of this fleet, for this service, is nobody. A genuine one that the clock speaks
    /// against is no reason to tell the person at the door that theirs is not good.
    fn identity(&self, headers: &HeaderMap) -> Result<Identity, Status> {
        let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
        let (Some(fleet), Some(value), None) = (&self.fleet, values.next(), values.next()) else {
            return Ok(Identity::default());
        };
        let Some(token) = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")) else {
            return Ok(Identity::default());
        };
        match fleet.verify(token, self.name, self.clock.now()) {
            Ok(identity) => Ok(identity),
            Err(refused) => {
                tracing::warn!(target: "audit", service = self.name, reason = %refused, "token refused");
                if !refused.is_of_time() {
                    return Ok(Identity::default());
                }
                let message =
                    format!("the clocks of {} and of its caller are more than {} s apart", self.name, auth::SKEW_S);
                Err(status::rejected(Code::Unavailable, "CLOCKS_APART", message, []))
            }
        }
    }
}

/// How much is lost when this call is refused. What a service asks for on its own business belongs to something that has begun,
/// and whoever runs the shop has to get in when it is full.
fn rank(method: &Method, identity: &Identity) -> Rank {
    let subject = identity.principal.subject();
    let operator = subject.is_some_and(|subject| subject.role == Role::Operator);
    if operator || !auth::speaks_for_people(&identity.caller) { Rank::Finishing } else { Rank::of(method) }
}

/// The code of an answer: a refusal carries its status in the headers, without a body.
fn code(headers: &HeaderMap) -> Code {
    headers.get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

fn refusal(denied: auth::Denied) -> Status {
    if denied.is_unauthenticated() {
        status::rejected(tonic::Code::Unauthenticated, "UNAUTHENTICATED", "a valid token is needed", [])
    } else {
        status::permission_denied("PERMISSION_DENIED", "the caller may not do this")
    }
}
