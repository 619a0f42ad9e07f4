//! Derived rows: with their events, and again from them.

use std::sync::Arc;

use store::Store;

use super::toy::{self, Event, moved, opened};
use crate::{Difference, Error, Log, What, personal};

async fn accounts(store: Store, count: u32) -> Log<Event> {
    let log = toy::log(store);
    for account in 0..count {
        let (name, subject) = (format!("accounts/{account}"), format!("users/{account}"));
        let events = vec![opened("Ada"), moved(i64::from(account)), moved(1)];
        toy::append(&log, &name, Some(&subject), events).await.expect("append");
    }
    log
}

async fn verify(log: &Log<Event>) -> Vec<Difference> {
    log.verify("accounts").await.expect("verify")
}

pub(super) async fn rows_follow_their_events_in_one_transaction(store: Store) {
    let log = accounts(store, 3).await;
    assert_eq!(toy::rows(log.store()).await.len(), 3 + 6);
    assert_eq!(verify(&log).await, []);
}

pub(super) async fn emptied_tables_are_rebuilt_byte_equal(store: Store) {
    let log = accounts(store, 20).await;
    let before = toy::rows(log.store()).await;
    toy::execute(log.store(), "DELETE FROM toy_entries").await;
    toy::execute(log.store(), "DELETE FROM toy_accounts").await;
    let rebuilt = log.rebuild("accounts").await.expect("rebuild");
    assert_eq!((rebuilt.events, rebuilt.rows), (60, 20 + 40));
    assert_eq!(toy::rows(log.store()).await, before);
    assert!(matches!(log.rebuild("nothing").await, Err(Error::NoSuchProjection(_))));
}

pub(super) async fn a_rebuild_after_an_erasure_gives_the_same_rows(store: Store) {
    let log = accounts(store, 3).await;
    let before = toy::rows(log.store()).await;
    let forgotten: Result<(), Error> = log
        .store()
        .write(store::Site::named("toy.forget"), async |tx: &mut store::Tx| personal::forget(tx, "users/1").await)
        .await;
    forgotten.expect("forget");
    log.rebuild("accounts").await.expect("rebuild");
    assert_eq!(toy::rows(log.store()).await, before);
    assert_eq!(verify(&log).await, []);
}

pub(super) async fn a_check_finds_changed_missing_and_foreign_rows_and_touches_nothing(store: Store) {
    let log = accounts(store, 5).await;
    let change = "UPDATE toy_accounts SET balance = balance + 1 WHERE name = 'accounts/2'";
    toy::execute(log.store(), change).await;
    let remove = "DELETE FROM toy_entries WHERE account = 'accounts/0' AND version = 3";
    toy::execute(log.store(), remove).await;
    let add = "INSERT INTO toy_entries VALUES ('accounts/4', 99, 1, 1)";
    toy::execute(log.store(), add).await;
    let before = toy::rows(log.store()).await;

    let differences = verify(&log).await;
    let expected = [
        Difference {
            table: "toy_accounts",
            key: "accounts/2".to_owned(),
            what: What::Differs(vec!["balance".to_owned()]),
        },
        Difference { table: "toy_entries", key: "accounts/0/3".to_owned(), what: What::Missing },
        Difference { table: "toy_entries", key: "accounts/4/99".to_owned(), what: What::Extra },
    ];
    assert_eq!(differences, expected);
    assert_eq!(toy::rows(log.store()).await, before);

    log.rebuild("accounts").await.expect("rebuild");
    assert_eq!(verify(&log).await, []);
}

pub(super) async fn a_row_of_many_streams_is_the_same_in_whatever_order_shards_are_read(store: Store) {
    let log: Log<Event> = Log::new(store, vec![Arc::new(toy::Fund)]);
    // What goes out was there; but not in the order of shards, where some of it goes out of the first.
    for (kind, amount) in [("in", 1), ("out", -1)] {
        for stream in 0..40 {
            toy::append(&log, &format!("{kind}/{stream}"), None, vec![moved(amount)]).await.expect("append");
        }
    }
    assert_eq!(log.verify("fund").await.expect("verify"), []);
    log.rebuild("fund").await.expect("rebuild");
    assert_eq!(log.verify("fund").await.expect("verify"), []);
    // What must not be is refused as ever.
    let error = toy::append(&log, "out/0", None, vec![moved(-1)]).await.expect_err("nothing is left");
    assert!(error.to_string().contains("toy_fund") || format!("{error:?}").contains("Check"), "{error:?}");
}

pub(super) async fn a_rebuild_during_writes_loses_none(store: Store) {
    let log = accounts(store, 10).await;
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                for turn in 0..50 {
                    let name = format!("accounts/{}", turn % 10);
                    while let Err(error) = toy::append(&log, &name, None, vec![moved(1)]).await {
                        assert!(error.is_conflict(), "{error}");
                    }
                }
            })
        })
        .collect();
    for _ in 0..3 {
        log.rebuild("accounts").await.expect("rebuild");
        assert_eq!(verify(&log).await, [], "a check is exact while others write");
    }
    for writer in writers {
        writer.await.expect("writer");
    }
    assert_eq!(toy::rows(log.store()).await.len(), 10 + 20 + 200);
    assert_eq!(verify(&log).await, []);
}
