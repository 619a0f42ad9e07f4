//! Planted bugs are found by the cases of every broker. A process of its own, for the switches are global.
#![cfg(all(feature = "kafka", feature = "planted-bugs"))]

mod kafka_rig;

use std::panic::AssertUnwindSafe;

use bus::conformance::brokers::{self, World};
use bus::planted;
use futures_util::FutureExt as _;

/// How often a case is tried: a fault that is a race against the broker does not show each time.
const TRIES: u32 = 5;

/// With a bug a case fails, and says this.
async fn is_found(bug: fn(bool), name: &str, case: impl AsyncFn(World), saying: &str) {
    for turn in 1..=TRIES {
        let name = format!("{name}-{turn}");
        let world = World::new(&kafka_rig::open, &kafka_rig::Kafka::named("planted"), &name).await;
        bug(true);
        let ended = AssertUnwindSafe(case(world)).catch_unwind().await;
        bug(false);
        if let Err(failed) = ended {
            let said = failed.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
            assert!(said.contains(saying), "{said}");
            return;
        }
    }
    panic!("with the bug the case passed {TRIES} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_relay_that_reads_by_sequence_is_found() {
    let case = brokers::while_the_broker_is_well_nothing_is_fetched;
    is_found(planted::relay_by_sequence, "sequence", case, "messages were missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn an_offset_committed_before_its_effect_is_found() {
    let case = brokers::what_had_no_effect_is_delivered_again;
    is_found(planted::offset_before_effect, "offset", case, "it was not delivered again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn a_fence_that_is_not_checked_is_found() {
    let case = brokers::a_relay_that_slept_past_its_lease_cannot_move_on;
    is_found(planted::fence_unchecked, "fence", case, "it moved the shard back").await;
}
