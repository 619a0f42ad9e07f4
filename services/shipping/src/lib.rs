//! Shipping: parcels on their way, and what sending them costs.
//!
//! Owns shipments and the table of rates. Invariants: a parcel leaves only after ordering has released it, which it does when
//! the parcel's value is captured; one that is packed is not cancelled; one that was cancelled before it was created never
//! comes to be. Emits the events of `stoa.shipping.v1`. Addresses are stored sealed with the receiver's key and nowhere
//! else than in the log.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod consumers;
mod error;
mod filter;
pub mod rates;
mod rpc;
pub mod shipment;
mod store;
mod wire;

use std::sync::Arc;

use bus::Consumer;
use contracts::shipping::v1::METHODS;
use contracts::shipping::v1::shipping_service_server::ShippingServiceServer;
use log::Log;
use operations::Desk;
use server::{Component, Context, Task};
use tonic::service::Routes;

pub use config::{Config, Flags};
pub use store::MIGRATIONS;

/// The service over its own store: routes, its consumer, its log as a source, and what operators see of it.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    let store = context.open("shipping", &[MIGRATIONS]).await?;
    let log = Log::new(store.clone(), vec![Arc::new(store::Rows)]);
    let persons = Arc::new(consumers::Persons { log: log.clone() });
    let persons = Consumer::new("shipping.identity", store, context.hub.clone(), &["identity"], persons);
    let rpc = rpc::Rpc { log: log.clone(), rates: Arc::new(config.rates) };
    let routes = Routes::new(ShippingServiceServer::new(rpc));
    let desk = Desk::new(&log).consumers([&persons]);
    let shutdown = context.shutdown.clone();
    let component = Component::new("shipping", contract::Table(METHODS), routes)
        .task(Task::endless("shipping.identity", async move { persons.run(shutdown.cancelled()).await }))
        .source(bus::source(log));
    Ok(desk.serve(component))
}
