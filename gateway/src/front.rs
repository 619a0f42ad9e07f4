//! What stands before the gateway on its port: the counts of the listener, for whoever watches the process.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::Full;
use server::Gauge;
use tonic::body::Body;

use crate::Gateway;

/// The gateway with `GET /metrics` beside it. A cheap handle.
#[derive(Clone, Debug)]
pub struct Front {
    /// Answers everything else.
    pub gateway: Gateway,
    /// What is counted.
    pub gauge: Gauge,
}

impl Front {
    /// The counts in the text format of Prometheus.
    fn metrics(&self) -> Response<Body> {
        let counts = [
            ("stoa_requests_in_flight", "Requests received and not answered.", self.gauge.requests()),
            ("stoa_requests_in_flight_peak", "Most requests in flight at one moment.", self.gauge.most_requests()),
            ("stoa_connections", "Open connections.", self.gauge.connections()),
        ];
        let text: String = counts
            .iter()
            .map(|(name, help, value)| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"))
            .collect();
        let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
        let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl<B> tower::Service<Request<B>> for Front
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.method() == Method::GET && request.uri().path() == "/metrics" {
            let response = self.metrics();
            return Box::pin(std::future::ready(Ok(response)));
        }
        self.gateway.call(request)
    }
}
