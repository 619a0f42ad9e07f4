//! What the catalogue stores, on whichever engine: products by name and by SKU, and how they are changed.
//!
//! Two engines are behind [`Products`]: rows of the service's own store, and documents in MongoDB. Both decide with the same
//! functions, on what a [`Shelf`] shows them; the suite of this module runs over both. Lists and searches are no part of it:
//! they are the same statements over the same rows, see `rpc`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use contracts::catalog::v1 as proto;
use log::Meta;
use store::Site;

use crate::error::Error;
use crate::import::Line;
use crate::product::{self, Command, Event};
use crate::store::Stored;

/// The products of the shop.
#[tonic::async_trait]
pub(crate) trait Products: Debug + Send + Sync {
    /// Products by name, in this order; never older than an answer that was given before.
    async fn by_name(&self, names: &[String]) -> Result<Vec<Option<Arc<Stored>>>, Error>;

    /// The products that have these SKUs, for sale or not, in this order; as fresh as by name.
    async fn by_sku(&self, skus: &[String]) -> Result<Vec<Option<Arc<Stored>>>, Error>;

    /// Carries out one command, at most once for each request.
    async fn command(
        &self,
        site: &'static Site,
        author: Author,
        request: Option<log::Request>,
        order: Order,
    ) -> Result<proto::Product, Error>;

    /// Creates or replaces the products of some lines, each for itself: what is refused is counted and stops no other.
    async fn import(&self, author: Author, lines: Vec<Line>) -> Result<proto::ImportProductsResponse, Error>;
}

/// Who changes something, and in which story.
#[derive(Clone, Debug, Default)]
pub(crate) struct Author {
    pub(crate) meta: Meta,
    pub(crate) actor: String,
}

/// A command to a product, and on which terms.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) name: String,
    pub(crate) command: Command,
    /// The version the caller has read; empty for any.
    pub(crate) etag: String,
    pub(crate) dry_run: bool,
}

/// The products as one sees them who decides, and where what was decided is put.
pub(crate) trait Shelf {
    /// One product.
    async fn get(&mut self, name: &str) -> Result<Option<Stored>, Error>;

    /// The product that has a SKU, for sale or not.
    async fn get_by_sku(&mut self, sku: &str) -> Result<Option<Stored>, Error>;

    /// Which of these SKUs are another product's than `name`, and whose.
    async fn taken(&mut self, name: &str, skus: &[&str]) -> Result<BTreeMap<String, String>, Error>;

    /// Makes the product what the event says, if it still is at `version` (0: it does not exist).
    async fn put(&mut self, name: &str, version: u64, event: &Event) -> Result<Stored, Error>;
}

/// Decides one command and puts what it makes of the product; answers with the product as it then is.
pub(crate) async fn execute(shelf: &mut impl Shelf, order: &Order) -> Result<Stored, Error> {
    let name = order.name.as_str();
    let reject = |rejection| Error::Rejected { name: name.to_owned(), rejection };
    let current = shelf.get(name).await?;
    if let Some(current) = &current
        && !order.etag.is_empty()
        && order.etag != current.version.to_string()
    {
        return Err(Error::Stale(name.to_owned()));
    }
    let skus: Vec<&str> = order.command.skus().collect();
    let taken = shelf.taken(name, &skus).await?;
    let product = current.as_ref().map(|stored| &stored.product);
    match product::decide(product, &order.command, &taken).map_err(reject)? {
        Some(event) => shelf.put(name, current.as_ref().map_or(0, |stored| stored.version), &event).await,
        None => current.ok_or_else(|| Error::Missing(name.to_owned())),
    }
}
