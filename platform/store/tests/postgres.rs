//! The engine of the fleet against a real server.
//!
//! `STORE_TEST_POSTGRES=postgres://postgres@127.0.0.1:5432/postgres cargo test -p store --features fleet -- --ignored postgres`
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

use store::{Config, Engine, Error, NewEvent, Store, conformance, params, site};

/// An empty database of its own.
async fn fresh() -> Config {
    let engine = conformance::engine().await;
    assert!(matches!(engine, Engine::Postgres { .. }), "STORE_TEST_POSTGRES names no server");
    Config::new("conform", engine)
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
                        tx.append(NewEvent {
                            stream: format!("streams/{first}"),
                            version: round,
                            name: "stoa.test.v1.Counted",
                            schema: 1,
                            payload: Vec::new(),
                            subject: None,
                            causation: String::new(),
                            correlation: String::new(),
                            traceparent: String::new(),
                        });
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
