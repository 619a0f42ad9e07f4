//! Limits: so many within a time, by the generic cell rate algorithm.
//!
//! A bucket is one number: the time at which it is full again. What is charged may be given back, so that an attempt can be
//! charged before it is known whether it counts, and a thousand at the same time pass no more than the limit.
//!
//! A [`Limiter`] charges the bucket of its own process first and then the one all copies share. The first costs nothing and
//! turns most of a flood away; it also is what remains when the shared one cannot be asked or was emptied, so that a lost
//! cache gives each copy no more than one limit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;

use crate::Unavailable;

/// So many within a time; they come back evenly over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many at once; at least one.
    pub times: u32,
    /// How long until all of them are back.
    pub window: Duration,
}

impl Limit {
    pub(crate) fn window_us(&self) -> i64 {
        i64::try_from(self.window.as_micros()).unwrap_or(i64::MAX).min(LONGEST_US)
    }

    pub(crate) fn step_us(&self) -> i64 {
        (self.window_us() / i64::from(self.times.max(1))).max(1)
    }
}

/// A year: with the time of today it stays within what a double, Redis' only number, holds exactly.
const LONGEST_US: i64 = 366 * 24 * 60 * 60 * 1_000_000;

/// The buckets of one limit, by key.
pub trait Buckets: Send + Sync + fmt::Debug {
    /// Charges one, or says how long until one is free.
    fn take<'a>(&'a self, key: &'a [u8], now: Timestamp) -> BoxFuture<'a, Result<Result<(), Duration>, Unavailable>>;

    /// Gives one back.
    fn give_back<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Unavailable>>;
}

/// Counts against one limit, for this process and, where there is a shared bucket, for all copies. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limiter {
    own: Arc<Memory>,
    shared: Option<Arc<dyn Buckets>>,
}

/// What was charged, for giving it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what does not count is given back"]
pub struct Charge {
    shared: bool,
}

impl Limiter {
    pub(crate) fn new(limit: Limit, shared: Option<Arc<dyn Buckets>>) -> Self {
        Limiter { own: Arc::new(Memory::new(limit)), shared }
    }

    /// Charges one, or says how long until one is free.
    pub async fn take(&self, key: &[u8], now: Timestamp) -> Result<Charge, Duration> {
        self.own.charge(key, now)?;
        let Some(shared) = &self.shared else { return Ok(Charge { shared: false }) };
        match shared.take(key, now).await {
            Ok(Ok(())) => Ok(Charge { shared: true }),
            Ok(Err(wait)) => {
                self.own.refund(key);
                Err(wait)
            }
            // Whoever asks for the cache says that it is away; here the limit goes on counting, copy by copy.
            Err(Unavailable { .. }) => Ok(Charge { shared: false }),
        }
    }

    /// Gives one back. A charge whose answer was lost stays in the shared bucket until its window has passed.
    pub async fn give_back(&self, key: &[u8], charge: Charge) {
        self.own.refund(key);
        if let Some(shared) = self.shared.as_ref().filter(|_| charge.shared)
            && let Err(error) = shared.give_back(key).await
        {
            tracing::debug!(%error, "a charge stays until its window has passed");
        }
    }
}

/// Buckets kept; beyond them the least used go.
const MAX_BUCKETS: usize = 100_000;

/// Buckets of this process, bounded in number.
#[derive(Debug)]
pub struct Memory {
    limit: Limit,
    full_at: Mutex<HashMap<Vec<u8>, i64>>,
}

impl Memory {
    /// Empty buckets.
    pub fn new(limit: Limit) -> Self {
        Memory { limit, full_at: Mutex::default() }
    }

    fn charge(&self, key: &[u8], now: Timestamp) -> Result<(), Duration> {
        let now = now.as_microsecond();
        let mut full_at = self.lock();
        let full = full_at.get(key).copied().unwrap_or(now).max(now) + self.limit.step_us();
        let over = full - now - self.limit.window_us();
        if over > 0 {
            return Err(Duration::from_micros(over.unsigned_abs()));
        }
        if full_at.len() >= MAX_BUCKETS && !full_at.contains_key(key) {
            make_room(&mut full_at, now);
        }
        full_at.insert(key.to_vec(), full);
        Ok(())
    }

    fn refund(&self, key: &[u8]) {
        if let Some(full) = self.lock().get_mut(key) {
            *full -= self.limit.step_us();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, i64>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets for Memory {
    fn take<'a>(&'a self, key: &'a [u8], now: Timestamp) -> BoxFuture<'a, Result<Result<(), Duration>, Unavailable>> {
        async move { Ok(self.charge(key, now)) }.boxed()
    }

    fn give_back<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Unavailable>> {
        async move {
            self.refund(key);
            Ok(())
        }
        .boxed()
    }
}

fn make_room(full_at: &mut HashMap<Vec<u8>, i64>, now: i64) {
    full_at.retain(|_, full| *full > now);
    if full_at.len() < MAX_BUCKETS {
        return;
    }
    let mut times: Vec<i64> = full_at.values().copied().collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    full_at.retain(|_, full| *full > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    const LIMIT: Limit = Limit { times: 3, window: Duration::from_secs(30) };

    /// Buckets that cannot be asked, or that always say how long to wait.
    #[derive(Debug)]
    struct Fixed(Option<Duration>);

    impl Buckets for Fixed {
        fn take<'a>(&'a self, _: &'a [u8], _: Timestamp) -> BoxFuture<'a, Result<Result<(), Duration>, Unavailable>> {
            let answer = self.0.map(Err).ok_or(Unavailable { detail: "gone".to_owned() });
            async move { answer }.boxed()
        }

        fn give_back<'a>(&'a self, _: &'a [u8]) -> BoxFuture<'a, Result<(), Unavailable>> {
            async { Err(Unavailable { detail: "gone".to_owned() }) }.boxed()
        }
    }

    #[tokio::test]
    async fn without_the_shared_bucket_the_limit_counts_in_the_process() {
        let limiter = Limiter::new(LIMIT, Some(Arc::new(Fixed(None))));
        for _ in 0..3 {
            assert_eq!(limiter.take(b"a", at(100)).await, Ok(Charge { shared: false }));
        }
        assert_eq!(limiter.take(b"a", at(100)).await, Err(Duration::from_secs(10)));
    }

    #[tokio::test]
    async fn what_the_shared_bucket_refuses_is_not_charged_here() {
        let limiter = Limiter::new(LIMIT, Some(Arc::new(Fixed(Some(Duration::from_secs(1))))));
        for _ in 0..100 {
            assert_eq!(limiter.take(b"a", at(100)).await, Err(Duration::from_secs(1)));
        }
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let buckets = Memory::new(LIMIT);
        for _ in 0..3 {
            buckets.charge(b"attacked", at(100)).unwrap();
        }
        for key in 0..MAX_BUCKETS * 2 {
            buckets.charge(&key.to_be_bytes(), at(100)).unwrap();
            assert!(buckets.lock().len() <= MAX_BUCKETS);
        }
        buckets.charge(b"attacked", at(100)).unwrap_err();
    }
}
