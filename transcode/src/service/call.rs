//! One call of the service behind: its request, its time, the beginning of its answer.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, Version, header};
use tokio::time::{Instant, timeout_at};

use super::{
    Shared,
    body::{Body, Messages},
    metadata,
    problem::Problem,
    status::{Code, Status},
    table::Method,
};

/// What the service behind may want to know of a request; it is among the request's extensions.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is called.
    pub method: Arc<Method>,
    /// When the answer must be there, streams to their end.
    pub deadline: Instant,
    /// The only message of the request, where it is known before the call.
    pub message: Option<Bytes>,
}

/// An answer of which the beginning is known: the first message, or none if there was none.
pub(crate) struct Begun {
    pub(crate) first: Option<Bytes>,
    pub(crate) messages: Messages,
}

/// A call that failed, with what metadata there was.
pub(crate) struct Failed {
    pub(crate) status: Status,
    pub(crate) head: HeaderMap,
    pub(crate) trailers: HeaderMap,
}

impl From<Status> for Box<Failed> {
    fn from(status: Status) -> Self {
        Box::new(Failed { status, head: HeaderMap::new(), trailers: HeaderMap::new() })
    }
}

impl Call {
    /// The call of a method that a client's headers ask for: it is over when they say, or when the method's own time is.
    pub(crate) fn new(method: &Arc<Method>, headers: &HeaderMap) -> Result<Self, Problem> {
        let most = method.limits.deadline;
        let time = metadata::timeout(headers)?.map_or(most, |asked| asked.min(most));
        Ok(Call { method: method.clone(), deadline: Instant::now() + time, message: None })
    }

    /// The request of the call.
    pub(crate) fn request(self, metadata: HeaderMap, mut extensions: Extensions, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.method.uri.clone();
        *request.headers_mut() = metadata;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let headers = request.headers_mut();
        headers.insert("grpc-timeout", metadata::grpc_timeout_of(left));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        extensions.insert(self);
        *request.extensions_mut() = extensions;
        request
    }
}

impl Shared {
    /// Sends a call and gives back the answer's head and body.
    pub(crate) async fn call(&self, request: Request<Body>, deadline: Instant) -> Result<Response<Body>, Status> {
        match timeout_at(deadline, (self.behind)(request)).await {
            Ok(answer) => answer.map_err(|error| Status::from_error(&error, "the service cannot be reached")),
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "the answer took too long")),
        }
    }

    /// Sends a call and waits for the first message; if there is to be one only, also for the status behind it, which may
    /// still be an error.
    pub(crate) async fn begin(
        &self,
        request: Request<Body>,
        streaming: bool,
        deadline: Instant,
    ) -> Result<Begun, Box<Failed>> {
        let answer = self.call(request, deadline).await?;
        let mut messages = Messages::new(answer, self.max_response_bytes)?;
        let first = async {
            let first = messages.next().await?;
            if !streaming {
                if first.is_none() {
                    return Err(Status::new(Code::Internal, "the service answered without a message"));
                }
                if messages.next().await?.is_some() {
                    return Err(Status::new(Code::Internal, "the service answered twice"));
                }
            }
            Ok(first)
        };
        let late = || Status::new(Code::DeadlineExceeded, "the answer took too long");
        match timeout_at(deadline, first).await.unwrap_or_else(|_| Err(late())) {
            Ok(first) => Ok(Begun { first, messages }),
            Err(status) => {
                let (head, trailers) = (messages.head().clone(), messages.trailers().clone());
                Err(Box::new(Failed { status, head, trailers }))
            }
        }
    }
}
