//! What the copies of a service share and can lose: limits, and marks of what was revoked.
//!
//! Nothing in here is the truth of anything. In one process it is memory; in a fleet it is Redis (feature `fleet`), which may
//! be emptied, restarted, restored from an old copy, or gone. Invariants: no call waits for Redis longer than
//! [`Address::patience`], nor at all while it is known to be away; [`Standing::Good`] is said only while whoever holds the
//! truth vouches that every mark is there.
//!
//! Both adapters of [`Buckets`] and of [`Marks`] pass the same suite, `conformance`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod conformance;
mod limits;
mod marks;
#[cfg(feature = "fleet")]
mod redis;

use std::sync::Arc;

pub use futures_util::future::BoxFuture;
pub use limits::{Buckets, Charge, Limit, Limiter, Memory as MemoryBuckets};
pub use marks::{Filling, Mark, Marks, Memory as MemoryMarks, Pace, Standing, Unwatched};

#[cfg(feature = "fleet")]
pub use redis::{Address, Shared};

/// The cache could not be asked. Who asked does without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache cannot be reached: {detail}")]
pub struct Unavailable {
    /// What is known about why.
    pub detail: String,
}

/// The cache cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
#[error("the address of the cache is not good: {detail}")]
pub struct Misconfigured {
    /// What is wrong.
    pub detail: String,
}

/// What a process has of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {
    marks: Arc<dyn Marks>,
    #[cfg(feature = "fleet")]
    shared: Option<Shared>,
}

impl Cache {
    /// Of a process that is all there is: memory.
    pub fn of_one_process() -> Self {
        Self::local(Arc::new(MemoryMarks::default()))
    }

    /// Of a process among others that share nothing: limits count in each, and nobody hears what was revoked elsewhere.
    pub fn unshared() -> Self {
        Self::local(Arc::new(Unwatched))
    }

    /// Of a process among others that share a Redis. Nothing is connected yet, and a Redis that is away is no error.
    #[cfg(feature = "fleet")]
    pub fn shared(address: &Address) -> Result<Self, Misconfigured> {
        let shared = Shared::new(address)?;
        Ok(Cache { marks: Arc::new(shared.marks()), shared: Some(shared) })
    }

    /// Counts against a limit; `name` tells limits apart.
    pub fn limiter(&self, name: &'static str, limit: Limit) -> Limiter {
        #[cfg(feature = "fleet")]
        if let Some(shared) = &self.shared {
            return Limiter::new(limit, Some(Arc::new(shared.buckets(name, limit))));
        }
        let _ = name;
        Limiter::new(limit, None)
    }

    /// What was revoked.
    pub fn marks(&self) -> &Arc<dyn Marks> {
        &self.marks
    }

    fn local(marks: Arc<dyn Marks>) -> Self {
        Cache {
            marks,
            #[cfg(feature = "fleet")]
            shared: None,
        }
    }
}
