//! A planted bug, to show that the crash matrix finds its class of fault. Compiled for tests alone.

use std::sync::atomic::{AtomicBool, Ordering};

static ANSWER_BEFORE_COMMIT: AtomicBool = AtomicBool::new(false);

/// From now on every write is acknowledged before it is committed.
pub fn answer_before_commit(on: bool) {
    ANSWER_BEFORE_COMMIT.store(on, Ordering::Relaxed);
}

pub(crate) fn answers_before_commit() -> bool {
    ANSWER_BEFORE_COMMIT.load(Ordering::Relaxed)
}
