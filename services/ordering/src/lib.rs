//! Ordering: the write side of orders, folded from their events, and the sagas that carry them out.
//!
//! Owns orders and returns. Invariants: a cart at a version becomes one order; an order is confirmed only with its stock
//! sold to it and its payment authorised, and then only goes forward; everything it asks of others carries a key that is the
//! same at every attempt. Emits the events of `stoa.ordering.v1`. Calls cart, inventory, payment and shipping; nobody calls
//! it back.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cancellation;
mod checkout;
mod config;
mod consumers;
mod error;
mod fulfilment;
pub mod order;
mod recent;
mod returning;
mod rpc;
mod sagas;
mod store;
mod wire;

use std::sync::Arc;

use bus::{Consumer, Handler};
use contracts::ordering::v1::ordering_service_server::OrderingServiceServer;
use log::Log;
use saga::Runner;
use server::{Component, Context, Task};
use tonic::service::Routes;

pub use config::{Config, Flags};
pub use store::MIGRATIONS;

/// The service over its own store: routes, the runner of its sagas, its consumers, its log as a source.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    let store = context.open("ordering", &[saga::MIGRATIONS, MIGRATIONS]).await?;
    let log = Log::new(store.clone(), vec![Arc::new(store::Rows)]);
    let desk = Arc::new(sagas::Desk::new(log.clone(), context));
    let runner = Runner::new(
        store.clone(),
        Arc::clone(&desk),
        sagas::definitions(),
        saga::Config {
            concurrency: config.sagas,
            backoff_base: context.windows.retry_base,
            backoff_cap: context.windows.retry_cap,
            exclusive: !store.is_shared(),
            ..saga::Config::default()
        },
    );
    let consumer = |name, producer, handler: Arc<dyn Handler>| {
        Consumer::new(name, store.clone(), context.hub.clone(), &[producer], handler)
    };
    let consumers = [
        consumer(
            "ordering.shipping",
            "shipping",
            Arc::new(consumers::Shipments { log: log.clone(), recent: desk.recent.clone() }),
        ),
        consumer("ordering.payment", "payment", Arc::new(consumers::Payments)),
        consumer("ordering.identity", "identity", Arc::new(consumers::Persons { log: log.clone() })),
    ];
    let rpc = rpc::Rpc { desk, runner: runner.clone(), wait: config.wait };
    let routes = Routes::new(OrderingServiceServer::new(rpc));
    let desk = operations::Desk::new(&log).sagas(&runner).consumers(&consumers);
    let mut component = Component::new("ordering", contracts::METHODS, routes)
        .source(bus::source(log))
        .task(Task::new("ordering.sagas", runner.run(context.shutdown.clone())));
    for consumer in consumers {
        let shutdown = context.shutdown.clone();
        let name = consumer.name();
        component = component.task(Task::endless(name, async move {
            consumer.run(shutdown.cancelled()).await;
        }));
    }
    Ok(desk.serve(component))
}
