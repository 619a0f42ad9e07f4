//! Whose a SKU is: one variant's in the whole shop, though no write reaches two documents.
//!
//! A product gives a SKU to a variant only after it has become the only holder of the SKU's reservation, and only by a write
//! that is guarded by its document as it was read before that. Who wants a SKU that others hold joins them, which keeps them
//! from being the only holder; then fences each of them: a document that has the SKU keeps it, any other is given a new
//! guard, so that no write prepared before can still bring the SKU in; only then it holds alone. Whoever dies in between
//! leaves holders that the next one fences again. A SKU that a product has given up stays reserved for it until somebody
//! else wants it. A product keeps what its document has without asking: whoever would take it sees it there.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use log::backoff;
use store::Error;

use super::database::Database;
use super::shape::Document;

/// How often a SKU is tried that several products want at once.
const ROUNDS: u32 = 8;
/// How often those go first who want it already.
const PATIENT_ROUNDS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The documents that have these SKUs, by SKU.
pub(super) async fn owners(database: &Database, skus: &[&str]) -> Result<BTreeMap<String, Document>, Error> {
    let reservations = database.reservations(skus).await?;
    let mut names: Vec<String> = reservations.iter().flat_map(|each| each.holders.iter().cloned()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let documents = database.documents(&names).await?;
    let owner = |sku: &str| documents.iter().find(|document| document.has(sku)).cloned();
    Ok(skus.iter().filter_map(|sku| Some(((*sku).to_owned(), owner(sku)?))).collect())
}

/// Makes `name` the only holder of a SKU; false if the SKU is another product's, or too many want it.
pub(super) async fn reserve(database: &Database, name: &str, sku: &str, now: Timestamp) -> Result<bool, Error> {
    for round in 1..=ROUNDS {
        if database.reserve_first(sku, name).await? {
            return Ok(true);
        }
        let Some(mut held) = database.reservations(&[sku]).await?.pop() else { continue };
        if held.holders.len() > 1 && round <= PATIENT_ROUNDS {
            // Somebody is about to decide it, or has died over it. All who fence each other at once get nowhere.
            tokio::time::sleep(backoff::jittered(round, FIRST_PAUSE, LONGEST_PAUSE)).await;
            continue;
        }
        let others: Vec<String> = held.holders.iter().filter(|holder| *holder != name).cloned().collect();
        // A write even where nothing changes: a read might be of a moment that is over.
        let mut joined = others.clone();
        joined.push(name.to_owned());
        match database.hand_over(&held, joined).await? {
            Some(now_held) => held = now_held,
            None => continue,
        }
        for other in &others {
            if !database.fence(other, sku, now).await? {
                // If this is lost, one holder too many stays, and is fenced by the next who wants the SKU.
                database.hand_over(&held, others.clone()).await?;
                return Ok(false);
            }
        }
        if others.is_empty() || database.hand_over(&held, vec![name.to_owned()]).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
