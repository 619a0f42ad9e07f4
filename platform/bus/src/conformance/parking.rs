//! What cannot be applied waits: in its place for a moment, or in the lot for an operator.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::conformance::toy::{self, RENAMED, append_newer, moved};
use store::{Tx, params};

use super::rig::{Recorder, Rig, Running, caught_up, consumer, eventually, stream};

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

pub(super) async fn what_a_newer_release_wrote_waits_for_who_knows_it(rig: Rig) {
    rig.produce(2, 1).await;
    append_newer(&rig.log, &stream(0), "users/0", RENAMED, "Grace").await;
    let behind = vec![moved(9)];
    toy::append(&rig.log, &stream(0), None, behind).await.expect("append");

    // An older release keeps it, also where it wants next to nothing: it cannot tell what this is.
    rig.drain().await;
    rig.handler.openings_only.store(true, Ordering::Relaxed);
    append_newer(&rig.log, &stream(1), "users/1", RENAMED, "Hedy").await;
    rig.drain().await;
    rig.handler.openings_only.store(false, Ordering::Relaxed);
    assert_eq!(rig.applied_of(&stream(0)).await, [1, 2]);
    assert_eq!(rig.applied_of(&stream(1)).await, [1, 2]);
    let letters = rig.letters().await;
    let kept: Vec<(u64, &str)> = letters.iter().map(|letter| (letter.version, letter.name.as_str())).collect();
    assert_eq!(kept, [(3, RENAMED), (4, "stoa.toy.v1.Moved"), (3, RENAMED)]);
    assert!(letters.first().is_some_and(|letter| letter.reason.contains("a newer release wrote it")), "{letters:?}");

    // The newer one comes and needs nobody to tell it.
    rig.handler.newer.store(true, Ordering::Relaxed);
    let newer = rig.copy(10_000);
    let running = Running::start(&newer);
    eventually(async || rig.letters().await.is_empty()).await;
    running.stop().await;
    assert_eq!(rig.applied_of(&stream(0)).await, [1, 2, 3, 4]);
    assert_eq!(rig.applied_of(&stream(1)).await, [1, 2, 3]);
    let renamed: Result<_, store::Error> = rig
        .own
        .read(async |tx: &mut Tx| {
            tx.query("SELECT content FROM applied WHERE version = 3 ORDER BY stream", params![]).await
        })
        .await;
    let contents: Vec<String> = renamed.expect("rows").iter().map(|row| row.get("content").expect("content")).collect();
    assert!(
        matches!(contents.as_slice(), [first, second] if first.contains("Grace") && second.contains("Hedy")),
        "{contents:?}"
    );
}

pub(super) async fn what_waits_behind_nothing_goes_on_by_itself(rig: Rig) {
    rig.produce(2, 2).await;
    rig.handler.poison(&stream(0), 2);
    rig.handler.poison(&stream(1), 2);
    rig.drain().await;
    assert_eq!(rig.letters().await.len(), 4);

    // What a redrive by another copy leaves that ends the queue while a message joins it.
    rig.tamper("DELETE FROM parked WHERE stream = $1 AND version = 2", vec![stream(1).into()]).await;
    let running = rig.start();
    eventually(async || rig.applied_of(&stream(1)).await == [1, 3]).await;
    running.stop().await;

    // Behind a letter that failed, the others wait for a hand.
    assert_eq!(rig.applied_of(&stream(0)).await, [1]);
    let letters = rig.letters().await;
    let kept: Vec<(&str, u64)> = letters.iter().map(|letter| (letter.stream.as_str(), letter.version)).collect();
    assert_eq!(kept, [(stream(0).as_str(), 2), (stream(0).as_str(), 3)]);
}

pub(super) async fn while_old_and_new_copies_run_together_everything_is_applied_once(rig: Rig) {
    let newer = Arc::new(Recorder::default());
    newer.newer.store(true, Ordering::Relaxed);
    newer.count_from(1_000_000);
    let (old, new) = (rig.start(), Running::start(&consumer(&rig.own, &rig.hub, &newer, 10_000)));
    rig.produce(4, 2).await;
    for account in 0..4 {
        append_newer(&rig.log, &stream(account), &format!("users/{account}"), RENAMED, "Grace").await;
    }
    for account in 0..4 {
        toy::append(&rig.log, &stream(account), None, vec![moved(1)]).await.expect("append");
    }
    eventually(async || rig.applied().await.len() == 4 * 5 && rig.letters().await.is_empty()).await;
    old.stop().await;
    new.stop().await;
    let mut versions = Vec::new();
    for account in 0..4 {
        let mut applied = rig.applied_of(&stream(account)).await;
        applied.sort_unstable();
        versions.push(applied);
    }
    assert_eq!(versions, vec![vec![1, 2, 3, 4, 5]; 4]);
}
