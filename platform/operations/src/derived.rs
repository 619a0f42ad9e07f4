//! Tables that can be thrown away and derived again.

use bus::BoxFuture;
use contract::EventSet;
use log::{Difference, Log, Rebuilt};
use server::status;
use store::Store;
use tonic::Status;

/// A set of tables that follow from a log and from nothing else.
pub trait Derived: Send + Sync + 'static {
    /// Its name, for operators.
    fn name(&self) -> &'static str;

    /// Its tables.
    fn tables(&self) -> &'static [&'static str];

    /// Where its tables are, if that is not the service's own store.
    fn elsewhere(&self) -> Option<&Store> {
        None
    }

    /// Folds the log anew beside the live tables, then swaps; `actor` asked for it.
    fn rebuild<'a>(&'a self, actor: &'a str) -> BoxFuture<'a, Result<Rebuilt, Status>>;

    /// The rows that are not what the log says; nothing changes.
    fn verify(&self) -> BoxFuture<'_, Result<Vec<Difference>, Status>>;
}

/// A projection that is applied in the appending transaction.
pub(crate) struct Inline<E> {
    pub(crate) log: Log<E>,
    pub(crate) name: &'static str,
    pub(crate) tables: &'static [&'static str],
}

impl<E: EventSet> Derived for Inline<E> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn tables(&self) -> &'static [&'static str] {
        self.tables
    }

    fn rebuild<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Rebuilt, Status>> {
        Box::pin(async move { self.log.rebuild(self.name).await.map_err(|error| status::of_log(&error)) })
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<Difference>, Status>> {
        Box::pin(async move { self.log.verify(self.name).await.map_err(|error| status::of_log(&error)) })
    }
}
