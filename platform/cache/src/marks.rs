//! Marks of what was revoked, kept where everybody who has to refuse it can look.
//!
//! The truth is elsewhere, with one *keeper* (each copy of the service that owns it). A keeper fills the marks from its truth
//! ([`Marks::begin`], [`Marks::put`]), then vouches for them ([`Marks::vouch`]) again and again, each time after it has put
//! what its truth has gained. Who asks gets [`Standing::Good`] only while somebody vouches; marks that may have been lost make
//! it [`Standing::Unknown`], and then the truth has to be asked.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::time::Instant;

use crate::Unavailable;

/// Something that is revoked, and for how long that must be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What.
    pub id: String,
    /// How long somebody could still show it.
    pub remaining: Duration,
}

/// What the marks say of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was revoked.
    Revoked,
    /// It was not.
    Good,
    /// Marks may be missing.
    Unknown,
}

/// The times of a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two vouchings.
    pub vouch: Duration,
    /// After this long no vouching counts that knows nothing of what the truth has gained meanwhile.
    pub grace: Duration,
}

/// A filling that a keeper has begun.
#[derive(Debug)]
pub struct Filling {
    /// Which life of the marks it belongs to, where they may be lost.
    #[cfg(feature = "fleet")]
    pub(crate) life: Option<crate::redis::Life>,
}

impl Filling {
    /// Of marks that are lost with the process.
    fn of_this_process() -> Self {
        Filling {
            #[cfg(feature = "fleet")]
            life: None,
        }
    }
}

/// Marks, seen by keepers and by those who ask.
pub trait Marks: Send + Sync + fmt::Debug {
    /// Begins to fill: what is put from now on is what [`Marks::vouch`] is for.
    fn begin(&self) -> BoxFuture<'_, Result<Filling, Unavailable>>;

    /// Puts marks; one that is there lives on for the longer of both times.
    fn put<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// Vouches for a moment that every mark is there which the truth had when it was last looked at. False if marks may have
    /// been lost since the filling was begun: then nobody vouches, and it is to be filled again.
    fn vouch<'a>(&'a self, filling: &'a Filling) -> BoxFuture<'a, Result<bool, Unavailable>>;

    /// What is known of an id.
    fn standing<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Standing, Unavailable>>;

    /// How often a keeper vouches; none where once is enough.
    fn pace(&self) -> Option<Pace>;
}

/// Marks of this process. They are lost with it, and so is whoever asks.
#[derive(Debug, Default)]
pub struct Memory {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    vouched: bool,
    until: HashMap<String, Instant>,
    /// From how many on it is worth looking for what is over.
    tidy_at: usize,
}

const TIDY_FROM: usize = 1024;

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks for Memory {
    fn begin(&self) -> BoxFuture<'_, Result<Filling, Unavailable>> {
        ready(Ok(Filling::of_this_process())).boxed()
    }

    fn put<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Result<(), Unavailable>> {
        let now = Instant::now();
        let mut held = self.lock();
        for mark in marks {
            let until = now + mark.remaining;
            let kept = held.until.entry(mark.id.clone()).or_insert(until);
            *kept = until.max(*kept);
        }
        if held.until.len() >= held.tidy_at.max(TIDY_FROM) {
            held.until.retain(|_, until| *until > now);
            held.tidy_at = held.until.len() * 2;
        }
        ready(Ok(())).boxed()
    }

    fn vouch<'a>(&'a self, _: &'a Filling) -> BoxFuture<'a, Result<bool, Unavailable>> {
        self.lock().vouched = true;
        ready(Ok(true)).boxed()
    }

    fn standing<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Standing, Unavailable>> {
        let held = self.lock();
        let standing = match held.until.get(id) {
            Some(until) if *until > Instant::now() => Standing::Revoked,
            _ if held.vouched => Standing::Good,
            _ => Standing::Unknown,
        };
        ready(Ok(standing)).boxed()
    }

    fn pace(&self) -> Option<Pace> {
        None
    }
}

/// No marks: of a process among others that share nothing. Everything is good there until it ends by itself.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Marks for Unwatched {
    fn begin(&self) -> BoxFuture<'_, Result<Filling, Unavailable>> {
        ready(Ok(Filling::of_this_process())).boxed()
    }

    fn put<'a>(&'a self, _: &'a [Mark]) -> BoxFuture<'a, Result<(), Unavailable>> {
        ready(Ok(())).boxed()
    }

    fn vouch<'a>(&'a self, _: &'a Filling) -> BoxFuture<'a, Result<bool, Unavailable>> {
        ready(Ok(true)).boxed()
    }

    fn standing<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Standing, Unavailable>> {
        ready(Ok(Standing::Good)).boxed()
    }

    fn pace(&self) -> Option<Pace> {
        None
    }
}
