//! Calls of many clients, counted: how many have no answer yet, and how many had one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The counts, shared by everybody who is counted.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    ended: AtomicUsize,
}

/// A call that was begun; ended when dropped.
pub(crate) struct Open<'a>(&'a Calls);

impl Calls {
    /// Those that were sent and have no answer yet.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Those that were answered or broke.
    pub fn ended(&self) -> usize {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// Counts a call from now on.
    pub(crate) fn begin(&self) -> Open<'_> {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
