//! `grpc.health.v1` on every port of a process of a fleet, for whoever starts, balances and watches it.
//!
//! What can be asked: the empty name (does the process take calls), `live` (does it run), `startup` (has it begun: its
//! tables are migrated before it listens, so whoever gets an answer gets a yes), and a service by its short or its full
//! name (is what it stands on reachable). From the moment it is to end a process takes no new callers: everything but
//! `live` and `startup` is not serving, and only after a notice does it stop to answer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

/// Finds out whether a service can do its work now.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// How long what a service stands on may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often somebody who watches is told anew.
const LOOK: Duration = Duration::from_secs(1);

/// The health of one service of a process.
#[derive(Clone)]
pub(crate) struct Standing {
    /// The names it is asked by.
    pub(crate) names: Arc<[String]>,
    /// Whether what it stands on is reachable.
    pub(crate) probe: Option<Probe>,
    /// Cancelled when the process says that it will end.
    pub(crate) draining: CancellationToken,
    /// Cancelled when it ends.
    pub(crate) shutdown: CancellationToken,
}

impl Standing {
    async fn of(&self, name: &str) -> ServingStatus {
        let leaving = self.draining.is_cancelled() || self.shutdown.is_cancelled();
        let serving = match name {
            "live" | "startup" => true,
            "" => !leaving,
            name if self.names.iter().any(|own| own == name) => !leaving && self.is_ready().await,
            _ => return ServingStatus::ServiceUnknown,
        };
        if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    async fn is_ready(&self) -> bool {
        match &self.probe {
            Some(probe) => timeout(PATIENCE, probe()).await.unwrap_or(false),
            None => true,
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Standing {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.of(&request.get_ref().service).await {
            ServingStatus::ServiceUnknown => Err(Status::not_found("no such service")),
            status => Ok(Response::new(answer(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Says how it is, and again whenever that has changed; ends with the process.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (name, standing) = (request.into_inner().service, self.clone());
        let turns = stream::unfold((standing, name, true), async |(standing, name, first)| {
            if !first {
                let mut leaves = std::pin::pin!(standing.draining.cancelled());
                tokio::select! {
                    () = &mut leaves, if !standing.draining.is_cancelled() => {}
                    () = standing.shutdown.cancelled() => return None,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
            Some((standing.of(&name).await, (standing, name, false)))
        });
        let changes = turns.scan(None, |last, status| {
            let told = (*last != Some(status)).then_some(status);
            *last = Some(status);
            std::future::ready(Some(told))
        });
        Ok(Response::new(Box::pin(changes.filter_map(async |told| told.map(|status| Ok(answer(status)))))))
    }
}
