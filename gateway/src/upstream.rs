//! Where a call goes: to the service that owns the method, or, for operations, to the service named in the request.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use auth::{GATEWAY, Principal};
use bytes::Bytes;
use client::{Caller as Clients, Channel, Outgoing};
use contract::{Access, Table};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use prost_reflect::DescriptorPool;
use server::status;
use telemetry::Trace;
use tokio::time::timeout_at;
use tonic::{Status, body::Body};
use tower::Service;
use transcode::service::{self, BoxError, Call, Problem};

use crate::peek::peek;

/// The owner of methods that every service answers.
const OPERATIONS: &str = "operations";

/// Who sent a request and in which story, as the door found out; an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) trace: Trace,
}

/// The channels to all services, made once.
pub(crate) struct Services {
    methods: Table,
    channels: HashMap<&'static str, Channel>,
    /// For each method of operations, the numbers of the fields that may hold `services/{service}/...`.
    named_by: HashMap<String, Vec<u32>>,
}

impl Services {
    pub(crate) fn new(pool: &DescriptorPool, methods: Table, clients: &Clients) -> Self {
        let mut channels = HashMap::new();
        let mut named_by = HashMap::new();
        for method in methods.iter() {
            if method.owner == OPERATIONS {
                let input = pool.get_message_by_name(method.input);
                let fields = ["name", "parent"]
                    .iter()
                    .filter_map(|field| Some(input.as_ref()?.get_field_by_name(field)?.number()));
                named_by.insert(method.path.to_owned(), fields.collect());
            } else {
                channels.entry(method.owner).or_insert_with(|| clients.channel(method.owner));
            }
        }
        // Beside the services, the process of the gateway itself can be asked for what it did.
        channels.entry(GATEWAY).or_insert_with(|| clients.channel(GATEWAY));
        Services { methods, channels, named_by }
    }

    /// The channel for a call.
    pub(crate) fn channel(&self, path: &str, first: Option<&[u8]>) -> Result<Channel, Status> {
        let owner = match self.named_by.get(path) {
            Some(fields) => {
                let name = first
                    .and_then(|message| fields.iter().find_map(|field| transcode::find_text(message, *field)))
                    .unwrap_or_default();
                service_in(name).ok_or_else(|| {
                    server::status::invalid_argument("name", "is not of the form services/{service}/...")
                })?
            }
            None => self
                .methods
                .by_path(path)
                .map(|method| method.owner)
                .ok_or_else(|| Status::unimplemented("no such method"))?,
        };
        self.channels.get(owner).cloned().ok_or_else(|| server::status::not_found(&format!("services/{owner}")))
    }
}

fn service_in(name: &str) -> Option<&str> {
    let service = name.strip_prefix("services/")?.split('/').next()?;
    (!service.is_empty()).then_some(service)
}

/// The services behind the transcoder: a call goes to the one that owns it.
#[derive(Clone)]
pub(crate) struct Behind(pub(crate) Arc<Services>);

type Answer = Result<Response<service::Body>, service::Status>;

impl Service<Request<service::Body>> for Behind {
    type Response = Response<service::Body>;
    type Error = service::Status;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), service::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<service::Body>) -> Self::Future {
        let services = Arc::clone(&self.0);
        let call = request.extensions_mut().remove::<Call>();
        Box::pin(async move {
            let answer = match call {
                Some(call) => services.call(&call, request.map(Body::new)).await,
                None => Err(Status::internal("a request without a call")),
            };
            let answer = answer.map_err(|status| status_of(&status))?;
            Ok(answer.map(|body| service::boxed(body.map_err(|status| status_of(&status)))))
        })
    }
}

impl Services {
    async fn call(&self, call: &Call, request: Request<Body>) -> Result<Response<Body>, Status> {
        let method = self.methods.by_path(&call.method.path).ok_or_else(|| Status::unimplemented("no such method"))?;
        // What services ask each other is refused by the service; but what this gateway itself may ask, it must not ask for
        // somebody else.
        if method.policy.access == Access::Internal && method.policy.callers.contains(&GATEWAY) {
            tracing::warn!(target: "audit", method = method.path, caller = GATEWAY, "denied: asked from outside");
            return Err(status::permission_denied("PERMISSION_DENIED", "the caller may not do this"));
        }
        let (mut parts, body) = request.into_parts();
        let (first, body) = match &call.message {
            None if self.named_by.contains_key(method.path) => {
                let read = timeout_at(call.deadline, peek(body, method.max_request_bytes as usize)).await;
                let (first, body) = read.map_err(|_| Status::deadline_exceeded("the request took too long"))??;
                (Some(first), body)
            }
            message => (message.clone(), body),
        };
        let mut channel = self.channel(method.path, first.as_deref())?;
        // The channel tells the time that is left itself.
        parts.headers.remove("grpc-timeout");
        let caller = parts.extensions.remove::<Caller>();
        let (principal, trace) =
            caller.map_or_else(|| (Principal::Anonymous, Trace::new_root()), |caller| (caller.principal, caller.trace));
        parts.extensions.insert(Outgoing { principal, trace, deadline: Some(call.deadline) });
        channel.call(Request::from_parts(parts, body)).await
    }
}

/// The body of a request from outside; how the listener ended it is told as the transcoder tells it.
pub(crate) fn arriving<B>(body: B) -> service::Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let told = |error: BoxError| match error.downcast::<Status>() {
        Ok(status) => BoxError::from(status_of(&status)),
        Err(error) => error,
    };
    service::boxed(body.map_err(move |error| told(error.into())))
}

/// How a call ended, as the transcoder has it: what the trailers would say.
pub(crate) fn status_of(status: &Status) -> service::Status {
    let mut trailers = HeaderMap::new();
    let written = status.add_header(&mut trailers).ok().and_then(|()| service::Status::read(&trailers));
    written.unwrap_or_else(|| service::Status::new(service::Code::Internal, "a status that cannot be written"))
}

/// An error as the answer of a gRPC call.
pub(crate) fn refusal(problem: &Problem) -> Response<service::Body> {
    let mut response = Response::new(service::Body::default());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    problem.status.write(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_the_second_part_of_an_operations_name() {
        assert_eq!(service_in("services/ordering/sagas/1"), Some("ordering"));
        assert_eq!(service_in("services/ordering"), Some("ordering"));
        for bad in ["", "services", "services/", "orders/1", "services//sagas/1"] {
            assert_eq!(service_in(bad), None, "{bad:?}");
        }
    }
}
