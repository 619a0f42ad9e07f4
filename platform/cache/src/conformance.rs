//! What every adapter promises, as executable sentences. Each function takes a fresh adapter and panics where it does not
//! keep one.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a suite for tests")]

use std::time::Duration;

use jiff::Timestamp;

use crate::{Buckets, Limit, Mark, Marks, Standing};

/// The limit that [`buckets`] expects.
pub const LIMIT: Limit = Limit { times: 3, window: Duration::from_secs(300) };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Buckets of [`LIMIT`] that count by the time they are given.
pub async fn buckets(buckets: &dyn Buckets) {
    a_full_bucket_says_when_to_come_back_and_lets_one_more_then(buckets).await;
    what_is_given_back_was_never_charged(buckets).await;
    a_time_that_goes_back_gives_nothing_away(buckets).await;
    keys_of_any_bytes_are_apart(buckets).await;
}

async fn a_full_bucket_says_when_to_come_back_and_lets_one_more_then(buckets: &dyn Buckets) {
    for _ in 0..3 {
        buckets.take(b"full", at(100)).await.unwrap().unwrap();
    }
    assert_eq!(buckets.take(b"full", at(100)).await.unwrap(), Err(Duration::from_secs(100)));
    assert_eq!(buckets.take(b"full", at(140)).await.unwrap(), Err(Duration::from_secs(60)));
    buckets.take(b"full", at(200)).await.unwrap().unwrap();
    buckets.take(b"full", at(200)).await.unwrap().unwrap_err();
}

async fn what_is_given_back_was_never_charged(buckets: &dyn Buckets) {
    buckets.give_back(b"never charged").await.unwrap();
    for _ in 0..20 {
        buckets.take(b"given back", at(100)).await.unwrap().unwrap();
        buckets.give_back(b"given back").await.unwrap();
    }
    for _ in 0..3 {
        buckets.take(b"given back", at(100)).await.unwrap().unwrap();
    }
    buckets.take(b"given back", at(100)).await.unwrap().unwrap_err();
}

async fn a_time_that_goes_back_gives_nothing_away(buckets: &dyn Buckets) {
    for _ in 0..3 {
        buckets.take(b"skewed", at(100)).await.unwrap().unwrap();
    }
    assert_eq!(buckets.take(b"skewed", at(40)).await.unwrap(), Err(Duration::from_secs(160)));
}

async fn keys_of_any_bytes_are_apart(buckets: &dyn Buckets) {
    for key in [&[0, 255, 10, 13][..], &[0, 255, 10], b"", "ü\0".as_bytes()] {
        for _ in 0..3 {
            buckets.take(key, at(100)).await.unwrap().unwrap();
        }
        buckets.take(key, at(100)).await.unwrap().unwrap_err();
    }
}

/// Does the same to two adapters of one limit; the decisions must be the same. `steps` are (which of eight keys, microseconds
/// that pass before, whether one is given back).
pub async fn same_decisions(one: &dyn Buckets, other: &dyn Buckets, prefix: &str, steps: &[(u8, u32, bool)]) {
    let mut now = at(0);
    for (place, (key, passed, back)) in steps.iter().enumerate() {
        now += Duration::from_micros(u64::from(*passed));
        let key = format!("{prefix}{}", key % 8);
        if *back {
            one.give_back(key.as_bytes()).await.unwrap();
            other.give_back(key.as_bytes()).await.unwrap();
            continue;
        }
        let decided = one.take(key.as_bytes(), now).await.unwrap();
        assert_eq!(other.take(key.as_bytes(), now).await.unwrap(), decided, "step {place}");
    }
}

/// Marks nobody has vouched for yet.
pub async fn marks(marks: &dyn Marks) {
    nothing_is_good_before_somebody_vouches(marks).await;
    a_mark_is_seen_as_soon_as_it_is_put(marks).await;
    a_mark_is_not_shortened(marks).await;
    many_marks_are_put_at_once(marks).await;
}

fn mark(id: impl Into<String>, remaining: Duration) -> Mark {
    Mark { id: id.into(), remaining }
}

const LONG: Duration = Duration::from_secs(300);

/// Waits until an id has a standing.
pub async fn becomes(marks: &dyn Marks, id: &str, wanted: Standing) {
    let looked = async {
        while marks.standing(id).await != Ok(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let late = |_| panic!("{id} did not become {wanted:?}");
    tokio::time::timeout(Duration::from_secs(20), looked).await.unwrap_or_else(late);
}

async fn nothing_is_good_before_somebody_vouches(marks: &dyn Marks) {
    assert_eq!(marks.standing("good").await, Ok(Standing::Unknown));
    let filling = marks.begin().await.unwrap();
    marks.put(&[mark("ended", LONG)]).await.unwrap();
    assert_eq!(marks.standing("good").await, Ok(Standing::Unknown));
    assert_eq!(marks.standing("ended").await, Ok(Standing::Revoked));
    assert_eq!(marks.vouch(&filling).await, Ok(true));
    assert_eq!(marks.standing("good").await, Ok(Standing::Good));
    assert_eq!(marks.standing("ended").await, Ok(Standing::Revoked));
}

async fn a_mark_is_seen_as_soon_as_it_is_put(marks: &dyn Marks) {
    let filling = marks.begin().await.unwrap();
    assert_eq!(marks.vouch(&filling).await, Ok(true));
    assert_eq!(marks.standing("users/1/sessions/1").await, Ok(Standing::Good));
    marks.put(&[mark("users/1/sessions/1", LONG)]).await.unwrap();
    assert_eq!(marks.standing("users/1/sessions/1").await, Ok(Standing::Revoked));
    assert_eq!(marks.vouch(&filling).await, Ok(true));
    assert_eq!(marks.standing("users/1/sessions/1").await, Ok(Standing::Revoked));
}

async fn a_mark_is_not_shortened(marks: &dyn Marks) {
    let filling = marks.begin().await.unwrap();
    marks.put(&[mark("long", LONG), mark("short", Duration::from_millis(1))]).await.unwrap();
    marks.put(&[mark("long", Duration::from_millis(1))]).await.unwrap();
    let vouched = async {
        // The short one shows that the time of both has passed.
        while marks.standing("short").await != Ok(Standing::Good) {
            marks.vouch(&filling).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), vouched).await.unwrap();
    assert_eq!(marks.standing("long").await, Ok(Standing::Revoked));
}

async fn many_marks_are_put_at_once(marks: &dyn Marks) {
    let many: Vec<Mark> = (0..3000).map(|number| mark(format!("many/{number}"), LONG)).collect();
    marks.put(&many).await.unwrap();
    for number in [0, 499, 500, 1499, 2999] {
        assert_eq!(marks.standing(&format!("many/{number}")).await, Ok(Standing::Revoked));
    }
}

/// A place of its own on the server that `CACHE_TEST_REDIS` names, if it names one; `CACHE_TEST_REDIS_AUTHORITY` is the file with
/// the certificate of who signed the server's.
#[cfg(feature = "fleet")]
#[allow(clippy::disallowed_methods, reason = "a test is told where its server is")]
pub fn address_of_test() -> Option<crate::Address> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var("CACHE_TEST_REDIS").ok()?;
    let authority = std::env::var("CACHE_TEST_REDIS_AUTHORITY").ok();
    let place = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut address = crate::Address::new(url);
    address.authority = authority.map(|file| std::fs::read(file).unwrap());
    address.prefix = format!("stoa:t{}_{place}", std::process::id());
    // A machine that is busy with tests is slow, and a suite is about answers.
    address.patience = Duration::from_secs(5);
    address.lease = Duration::from_secs(60);
    Some(address)
}
