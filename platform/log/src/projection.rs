//! Projections: rows derived from the log, and from nothing else.
//!
//! An inline projection is applied by [`crate::Log::append`] in the appending transaction, and by a
//! rebuild through the same function, so rows are never older or newer than their events. What
//! belongs to consumers of other services' events is not this: see the bus.

use std::pin::Pin;

use store::Tx;

use crate::At;

/// A future that stays on the thread of its transaction.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A set of derived tables.
///
/// What `apply` writes must follow from the event, its circumstances and the projection's own rows
/// alone: no clock, no random, no other tables, no order between streams of different shards. Then a
/// rebuild gives the same rows to the byte.
///
/// Personal fields arrive **sealed**, exactly as the event is stored, on the first application as on
/// every rebuild, also after an erasure. Rows keep the sealed text (beside the subject it belongs
/// to) and readers open it with [`crate::personal::open_text`].
///
/// Tables that are not derived must not have foreign keys into these: a rebuild empties and refills
/// them in one transaction.
pub trait Projection<E>: Send + Sync + 'static {
    /// Its name, for operators.
    fn name(&self) -> &'static str;

    /// Its tables, those referred to first. Full-text tables must keep their own content.
    fn tables(&self) -> &'static [&'static str];

    /// Writes what `event` means into the tables.
    fn apply<'a>(&'a self, tx: &'a mut Tx, at: &'a At, event: &'a E) -> LocalBoxFuture<'a, Result<(), store::Error>>;
}
