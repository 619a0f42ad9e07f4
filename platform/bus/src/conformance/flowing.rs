//! Messages flow: every one, in stream order, with one effect.

use std::sync::atomic::Ordering;

use log::conformance::toy::{self, moved};
use log::personal;
use store::{Site, Tx, params};

use super::rig::{Rig, Running, caught_up, eventually, stream};

pub(super) async fn at_least_once_every_message_has_its_effect_in_stream_order(rig: Rig) {
    rig.produce(5, 60).await;
    let running = rig.start();
    caught_up(&rig.consumer).await;
    rig.expect_all(5, 61).await;
    assert_eq!(rig.consumer.lag().await.expect("lag"), 0);
    // What comes while it waits wakes it.
    toy::append(&rig.log, &stream(0), None, vec![moved(1)]).await.expect("append");
    caught_up(&rig.consumer).await;
    assert_eq!(rig.applied_of(&stream(0)).await.len(), 62);
    running.stop().await;
}

pub(super) async fn redelivery_after_a_crash_is_a_duplicate_and_has_no_effect(rig: Rig) {
    rig.produce(3, 5).await;
    rig.drain().await;
    // As if the broker had lost every acknowledgement.
    rig.tamper("DELETE FROM cursors", vec![]).await;
    let again = rig.copy(10_000);
    let running = Running::start(&again);
    caught_up(&again).await;
    running.stop().await;
    rig.expect_all(3, 6).await;
    assert_eq!(rig.letters().await, []);
}

pub(super) async fn a_gap_is_fetched_before_what_comes_after_it(rig: Rig) {
    rig.produce(3, 5).await;
    // As if the first messages of every shard had gone to nobody; of the last three each stream there has one.
    let heads = rig.log.store().read(async |tx: &mut Tx| tx.heads().await).await.expect("heads");
    for (shard, head) in (0_i64..).zip(heads) {
        let cursor = "INSERT INTO cursors VALUES ('recorder', 'toy', $1, $2)";
        rig.tamper(cursor, params![shard, head.saturating_sub(3)].to_vec()).await;
    }
    rig.drain().await;
    rig.expect_all(3, 6).await;
}

pub(super) async fn no_late_commit_is_skipped_while_many_write(rig: Rig) {
    rig.produce(8, 0).await;
    let running = rig.start();
    let writers: Vec<_> = (0..8)
        .map(|account| {
            let log = rig.log.clone();
            tokio::spawn(async move {
                for turn in 0..40 {
                    let events = vec![moved(turn), moved(0)];
                    toy::append(&log, &stream(account), None, events).await.expect("append");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    caught_up(&rig.consumer).await;
    running.stop().await;
    rig.expect_all(8, 81).await;
}

pub(super) async fn two_copies_of_a_consumer_have_one_effect(rig: Rig) {
    rig.produce(3, 40).await;
    let copy = rig.copy(10_000);
    let (one, two) = (rig.start(), Running::start(&copy));
    caught_up(&rig.consumer).await;
    caught_up(&copy).await;
    one.stop().await;
    two.stop().await;
    rig.expect_all(3, 41).await;
    assert_eq!(rig.letters().await, []);
}

pub(super) async fn what_nobody_wants_is_dealt_with_all_the_same(rig: Rig) {
    rig.handler.openings_only.store(true, Ordering::Relaxed);
    rig.produce(3, 20).await;
    rig.drain().await;
    assert_eq!(rig.applied().await.len(), 3);
    assert_eq!(rig.consumer.lag().await.expect("lag"), 0);
    // In the end the cursor is written too, though nobody wanted the last ones.
    let running = rig.start();
    eventually(async || rig.copy(1).lag().await.expect("lag") == 0).await;
    running.stop().await;
    assert_eq!(rig.applied().await.len(), 3);
}

pub(super) async fn a_consumer_stopped_in_the_middle_goes_on_where_it_stood(rig: Rig) {
    rig.produce(4, 100).await;
    for _ in 0..3 {
        let running = rig.start();
        eventually(async || !rig.applied().await.is_empty()).await;
        running.stop().await;
    }
    rig.drain().await;
    rig.expect_all(4, 101).await;
}

pub(super) async fn personal_text_arrives_open_until_its_subject_is_forgotten(rig: Rig) {
    rig.produce(2, 0).await;
    let forgotten: Result<(), log::Error> = rig
        .log
        .store()
        .write(Site::named("toy.forget"), async |tx: &mut Tx| personal::forget(tx, "users/1").await)
        .await;
    forgotten.expect("forget");
    rig.drain().await;
    let rows: Result<_, store::Error> = rig
        .own
        .read(async |tx: &mut Tx| tx.query("SELECT content FROM applied ORDER BY stream", params![]).await)
        .await;
    let contents: Vec<String> = rows.expect("rows").iter().map(|row| row.get("content").expect("content")).collect();
    assert_eq!(contents, ["Ada", ""]);
}

pub(super) async fn a_paused_consumer_takes_nothing_until_it_resumes(rig: Rig) {
    rig.consumer.pause();
    let running = rig.start();
    rig.produce(1, 3).await;
    assert_eq!(rig.applied().await, []);
    assert!(rig.consumer.is_paused());
    assert_eq!(rig.consumer.lag().await.expect("lag"), 4);
    rig.consumer.resume();
    caught_up(&rig.consumer).await;
    running.stop().await;
    rig.expect_all(1, 4).await;
}
