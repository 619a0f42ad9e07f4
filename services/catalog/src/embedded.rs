//! The products as rows of the service's own store, derived from its log in the transaction that appends.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::Currency;
use contracts::catalog::v1 as proto;
use log::Log;
use store::{Site, Tx, site};

use crate::error::Error;
use crate::import::{self, Line};
use crate::product::Event;
use crate::products::{Author, Order, Products, Shelf, execute};
use crate::recent::Recent;
use crate::store::{self as rows, Stored};
use crate::wire;

/// The adapter of the service's own store.
#[derive(Debug)]
pub(crate) struct Embedded {
    log: Log<proto::Event>,
    currency: Currency,
    /// Products by name.
    named: Recent<Arc<Stored>>,
    /// Products by a SKU of theirs.
    skus: Recent<Arc<Stored>>,
}

impl Embedded {
    /// Products of this log, at most `remembered` of them in memory.
    pub(crate) fn new(log: Log<proto::Event>, currency: Currency, remembered: usize) -> Self {
        let recent = || Recent::new(log.changed(), remembered);
        Self { named: recent(), skus: recent(), log, currency }
    }

    /// What is remembered under these keys, and the rest from one snapshot.
    async fn recall<R>(
        &self,
        recent: &Recent<Arc<Stored>>,
        keys: &[String],
        mut read: R,
    ) -> Result<Vec<Option<Arc<Stored>>>, Error>
    where
        R: AsyncFnMut(&mut Tx, &str) -> Result<Option<Stored>, store::Error> + Send + 'static,
    {
        let seen = recent.head();
        let mut found: Vec<Option<Arc<Stored>>> = keys.iter().map(|key| recent.get(key)).collect();
        let lacking: Vec<String> =
            keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| key.clone()).collect();
        if lacking.is_empty() {
            return Ok(found);
        }
        let mut fresh = self
            .log
            .store()
            .read(async move |tx: &mut Tx| {
                let mut fresh = Vec::with_capacity(lacking.len());
                for key in &lacking {
                    fresh.push(read(tx, key).await?.map(Arc::new));
                }
                Ok::<_, Error>(fresh)
            })
            .await?
            .into_iter();
        for (key, found) in keys.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            *found = fresh.next().flatten();
            if let Some(stored) = found {
                recent.keep(seen, key, Arc::clone(stored));
            }
        }
        Ok(found)
    }
}

#[tonic::async_trait]
impl Products for Embedded {
    async fn by_name(&self, names: &[String]) -> Result<Vec<Option<Arc<Stored>>>, Error> {
        self.recall(&self.named, names, async move |tx: &mut Tx, name| rows::get(tx, name).await).await
    }

    async fn by_sku(&self, skus: &[String]) -> Result<Vec<Option<Arc<Stored>>>, Error> {
        self.recall(&self.skus, skus, async move |tx: &mut Tx, sku| rows::get_by_sku(tx, sku).await).await
    }

    async fn command(
        &self,
        site: &'static Site,
        author: Author,
        request: Option<log::Request>,
        order: Order,
    ) -> Result<proto::Product, Error> {
        let (log, currency) = (self.log.clone(), self.currency);
        let answer = self.log.once(site, request, async move |tx: &mut Tx| {
            let stored = execute(&mut Rows { log: &log, tx, author: &author }, &order).await?;
            let product = wire::product(&stored, currency);
            if order.dry_run { Err(Error::DryRun(Box::new(product))) } else { Ok(product) }
        });
        match answer.await {
            Err(Error::DryRun(product)) => Ok(*product),
            answer => answer,
        }
    }

    async fn import(&self, author: Author, lines: Vec<Line>) -> Result<proto::ImportProductsResponse, Error> {
        let log = self.log.clone();
        self.log
            .once(site!("catalog.import_products"), None, async move |tx: &mut Tx| {
                let mut reply = proto::ImportProductsResponse::default();
                for line in &lines {
                    let outcome = import::replace(&mut Rows { log: &log, tx, author: &author }, line).await;
                    import::count(&mut reply, line, outcome)?;
                }
                Ok::<_, Error>(reply)
            })
            .await
    }
}

/// The rows within one transaction.
struct Rows<'a> {
    log: &'a Log<proto::Event>,
    tx: &'a mut Tx,
    author: &'a Author,
}

impl Shelf for Rows<'_> {
    async fn get(&mut self, name: &str) -> Result<Option<Stored>, Error> {
        Ok(rows::get(self.tx, name).await?)
    }

    async fn get_by_sku(&mut self, sku: &str) -> Result<Option<Stored>, Error> {
        Ok(rows::get_by_sku(self.tx, sku).await?)
    }

    async fn taken(&mut self, name: &str, skus: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        Ok(rows::taken(self.tx, name, skus.iter().copied()).await?)
    }

    async fn put(&mut self, name: &str, version: u64, event: &Event) -> Result<Stored, Error> {
        let stored = wire::to_stored(name, &self.author.actor, event);
        self.log.append(self.tx, name, version, &self.author.meta, None, vec![stored]).await?;
        rows::get(self.tx, name).await?.ok_or_else(|| Error::Missing(name.to_owned()))
    }
}
