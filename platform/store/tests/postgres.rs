//! The engine of the fleet against a real server.
//!
//! `STORE_TEST_POSTGRES=postgres://postgres@127.0.0.1:5432/postgres cargo test -p store --features fleet -- --ignored postgres`
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use store::{Config, Engine, Error, Migration, MigrationSet, NewEvent, Store, conformance, params, site};

/// An empty database of its own.
async fn fresh() -> Config {
    let engine = conformance::engine().await;
    assert!(matches!(engine, Engine::Postgres { .. }), "STORE_TEST_POSTGRES names no server");
    Config::new("conform", engine)
}

fn event(stream: &str, version: u64) -> NewEvent {
    NewEvent {
        stream: stream.to_owned(),
        version,
        name: "stoa.test.v1.Counted",
        schema: 1,
        payload: Vec::new(),
        subject: None,
        causation: String::new(),
        correlation: String::new(),
        traceparent: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn postgres_conforms() {
    conformance::run(fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_body_that_postgres_gave_up_runs_again() {
    let store = Store::open(fresh().await.migrations([conformance::TABLES])).await.unwrap();
    let rows =
        async |tx: &mut store::Tx| tx.execute("INSERT INTO counters (id, count) VALUES ('a', 0), ('b', 0)", &[]).await;
    store.write(site!("postgres_test.rows"), rows).await.unwrap();
    let both = |first: &'static str, second: &'static str| {
        let store = store.clone();
        async move {
            for round in 1..=20_u64 {
                let update = "UPDATE counters SET count = count + 1 WHERE id = $1";
                let wrote = store
                    .write(site!("postgres_test.deadlock"), async move |tx| -> Result<u64, Error> {
                        tx.execute(update, params![first]).await?;
                        tx.append(event(&format!("streams/{first}"), round));
                        tx.execute(update, params![second]).await
                    })
                    .await;
                wrote.unwrap();
            }
        }
    };
    futures_util::join!(both("a", "b"), both("b", "a"));
    let counts = store.read(async |tx| tx.query("SELECT count FROM counters", &[]).await).await.unwrap();
    assert!(counts.iter().all(|row| row.get::<i64>("count").unwrap() == 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn what_one_process_appends_wakes_another() {
    let config = fresh().await;
    let here = Store::open(config.clone()).await.unwrap();
    let there = Store::open(config).await.unwrap();
    let mut heard = there.head();
    for round in 1..=20_u64 {
        heard.borrow_and_update();
        here.write(site!("postgres_test.append"), async move |tx| -> Result<(), Error> {
            tx.append(event("streams/told", round));
            Ok(())
        })
        .await
        .unwrap();
        tokio::time::timeout(Duration::from_secs(10), heard.wait_for(|head| *head >= round)).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_binary_that_is_older_than_the_store_is_refused_and_changes_nothing() {
    const FIRST: Migration = Migration::new(1, "first", "CREATE TABLE first (id TEXT NOT NULL PRIMARY KEY)");
    const SECOND: Migration = Migration::new(2, "second", "CREATE TABLE second (id TEXT NOT NULL PRIMARY KEY)");
    const OLD: MigrationSet = MigrationSet::new("skew", &[FIRST]);
    const NEW: MigrationSet = MigrationSet::new("skew", &[FIRST, SECOND]);
    let config = fresh().await;
    let running = Store::open(config.clone().migrations([OLD])).await.unwrap();
    Store::open(config.clone().migrations([NEW])).await.unwrap();

    // Who was there before the migration goes on; who is older and comes after it is told so.
    running
        .write(site!("postgres_test.skew"), async |tx| tx.execute("INSERT INTO first (id) VALUES ('a')", &[]).await)
        .await
        .unwrap();
    let refused = Store::open(config.migrations([OLD])).await.err().unwrap();
    assert!(matches!(&refused, Error::Migration { .. }), "{refused}");
    assert!(refused.to_string().contains("older than the store"), "{refused}");
}
