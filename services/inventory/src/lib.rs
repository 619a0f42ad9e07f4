//! Inventory: how much there is of what, and for whom it is kept.
//!
//! Owns warehouses' stock items, reservations and movements. Invariants: for every item at every moment
//! `on_hand - held - committed >= 0` (a CHECK, behind a guarded update, behind the decision); a reservation holds all of its
//! lines or none; stock is the sum of the log. Emits the events of `stoa.inventory.v1`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod error;
mod movements;
pub mod reservation;
mod rpc;
mod store;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use ::store::{Tx, site};
use contracts::inventory::v1::inventory_service_server::InventoryServiceServer;
use contracts::inventory::v1::{Event, METHODS};
use log::{Log, Meta};
use server::{Component, Context, Task};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::{Config, Flags};
pub use store::MIGRATIONS;

/// Overdue holds let go in one transaction of the sweep.
const SWEEP_BATCH: u32 = 256;

/// The service over its own store: routes, the sweep of overdue holds, its log as a source.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    let store = context.open("inventory", &[MIGRATIONS]).await?;
    let log = Log::new(store, vec![Arc::new(store::Rows)]);
    let rpc = rpc::Rpc { log: log.clone(), longest_hold: config.longest_hold };
    let routes = Routes::new(InventoryServiceServer::new(rpc));
    let sweep = sweep(log.clone(), context.windows.sweep, context.shutdown.clone());
    let measured = log.store().clone();
    let component = Component::new("inventory", contract::Table(METHODS), routes)
        .measured(Arc::new(move || {
            let store = measured.clone();
            Box::pin(async move {
                if let Ok(open) = store.read(async |tx: &mut Tx| store::open_holds(tx).await).await {
                    telemetry::metrics::stock_holds(open);
                }
            })
        }))
        .task(Task::endless("inventory.sweep", sweep))
        .source(bus::source(log.clone()));
    Ok(operations::Desk::new(&log).serve(component))
}

/// Lets overdue holds go until shutdown. A hold is also let go inline by whoever finds no stock, so this only tidies up.
async fn sweep(log: Log<Event>, every: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = log.store().clock().now();
        let overdue = log.store().read(async move |tx: &mut Tx| store::overdue(tx, now, 1).await).await;
        if matches!(&overdue, Ok(names) if names.is_empty()) {
            continue;
        }
        let writer = log.clone();
        let swept = log
            .store()
            .write(site!("inventory.sweep"), async move |tx: &mut Tx| {
                let meta = Meta { causation: "inventory.sweep".to_owned(), ..Meta::default() };
                rpc::expire(&writer, tx, &meta, SWEEP_BATCH).await
            })
            .await;
        if let Err(error) = swept {
            tracing::warn!(%error, "overdue holds stay until the next sweep");
        }
    }
}
