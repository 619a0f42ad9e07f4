//! Cart: what somebody means to buy, and the one authority for what it will cost.
//!
//! Owns carts, their lines, and quotes. Invariants: a quote is arithmetic over prices of the catalogue or of an operator,
//! never of the client, and `total = subtotal + tax + shipping`; a quote holds until it expires, for the cart as it was, and
//! only if it was signed here; a closed cart does not change. Emits the events of `stoa.cart.v1`.
//!
//! A quote at catalogue prices is stored nowhere: its token says everything, so pricing a cart writes nothing. A quote whose
//! prices an operator set is an event besides (`quotes/{quote}`), for audit.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cart;
mod config;
mod erasure;
mod error;
mod goods;
pub mod quote;
mod rpc;
mod store;
mod token;
mod wire;

use std::sync::Arc;

use ::store::{Tx, site};
use bus::Consumer;
use contracts::cart::v1::METHODS;
use contracts::cart::v1::cart_service_server::CartServiceServer;
use log::Log;
use operations::Desk;
use server::{Component, Context, Task};
use tonic::service::Routes;

pub use config::{Config, Flags};
pub use store::MIGRATIONS;

/// The service over its own store: routes, the consumer of erasures, its log as a source, and what operators see of it.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    let store = context.open("cart", &[MIGRATIONS]).await?;
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|error| ::store::Error::Open { service: "cart", detail: error.to_string() })?;
    let keys =
        store.write(site!("cart.quote_keys"), async move |tx: &mut Tx| store::quote_keys(tx, fresh).await).await?;
    let log = Log::new(store.clone(), vec![Arc::new(store::Rows)]);
    let erasure = Arc::new(erasure::Erasure { log: log.clone() });
    let consumer = Consumer::new("cart.identity", store, context.hub.clone(), &["identity"], erasure);
    let goods = goods::Goods::new(&context.clients.as_caller("cart"), &config);
    let rpc = rpc::Rpc {
        log: log.clone(),
        goods,
        keys: Arc::new(token::Keys::new(keys)),
        quote_holds: context.windows.quote,
        currency: config.currency,
    };
    let routes = Routes::new(CartServiceServer::new(rpc));
    let desk = Desk::new(&log).consumers([&consumer]);
    let component = Component::new("cart", contract::Table(METHODS), routes)
        .task(Task::endless("cart.identity", consumer.run(context.shutdown.clone().cancelled_owned())))
        .source(bus::source(log));
    Ok(desk.serve(component))
}
