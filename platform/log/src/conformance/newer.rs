//! What a newer release of the service wrote, in the hands of this one.

use contract::EventSet as _;
use store::{Store, Tx};

use super::toy::{self, BEYOND, Event, RENAMED, append_newer, moved, opened};
use crate::{Error, Log};

/// An account with an event that only the newer release has, and one with a field more.
async fn mixed(store: Store) -> Log<Event> {
    let log = toy::log(store);
    let opening = opened("Ada");
    toy::append(&log, "accounts/a", Some("users/1"), vec![opening.clone(), moved(5)]).await.expect("append");
    append_newer(&log, "accounts/a", "users/1", RENAMED, "Grace").await;
    toy::append(&log, "accounts/b", Some("users/2"), vec![opening.clone()]).await.expect("append");
    append_newer(&log, "accounts/b", "users/2", opening.name(), "Hedy").await;
    log
}

pub(super) async fn what_a_newer_release_wrote_is_passed_on_whole_and_open(store: Store) {
    let log = mixed(store).await;
    for (stream, version, owner) in [("accounts/a", 3, "Grace"), ("accounts/b", 2, "Hedy")] {
        let reader = log.clone();
        let read = log.store().read(async move |tx: &mut Tx| reader.read_recorded(tx, stream, version, 1).await);
        let read: Result<Vec<_>, Error> = read.await;
        let payload = read.expect("read").pop().expect("an event").payload;
        let expected = [opened(owner).encode(), BEYOND.to_vec()].concat();
        assert_eq!(payload, expected, "{stream}: its text is open, the field behind it is still there");
    }
    let reader = log.clone();
    let marked: Result<Vec<_>, Error> = log
        .store()
        .read(async move |tx: &mut Tx| {
            let mut marked = Vec::new();
            for shard in (0..).zip(tx.heads().await?).map(|(shard, _)| shard) {
                marked.extend(reader.tail_sealed(tx, shard, 0, 10).await?);
            }
            Ok(marked)
        })
        .await;
    let sealed = marked.expect("tail").into_iter().filter(|(_, sealed)| *sealed).count();
    assert_eq!(sealed, 4, "who passes it on as it lies knows that it is sealed");
}

pub(super) async fn a_stream_with_an_unknown_event_is_not_folded_and_its_rows_stay(store: Store) {
    let log = mixed(store).await;
    let before = toy::rows(log.store()).await;
    let reader = log.clone();
    let loaded = log.store().read(async move |tx: &mut Tx| reader.load(tx, "accounts/a").await).await;
    match loaded {
        Err(Error::Decode { stream, version: 3, source }) if stream == "accounts/a" && source.is_newer() => {}
        other => panic!("expected to be told what is not known, got {other:?}"),
    }
    assert!(matches!(log.rebuild("accounts").await, Err(Error::Decode { .. })));
    assert!(matches!(log.verify("accounts").await, Err(Error::Decode { .. })));
    assert_eq!(toy::rows(log.store()).await, before);
    // Other streams are none of its business.
    let reader = log.clone();
    let loaded = log.store().read(async move |tx: &mut Tx| reader.load(tx, "accounts/b").await).await;
    assert_eq!(loaded.expect("load").len(), 2);
}
