//! Derived tables made again from the logs.

use anyhow::bail;
use contracts::operations::v1::RebuildProjectionRequest;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;

use crate::shop::{SERVICES, Shop};
use crate::work::Voice;

/// Rebuilds the tables of one service, or of all.
pub(crate) async fn rebuild(shop: &Shop, service: Option<&str>, voice: &Voice) -> anyhow::Result<bool> {
    let chosen: Vec<&'static str> =
        SERVICES.into_iter().filter(|name| service.is_none_or(|service| service == *name)).collect();
    if chosen.is_empty() {
        bail!("{} is no service; there are {}", service.unwrap_or_default(), SERVICES.join(", "));
    }
    for name in chosen {
        let mut client = OperationsServiceClient::new(shop.channel(name));
        let request = RebuildProjectionRequest {
            name: format!("services/{name}/projections/-"),
            request_id: uuid::Uuid::now_v7().to_string(),
            validate_only: false,
        };
        let reply = client.rebuild_projection(Shop::by_operator(request)).await?.into_inner();
        let took = reply.duration.and_then(|it| std::time::Duration::try_from(it).ok()).unwrap_or_default();
        let rate = match took.as_secs_f64() {
            0.0 => String::new(),
            seconds => format!(", {:.0} events/s", reply.event_count as f64 / seconds),
        };
        voice
            .line(format!(
                "{name}: {} events into {} rows in {:.2} s{rate}; {} rows were other before",
                reply.event_count,
                reply.row_count,
                took.as_secs_f64(),
                reply.difference_count
            ))
            .await;
    }
    Ok(true)
}
