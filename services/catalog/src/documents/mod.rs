//! The products as documents in MongoDB.
//!
//! A write is one operation on one document, guarded by the document as it was read. The document carries its events and the
//! answer to its request until the relay has moved them into the catalogue's log, an ordinary log on an ordinary store, from
//! which other services, the auditor and this service's own lists read. Reads by name and by SKU go to the documents.
//!
//! At least once is had from the caller, who repeats; at most once from the guard: the write that has the effect carries the
//! answer, so a repeat finds it in the document, or behind it where answers are kept. The claim before it only says which
//! document that is. Whoever dies leaves a claim without effect, which the repeat takes up; a document with something
//! unsent, which the relay takes up; or an event in the log and in the document, which the relay passes over.

mod database;
mod relay;
mod replica;
mod shape;
mod skus;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use contract::Currency;
use contracts::catalog::v1 as proto;
use jiff::Timestamp;
use log::{Log, Refusable as _, Refusal, Request, backoff, once};
use prost::Message as _;
use server::{Component, Context, Storage, Task};
use store::{Site, Tx};

use crate::error::Error;
use crate::import::{self, Line};
use crate::product::Event;
use crate::products::{Author, Order, Products, Shelf, execute};
use crate::store::Stored;
use crate::{Config, wire};
use database::Database;
use relay::Relay;
use replica::Replica;
use shape::Document;

/// Unsent events and answers that a document may carry: more are only had when the log is gone for long, and each may be as
/// large as the product, of which a document of MongoDB holds 16 MiB.
const MOST_UNSENT: usize = 16;

/// The service over documents: routes, its log as a source, the relay and the copy that lists read.
pub(crate) async fn build(config: Config, context: &Context, address: &str) -> Result<Component, store::Error> {
    let documents = open(config.currency, context, address).await?;
    let (log, replica, relay) = (documents.log(), documents.replica.clone(), documents.relay.clone());
    let key = crate::price_key(log.store()).await?;
    let (sweep, end, stop) = (context.windows.sweep, context.shutdown.clone(), context.shutdown.clone());
    let desk = operations::Desk::new(&log).derived(Arc::new(replica.clone()));
    let routes = crate::routes(config, Arc::new(documents), replica.log.clone(), key);
    let component = desk.serve(crate::component(routes, log));
    Ok(component
        .task(Task::endless("catalog.unsent", async move {
            tokio::select! { () = relay.sweep(sweep) => {}, () = end.cancelled() => {} }
        }))
        .task(Task::endless("catalog.replica", async move {
            tokio::select! { () = replica.follow() => {}, () = stop.cancelled() => {} }
        })))
}

/// The products, with everything sent that was left, and a copy that is up to date.
pub(crate) async fn open(currency: Currency, context: &Context, address: &str) -> Result<Documents, store::Error> {
    let database = Database::connect(address).await?;
    let store = one_shard(context).open("catalog", &crate::BESIDE_DOCUMENTS).await?;
    let log = Log::new(store, vec![]);
    let heads = log.store().read(async |tx: &mut Tx| tx.heads().await).await?;
    if heads.len() != 1 {
        let detail = format!("its log has {} shards; beside documents it needs one order, so one shard", heads.len());
        return Err(store::Error::Open { service: "catalog", detail });
    }
    let documents = Documents {
        relay: Relay { database: database.clone(), log: log.clone() },
        replica: Replica::open(log.clone()).await?,
        currency,
        database,
    };
    documents.refresh().await;
    Ok(documents)
}

/// The same surroundings with a log in one order: equal matches come in the order of the log, and every copy of this
/// service must have the same.
fn one_shard(context: &Context) -> Context {
    let mut own = context.clone();
    if let Storage::Postgres(databases) = &mut own.storage {
        databases.shards = 1;
    }
    own
}

/// The adapter of documents.
#[derive(Debug)]
pub(crate) struct Documents {
    database: Database,
    relay: Relay,
    replica: Replica,
    currency: Currency,
}

impl Documents {
    /// The log that events are moved to.
    pub(crate) fn log(&self) -> Log<proto::Event> {
        self.relay.log.clone()
    }

    /// The log whose rows lists and searches read.
    #[cfg(test)]
    pub(crate) fn finder(&self) -> Log<proto::Event> {
        self.replica.log.clone()
    }

    /// Moves what is left and drops what has outlived its time.
    #[cfg(test)]
    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        Ok(self.relay.sweep_once().await?)
    }

    fn now(&self) -> Timestamp {
        self.relay.log.store().clock().now()
    }

    /// Moves everything unsent and brings the copy up to date, as far as the log can be reached.
    async fn refresh(&self) {
        let outcome = async {
            self.relay.sweep_once().await?;
            self.replica.catch_up().await
        };
        if let Err(error) = outcome.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "events of the catalogue wait in their documents");
        }
    }

    /// Moves what was written just now, and lets the lists of this process know. What cannot be moved waits for the relay:
    /// the write has happened.
    async fn settle(&self, written: Vec<Document>) {
        let outcome = async {
            self.relay.send(&written).await?;
            self.replica.catch_up().await
        };
        if let Err(error) = outcome.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "events of the catalogue wait in their documents");
        }
    }

    /// What a request that was noted before was answered with. The document comes first: what is no longer in it has been
    /// kept before.
    async fn answer(&self, document: Option<&Document>, request: &Request) -> Result<Option<proto::Product>, Error> {
        let mut answer = document.and_then(|document| document.answered(request));
        if answer.is_none() {
            let asked = request.clone();
            let kept = async move |tx: &mut Tx| once::recall(tx, &asked).await;
            answer = self.relay.log.store().read(kept).await?;
        }
        match answer {
            None => Ok(None),
            Some(Ok(reply)) => Ok(Some(request.reply(&reply)?)),
            Some(Err(refusal)) => Err(Error::Replayed(refusal)),
        }
    }

    /// One try of a command: the claim, the document, the decision, the write.
    async fn attempt(
        &self,
        author: &Author,
        request: Option<&Request>,
        order: &mut Order,
    ) -> Result<proto::Product, Error> {
        let mut noted = false;
        if let Some(request) = request {
            (order.name, noted) = self.database.claim(request, &order.name, self.now()).await?;
        }
        let document = self.database.document(&order.name).await?;
        if let Some(request) = request.filter(|_| noted)
            && let Some(reply) = self.answer(document.as_ref(), request).await?
        {
            return Ok(reply);
        }
        let mut session = Session { request, dry_run: order.dry_run, ..Session::new(self, author, self.now()) };
        session.loaded.insert(order.name.clone(), document);
        let decided = execute(&mut session, order).await;
        let written = session.written.len();
        match (&decided, request) {
            // What changed nothing, and what was refused, has its answer kept all the same.
            (Ok(stored), Some(_)) if written == 0 => {
                let reply = wire::product(stored, self.currency).encode_to_vec();
                session.keep(&order.name, Ok(reply)).await?;
            }
            (Err(error), Some(_)) => {
                if let Some(refusal) = error.refusal() {
                    session.keep(&order.name, Err(refusal)).await?;
                }
            }
            (Ok(_), _) | (Err(_), None) => {}
        }
        let written = std::mem::take(&mut session.written);
        if !written.is_empty() {
            self.settle(written).await;
        }
        Ok(wire::product(&decided?, self.currency))
    }
}

/// Whether somebody else changed what was decided on.
fn lost_a_race(error: &Error) -> bool {
    matches!(error, Error::Log(error) if error.is_conflict())
}

async fn pause(attempt: u32) {
    let (first, most) = (Duration::from_millis(5), Duration::from_millis(200));
    tokio::time::sleep(backoff::jittered(attempt, first, most)).await;
}

#[tonic::async_trait]
impl Products for Documents {
    async fn by_name(&self, names: &[String]) -> Result<Vec<Option<Arc<Stored>>>, Error> {
        if names.is_empty() {
            return Ok(vec![]);
        }
        let mut found = BTreeMap::new();
        for document in self.database.documents(names).await? {
            if let Some(stored) = document.stored()? {
                found.insert(document.name, Arc::new(stored));
            }
        }
        Ok(names.iter().map(|name| found.get(name).cloned()).collect())
    }

    async fn by_sku(&self, skus: &[String]) -> Result<Vec<Option<Arc<Stored>>>, Error> {
        if skus.is_empty() {
            return Ok(vec![]);
        }
        let wanted: Vec<&str> = skus.iter().map(String::as_str).collect();
        let mut found = BTreeMap::new();
        for (sku, document) in skus::owners(&self.database, &wanted).await? {
            found.extend(document.stored()?.map(|stored| (sku, Arc::new(stored))));
        }
        Ok(skus.iter().map(|sku| found.get(sku).cloned()).collect())
    }

    async fn command(
        &self,
        _: &'static Site,
        author: Author,
        request: Option<Request>,
        mut order: Order,
    ) -> Result<proto::Product, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.attempt(&author, request.as_ref(), &mut order).await {
                Err(error) if lost_a_race(&error) && attempt < once::CONFLICT_ATTEMPTS => pause(attempt).await,
                answer => return answer,
            }
        }
    }

    async fn import(&self, author: Author, lines: Vec<Line>) -> Result<proto::ImportProductsResponse, Error> {
        let mut reply = proto::ImportProductsResponse::default();
        let mut session = Session::new(self, &author, self.now());
        let outcome = async {
            for line in &lines {
                let mut attempt = 0;
                let outcome = loop {
                    attempt += 1;
                    match import::replace(&mut session, line).await {
                        Err(error) if lost_a_race(&error) && attempt < once::CONFLICT_ATTEMPTS => {
                            session.loaded.clear();
                            pause(attempt).await;
                        }
                        outcome => break outcome,
                    }
                };
                session.loaded.clear();
                import::count(&mut reply, line, outcome)?;
            }
            Ok(())
        };
        let outcome: Result<(), Error> = outcome.await;
        // Also what came before a fault has happened.
        let written = std::mem::take(&mut session.written);
        self.settle(written).await;
        outcome.map(|()| reply)
    }
}

/// One decision on documents: what was read for it guards what it writes.
struct Session<'a> {
    documents: &'a Documents,
    author: &'a Author,
    request: Option<&'a Request>,
    dry_run: bool,
    now: Timestamp,
    loaded: HashMap<String, Option<Document>>,
    written: Vec<Document>,
}

impl<'a> Session<'a> {
    fn new(documents: &'a Documents, author: &'a Author, now: Timestamp) -> Self {
        let (loaded, written) = (HashMap::new(), vec![]);
        Self { documents, author, request: None, dry_run: false, now, loaded, written }
    }

    async fn load(&mut self, name: &str) -> Result<Option<&Document>, Error> {
        if !self.loaded.contains_key(name) {
            let document = self.documents.database.document(name).await?;
            self.loaded.insert(name.to_owned(), document);
        }
        Ok(self.loaded.get(name).and_then(Option::as_ref))
    }

    /// Keeps an answer with the document alone.
    async fn keep(&mut self, name: &str, answer: Result<Vec<u8>, Refusal>) -> Result<(), Error> {
        let now = self.now;
        let current = self.load(name).await?.cloned();
        // The product is as old as it was; only the document is newer.
        let mut new = Document::successor(current.as_ref(), name, now);
        if let Some(request) = self.request {
            new.answer(request, answer);
        }
        new.update_time = current.as_ref().map_or(new.update_time, |current| current.update_time);
        self.write(current.as_ref(), new).await
    }

    async fn write(&mut self, current: Option<&Document>, new: Document) -> Result<(), Error> {
        if new.events.len() + new.answers.len() > MOST_UNSENT {
            // Either this makes room, and the decision starts afresh, or it says why there is none.
            self.documents.relay.send(current.map_or(&[], std::slice::from_ref)).await?;
            return Err(changed(&new));
        }
        if !self.documents.database.put(current, &new).await? {
            return Err(changed(&new));
        }
        self.loaded.insert(new.name.clone(), Some(new.clone()));
        // A later one carries what an earlier one did.
        self.written.retain(|document| document.name != new.name);
        self.written.push(new);
        Ok(())
    }
}

fn changed(document: &Document) -> Error {
    let version = document.version.unsigned_abs();
    log::Error::Conflict { stream: document.name.clone(), expected: version, actual: version }.into()
}

impl Shelf for Session<'_> {
    async fn get(&mut self, name: &str) -> Result<Option<Stored>, Error> {
        Ok(self.load(name).await?.map(Document::stored).transpose()?.flatten())
    }

    async fn get_by_sku(&mut self, sku: &str) -> Result<Option<Stored>, Error> {
        let Some((_, owner)) = skus::owners(&self.documents.database, &[sku]).await?.pop_first() else {
            return Ok(None);
        };
        let stored = owner.stored()?;
        self.loaded.insert(owner.name.clone(), Some(owner));
        Ok(stored)
    }

    async fn taken(&mut self, name: &str, skus: &[&str]) -> Result<BTreeMap<String, String>, Error> {
        let has_all = self.load(name).await?.is_some_and(|document| skus.iter().all(|sku| document.has(sku)));
        if skus.is_empty() || has_all {
            return Ok(BTreeMap::new());
        }
        let owners = skus::owners(&self.documents.database, skus).await?;
        let others = owners.into_iter().filter(|(_, owner)| owner.name != name);
        Ok(others.map(|(sku, owner)| (sku, owner.name)).collect())
    }

    async fn put(&mut self, name: &str, version: u64, event: &Event) -> Result<Stored, Error> {
        let now = self.now;
        let current = self.load(name).await?.cloned();
        let mut new = Document::successor(current.as_ref(), name, now);
        if new.version.unsigned_abs() != version {
            return Err(changed(&new));
        }
        let product = event.product();
        new.advance(&wire::to_stored(name, &self.author.actor, event), product, &self.author.meta);
        let missing = || Error::Missing(name.to_owned());
        let stored = new.stored()?.ok_or_else(missing)?;
        if self.dry_run {
            return Ok(stored);
        }
        if let Some(request) = self.request {
            new.answer(request, Ok(wire::product(&stored, self.documents.currency).encode_to_vec()));
        }
        for variant in &product.variants {
            let kept = current.as_ref().is_some_and(|current| current.has(&variant.sku));
            if !kept && !skus::reserve(&self.documents.database, name, &variant.sku, now).await? {
                return Err(changed(&new));
            }
        }
        self.write(current.as_ref(), new).await?;
        Ok(stored)
    }
}
