//! One caller's way to one callee, as the tower service a generated client is built over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use auth::{Identity, Principal};
use bytes::Bytes;
use contract::{Method, Table};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use store::crash::{self, Kind};
use telemetry::{Trace, metrics};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::ServiceExt as _;

use crate::breaker::{self, Breaker, Pass, Refused};
use crate::calling::Calling;
use crate::endpoints::{End, Endpoints, Place};
use crate::outgoing::Outgoing;
use crate::registry::{Signing, Slot, Target};
use crate::retry::{self, Budget};
use crate::stale::Kept;

/// What a service that runs in this process is to its callers: its own layers, called directly.
pub trait Callee: Send + Sync + 'static {
    /// Answers one call, whose [`Arrival`] is among the request's extensions.
    fn call(&self, request: http::Request<Body>) -> Answer;
}

/// The answer of a [`Callee`]; a failure is a response with a gRPC status, never an error.
pub type Answer = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

/// What a callee in this process is told about a call. Nothing on the network can make one, so it is believed.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Who calls, and for whom.
    pub identity: Identity,
    /// The call's own span.
    pub trace: Trace,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// One caller's way to one callee. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    caller: &'static str,
    methods: Table,
    slot: Arc<Slot>,
    budget: Budget,
    breaker: Breaker,
    counted: metrics::Circuit,
    kept: Option<Arc<Kept>>,
}

impl Channel {
    pub(crate) fn new(caller: &'static str, methods: Table, slot: Arc<Slot>, kept: Option<Arc<Kept>>) -> Self {
        let callee = slot.name;
        let counted = metrics::Circuit::between(caller, callee);
        let told = counted.clone();
        let breaker = Breaker::new(breaker::Limits::default(), move |circuit| {
            circuit.tell(caller, callee);
            told.set(circuit.into());
        });
        Channel { inner: Arc::new(Inner { caller, methods, slot, budget: Budget::default(), breaker, counted, kept }) }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({}->{})", self.inner.caller, self.inner.slot.name)
    }
}

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let method = inner.methods.by_path(request.uri().path());
            let mut calling = Calling::begin(inner.caller, inner.slot.name, method, &mut request);
            let answer = inner.send(method, request, &mut calling).await;
            calling.end(match &answer {
                Ok(response) => retry::code(response.headers()).unwrap_or(tonic::Code::Ok),
                Err(status) => status.code(),
            });
            answer
        })
    }
}

/// The domain of the reason in an answer of our own.
const DOMAIN: &str = "stoa";

/// What is taken off the remaining time at each hop, so that a caller hears of a deadline from its callee and not from its
/// own clock.
const MARGIN: Duration = Duration::from_millis(2);

/// How long a callee must have had for its silence to count as a failure: who waits for less proves nothing about it, and must
/// not be able to keep others away from it.
const GOOD_TIME: Duration = Duration::from_millis(250);

impl Inner {
    async fn send(
        &self,
        method: Option<&'static Method>,
        request: http::Request<Body>,
        calling: &mut Calling,
    ) -> Result<http::Response<Body>, Status> {
        let (mut parts, body) = request.into_parts();
        let outgoing = parts.extensions.remove::<Outgoing>().unwrap_or_default();
        let Some(method) = method else {
            return Err(Status::unimplemented(format!("no contract has {}", parts.uri.path())));
        };
        let now = Instant::now();
        let contract = now + method.deadline;
        let deadline =
            outgoing.deadline.map_or(contract, |deadline| deadline.checked_sub(MARGIN).unwrap_or(now).min(contract));
        if deadline <= now {
            return Err(self.late(method));
        }
        let call = Call { method, principal: outgoing.principal, trace: outgoing.trace, deadline };
        self.budget.earn();
        if !retry::repeatable(method) {
            let message = Message::of_one_attempt(body, method, &self.slot).await?;
            let pass = self.breaker.admit().map_err(|refused| self.open(refused, calling))?;
            return self.judged(pass, &call, parts, message, calling).await;
        }

        let message = buffer(body, method).await?;
        let kept = self.kept.as_ref().filter(|_| Kept::concerns(method, &call.principal));
        let answer = self.repeated(&call, parts, &message, calling).await;
        match (kept, answer) {
            (Some(kept), Ok(answer)) if !no_answer(retry::code(answer.headers())) => {
                Ok(kept.keep(method, &message, answer))
            }
            (Some(kept), answer) if no_answer(code_of(&answer)) => match kept.instead(method, &message) {
                Some(known) => {
                    calling.stale();
                    Ok(known)
                }
                None => answer,
            },
            (_, answer) => answer,
        }
    }

    /// Sends a call that may be sent again, as often as it may be.
    async fn repeated(
        &self,
        call: &Call,
        parts: Parts,
        message: &Bytes,
        calling: &mut Calling,
    ) -> Result<http::Response<Body>, Status> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            // Who is left alone is not asked again either.
            let pass = self.breaker.admit().map_err(|refused| self.open(refused, calling))?;
            let answer = self.judged(pass, call, parts.clone(), Message::Kept(message.clone()), calling).await;
            let pause = match &answer {
                Ok(response) if retry::unavailable(response.headers()) => {
                    self.budget.pause(attempt, response.headers(), call.deadline)
                }
                Err(status) if status.code() == tonic::Code::Unavailable => {
                    self.budget.pause(attempt, &HeaderMap::new(), call.deadline)
                }
                Ok(_) | Err(_) => None,
            };
            let Some(pause) = pause else { return answer };
            tracing::debug!(callee = self.slot.name, method = call.method.name, attempt, "unavailable, trying again");
            metrics::retried(self.caller, self.slot.name);
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt, whose end is told to the breaker.
    async fn judged(
        &self,
        pass: Pass<'_>,
        call: &Call,
        parts: Parts,
        message: Message,
        calling: &mut Calling,
    ) -> Result<http::Response<Body>, Status> {
        let begun = Instant::now();
        let answer = self.attempt(call, parts, message).await;
        let patient = call.deadline.saturating_duration_since(begun) >= GOOD_TIME;
        // A callee that does not serve yet was not asked.
        let asked = self.slot.target.load().is_some();
        if let Some(circuit) = pass.ended(if asked { end_of(code_of(&answer), patient) } else { breaker::End::Unknown })
        {
            calling.moved(circuit);
        }
        answer
    }

    async fn attempt(&self, call: &Call, parts: Parts, message: Message) -> Result<http::Response<Body>, Status> {
        let target = self.slot.target.load_full();
        let Some(target) = target.as_deref() else {
            return Err(Status::unavailable(format!("{} does not serve yet", self.slot.name)));
        };
        let identity = Identity { caller: Cow::Borrowed(self.caller), principal: call.principal.clone() };
        self.pass(Kind::CallBefore, call.method);
        let answer = match target {
            Target::Here(callee) => {
                let request = http::Request::from_parts(parts, message.into_body());
                self.here(call, callee.as_ref(), identity, request).await
            }
            Target::Elsewhere { copies, signing } => {
                self.elsewhere(call, copies, signing, &identity, parts, message).await
            }
        };
        self.pass(Kind::CallAfter, call.method);
        answer
    }

    async fn here(
        &self,
        call: &Call,
        callee: &dyn Callee,
        identity: Identity,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        request.extensions_mut().insert(Arrival { identity, trace: call.trace, deadline: call.deadline });
        match tokio::time::timeout_at(call.deadline, callee.call(request)).await {
            Ok(response) => Ok(response),
            Err(_) => Err(self.late(call.method)),
        }
    }

    /// Sends the call to a copy, and to another one as long as it certainly reached none.
    async fn elsewhere(
        &self,
        call: &Call,
        copies: &Endpoints,
        signing: &Signing,
        identity: &Identity,
        mut parts: Parts,
        message: Message,
    ) -> Result<http::Response<Body>, Status> {
        let token = signing
            .fleet
            .sign(identity, self.slot.name, signing.clock.now())
            .map_err(|error| Status::internal(error.to_string()))?;
        parts.headers.insert(http::header::AUTHORIZATION, header(format!("Bearer {token}"))?);
        parts.headers.insert("traceparent", header(call.trace.traceparent())?);
        let mut message = Some(message);
        let mut tried = Vec::new();
        while let Some(place) = copies.take(&tried)
            && let Some(now) = message.take()
        {
            // A stream of requests can be sent once.
            message = now.again();
            let left = call.deadline.saturating_duration_since(Instant::now());
            parts.headers.insert("grpc-timeout", header(timeout(left))?);
            let request = http::Request::from_parts(parts.clone(), now.into_body());
            match self.to_copy(call, &place, request).await {
                Sent::Answered(response) => return Ok(response),
                Sent::Late => return Err(self.late(call.method)),
                Sent::Broken => break,
                Sent::Unsent => tried.push(place.copy()),
            }
        }
        Err(Status::unavailable(format!("{} cannot be reached", self.slot.name)))
    }

    async fn to_copy(&self, call: &Call, place: &Place, request: http::Request<Body>) -> Sent {
        let mut channel = match place.channel(self.caller) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::error!(caller = self.caller, callee = self.slot.name, %error, "the caller cannot prove itself");
                return Sent::Unsent;
            }
        };
        let answer = async {
            channel.ready().await?;
            tower::Service::call(&mut channel, request).await
        };
        match tokio::time::timeout_at(call.deadline, answer).await {
            Ok(Ok(response)) => {
                let unable = retry::unavailable(response.headers());
                place.ended(if unable { End::Unable } else { End::Answered });
                let callee = self.slot.name;
                Sent::Answered(response.map(|body| Body::new(body.map_err(move |error| broken_off(callee, &error)))))
            }
            // The connection's own timer, set by `grpc-timeout`, may fire first and calls it a cancellation.
            Ok(Err(_)) if Instant::now() + MARGIN >= call.deadline => {
                place.ended(End::Unable);
                Sent::Late
            }
            Ok(Err(error)) => {
                place.ended(End::Broken);
                let unsent = retry::unsent(&error);
                tracing::debug!(callee = self.slot.name, %error, unsent, "the connection failed");
                // Else whether the copy did anything is unknown: who may repeat, repeats.
                if unsent { Sent::Unsent } else { Sent::Broken }
            }
            Err(_) => {
                place.ended(End::Unable);
                Sent::Late
            }
        }
    }

    /// The answer in the place of a callee that is left alone.
    fn open(&self, refused: Refused, calling: &mut Calling) -> Status {
        self.counted.refused();
        calling.refused(refused.circuit);
        let mut details = ErrorDetails::with_error_info("CIRCUIT_OPEN", DOMAIN, HashMap::new());
        details.set_retry_info(Some(refused.pause));
        let message = format!("{} fails too often and is left alone for a moment", self.slot.name);
        Status::with_error_details(tonic::Code::Unavailable, message, details)
    }

    fn late(&self, method: &Method) -> Status {
        Status::deadline_exceeded(format!("{} did not answer {} in time", self.slot.name, method.name))
    }

    fn pass(&self, kind: Kind, method: &Method) {
        if crash::active() {
            crash::hit(kind, &format!("{}->{}", self.caller, method.path));
        }
    }
}

/// What a caller is told of a callee that began to answer and is gone: as little is known of what it did as of one that never
/// answered.
fn broken_off(callee: &str, error: &Status) -> Status {
    tracing::debug!(callee, %error, "the connection failed in the middle of an answer");
    Status::unavailable(format!("{callee} broke off in the middle of its answer"))
}

fn code_of(answer: &Result<http::Response<Body>, Status>) -> Option<tonic::Code> {
    answer.as_ref().map_or_else(|status| Some(status.code()), |response| retry::code(response.headers()))
}

/// Whether the callee did not answer, so that what it said earlier may stand in.
fn no_answer(code: Option<tonic::Code>) -> bool {
    matches!(code, Some(tonic::Code::Unavailable | tonic::Code::DeadlineExceeded))
}

/// What an answer says of who gave it; `patient` is whether it had good time.
fn end_of(code: Option<tonic::Code>, patient: bool) -> breaker::End {
    match code {
        Some(tonic::Code::Unavailable) => breaker::End::Failed,
        Some(tonic::Code::DeadlineExceeded) if patient => breaker::End::Failed,
        Some(tonic::Code::DeadlineExceeded | tonic::Code::Cancelled) => breaker::End::Unknown,
        Some(_) | None => breaker::End::Answered,
    }
}

/// What became of a call at one copy.
enum Sent {
    Answered(http::Response<Body>),
    Late,
    /// Nobody knows whether the copy got it.
    Broken,
    /// The copy did not get it.
    Unsent,
}

/// What is sent: kept, so that it can go to another copy, or a stream that flows by.
enum Message {
    Kept(Bytes),
    Once(Body),
}

impl Message {
    /// The message of a call that is attempted once: kept only where it goes over the network.
    async fn of_one_attempt(body: Body, method: &Method, slot: &Slot) -> Result<Self, Status> {
        let elsewhere = matches!(slot.target.load().as_deref(), Some(Target::Elsewhere { .. }));
        if elsewhere && !method.client_streaming {
            return Ok(Message::Kept(buffer(body, method).await?));
        }
        Ok(Message::Once(body))
    }

    fn again(&self) -> Option<Self> {
        match self {
            Message::Kept(bytes) => Some(Message::Kept(bytes.clone())),
            Message::Once(_) => None,
        }
    }

    fn into_body(self) -> Body {
        match self {
            Message::Kept(bytes) => Body::new(Full::new(bytes)),
            Message::Once(body) => body,
        }
    }
}

/// One call, the same over all its attempts.
struct Call {
    method: &'static Method,
    principal: Principal,
    trace: Trace,
    deadline: Instant,
}

/// Keeps a request so that it can be sent again.
async fn buffer(mut body: Body, method: &Method) -> Result<Bytes, Status> {
    // gRPC puts five bytes before each message.
    let limit = 5 + method.max_request_bytes as usize;
    let mut whole = Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if whole.len() + data.len() > limit {
            return Err(Status::resource_exhausted(format!(
                "the request is larger than {} bytes",
                method.max_request_bytes
            )));
        }
        whole = if whole.is_empty() { data } else { [whole, data].concat().into() };
    }
    Ok(whole)
}

fn header(value: String) -> Result<HeaderValue, Status> {
    HeaderValue::try_from(value).map_err(|_| Status::internal("a header of the call is malformed"))
}

/// A duration as `grpc-timeout` writes it: at most eight digits, rounded down, in the finest unit that fits.
fn timeout(left: Duration) -> String {
    const MOST: u128 = 99_999_999;
    if left.as_micros() <= MOST {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= MOST {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_at_most_eight_digits() {
        assert_eq!(timeout(Duration::from_millis(1500)), "1500000u");
        assert_eq!(timeout(Duration::from_secs(100)), "100000m");
        assert_eq!(timeout(Duration::from_secs(1_000_000)), "1000000S");
        assert_eq!(timeout(Duration::MAX), "99999999S");
        assert_eq!(timeout(Duration::ZERO), "0u");
    }
}
