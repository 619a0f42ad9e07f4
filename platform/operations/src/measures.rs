//! What waits in a service, as gauges: sagas, messages, events that no broker has confirmed.

use std::sync::Arc;

use bus::Error;
use jiff::Timestamp;
use log::{parked, relays};
use server::Measure;
use store::Tx;
use telemetry::metrics;

use crate::Desk;
use crate::rpc::Rpc;

/// Looks at a desk. What cannot be read keeps the value it had.
pub(crate) fn of(rpc: &Rpc) -> Measure {
    let desk = rpc.desk();
    Arc::new(move || {
        let desk = Arc::clone(&desk);
        Box::pin(async move {
            let looked = [sagas(&desk).await, consumers(&desk).await, outbox(&desk).await];
            for error in looked.into_iter().filter_map(Result::err) {
                tracing::debug!(service = desk.service, %error, "what waits cannot be counted");
            }
        })
    })
}

async fn sagas(desk: &Desk) -> Result<(), Error> {
    if desk.sagas.is_none() {
        return Ok(());
    }
    let open = desk.store.read(async |tx: &mut Tx| saga::open(tx).await).await.map_err(log::Error::from)?;
    for (phase, count) in open {
        metrics::sagas(desk.service, phase.as_str(), count);
    }
    Ok(())
}

async fn consumers(desk: &Desk) -> Result<(), Error> {
    for consumer in &desk.consumers {
        let name = consumer.name();
        let parked = desk.store.read(async move |tx: &mut Tx| parked::count(tx, name).await).await?;
        metrics::consumer(desk.service, name, consumer.lag().await?, parked);
    }
    Ok(())
}

/// Only where a relay has run: without a broker, consumers read the log itself.
async fn outbox(desk: &Desk) -> Result<(), Error> {
    let positions = desk.store.read(async |tx: &mut Tx| relays::positions(tx).await).await?;
    if positions.is_empty() {
        return Ok(());
    }
    let heads = desk.source.heads().await?;
    let (mut waiting, mut oldest) = (0, None::<Timestamp>);
    for (shard, position) in positions {
        let head = heads.get(shard as usize).copied().unwrap_or(0);
        let behind = head.saturating_sub(position);
        waiting += behind;
        if behind > 0
            && let Some(next) = desk.source.read(shard, position, 1).await?.first()
        {
            oldest = Some(oldest.map_or(next.occur_time, |it| it.min(next.occur_time)));
        }
    }
    let now = desk.store.clock().now();
    let age_s = oldest.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64().max(0.0));
    metrics::outbox(desk.service, waiting, age_s);
    Ok(())
}
