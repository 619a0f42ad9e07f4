//! A service of a few hand-written methods, and the tables and clients to call it with.

#![allow(dead_code, reason = "each test file uses its part")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use auth::{Principal, Role, Subject};
use client::{Channel, Outgoing};
use contract::{Access, Idempotency, Method, Policy, Table};
use server::{Call, Component};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// What a test wants the service to do with a request.
pub(crate) type Handler = Arc<dyn Fn(Call, String) -> Answer + Send + Sync>;
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<String>, Status>> + Send>>;

pub(crate) fn handler<F, A>(answer: F) -> Handler
where
    F: Fn(Call, String) -> A + Send + Sync + 'static,
    A: Future<Output = Result<String, Status>> + Send + 'static,
{
    Arc::new(move |call, message| {
        let answer = answer(call, message);
        Box::pin(async move { answer.await.map(Response::new) })
    })
}

/// Answers with its caller, person and message.
pub(crate) fn who() -> Handler {
    handler(|call, message| async move {
        let subject = call.subject().map_or("-", |subject| subject.id.as_str());
        Ok(format!("{} {subject} {message}", call.caller()))
    })
}

const fn method(name: &'static str, path: &'static str, access: Access, idempotency: Idempotency) -> Method {
    Method {
        service: "stoa.echo.v1.EchoService",
        name,
        path,
        owner: "echo",
        input: "google.protobuf.StringValue",
        output: "google.protobuf.StringValue",
        client_streaming: false,
        server_streaming: false,
        policy: Policy { access, owner: false, callers: &["ordering"] },
        idempotency,
        deadline: Duration::from_secs(5),
        request_id: true,
        secret_reply: false,
        max_request_bytes: 1024,
        stale_for: Duration::ZERO,
        http: &[],
    }
}

pub(crate) static METHODS: [Method; 6] = [
    method("Customer", "/stoa.echo.v1.EchoService/Customer", Access::Customer, Idempotency::Unknown),
    method("Guest", "/stoa.echo.v1.EchoService/Guest", Access::Guest, Idempotency::Unknown),
    method("Internal", "/stoa.echo.v1.EchoService/Internal", Access::Internal, Idempotency::Unknown),
    method("Operator", "/stoa.echo.v1.EchoService/Operator", Access::Operator, Idempotency::Unknown),
    method("Public", "/stoa.echo.v1.EchoService/Public", Access::Public, Idempotency::Unknown),
    method("Read", "/stoa.echo.v1.EchoService/Read", Access::Public, Idempotency::NoSideEffects),
];

pub(crate) const TABLE: Table = Table(&METHODS);

pub(crate) fn component(handler: Handler) -> Component {
    let routes = Routes::new(Server { handler });
    Component::new("echo", TABLE, routes)
}

/// Calls a method of the service over any kind of channel.
pub(crate) async fn call<T>(channel: T, name: &str, request: Request<String>) -> Result<String, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = format!("/stoa.echo.v1.EchoService/{name}").parse().unwrap();
    let codec = ProstCodec::<String, String>::default();
    Ok(grpc.unary(request, path, codec).await?.into_inner())
}

pub(crate) async fn ask(channel: &Channel, name: &str, outgoing: &Outgoing) -> Result<String, Status> {
    call(channel.clone(), name, outgoing.request("hello".to_owned())).await
}

pub(crate) fn person(id: &str, role: Role) -> Principal {
    Principal::User(Subject { id: id.to_owned(), role, session: String::new() })
}

pub(crate) fn outgoing(principal: Principal) -> Outgoing {
    Outgoing { principal, ..Outgoing::default() }
}

/// What a generated server looks like, for one kind of message.
#[derive(Clone)]
struct Server {
    handler: Handler,
}

impl tonic::server::NamedService for Server {
    const NAME: &'static str = "stoa.echo.v1.EchoService";
}

impl tower::Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let handler = Handled(self.handler.clone());
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(grpc.unary(handler, request).await)
        })
    }
}

struct Handled(Handler);

impl tonic::server::UnaryService<String> for Handled {
    type Response = String;
    type Future = Answer;

    fn call(&mut self, request: Request<String>) -> Answer {
        match Call::of(&request) {
            Ok(call) => (self.0)(call, request.into_inner()),
            Err(status) => Box::pin(async move { Err(status) }),
        }
    }
}
