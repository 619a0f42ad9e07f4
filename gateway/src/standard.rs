//! What gRPC itself defines for every server: reflection, by which a client needs no proto files, and health.

use std::{collections::HashSet, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, Request, header};
use prost_reflect::DescriptorPool;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, service::Routes};
use tonic_health::pb::{
    FILE_DESCRIPTOR_SET, HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

/// True for gRPC requests that [`routes`] answers.
pub(crate) fn answers<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let is_grpc = kind.strip_prefix(b"application/grpc").is_some_and(|rest| !rest.starts_with(b"-"));
    is_grpc && (path.starts_with("/grpc.reflection.") || path.starts_with("/grpc.health.v1."))
}

/// Reflection (both versions in use) and health over everything that is served.
pub(crate) fn routes(
    descriptors: &'static [u8],
    pool: &DescriptorPool,
    leaving: [CancellationToken; 2],
) -> Result<Routes, tonic_reflection::server::Error> {
    // Encoded sets keep their options; decoded ones would lose the HTTP rules.
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
    };
    let services = pool.services().map(|service| service.full_name().to_owned()).collect();
    let health = Standing { services: Arc::new(services), leaving };
    Ok(Routes::new(builder().build_v1()?)
        .add_service(builder().build_v1alpha()?)
        .add_service(HealthServer::new(health))
        .prepare())
}

/// Whether services serve: all of them do until the process says that it will end or ends, since a part that fails ends it.
#[derive(Clone)]
struct Standing {
    services: Arc<HashSet<String>>,
    leaving: [CancellationToken; 2],
}

impl Standing {
    fn of(&self, service: &str) -> Option<ServingStatus> {
        if !service.is_empty() && !self.services.contains(service) {
            return None;
        }
        Some(if self.leaving.iter().any(CancellationToken::is_cancelled) {
            ServingStatus::NotServing
        } else {
            ServingStatus::Serving
        })
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Standing {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.of(&request.get_ref().service).ok_or_else(|| Status::not_found("no such service"))?;
        Ok(Response::new(answer(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: tonic::Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let Some(now) = self.of(&request.get_ref().service) else {
            // The protocol wants the stream to stay open: the service might yet appear.
            let unknown = stream::once(async { Ok(answer(ServingStatus::ServiceUnknown)) });
            return Ok(Response::new(Box::pin(unknown.chain(stream::pending()))));
        };
        let [draining, shutdown] = self.leaving.clone();
        let end = stream::once(async move {
            tokio::select! {
                () = draining.cancelled() => {}
                () = shutdown.cancelled() => {}
            }
            Ok(answer(ServingStatus::NotServing))
        });
        let first = stream::once(async move { Ok(answer(now)) });
        Ok(Response::new(Box::pin(first.chain(end))))
    }
}
