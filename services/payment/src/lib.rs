//! Payment: money set aside, charged and given back at a provider, each at most once.
//!
//! Owns payments, their attempts, refunds, the double-entry postings and the receipts of webhooks. Invariants: every call to
//! the provider is written down before it is made, under a key that never changes; `refunded <= captured <= authorized`
//! (a CHECK, behind the decision); postings sum to zero; whatever the provider did is recorded, and undone where nobody
//! wants it any more; a message of the provider has one effect. Emits the events of `stoa.payment.v1`.
//!
//! Start reading at `payment.rs` (what may happen), then `teller.rs` (how a call is made) and `reconciler.rs` (how every
//! doubt ends).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod erasure;
mod error;
mod flights;
pub mod payment;
#[cfg_attr(feature = "planted-bugs", allow(missing_docs))]
pub mod planted;
mod provider;
mod receipts;
mod reconciler;
mod rpc;
mod sandbox;
mod store;
mod teller;
mod webhook;
mod wire;

use std::sync::Arc;

use contracts::payment::v1::METHODS;
use contracts::payment::v1::payment_service_server::PaymentServiceServer;
use log::Log;
use server::{Component, Context, Task};
use tonic::service::Routes;

pub use config::{Config, Flags, Terms};
pub use store::MIGRATIONS;

/// The service over its own store: routes, the reconciler, the erasure of people, its log as a source.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    let store = context.open("payment", &[MIGRATIONS]).await?;
    let log = Log::new(store, vec![Arc::new(store::Rows)]);
    provider::register();
    let provider = sandbox::Sandbox::new(&config.provider_url, config.calls, config.call_timeout);
    let teller = teller::Teller::new(log.clone(), Arc::new(provider), config, context.windows.clone());
    let routes = Routes::new(PaymentServiceServer::new(rpc::Rpc { teller: teller.clone() }));
    let reconciler = reconciler::run(teller, context.shutdown.clone());
    let erasure = erasure::consumer(&log, context);
    let desk = operations::Desk::new(&log).consumers([&erasure]);
    let erasing = erasure.run(context.shutdown.clone().cancelled_owned());
    let component = Component::new("payment", contract::Table(METHODS), routes)
        .task(Task::endless("payment.reconciler", reconciler))
        .task(Task::endless("payment.identity", erasing))
        .source(bus::source(log));
    Ok(desk.serve(component))
}
