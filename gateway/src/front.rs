//! What stands before the gateway on its port: counts what is asked and how it was answered, and tells it where the process
//! has no address of its own for that.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use server::{Gauge, metrics};
use telemetry::metrics::watch;
use tonic::body::Body;

use crate::Gateway;

/// The gateway, counted, with `GET /metrics` beside it. A cheap handle.
#[derive(Clone, Debug)]
pub struct Front {
    gateway: Gateway,
    tells: bool,
}

impl Front {
    /// Stands before the gateway on the listener of this gauge; `tells` whether it answers `GET /metrics` to everybody.
    pub fn new(gateway: Gateway, gauge: &Gauge, tells: bool) -> Self {
        let [requests, peak, connections] = [gauge.clone(), gauge.clone(), gauge.clone()];
        let number = |count: usize| count as u64;
        watch("stoa_requests_in_flight", "Requests received and not answered.", move || number(requests.requests()));
        watch("stoa_requests_in_flight_peak", "Most requests in flight at one moment.", move || {
            number(peak.most_requests())
        });
        watch("stoa_connections", "Open connections.", move || number(connections.connections()));
        Front { gateway, tells }
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
        if self.tells && metrics::asked(&request) {
            return Box::pin(std::future::ready(Ok(metrics::answer())));
        }
        let counted = telemetry::metrics::Request::begin(request.method().as_str());
        let answer = self.gateway.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                counted.end(response.status().as_u16());
            }
            answer
        })
    }
}
