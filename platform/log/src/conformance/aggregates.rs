//! Event-sourced aggregates: every decision is on the newest state.

use store::{Site, Store, Tx};

use super::toy::{self, Account, Command, Event, Failure, Moved, Rejection, request};
use crate::{Error, Execute, Log, Request};

async fn ask(log: &Log<Event>, request: Option<Request>, command: Command) -> Result<Moved, Failure> {
    let execute = Execute::<Account> {
        stream: "accounts/a".to_owned(),
        meta: toy::meta(),
        subject: Some("users/1".to_owned()),
        command,
    };
    log.execute(Site::named("toy.execute"), request, execute, async |_tx, executed| {
        Ok(Moved { amount: executed.state.balance })
    })
    .await
}

fn open() -> Command {
    Command::Open { owner: "Ada".to_owned() }
}

fn put(amount: i64) -> Command {
    Command::Move { amount }
}

async fn folded(log: &Log<Event>, until: u64) -> (Account, u64) {
    let reader = log.clone();
    let loaded: Result<_, Error> =
        log.store().read(async move |tx: &mut Tx| reader.fold_until::<Account>(tx, "accounts/a", until).await).await;
    let loaded = loaded.expect("fold");
    (loaded.state, loaded.version)
}

pub(super) async fn decisions_see_the_fold_of_the_stream(store: Store) {
    let log = toy::log(store);
    match ask(&log, None, put(1)).await {
        Err(Failure::Rejected(Rejection::NotOpen)) => {}
        other => panic!("expected a rejection, got {other:?}"),
    }
    ask(&log, None, open()).await.expect("open");
    assert_eq!(ask(&log, None, put(7)).await.expect("put").amount, 7);
    match ask(&log, None, put(-8)).await {
        Err(Failure::Rejected(Rejection::TooLittle)) => {}
        other => panic!("expected a rejection, got {other:?}"),
    }
    assert_eq!(ask(&log, None, put(-7)).await.expect("take").amount, 0);
    assert_eq!(folded(&log, u64::MAX).await, (Account { open: true, balance: 0 }, 3));
}

pub(super) async fn a_rejection_appends_nothing_and_is_the_answer_for_ever(store: Store) {
    let log = toy::log(store);
    ask(&log, None, open()).await.expect("open");
    let key = || Some(request("users/1", "k1", "-1"));
    assert!(matches!(ask(&log, key(), put(-1)).await, Err(Failure::Rejected(_))));
    ask(&log, None, put(5)).await.expect("put");
    assert!(matches!(ask(&log, key(), put(-1)).await, Err(Failure::Replayed(_))));
    assert_eq!(folded(&log, u64::MAX).await.1, 2);
}

pub(super) async fn parallel_commands_to_one_aggregate_all_decide_on_the_newest_state(store: Store) {
    let log = toy::log(store);
    ask(&log, None, open()).await.expect("open");
    ask(&log, None, put(10)).await.expect("put");
    // Thirty want one each, ten can have it.
    let takers: Vec<_> = (0..30)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { ask(&log, None, put(-1)).await })
        })
        .collect();
    let mut taken = 0;
    for taker in takers {
        match taker.await.expect("task") {
            Ok(_) => taken += 1,
            Err(Failure::Rejected(Rejection::TooLittle)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, 10);
    assert_eq!(folded(&log, u64::MAX).await, (Account { open: true, balance: 0 }, 12));
}

pub(super) async fn an_aggregate_can_be_seen_as_it_was(store: Store) {
    let log = toy::log(store);
    ask(&log, None, open()).await.expect("open");
    for _ in 0..3 {
        ask(&log, None, put(2)).await.expect("put");
    }
    assert_eq!(folded(&log, 2).await, (Account { open: true, balance: 2 }, 2));
    assert_eq!(folded(&log, 0).await, (Account::default(), 0));
}
