//! `GET /metrics`: what the process counts, where its health is, or at an address of its own.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use telemetry::metrics::{CONTENT_TYPE, text};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::accept::{self, Gauge, Limits};

/// Whether a request asks for them.
pub fn asked<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET && request.uri().path() == "/metrics"
}

/// All series of the process, in the text format of OpenMetrics.
pub fn answer() -> Response<Body> {
    let mut response = Response::new(Body::new(text()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Answers there and nothing else, until shutdown: for who watches a process and may ask it nothing.
pub async fn run(listener: TcpListener, shutdown: CancellationToken) {
    let limits = Limits { connections: 64, ..Limits::default() };
    accept::run(listener, Metrics, limits, Gauge::default(), shutdown).await;
}

#[derive(Clone, Copy)]
struct Metrics;

impl<B> tower::Service<Request<B>> for Metrics {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if asked(&request) {
            return ready(Ok(answer()));
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}
