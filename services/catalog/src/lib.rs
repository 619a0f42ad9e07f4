//! Catalog: what can be bought, and at what price.
//!
//! Owns products with their variants and prices, what finds them (words and facets), and the key that signs prices.
//! Invariants: a SKU is one variant's in the whole shop; a product has at least one variant and every variant a price, one
//! a currency, never negative; rows are the fold of the log. Emits the events of `stoa.catalog.v1`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod error;
mod filter;
mod import;
pub mod product;
mod recent;
mod rpc;
mod search;
pub mod signature;
mod store;
mod wire;
mod words;

use std::sync::Arc;

use ::store::{MigrationSet, Tx, site};
use contracts::catalog::v1::catalog_service_server::CatalogServiceServer;
use contracts::catalog::v1::{Event, METHODS};
use log::{Log, Projection};
use server::{Component, Context};
use tonic::service::Routes;

pub use config::{Config, Flags};

use crate::signature::Key;

/// The tables of this service.
pub const MIGRATIONS: [MigrationSet; 2] = [store::MIGRATIONS, words::MIGRATIONS];

/// Products remembered at most; of what holds several of them, less.
const REMEMBERED: usize = 4096;

/// The service over its own store: routes, and its log as a source.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    // Its words are found by SQLite, whatever the others keep their rows in.
    let store = context.embedded().open("catalog", &MIGRATIONS).await?;
    let fresh = fresh_key()?;
    let key =
        store.write(site!("catalog.price_key"), async move |tx: &mut Tx| store::price_key(tx, &fresh).await).await?;
    let log = Log::new(store, projections());
    let rpc = rpc::Rpc {
        products: Arc::new(recent::Recent::new(log.changed(), REMEMBERED)),
        skus: Arc::new(recent::Recent::new(log.changed(), REMEMBERED)),
        pages: Arc::new(recent::Recent::new(log.changed(), REMEMBERED / 64)),
        counts: Arc::new(recent::Recent::new(log.changed(), REMEMBERED / 16)),
        log: log.clone(),
        key: Arc::new(key),
        config: Arc::new(config),
    };
    let routes = Routes::new(CatalogServiceServer::new(rpc));
    let desk = operations::Desk::new(&log);
    Ok(desk.serve(Component::new("catalog", contract::Table(METHODS), routes).source(bus::source(log))))
}

/// What is derived from the log: for whoever rebuilds or checks the tables.
pub fn projections() -> Vec<Arc<dyn Projection<Event>>> {
    vec![Arc::new(store::Rows)]
}

fn fresh_key() -> Result<Key, ::store::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| ::store::Error::Open {
        service: "catalog",
        detail: format!("no random bytes for the key of prices: {error}"),
    })?;
    Ok(Key { id: uuid::Uuid::now_v7().to_string(), secret })
}
