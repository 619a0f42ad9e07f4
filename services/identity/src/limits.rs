//! Limits of failed sign-ins, in memory and bounded.
//!
//! A bucket is one number: the time at which it is full again (the generic cell rate algorithm). An attempt is charged before
//! the password is looked at and given back when that was right, so a thousand guesses at the same time pass no more than the
//! limit. Buckets are lost with the process; what they slow down costs an Argon2 hash each anyway.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// So many failures within a time; they come back evenly over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many at once.
    pub failures: u32,
    /// How long until all of them are back.
    pub window: Duration,
}

/// Buckets kept; beyond them the least used go.
const MAX_BUCKETS: usize = 100_000;

/// The buckets of one kind of key.
#[derive(Debug)]
pub(crate) struct Buckets {
    window_us: i64,
    step_us: i64,
    full_at: Mutex<HashMap<Vec<u8>, i64>>,
}

impl Buckets {
    pub(crate) fn new(limit: Limit) -> Self {
        let window_us = i64::try_from(limit.window.as_micros()).unwrap_or(i64::MAX / 4);
        Buckets { window_us, step_us: window_us / i64::from(limit.failures.max(1)), full_at: Mutex::default() }
    }

    /// Charges one attempt, or says how long until one is free.
    pub(crate) fn take(&self, key: &[u8], now: Timestamp) -> Result<(), Duration> {
        let now = now.as_microsecond();
        let mut full_at = self.lock();
        let full = full_at.get(key).copied().unwrap_or(now).max(now) + self.step_us;
        let over = full - now - self.window_us;
        if over > 0 {
            return Err(Duration::from_micros(over.unsigned_abs()));
        }
        if full_at.len() >= MAX_BUCKETS && !full_at.contains_key(key) {
            make_room(&mut full_at, now);
        }
        full_at.insert(key.to_vec(), full);
        Ok(())
    }

    /// Gives one attempt back.
    pub(crate) fn give_back(&self, key: &[u8]) {
        if let Some(full) = self.lock().get_mut(key) {
            *full -= self.step_us;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, i64>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn buckets() -> Buckets {
        Buckets::new(Limit { failures: 3, window: Duration::from_secs(30) })
    }

    #[test]
    fn a_full_bucket_says_when_to_come_back_and_lets_one_more_then() {
        let buckets = buckets();
        for _ in 0..3 {
            buckets.take(b"a", at(100)).unwrap();
        }
        assert_eq!(buckets.take(b"a", at(100)), Err(Duration::from_secs(10)));
        assert_eq!(buckets.take(b"a", at(104)), Err(Duration::from_secs(6)));
        buckets.take(b"b", at(104)).unwrap();
        buckets.take(b"a", at(110)).unwrap();
        buckets.take(b"a", at(110)).unwrap_err();
    }

    #[test]
    fn what_is_given_back_was_never_charged() {
        let buckets = buckets();
        for _ in 0..100 {
            buckets.take(b"a", at(100)).unwrap();
            buckets.give_back(b"a");
        }
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let buckets = buckets();
        for _ in 0..3 {
            buckets.take(b"attacked", at(100)).unwrap();
        }
        for key in 0..MAX_BUCKETS * 2 {
            buckets.take(&key.to_be_bytes(), at(100)).unwrap();
            assert!(buckets.lock().len() <= MAX_BUCKETS);
        }
        buckets.take(b"attacked", at(100)).unwrap_err();
    }
}
