//! The adapters on Redis keep the promises of the suite, over TLS as a user who may do little else.
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use cache::{Buckets, Cache, Limit, Marks, MemoryBuckets, Misconfigured, Shared, Unavailable, conformance};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn shared() -> Shared {
    Shared::new(&conformance::address_of_test().expect("CACHE_TEST_REDIS names no server")).unwrap()
}

#[tokio::test]
#[ignore = "needs a Redis server"]
async fn buckets_on_redis_conform() {
    conformance::buckets(&shared().buckets_by_given_time("conformance", conformance::LIMIT)).await;
}

/// Marks that are vouched for by one handle and looked at by the same: who vouched before it looked first is not believed, so
/// the suite's keeper goes on in the background.
#[derive(Debug)]
struct Kept(Arc<dyn Marks>);

impl Marks for Kept {
    fn begin(&self) -> cache::BoxFuture<'_, Result<cache::Filling, Unavailable>> {
        self.0.begin()
    }

    fn put<'a>(&'a self, marks: &'a [cache::Mark]) -> cache::BoxFuture<'a, Result<(), Unavailable>> {
        self.0.put(marks)
    }

    fn vouch<'a>(&'a self, filling: &'a cache::Filling) -> cache::BoxFuture<'a, Result<bool, Unavailable>> {
        Box::pin(async move {
            self.0.standing("").await?;
            self.0.vouch(filling).await
        })
    }

    fn standing<'a>(&'a self, id: &'a str) -> cache::BoxFuture<'a, Result<cache::Standing, Unavailable>> {
        self.0.standing(id)
    }

    fn pace(&self) -> Option<cache::Pace> {
        self.0.pace()
    }
}

#[tokio::test]
#[ignore = "needs a Redis server"]
async fn marks_on_redis_conform() {
    conformance::marks(&Kept(Arc::new(shared().marks()))).await;
}

#[test]
#[ignore = "needs a Redis server"]
fn memory_and_redis_decide_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shared = shared();
    let case = std::cell::Cell::new(0);
    let limits =
        (1_u32..12, 300_u64..40_000).prop_map(|(times, seconds)| Limit { times, window: Duration::from_secs(seconds) });
    let steps = prop::collection::vec((any::<u8>(), any::<u32>(), prop::bool::weighted(0.2)), 1..80);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let compared = runner.run(&(limits, steps), |(limit, steps)| {
        case.set(case.get() + 1);
        let (memory, redis) =
            (MemoryBuckets::new(limit), shared.buckets_by_given_time(&format!("case{}", case.get()), limit));
        runtime.block_on(conformance::same_decisions(&memory, &redis, "", &steps));
        Ok(())
    });
    compared.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn two_copies_share_one_limit_by_the_clock_of_the_server() {
    let address = conformance::address_of_test().unwrap();
    let limit = Limit { times: 50, window: Duration::from_secs(3600) };
    let copies = [Cache::shared(&address).unwrap(), Cache::shared(&address).unwrap()];
    let limiters = copies.map(|copy| copy.limiter("sign-ins", limit));
    let attempts = (0..200).map(|attempt| {
        let limiter = limiters[attempt % 2].clone();
        // Copies whose clocks are an hour apart.
        let now = Timestamp::from_second(if attempt % 2 == 0 { 1_800_000_000 } else { 1_800_003_600 }).unwrap();
        tokio::spawn(async move { limiter.take(b"somebody", now).await.is_ok() })
    });
    let mut passed = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        passed += usize::from(attempt.await.unwrap());
    }
    assert_eq!(passed, 50);
}

#[tokio::test]
#[ignore = "needs a Redis server"]
async fn who_has_the_wrong_password_or_trusts_another_authority_is_not_connected() {
    let right = conformance::address_of_test().unwrap();
    let wrong_password = cache::Address { password: Some("wrong".to_owned()), ..right.clone() };
    let other_authority = cache::Address { authority: None, ..right.clone() };
    for wrong in [wrong_password, other_authority] {
        let buckets = Shared::new(&wrong).unwrap().buckets("x", conformance::LIMIT);
        buckets.take(b"a", Timestamp::UNIX_EPOCH).await.unwrap_err();
    }
    let elsewhere = cache::Address { prefix: "other".to_owned(), ..right };
    let buckets = Shared::new(&elsewhere).unwrap().buckets("x", conformance::LIMIT);
    buckets.take(b"a", Timestamp::UNIX_EPOCH).await.unwrap_err();
}

#[test]
fn an_address_that_makes_no_sense_is_refused() {
    let address = |url: &str| cache::Address::new(url);
    let refused = |address: cache::Address| matches!(Shared::new(&address), Err(Misconfigured { .. }));
    assert!(refused(address("http://127.0.0.1")));
    assert!(refused(cache::Address { authority: Some(b"no certificate".to_vec()), ..address("redis://127.0.0.1") }));
    assert!(!format!("{:?}", address("redis://u:secret@h")).contains("secret"));
}
