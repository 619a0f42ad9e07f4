//! What cannot be applied waits: in its place for a moment, or in the lot for an operator.

use std::sync::atomic::Ordering;

use log::conformance::toy::{self, moved};

use super::rig::{Rig, Running, caught_up, eventually, stream};

pub(super) async fn a_transient_failure_is_tried_again_in_its_place(rig: Rig) {
    rig.produce(3, 5).await;
    rig.handler.hiccups.store(7, Ordering::Relaxed);
    rig.drain().await;
    rig.expect_all(3, 6).await;
    assert_eq!(rig.letters().await, []);
}

pub(super) async fn a_poison_message_parks_its_stream_and_no_other(rig: Rig) {
    rig.produce(3, 5).await;
    rig.handler.poison("accounts/1", 3);
    rig.drain().await;
    assert_eq!(rig.applied_of("accounts/0").await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(rig.applied_of("accounts/1").await, [1, 2]);
    assert_eq!(rig.applied_of("accounts/2").await, [1, 2, 3, 4, 5, 6]);

    let letters = rig.letters().await;
    let parked: Vec<_> = letters.iter().map(|letter| (letter.version, &*letter.reason)).collect();
    assert_eq!(parked, [(3, "told to fail"), (4, ""), (5, ""), (6, "")]);
    assert!(letters.iter().all(|letter| letter.stream == "accounts/1" && letter.producer == "toy"));

    // Later ones join the queue, also after a restart.
    toy::append(&rig.log, "accounts/1", None, vec![moved(1)]).await.expect("append");
    rig.drain().await;
    assert_eq!(rig.letters().await.len(), 5);
    assert_eq!(rig.consumer.lag().await.expect("lag"), 0);
}

pub(super) async fn a_panic_is_a_poison_message(rig: Rig) {
    rig.produce(2, 2).await;
    rig.handler.panics.store(true, Ordering::Relaxed);
    rig.handler.poison("accounts/0", 2);
    rig.drain().await;
    assert_eq!(rig.applied_of("accounts/0").await, [1]);
    assert_eq!(rig.applied_of("accounts/1").await, [1, 2, 3]);
    let reasons: Vec<_> = rig.letters().await.into_iter().map(|letter| letter.reason).collect();
    assert!(reasons.first().is_some_and(|reason| reason.contains("told to panic")), "{reasons:?}");
}

pub(super) async fn redrive_applies_in_order_and_the_stream_flows_again(rig: Rig) {
    rig.produce(2, 5).await;
    rig.handler.poison("accounts/1", 2);
    rig.drain().await;
    rig.handler.heal();
    let redriven = rig.consumer.redrive_all().await.expect("redrive");
    assert_eq!((redriven.applied, redriven.stopped), (5, None));
    assert_eq!(rig.letters().await, []);
    toy::append(&rig.log, "accounts/1", None, vec![moved(1)]).await.expect("append");
    rig.drain().await;
    assert_eq!(rig.applied_of("accounts/1").await, [1, 2, 3, 4, 5, 6, 7]);
    let nothing = rig.consumer.redrive("toy", "accounts/1").await.expect("redrive");
    assert_eq!(nothing.applied, 0);
}

pub(super) async fn a_redrive_that_fails_again_keeps_what_is_behind(rig: Rig) {
    rig.produce(2, 5).await;
    rig.handler.poison("accounts/1", 2);
    rig.drain().await;
    rig.handler.heal();
    rig.handler.poison("accounts/1", 4);
    let redriven = rig.consumer.redrive("toy", "accounts/1").await.expect("redrive");
    assert_eq!((redriven.applied, redriven.stopped.as_deref()), (2, Some("told to fail")));
    assert_eq!(rig.applied_of("accounts/1").await, [1, 2, 3]);
    let letters = rig.letters().await;
    let parked: Vec<_> = letters.iter().map(|letter| (letter.version, letter.attempts)).collect();
    assert_eq!(parked, [(4, 1), (5, 0), (6, 0)]);
}

pub(super) async fn a_full_lot_stops_the_consumer_and_drops_nothing(rig: Rig) {
    rig.produce(2, 5).await;
    rig.handler.poison(&stream(1), 2);
    let small = rig.copy(2);
    let running = Running::start(&small);
    let stalled = async || {
        let progress = small.progress().await.expect("progress");
        progress.iter().any(|shard| shard.stalled.is_some())
    };
    eventually(stalled).await;
    assert_eq!(rig.letters().await.len(), 2);
    assert!(small.lag().await.expect("lag") > 0);

    // Room is made, and it goes on by itself.
    rig.handler.heal();
    eventually(async || {
        small.redrive_all().await.expect("redrive");
        small.lag().await.expect("lag") == 0 && rig.letters().await.is_empty()
    })
    .await;
    caught_up(&small).await;
    running.stop().await;
    rig.expect_all(2, 6).await;
}
