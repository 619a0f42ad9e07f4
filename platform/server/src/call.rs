//! What a handler knows about the call it answers.

use std::future::Future;
use std::sync::Arc;

use auth::{Identity, Principal, Role, Subject};
use client::Outgoing;
use contract::{Guard, Method};
use telemetry::{Trace, spans};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Status};
use tracing::Instrument as _;

use crate::page::Sealer;
use crate::shedding::Holder;
use crate::status;
use crate::trail::{Trail, Written};

/// The call a handler answers: who makes it, in which story, until when. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which process calls, and for whom; the method's policy has let them in.
    pub identity: Arc<Identity>,
    /// The story the call belongs to.
    pub trace: Trace,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// What the contract promises about the method.
    pub method: &'static Method,
    pub(crate) trail: Trail,
    pub(crate) process: Arc<Process>,
    pub(crate) place: Holder,
}

/// What all calls of one process share.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) writes: TaskTracker,
    pub(crate) pages: Sealer,
    pub(crate) shutdown: CancellationToken,
}

impl Call {
    /// The call behind a request. Only a request that came through the layers has one.
    pub fn of<T>(request: &Request<T>) -> Result<Call, Status> {
        let call = request.extensions().get::<Call>();
        call.cloned().ok_or_else(|| Status::internal("the request did not pass the layers of its service"))
    }

    /// Cancelled when the process is to end: an answer without an end of its own ends then, for a drain waits for it.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.process.shutdown
    }

    /// The person the call is made for; nobody when a service calls on its own business, or an outsider without a token.
    pub fn subject(&self) -> Option<&Subject> {
        self.identity.principal.subject()
    }

    /// The person the call is made for, or `UNAUTHENTICATED`.
    pub fn require_subject(&self) -> Result<&Subject, Status> {
        self.subject().ok_or_else(|| Status::unauthenticated("a token is needed"))
    }

    /// The calling service's short name, `gateway`, or `operator`.
    pub fn caller(&self) -> &str {
        &self.identity.caller
    }

    /// Whether another service calls on its own business, which is trusted with every resource the method reaches.
    pub fn is_service(&self) -> bool {
        !auth::speaks_for_people(self.caller()) && self.subject().is_none()
    }

    /// Whether an operator, or a service on its own business, is calling.
    pub fn is_privileged(&self) -> bool {
        self.is_service() || self.subject().is_some_and(|subject| subject.role == Role::Operator)
    }

    /// Whether the caller may see and change what belongs to `owner` (`users/{u}` or `guests/{g}`): it is theirs, or they are
    /// privileged. If not, answer as if it did not exist.
    pub fn owns(&self, owner: &str) -> bool {
        !Guard::Ownership.stands() || self.is_privileged() || self.subject().is_some_and(|subject| subject.id == owner)
    }

    /// Whose request ids and page tokens these are: a service's own, whoever it acts for, or the person's.
    pub fn principal(&self) -> String {
        if !auth::speaks_for_people(self.caller()) {
            return format!("services/{}", self.caller());
        }
        self.subject().map_or_else(|| "anonymous".to_owned(), |subject| subject.id.clone())
    }

    /// A call to another service for the same person, in the same story, within the same time.
    pub fn outgoing<T>(&self, message: T) -> Request<T> {
        self.forwarding().request(message)
    }

    /// What [`outgoing`](Self::outgoing) says about its call.
    pub fn forwarding(&self) -> Outgoing {
        Outgoing { principal: self.identity.principal.clone(), ..self.itself() }
    }

    /// A call on this service's own business, in the same story, within the same time.
    pub fn itself(&self) -> Outgoing {
        Outgoing { principal: Principal::Anonymous, trace: self.trace, deadline: Some(self.deadline) }
    }

    /// The identity of a request with effects, for `Log::once`; nothing without a request id, or when the reply is a secret
    /// that must not be stored.
    pub fn request<M: prost::Message>(&self, message: &M, request_id: &str) -> Option<log::Request> {
        if request_id.is_empty() || self.method.secret_reply || !Guard::RequestId.stands() {
            return None;
        }
        Some(log::Request::new(self.principal(), self.method.path, request_id, &message.encode_to_vec()))
    }

    /// The circumstances of the events this call appends.
    pub fn meta(&self) -> log::Meta {
        log::Meta {
            causation: format!("{}/{}", self.method.path.trim_start_matches('/'), self.trace.span()),
            correlation: self.trace.id(),
            traceparent: self.trace.traceparent(),
        }
    }

    /// Writes down what an operator changed by this call, why, and what came of it.
    pub async fn changed(&self, resource: &str, reason: &str, outcome: &str) {
        let written = Written { method: self.method, identity: &self.identity, trace: self.trace };
        self.trail.done(&written, resource, reason, outcome).await;
    }

    /// Runs a write to its end even if the caller vanishes, and gives its outcome to whoever still waits; a drain waits for
    /// it. A transaction that is kept waiting by others past the deadline has no effect.
    pub async fn detached<T, F>(&self, write: F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let write = spans::within(self.trace, store::deadline::inherited(write)).in_current_span();
        match self.process.writes.spawn(write).await {
            Ok(outcome) => outcome,
            Err(broken) => Err(status::fault(self.method.path, &broken)),
        }
    }

    /// Does what is a wait for somebody else: a provider, a saga, a change to come. Meanwhile the call takes no place from others,
    /// and how long it takes is not held against the service.
    pub async fn aside<F: Future>(&self, wait: F) -> F::Output {
        let _aside = self.place.aside();
        wait.await
    }

    /// The token that continues a list of `filter` at `cursor`, for this principal and method alone; empty for no more.
    pub fn page_token(&self, filter: &str, cursor: Option<&str>) -> String {
        cursor.map_or_else(String::new, |cursor| {
            self.process.pages.seal(self.method.path, &self.principal(), filter, cursor)
        })
    }

    /// Where a list continues, or nothing for its first page; a token of another list, filter or principal is refused.
    pub fn cursor(&self, filter: &str, page_token: &str) -> Result<Option<String>, Status> {
        if page_token.is_empty() {
            return Ok(None);
        }
        match self.process.pages.open(self.method.path, &self.principal(), filter, page_token) {
            Some(cursor) => Ok(Some(cursor)),
            None => Err(status::invalid_argument("page_token", "is no token of this list, filter and caller")),
        }
    }
}
