//! What this process finds products by: a copy of the log with its rows and words, made anew at each start.
//!
//! It is an embedded catalogue that is fed by the log instead of by callers: the same tables, statements and order of equal
//! matches, so lists and searches have the answers they have on the embedded engine. The log has one shard, which is copied
//! position by position, each at most once: the copy's own head is the cursor, and moves in the transaction that applies. It
//! can be behind, never ahead and never in another order. A late commit cannot be skipped, for positions are dense.

use std::sync::Arc;
use std::time::Duration;

use bus::BoxFuture;
use contracts::catalog::v1::Event;
use log::{Difference, Entry, Log, Meta, Rebuilt};
use operations::Derived;
use server::status;
use store::{Config, Store, Tx, site};
use tokio::sync::Mutex;
use tonic::Status;

use crate::error::Error;

/// Events copied in one transaction.
const PAGE: u32 = 500;
/// How often it is looked whether another process has appended: what bounds how old a list is.
const LOOK: Duration = Duration::from_millis(250);

/// The copy. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    truth: Log<Event>,
    pub(super) log: Log<Event>,
    /// One at a time copies.
    turn: Arc<Mutex<()>>,
}

impl Replica {
    /// An empty copy.
    pub(super) async fn open(truth: Log<Event>) -> Result<Self, store::Error> {
        let sets = std::iter::once(log::MIGRATIONS).chain(crate::MIGRATIONS);
        let clock = truth.store().clock().clone();
        let store = Store::open(Config::temporary("catalog").migrations(sets).clock(clock)).await?;
        Ok(Self { truth, log: Log::new(store, crate::projections()), turn: Arc::default() })
    }

    /// Copies what there is.
    pub(super) async fn catch_up(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        loop {
            let after = self.head().await?;
            let truth = self.truth.clone();
            let page = async move |tx: &mut Tx| truth.tail(tx, 0, after, PAGE).await.map_err(Error::from);
            let page = self.truth.store().read(page).await?;
            if page.is_empty() {
                return Ok(());
            }
            // The events of a transaction have one time, which the rows show.
            for together in page.chunk_by(|one, next| one.at.occur_time == next.at.occur_time) {
                self.apply(together.to_vec()).await?;
            }
        }
    }

    async fn head(&self) -> Result<u64, Error> {
        let heads = self.log.store().read(async |tx: &mut Tx| tx.heads().await.map_err(Error::from)).await?;
        Ok(heads.first().copied().unwrap_or(0))
    }

    async fn apply(&self, entries: Vec<Entry<Event>>) -> Result<(), Error> {
        let log = self.log.clone();
        self.log
            .store()
            .write(site!("catalog.replica"), async move |tx: &mut Tx| {
                for Entry { at, event, .. } in &entries {
                    tx.set_now(at.occur_time);
                    let meta = Meta {
                        causation: at.causation.clone(),
                        correlation: at.correlation.clone(),
                        traceparent: at.traceparent.clone(),
                    };
                    log.append(tx, &at.stream, at.version - 1, &meta, None, vec![event.clone()]).await?;
                }
                Ok(())
            })
            .await
    }

    /// Follows the log for good.
    pub(super) async fn follow(&self) {
        let mut changed = self.truth.changed();
        loop {
            if let Err(error) = self.catch_up().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "lists and searches stay behind for now");
            }
            // Who else appended to the database is not told here.
            let _ = tokio::time::timeout(LOOK, changed.changed()).await;
        }
    }
}

impl Derived for Replica {
    fn name(&self) -> &'static str {
        "products"
    }

    fn tables(&self) -> &'static [&'static str] {
        self.log.projections().first().map_or(&[], |projection| projection.tables())
    }

    fn elsewhere(&self) -> Option<&Store> {
        Some(self.log.store())
    }

    fn rebuild<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Rebuilt, Status>> {
        Box::pin(async move { self.log.rebuild(self.name()).await.map_err(|error| status::of_log(&error)) })
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<Difference>, Status>> {
        Box::pin(async move {
            self.catch_up().await?;
            self.log.verify(self.name()).await.map_err(|error| status::of_log(&error))
        })
    }
}
