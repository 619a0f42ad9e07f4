//! Catalog: what can be bought, and at what price.
//!
//! Owns products with their variants and prices, what finds them (words and facets), and the key that signs prices.
//! Invariants: a SKU is one variant's in the whole shop; a product has at least one variant and every variant a price, one
//! a currency, never negative; rows and documents are the fold of the log. Emits the events of `stoa.catalog.v1`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
#[cfg(test)]
mod conformance;
#[cfg(feature = "fleet")]
mod documents;
mod embedded;
mod error;
mod filter;
mod import;
pub mod product;
mod products;
mod recent;
mod rpc;
mod search;
pub mod signature;
mod store;
mod wire;
mod words;

use std::sync::Arc;

use ::store::{MigrationSet, Store, Tx, site};
use contracts::catalog::v1::catalog_service_server::CatalogServiceServer;
use contracts::catalog::v1::{Event, METHODS};
use log::{Log, Projection};
use server::{Component, Context};
use tonic::service::Routes;

pub use config::{Config, Flags};

use crate::products::Products;
use crate::signature::Key;

/// The tables of this service.
pub const MIGRATIONS: [MigrationSet; 2] = [store::MIGRATIONS, words::MIGRATIONS];

/// The tables of this service where its products are documents: none of them is a product's.
#[cfg(feature = "fleet")]
pub const BESIDE_DOCUMENTS: [MigrationSet; 1] = [store::KEYS];

/// Products remembered at most; of what holds several of them, less.
const REMEMBERED: usize = 4096;

/// The service over its own store, or over documents where the context says where those are: routes, and its log as a
/// source.
pub async fn build(config: Config, context: &Context) -> Result<Component, ::store::Error> {
    #[cfg(feature = "fleet")]
    if let Some(address) = &context.mongodb {
        return documents::build(config, context, address).await;
    }
    // Its words are found by SQLite, whatever the others keep their rows in.
    let store = context.embedded().open("catalog", &MIGRATIONS).await?;
    let key = price_key(&store).await?;
    let log = Log::new(store, projections());
    let products = Arc::new(embedded::Embedded::new(log.clone(), config.currency, REMEMBERED));
    let desk = operations::Desk::new(&log);
    Ok(desk.serve(component(routes(config, products, log.clone(), key), log)))
}

/// The handlers over these products, and over the rows of this log for lists and searches.
fn routes(config: Config, products: Arc<dyn Products>, finder: Log<Event>, key: Key) -> Routes {
    Routes::new(CatalogServiceServer::new(rpc::Rpc {
        products,
        pages: Arc::new(recent::Recent::new(finder.changed(), REMEMBERED / 64)),
        counts: Arc::new(recent::Recent::new(finder.changed(), REMEMBERED / 16)),
        finder,
        key: Arc::new(key),
        config: Arc::new(config),
    }))
}

fn component(routes: Routes, log: Log<Event>) -> Component {
    Component::new("catalog", contract::Table(METHODS), routes).source(bus::source(log))
}

/// The key that signs prices, made at the first start.
async fn price_key(store: &Store) -> Result<Key, ::store::Error> {
    let fresh = fresh_key()?;
    store.write(site!("catalog.price_key"), async move |tx: &mut Tx| store::price_key(tx, &fresh).await).await
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
