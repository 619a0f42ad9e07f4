//! The database of documents: the few operations there are, each of them on one document.
//!
//! Writes are acknowledged by a majority that has them in its journal, reads see only what a majority has: what was read can
//! be guarded on, and what was acknowledged stays. A write whose answer was lost is sent again: it is guarded, so it can take
//! effect once, and it is known by its guard.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use log::Request;
use mongodb::bson::{Binary, Document as Bson, doc, spec::BinarySubtype};
use mongodb::error::{ErrorKind, WriteFailure};
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, ReturnDocument, WriteConcern};
use mongodb::{Client, Collection, IndexModel};
use serde::{Deserialize, Serialize};
use store::Error;
use store::crash::{self, Kind};

use super::shape::{Document, fresh_guard};

/// How long an answer is awaited from a server that does not show itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a server may be out of reach when the process starts: as long as another that was killed takes to come back.
const ARRIVAL: Duration = Duration::from_secs(30);
/// How often a write whose answer was lost is sent again.
const REPEATS: u32 = 2;
/// How often it is tried to fence a document that others keep writing.
const FENCINGS: u32 = 16;
/// Documents one sweep takes up.
pub(super) const SWEPT: i64 = 200;
/// Documents that are asked for one by one.
const FEW: usize = 8;
/// What a server answers to a key that is there already.
const DUPLICATE_KEY: i32 = 11000;
/// `CursorNotFound`, and what drivers read again for, by MongoDB's specification of retryable reads.
const PASSING: [i32; 14] = [43, 6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436];

/// The collections of the catalogue. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Database {
    products: Collection<Document>,
    skus: Collection<Reservation>,
    requests: Collection<Claim>,
}

/// Who may give a SKU to one of its variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reservation {
    #[serde(rename = "_id")]
    pub(super) sku: String,
    /// The product that may, when it stands alone; else those between whom it is not decided.
    pub(super) holders: Vec<String>,
    pub(super) guard: String,
}

/// Which product a request is about: the answer is there, or went from there to where all answers are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    #[serde(rename = "_id")]
    id: String,
    fingerprint: Binary,
    pub(super) product: String,
    time: i64,
}

impl Database {
    /// Connects to `mongodb://host:port/database`.
    pub(super) async fn connect(address: &str) -> Result<Self, Error> {
        let unusable = |detail: String| Error::Open { service: "catalog", detail };
        let mut options = ClientOptions::parse(address).await.map_err(|error| unusable(error.to_string()))?;
        options.server_selection_timeout.get_or_insert(PATIENCE);
        options.connect_timeout.get_or_insert(PATIENCE);
        // Weaker ones would break the promises above, so the address has no say.
        options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria = None;
        let name = options
            .default_database
            .clone()
            .ok_or_else(|| unusable("the address of its documents names no database".to_owned()))?;
        let client = Client::with_options(options).map_err(|error| unusable(error.to_string()))?;
        let database = client.database(&name);
        let begun = Instant::now();
        while let Err(error) = database.run_command(doc! { "ping": 1 }).await {
            if !may_be_lost(&error) || begun.elapsed() > ARRIVAL {
                return Err(unusable(error.to_string()));
            }
            tracing::info!(%error, "the documents' server is not there yet");
        }
        let this = Self {
            products: database.collection("products"),
            skus: database.collection("skus"),
            requests: database.collection("requests"),
        };
        this.make_indexes().await.map_err(|error| unusable(error.to_string()))?;
        Ok(this)
    }

    /// What sweeps look for; everything else is found by its key. An index that is there stays.
    async fn make_indexes(&self) -> Result<(), mongodb::error::Error> {
        let index = |keys: Bson| IndexModel::builder().keys(keys).build();
        self.products.create_index(index(doc! { "unsent": 1, "update_time": 1 })).await?;
        self.products.create_index(index(doc! { "version": 1, "update_time": 1 })).await?;
        self.requests.create_index(index(doc! { "time": 1 })).await?;
        Ok(())
    }

    /// One document.
    pub(super) async fn document(&self, name: &str) -> Result<Option<Document>, Error> {
        self.products.find_one(doc! { "_id": name }).await.map_err(fault)
    }

    /// The documents of these names that there are.
    pub(super) async fn documents(&self, names: &[String]) -> Result<Vec<Document>, Error> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        by_keys(&self.products, &names).await
    }

    /// Documents with something unsent, those first that have waited longest.
    pub(super) async fn unsent(&self) -> Result<Vec<Document>, Error> {
        let found = self.products.find(doc! { "unsent": true }).sort(doc! { "update_time": 1 }).limit(SWEPT);
        found.await.map_err(fault)?.try_collect().await.map_err(fault)
    }

    /// Puts a document where there was `before`, or none; false if somebody else was there first.
    pub(super) async fn put(&self, before: Option<&Document>, new: &Document) -> Result<bool, Error> {
        crash::hit(Kind::CommitBefore, store::site!("catalog.document").name());
        let mut repeats = 0;
        let put = loop {
            let written = match before {
                None => self.products.insert_one(new).await.map(|_| true),
                Some(before) => self
                    .products
                    .find_one_and_replace(doc! { "_id": &new.name, "guard": &before.guard }, new)
                    .return_document(ReturnDocument::After)
                    .await
                    .map(|found| found.is_some()),
            };
            match written {
                Ok(true) => break true,
                Err(error) if may_be_lost(&error) && repeats < REPEATS => repeats += 1,
                Err(error) if !is_duplicate(&error) => return Err(fault(error)),
                Ok(false) | Err(_) => {
                    // It was there first, or this very write was, and its answer was lost.
                    let there = self.document(&new.name).await?;
                    break there.is_some_and(|there| there.guard == new.guard);
                }
            }
        };
        if put {
            crash::hit(Kind::CommitAfter, store::site!("catalog.document").name());
        }
        Ok(put)
    }

    /// Notes that everything in the document was sent; false if it has changed since, and has to be looked at again.
    pub(super) async fn mark_sent(&self, sent: &Document) -> Result<bool, Error> {
        crash::hit(Kind::CommitBefore, store::site!("catalog.mark").name());
        let set = doc! { "$set": {
            "guard": fresh_guard(),
            "unsent": false,
            "events": Vec::<Bson>::new(),
            "answers": Vec::<Bson>::new(),
        } };
        let marked =
            self.products.update_one(doc! { "_id": &sent.name, "guard": &sent.guard }, set).await.map_err(fault)?;
        crash::hit(Kind::CommitAfter, store::site!("catalog.mark").name());
        Ok(marked.matched_count == 1)
    }

    /// Makes every write of the product fail that has been prepared, but not sent. False, and nothing is changed, if the
    /// document has this SKU.
    pub(super) async fn fence(&self, name: &str, sku: &str, now: Timestamp) -> Result<bool, Error> {
        for _ in 0..FENCINGS {
            let fenced = match self.document(name).await? {
                Some(document) if document.has(sku) => return Ok(false),
                Some(document) => {
                    let set = doc! { "$set": { "guard": fresh_guard() } };
                    let guarded = doc! { "_id": name, "guard": &document.guard };
                    self.products.update_one(guarded, set).await.map_err(fault)?.matched_count == 1
                }
                None => self.put(None, &Document::vacant(name, now)).await?,
            };
            if fenced {
                return Ok(true);
            }
        }
        Err(Error::Busy { detail: format!("{name} is being written all the time") })
    }

    /// Who holds these SKUs, as far as somebody does.
    pub(super) async fn reservations(&self, skus: &[&str]) -> Result<Vec<Reservation>, Error> {
        by_keys(&self.skus, skus).await
    }

    /// Reserves a SKU that nobody holds; false if somebody does.
    pub(super) async fn reserve_first(&self, sku: &str, holder: &str) -> Result<bool, Error> {
        let first = Reservation { sku: sku.to_owned(), holders: vec![holder.to_owned()], guard: fresh_guard() };
        match self.skus.insert_one(&first).await {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(fault(error)),
        }
    }

    /// Changes who holds a SKU; nothing if somebody else has changed it since it was read.
    pub(super) async fn hand_over(
        &self,
        before: &Reservation,
        holders: Vec<String>,
    ) -> Result<Option<Reservation>, Error> {
        let new = Reservation { holders, guard: fresh_guard(), ..before.clone() };
        let guarded = doc! { "_id": &before.sku, "guard": &before.guard };
        let replaced = self.skus.find_one_and_replace(guarded, &new).await.map_err(fault)?;
        Ok(replaced.map(|_| new))
    }

    /// Notes which product a request is about, and says which it is; true if the request was noted before. Another body
    /// under the same key is an error.
    pub(super) async fn claim(
        &self,
        request: &Request,
        product: &str,
        now: Timestamp,
    ) -> Result<(String, bool), log::Error> {
        let fingerprint = Binary { subtype: BinarySubtype::Generic, bytes: request.fingerprint.to_vec() };
        let claim = Claim {
            id: format!("{}\n{}\n{}", request.principal, request.method, request.key),
            fingerprint,
            product: product.to_owned(),
            time: now.as_microsecond(),
        };
        match self.requests.insert_one(&claim).await {
            Ok(_) => Ok((claim.product, false)),
            Err(error) if is_duplicate(&error) => {
                let kept = self.requests.find_one(doc! { "_id": &claim.id }).await.map_err(fault)?;
                match kept {
                    Some(kept) if kept.fingerprint == claim.fingerprint => Ok((kept.product, true)),
                    Some(_) => Err(request.reused()),
                    // Its time ran out in this very moment.
                    None => Err(Error::Busy { detail: "a claim was dropped while it was read".to_owned() }.into()),
                }
            }
            Err(error) => Err(fault(error).into()),
        }
    }

    /// Drops claims and vacant places from before `end`; some of them, if there are many.
    pub(super) async fn drop_old(&self, end: Timestamp) -> Result<(), Error> {
        let end = end.as_microsecond();
        let old = self.requests.find(doc! { "time": { "$lt": end } }).limit(SWEPT).await.map_err(fault)?;
        for claim in old.try_collect::<Vec<_>>().await.map_err(fault)? {
            self.requests.delete_one(doc! { "_id": claim.id }).await.map_err(fault)?;
        }
        let vacant = doc! { "version": 0, "unsent": false, "update_time": { "$lt": end } };
        let old = self.products.find(vacant).limit(SWEPT).await.map_err(fault)?;
        for place in old.try_collect::<Vec<_>>().await.map_err(fault)? {
            self.products.delete_one(doc! { "_id": place.name, "guard": place.guard }).await.map_err(fault)?;
        }
        Ok(())
    }
}

/// A few are asked for by their key alone, all at once, which any engine answers from its index.
async fn by_keys<T>(collection: &Collection<T>, keys: &[&str]) -> Result<Vec<T>, Error>
where
    T: for<'de> Deserialize<'de> + Send + Sync,
{
    if keys.len() > FEW {
        let found = collection.find(doc! { "_id": { "$in": keys } }).await.map_err(fault)?;
        return found.try_collect().await.map_err(fault);
    }
    let one = async |key: &&str| collection.find_one(doc! { "_id": *key }).await.map_err(fault);
    Ok(try_join_all(keys.iter().map(one)).await?.into_iter().flatten().collect())
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(refused)) => refused.code == DUPLICATE_KEY,
        ErrorKind::Command(refused) => refused.code == DUPLICATE_KEY,
        _ => false,
    }
}

/// Whether the write may have reached the server, or the server may be there in a moment.
fn may_be_lost(error: &mongodb::error::Error) -> bool {
    matches!(
        error.kind.as_ref(),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::ServerSelection { .. }
    )
}

/// Whether the server says no because of what it goes through itself. It forgets cursors when it starts again, so a list whose
/// first part it has answered ends in the middle.
fn passes(error: &mongodb::error::Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(refused) if PASSING.contains(&refused.code))
}

/// What the callers of a store are told.
pub(super) fn fault(error: mongodb::error::Error) -> Error {
    if may_be_lost(&error) || passes(&error) || error.contains_label(mongodb::error::RETRYABLE_WRITE_ERROR) {
        return Error::Busy { detail: error.to_string() };
    }
    if matches!(error.kind.as_ref(), ErrorKind::BsonDeserialization(_) | ErrorKind::Bson(_)) {
        return Error::Damaged { service: "catalog", detail: error.to_string() };
    }
    Error::Engine(std::sync::Arc::new(error))
}

#[cfg(test)]
mod tests {
    use mongodb::bson;
    use mongodb::error::CommandError;

    use super::*;

    fn refused(code: i32) -> mongodb::error::Error {
        let said = doc! { "code": code, "codeName": "Name", "errmsg": "message" };
        ErrorKind::Command(bson::deserialize_from_document::<CommandError>(said).unwrap()).into()
    }

    #[test]
    fn a_list_that_a_server_forgot_when_it_started_again_is_asked_for_later() {
        for code in PASSING {
            assert!(matches!(fault(refused(code)), Error::Busy { .. }), "{code}");
        }
        let bad_value = 2;
        assert!(matches!(fault(refused(bad_value)), Error::Engine(_)));
    }
}
