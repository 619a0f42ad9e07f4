//! Orderview: orders to look at. The read side of ordering, a little behind it.
//!
//! Owns nothing but views: they are the fold of ordering's log, made by the consumer `orderview.ordering` in the transaction
//! that moves its cursor, and can be thrown away and folded anew at any time. Where to write to is kept sealed with the
//! customer's key. Emits the events of `stoa.orderview.v1`: a rebuild, an erasure. Calls other services to explain an order,
//! and answers what it has when one of them does not.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod consumers;
mod error;
mod explain;
mod filter;
mod rebuild;
mod rpc;
mod steps;
mod store;
pub mod view;
mod watchers;
mod wire;

use std::sync::Arc;

use bus::{Consumer, Handler};
use contracts::orderview::v1::METHODS;
use contracts::orderview::v1::orderview_service_server::OrderviewServiceServer;
use log::Log;
use operations::Desk;
use server::{Component, Context, Task};
use tokio::sync::Semaphore;
use tonic::service::Routes;

pub use config::{Config, Flags};
pub use store::MIGRATIONS;

/// The service over its own store: routes, its consumers, whoever watches an order, its log as a source, and what operators
/// see of it.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    let store = context.open("orderview", &[MIGRATIONS]).await?;
    let log = Log::new(store.clone(), vec![]);
    let consumer = |name, producer, handler: Arc<dyn Handler>| {
        Consumer::new(name, store.clone(), context.hub.clone(), &[producer], handler)
    };
    let orders = consumer("orderview.ordering", "ordering", Arc::new(consumers::Orders));
    let persons = consumer("orderview.identity", "identity", Arc::new(consumers::Persons { log: log.clone() }));
    let views = rebuild::Views { log: log.clone(), hub: context.hub.clone(), consumer: orders.clone() };
    let watchers = watchers::Watchers::default();
    let telling = watchers.clone().run(context.hub.clone(), orders.clone(), store.clone(), context.shutdown.clone());
    let rpc = rpc::Rpc {
        store,
        consumer: orders.clone(),
        watchers,
        seats: Arc::new(Semaphore::new(config.watchers)),
        desk: Arc::new(explain::Desk::new(context, config.explain_patience)),
        shutdown: context.shutdown.clone(),
    };
    let routes = Routes::new(OrderviewServiceServer::new(rpc));
    let desk = Desk::new(&log).consumers([&orders, &persons]).derived(Arc::new(views));
    let mut component = Component::new("orderview", contract::Table(METHODS), routes)
        .task(Task::endless("orderview.watchers", telling))
        .source(bus::source(log));
    for consumer in [orders, persons] {
        let shutdown = context.shutdown.clone();
        let name = consumer.name();
        component = component.task(Task::endless(name, async move { consumer.run(shutdown.cancelled()).await }));
    }
    Ok(desk.serve(component))
}
