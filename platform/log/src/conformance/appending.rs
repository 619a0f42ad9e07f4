//! Streams and shards: dense, in order, all or nothing.

use std::collections::HashMap;

use store::{Site, Store, Tx, params};

use super::toy::{self, Event, moved, opened};
use crate::Error;

pub(super) async fn versions_are_dense_and_a_stale_writer_conflicts(store: Store) {
    let log = toy::log(store);
    let first = toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada"), moved(5)]);
    assert_eq!(first.await.expect("append"), 2);

    let writer = log.clone();
    let stale: Result<u64, Error> = log
        .store()
        .write(Site::named("toy.append"), async move |tx: &mut Tx| {
            writer.append(tx, "accounts/a", 1, &toy::meta(), None, vec![moved(1)]).await
        })
        .await;
    match stale {
        Err(Error::Conflict { expected: 1, actual: 2, .. }) => {}
        other => panic!("expected a conflict, got {other:?}"),
    }
    let writer = log.clone();
    let ahead: Result<u64, Error> = log
        .store()
        .write(Site::named("toy.append"), async move |tx: &mut Tx| {
            writer.append(tx, "accounts/a", 3, &toy::meta(), None, vec![moved(1)]).await
        })
        .await;
    assert!(ahead.is_err_and(|error| error.is_conflict()), "a version may not be skipped");

    let reader = log.clone();
    let entries = log.store().read(async move |tx: &mut Tx| reader.load(tx, "accounts/a").await).await.expect("load");
    let versions: Vec<u64> = entries.iter().map(|entry| entry.at.version).collect();
    assert_eq!(versions, [1, 2]);
    assert_eq!(entries.last().map(|entry| &entry.event), Some(&moved(5)));
    assert!(entries.iter().all(|entry| entry.at.causation == "requests/1"), "the cause is kept");
}

pub(super) async fn a_failed_transaction_leaves_neither_rows_nor_events(store: Store) {
    let log = toy::log(store);
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.expect("append");
    let before = toy::rows(log.store()).await;
    // The CHECK on the balance refuses the second.
    let failed = toy::append(&log, "accounts/a", None, vec![moved(5), moved(-6)]).await;
    assert!(failed.is_err());
    assert_eq!(toy::rows(log.store()).await, before);
    let after = toy::append(&log, "accounts/a", None, vec![moved(1)]).await;
    assert_eq!(after.expect("append"), 2, "no version was used up");
    let reader = log.clone();
    let tail = log.store().read(async move |tx: &mut Tx| reader.tail(tx, 0, 0, 100).await).await;
    let heads = log.store().read(async |tx: &mut Tx| tx.heads().await).await;
    let heads: Vec<u64> = heads.unwrap_or_else(|error: store::Error| panic!("{error}"));
    assert_eq!(heads.iter().sum::<u64>(), 2, "no position was used up");
    assert!(tail.expect("tail").len() <= 2);
}

pub(super) async fn a_tail_pages_through_dense_positions(store: Store) {
    let log = toy::log(store);
    for account in 0..10 {
        let name = format!("accounts/{account}");
        let events = vec![opened("Ada"), moved(1), moved(2)];
        toy::append(&log, &name, Some("users/1"), events).await.expect("append");
    }
    let heads: Result<Vec<u64>, store::Error> = log.store().read(async |tx: &mut Tx| tx.heads().await).await;
    let mut seen: HashMap<String, u64> = HashMap::new();
    for (shard, head) in (0..).zip(heads.expect("heads")) {
        let mut after = 0;
        loop {
            let reader = log.clone();
            let page =
                log.store().read(async move |tx: &mut Tx| reader.tail(tx, shard, after, 7).await).await.expect("tail");
            if page.is_empty() {
                break;
            }
            for entry in page {
                assert_eq!(entry.position, after + 1, "positions are dense");
                after = entry.position;
                let last = seen.entry(entry.at.stream).or_default();
                assert_eq!(entry.at.version, *last + 1, "a stream comes in order");
                *last = entry.at.version;
            }
        }
        assert_eq!(after, head);
    }
    assert_eq!(seen.values().sum::<u64>(), 30);
}

pub(super) async fn a_loader_sees_what_its_own_transaction_appended(store: Store) {
    let log = toy::log(store);
    let writer = log.clone();
    let (entries, version) = log
        .store()
        .write(Site::named("toy.append"), async move |tx: &mut Tx| {
            let meta = toy::meta();
            let subject = Some("users/1");
            writer.append(tx, "accounts/a", 0, &meta, subject, vec![opened("Ada")]).await?;
            let version = writer.version(tx, "accounts/a").await?;
            writer.append(tx, "accounts/a", version, &meta, subject, vec![moved(3)]).await?;
            let entries = writer.load(tx, "accounts/a").await?;
            Ok::<_, Error>((entries, writer.version(tx, "accounts/a").await?))
        })
        .await
        .expect("write");
    assert_eq!(version, 2);
    let events: Vec<Event> = entries.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, [opened("Ada"), moved(3)]);
}

pub(super) async fn a_commit_wakes_those_who_wait(store: Store) {
    let log = toy::log(store);
    let mut changed = log.changed();
    changed.borrow_and_update();
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.expect("append");
    let woken = tokio::time::timeout(std::time::Duration::from_secs(5), changed.changed()).await;
    woken.expect("woken in time").expect("still open");
}

pub(super) async fn many_writers_leave_every_stream_and_shard_dense(store: Store) {
    let log = toy::log(store);
    for account in 0..4 {
        let name = format!("accounts/{account}");
        toy::append(&log, &name, Some("users/1"), vec![opened("Ada")]).await.expect("append");
    }
    let writers: Vec<_> = (0..16)
        .map(|writer: usize| {
            let log = log.clone();
            tokio::spawn(async move {
                for turn in 0..10 {
                    let name = format!("accounts/{}", (writer + turn) % 4);
                    loop {
                        match toy::append(&log, &name, None, vec![moved(1)]).await {
                            Ok(_) => break,
                            Err(error) => assert!(error.is_conflict(), "{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writer");
    }
    let counted: Result<(i64, i64, i64), Error> = log
        .store()
        .read(async |tx: &mut Tx| {
            let row = tx
                .query_opt(
                    "SELECT CAST(sum(balance) AS BIGINT) AS balance,
                            CAST(sum(version) AS BIGINT) AS versions FROM toy_accounts",
                    params![],
                )
                .await?
                .ok_or(Error::NoSuchProjection("accounts".to_owned()))?;
            let heads: u64 = tx.heads().await?.iter().sum();
            Ok((row.get("balance")?, row.get("versions")?, i64::try_from(heads).unwrap_or(-1)))
        })
        .await;
    assert_eq!(counted.expect("count"), (160, 164, 164));
}
