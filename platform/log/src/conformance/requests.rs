//! Request ids: one effect, one answer.

use store::{Site, Store, Tx, params};

use super::toy::{self, Event, Failure, Moved, Rejection, moved, opened, request};
use crate::once::{self, Answer, Outcome};
use crate::{Error, Log, Request};

async fn account(store: Store) -> Log<Event> {
    let log = toy::log(store);
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.expect("append");
    log
}

/// Moves money with a request id; answers with the version, as an amount.
async fn move_once(log: &Log<Event>, request: Request, amount: i64) -> Result<Moved, Failure> {
    let writer = log.clone();
    log.once(Site::named("toy.move"), Some(request), async move |tx: &mut Tx| {
        let events = vec![moved(amount)];
        let version = writer.append_next(tx, "accounts/a", &toy::meta(), None, events).await;
        match version {
            Ok(version) => Ok(Moved { amount: i64::try_from(version).unwrap_or(-1) }),
            Err(Error::Store(store::Error::Constraint { .. })) => Err(Failure::Rejected(Rejection::TooLittle)),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

async fn balance(log: &Log<Event>) -> i64 {
    let balance: Result<i64, Error> = log
        .store()
        .read(async |tx: &mut Tx| {
            let row = tx.query_opt("SELECT balance FROM toy_accounts", params![]).await?;
            Ok(row.map(|row| row.get("balance")).transpose()?.unwrap_or(-1))
        })
        .await;
    balance.expect("balance")
}

pub(super) async fn a_repeat_gets_the_stored_reply_and_no_second_effect(store: Store) {
    let log = account(store).await;
    let first = move_once(&log, request("users/1", "k1", "5"), 5).await.expect("first");
    let again = move_once(&log, request("users/1", "k1", "5"), 5).await.expect("again");
    assert_eq!(first, again);
    assert_eq!(balance(&log).await, 5);
}

pub(super) async fn another_body_under_the_same_key_is_refused(store: Store) {
    let log = account(store).await;
    move_once(&log, request("users/1", "k1", "5"), 5).await.expect("first");
    match move_once(&log, request("users/1", "k1", "6"), 6).await {
        Err(Failure::Fault(Error::RequestIdReused { key, .. })) => assert_eq!(key, "k1"),
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(balance(&log).await, 5);
}

pub(super) async fn a_refusal_is_stored_and_its_effects_are_undone(store: Store) {
    let log = account(store).await;
    match move_once(&log, request("users/1", "k1", "-1"), -1).await {
        Err(Failure::Rejected(Rejection::TooLittle)) => {}
        other => panic!("expected a rejection, got {other:?}"),
    }
    // Now there would be enough, but the answer was given.
    move_once(&log, request("users/1", "k2", "9"), 9).await.expect("deposit");
    match move_once(&log, request("users/1", "k1", "-1"), -1).await {
        Err(Failure::Replayed(refusal)) => {
            assert_eq!((refusal.code, refusal.message.as_str()), (9, "TooLittle"));
            assert_eq!(refusal.details, b"details");
        }
        other => panic!("expected the stored refusal, got {other:?}"),
    }
    assert_eq!(balance(&log).await, 9);
}

pub(super) async fn a_fault_rolls_the_claim_back(store: Store) {
    let log = account(store).await;
    let writer = log.clone();
    let site = Site::named("toy.move");
    let failed: Result<Moved, Failure> = log
        .once(site, Some(request("users/1", "k1", "5")), async move |tx: &mut Tx| {
            writer.append_next(tx, "accounts/a", &toy::meta(), None, vec![moved(5)]).await?;
            Err(Failure::Fault(Error::Random("a fault".to_owned())))
        })
        .await;
    assert!(failed.is_err());
    assert_eq!(balance(&log).await, 0);
    move_once(&log, request("users/1", "k1", "5"), 5).await.expect("the retry starts afresh");
    assert_eq!(balance(&log).await, 5);
}

pub(super) async fn a_hundred_in_parallel_have_one_effect(store: Store) {
    let log = account(store).await;
    let tries: Vec<_> = (0..100)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { move_once(&log, request("users/1", "k1", "5"), 5).await })
        })
        .collect();
    for attempt in tries {
        assert_eq!(attempt.await.expect("task").expect("reply"), Moved { amount: 2 });
    }
    assert_eq!(balance(&log).await, 5);
}

pub(super) async fn keys_are_separate_for_each_principal_and_method(store: Store) {
    let log = account(store).await;
    move_once(&log, request("users/1", "k1", "5"), 5).await.expect("first");
    move_once(&log, request("users/2", "k1", "5"), 5).await.expect("another user");
    let other_method = Request { method: "/stoa.toy.v1.Toy/Other", ..request("users/1", "k1", "5") };
    move_once(&log, other_method, 5).await.expect("another method");
    assert_eq!(balance(&log).await, 15);
}

pub(super) async fn old_answers_are_purged_and_young_ones_kept(store: Store) {
    let log = account(store).await;
    for key in ["k1", "k2", "k3"] {
        move_once(&log, request("users/1", key, "5"), 5).await.expect("move");
    }
    let week = i64::try_from(crate::once::RETENTION.as_micros()).unwrap_or(i64::MAX);
    let purged: Result<(u64, u64), Error> = log
        .store()
        .write(Site::named("toy.purge"), async move |tx: &mut Tx| {
            tx.execute("UPDATE requests SET claim_time = claim_time - $1 - 1 WHERE key <> 'k3'", params![week]).await?;
            let first = crate::once::purge(tx, 1).await?;
            Ok((first, crate::once::purge(tx, 100).await?))
        })
        .await;
    assert_eq!(purged.expect("purge"), (1, 1));
    move_once(&log, request("users/1", "k3", "5"), 5).await.expect("still answered");
    assert_eq!(balance(&log).await, 15);
}

pub(super) async fn requests_that_come_drop_the_answers_of_old_ones(store: Store) {
    let log = account(store).await;
    for key in ["k1", "k2", "k3"] {
        move_once(&log, request("users/1", key, "5"), 5).await.expect("move");
    }
    let week = i64::try_from(crate::once::RETENTION.as_micros()).unwrap_or(i64::MAX);
    let aged: Result<u64, Error> = log
        .store()
        .write(Site::named("toy.age"), async move |tx: &mut Tx| {
            let aged = "UPDATE requests SET claim_time = claim_time - $1 - 1 WHERE key <> 'k3'";
            Ok(tx.execute(aged, params![week]).await?)
        })
        .await;
    assert_eq!(aged.expect("aged"), 2);
    // Whose turn it is to purge is decided by what is asked.
    let purging = (0..10_000).map(|n| request("users/2", "n", &n.to_string())).find(Request::purges);
    move_once(&log, purging.expect("one in a hundred"), 0).await.expect("move");
    let kept: Result<i64, Error> = log
        .store()
        .read(async |tx: &mut Tx| {
            let kept = "SELECT COUNT(*) AS kept FROM requests WHERE principal = 'users/1'";
            tx.query_opt(kept, params![]).await?.map_or(Ok(0), |row| Ok(row.get("kept")?))
        })
        .await;
    assert_eq!(kept.expect("kept"), 1);
}

pub(super) async fn every_answer_is_listed_once_page_by_page(store: Store) {
    let log = account(store).await;
    for (principal, key) in [("users/2", "k1"), ("users/1", "k2"), ("users/1", "k1")] {
        move_once(&log, request(principal, key, "5"), 5).await.expect("moved");
    }
    assert!(move_once(&log, request("users/1", "k3", "-99"), -99).await.is_err(), "more than there is");
    let (mut listed, mut after) = (Vec::new(), Answer::default());
    loop {
        let from = after.clone();
        let page = log.store().read(async move |tx: &mut Tx| once::answers(tx, &from, 2).await).await;
        let page = page.unwrap_or_else(|error: Error| panic!("{error}"));
        let Some(last) = page.last() else { break };
        after = last.clone();
        listed.extend(page);
    }
    let seen: Vec<_> = listed.iter().map(|it| (it.principal.as_str(), it.key.as_str(), it.outcome)).collect();
    let (done, refused) = (Outcome::Done, Outcome::Refused);
    let wanted =
        [("users/1", "k1", done), ("users/1", "k2", done), ("users/1", "k3", refused), ("users/2", "k1", done)];
    assert_eq!(seen, wanted);
    assert!(listed.iter().all(|it| it.reply.is_empty() == (it.outcome == refused)), "{listed:?}");
}
