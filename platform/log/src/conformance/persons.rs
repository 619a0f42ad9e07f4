//! Personal text: sealed where it lies, open where it is read, gone when forgotten.

use store::{Site, Store, Tx, params};

use super::toy::{self, Event, opened};
use crate::{Error, Log, personal};

const CANARY: &str = "Ada-Canary-Lovelace";
const OWNER: &str = "SELECT owner FROM toy_accounts WHERE name = 'accounts/a'";

async fn with_ada(store: Store) -> Log<Event> {
    let log = toy::log(store);
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened(CANARY)]).await.expect("append");
    log
}

async fn owner(log: &Log<Event>) -> String {
    let reader = log.clone();
    let entries = log.store().read(async move |tx: &mut Tx| reader.load(tx, "accounts/a").await);
    let entries: Result<_, Error> = entries.await;
    match entries.expect("load").into_iter().next().map(|entry| entry.event) {
        Some(Event::Opened(opened)) => opened.owner,
        other => panic!("expected the opening, got {other:?}"),
    }
}

/// The owner as it lies in the row and in the event's stored bytes.
async fn stored(log: &Log<Event>) -> (String, Vec<u8>) {
    let stored: Result<_, Error> = log
        .store()
        .read(async |tx: &mut Tx| {
            let row = tx.query_opt(OWNER, params![]).await?;
            let row = row.map(|row| row.get::<String>("owner")).transpose()?.unwrap_or_default();
            let event = tx.events("accounts/a", 1, 1).await?.pop();
            Ok((row, event.map(|event| event.payload).unwrap_or_default()))
        })
        .await;
    stored.expect("read")
}

async fn open(log: &Log<Event>, subject: &'static str, text: String) -> Result<String, Error> {
    log.store().read(async move |tx: &mut Tx| personal::open_text(tx, subject, &text).await).await
}

async fn forget(log: &Log<Event>, subject: &'static str) {
    let forgotten: Result<(), Error> = log
        .store()
        .write(Site::named("toy.forget"), async move |tx: &mut Tx| personal::forget(tx, subject).await)
        .await;
    forgotten.expect("forget");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

pub(super) async fn personal_text_is_stored_sealed_and_read_open(store: Store) {
    let log = with_ada(store).await;
    let (row, payload) = stored(&log).await;
    assert!(personal::is_sealed(&row) && !row.contains(CANARY));
    assert!(!contains(&payload, CANARY), "the stored event is sealed");
    assert!(contains(&payload, &row), "the row holds what the event holds");
    assert_eq!(owner(&log).await, CANARY);
    assert_eq!(open(&log, "users/1", row).await.expect("open"), CANARY);
}

pub(super) async fn personal_text_without_a_subject_is_refused(store: Store) {
    let log = toy::log(store);
    match toy::append(&log, "accounts/a", None, vec![opened(CANARY)]).await {
        Err(Error::NoSubject { name }) => assert_eq!(name, "stoa.toy.v1.Opened"),
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert!(toy::rows(log.store()).await.is_empty());
}

pub(super) async fn a_forgotten_persons_text_is_empty_and_nothing_new_is_kept(store: Store) {
    let log = with_ada(store).await;
    let (row, _) = stored(&log).await;
    forget(&log, "users/1").await;
    forget(&log, "users/1").await;
    assert_eq!(owner(&log).await, "");
    assert_eq!(open(&log, "users/1", row.clone()).await.expect("open"), "");
    assert_eq!(stored(&log).await.0, row, "rows stay as they are");

    toy::append(&log, "accounts/b", Some("users/1"), vec![opened(CANARY)]).await.expect("append");
    let late: Result<_, Error> = log.store().read(async |tx: &mut Tx| Ok(tx.events("accounts/b", 1, 1).await?)).await;
    let late = late.expect("read");
    assert!(late.iter().all(|event| event.payload.is_empty()), "nothing was sealed anew");
}

pub(super) async fn a_sealed_text_moved_to_another_person_does_not_open(store: Store) {
    let log = with_ada(store).await;
    toy::append(&log, "accounts/b", Some("users/2"), vec![opened("Bob")]).await.expect("append");
    let (row, _) = stored(&log).await;
    match open(&log, "users/2", row).await {
        Err(Error::Unreadable { subject }) => assert_eq!(subject, "users/2"),
        other => panic!("expected an error, got {other:?}"),
    }
}
