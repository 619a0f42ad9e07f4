//! Until when somebody waits for what the store is asked to do.
//!
//! A deadline belongs to the task that asks: whatever it asks of a store inside [`within`] is bounded by it. Where the engine
//! waits for others, its statements end then; what had not begun does not begin. An engine in this process never waits for
//! long and takes no notice.

use std::future::Future;

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Option<Instant>;
}

/// Does the work with this deadline.
pub fn within<F: Future>(deadline: Instant, work: F) -> impl Future<Output = F::Output> {
    DEADLINE.scope(Some(deadline), work)
}

/// Does the work, on whatever task, with the deadline of the one that calls this.
pub fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    DEADLINE.scope(current(), work)
}

/// The deadline of this task, if it has one.
pub(crate) fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}
