//! The engine of the fleet against a real server.
//!
//! `STORE_TEST_POSTGRES=postgres://postgres@127.0.0.1:5432/postgres cargo test -p store --features fleet -- --ignored postgres`
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use deadpool_postgres::tokio_postgres::{self, NoTls, error::SqlState};
use store::{Config, Database, Engine, Error, Migration, MigrationSet, NewEvent, Store, conformance, params, site};
use tokio::time::Instant;

/// An empty database of its own.
async fn fresh() -> Config {
    let engine = conformance::engine().await;
    assert!(matches!(engine, Engine::Postgres(_)), "STORE_TEST_POSTGRES names no server");
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

const FIRST: Migration = Migration::new(1, "first", "CREATE TABLE first (id TEXT NOT NULL PRIMARY KEY)");
const EXPANDS: Migration = Migration::new(
    2,
    "second",
    "-- expand\nALTER TABLE first ADD COLUMN note TEXT; CREATE TABLE second (id TEXT NOT NULL)",
);
const CONTRACTS: Migration = Migration::new(3, "third", "-- contract: needs version 2\nDROP TABLE second");
const OLD: MigrationSet = MigrationSet::new("skew", &[FIRST]);
const NEW: MigrationSet = MigrationSet::new("skew", &[FIRST, EXPANDS]);
const NEWER: MigrationSet = MigrationSet::new("skew", &[FIRST, EXPANDS, CONTRACTS]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn older_copies_go_on_beside_newer_ones_and_nothing_is_contracted_beneath_them() {
    let config = fresh().await;
    let open = async |set| Store::open(config.clone().migrations([set])).await;
    let insert = async |store: &Store, id: &'static str| {
        let sql = "INSERT INTO first (id) VALUES ($1)";
        store.write(site!("postgres_test.skew"), async move |tx| tx.execute(sql, params![id]).await).await
    };
    let running = open(OLD).await.unwrap();
    insert(&running, "before").await.unwrap();
    let newer = open(NEW).await.unwrap();
    let back = open(OLD).await.unwrap();
    for (store, id) in [(&running, "a"), (&newer, "b"), (&back, "c")] {
        insert(store, id).await.unwrap();
    }

    // Two of the oldest are there: who would take something from them does not start.
    let refused = open(NEWER).await.err().unwrap().to_string();
    assert!(refused.contains("2 know less") && refused.contains("the oldest version 1"), "{refused}");
    running.close().await;
    let refused = open(NEWER).await.err().unwrap().to_string();
    assert!(refused.contains("1 know less") && refused.contains("end them, then start this one again"), "{refused}");
    insert(&back, "still there").await.unwrap();
    back.close().await;
    let newest = open(NEWER).await.unwrap();

    insert(&newer, "d").await.unwrap();
    insert(&newest, "e").await.unwrap();
    let refused = open(OLD).await.err().unwrap();
    assert!(matches!(&refused, Error::Migration { .. }), "{refused}");
    assert!(refused.to_string().contains("older than the store"), "{refused}");
    open(NEW).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn many_copies_that_start_at_once_on_an_empty_database_migrate_it_once() {
    for with_owner in [false, true] {
        let Engine::Postgres(database) = fresh().await.engine else { unreachable!("asked for PostgreSQL") };
        let shared = if with_owner { owned(&database).await } else { database };
        let copy = |set| Store::open(Config::new("conform", Engine::Postgres(shared.clone())).migrations([set]));
        // Old and new ones together: whoever is first, all of them go on.
        let opened = futures_util::future::join_all((0..8).map(|number| copy(if number % 2 == 0 { OLD } else { NEW })));
        let stores = opened.await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        let written = stores.iter().enumerate().map(|(number, store)| {
            store.write(site!("postgres_test.at_once"), async move |tx: &mut store::Tx| -> Result<u64, Error> {
                tx.append(event(&format!("streams/{number}"), 1));
                tx.execute("INSERT INTO first (id) VALUES ($1)", params![number.to_string()]).await
            })
        });
        futures_util::future::join_all(written).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        let applied = "SELECT set_name, version FROM migrations ORDER BY version";
        let rows = stores.first().unwrap().read(async |tx| tx.query(applied, &[]).await).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.get::<u32>("version").unwrap()).collect::<Vec<_>>(), [1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn tables_of_a_release_that_had_no_marks_are_taken_over() {
    let config = fresh().await;
    Store::open(config.clone().migrations([OLD])).await.unwrap().close().await;
    let Engine::Postgres(database) = config.engine.clone() else { unreachable!("asked for PostgreSQL") };
    let (before, _) = superuser(&database).await;
    before.batch_execute("ALTER TABLE migrations DROP COLUMN needs").await.unwrap();
    Store::open(config.clone().migrations([NEW])).await.unwrap().close().await;
    Store::open(config.clone().migrations([OLD])).await.unwrap().close().await;
    // What was applied without a mark needs whoever knows it.
    assert!(Store::open(config).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_statement_does_not_outlast_its_callers_deadline_and_has_no_effect() {
    let config = fresh().await;
    let Engine::Postgres(database) = config.engine.clone() else { unreachable!("asked for PostgreSQL") };
    let store = Store::open(config.migrations([conformance::TABLES])).await.unwrap();
    let row = async |tx: &mut store::Tx| tx.execute("INSERT INTO counters (id, count) VALUES ('a', 0)", &[]).await;
    store.write(site!("postgres_test.row"), row).await.unwrap();
    let (blocker, name) = superuser(&database).await;
    blocker.batch_execute("BEGIN; UPDATE counters SET count = 1").await.unwrap();

    let update = async |tx: &mut store::Tx| tx.execute("UPDATE counters SET count = 7", &[]).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let late = store::deadline::within(deadline, store.write(site!("postgres_test.late"), update)).await;
    assert!(matches!(late, Err(Error::Busy { .. })), "{late:?}");

    // The blocker still holds the row: whoever waited for it has stopped waiting.
    let (other, _) = superuser(&database).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
    assert_eq!(other.query_one(waiting, &[&name]).await.unwrap().get::<_, i64>(0), 0);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    let counts = store.read(async |tx| tx.query("SELECT count FROM counters", &[]).await).await.unwrap();
    assert_eq!(counts.iter().map(|row| row.get::<i64>("count").unwrap()).collect::<Vec<_>>(), [0]);
}

/// Whoever may do everything, at the database of this name.
async fn superuser(database: &Database) -> (tokio_postgres::Client, String) {
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let name = database.url.rsplit_once('/').unwrap().1.to_owned();
    (client, name)
}

fn as_role(database: &Database, role: &str) -> String {
    let (_, rest) = database.url.split_once('@').unwrap();
    format!("postgres://{role}@{rest}")
}

/// The database with a role that owns it and one that serves, both of them new.
async fn owned(database: &Database) -> Database {
    let (client, name) = superuser(database).await;
    let (owner, role) = (format!("{name}_owner"), format!("{name}_service"));
    client
        .batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN; CREATE ROLE {role} LOGIN; ALTER DATABASE {name} OWNER TO {owner}"
        ))
        .await
        .unwrap();
    Database { url: as_role(database, &role), owner_url: Some(as_role(database, &owner)), ..database.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server"]
async fn a_service_appends_events_and_can_neither_change_them_nor_the_tables() {
    let Engine::Postgres(database) = fresh().await.engine else { unreachable!("asked for PostgreSQL") };
    let shared = owned(&database).await;
    const TRAIL: MigrationSet =
        MigrationSet::new("trail", &[Migration::new(1, "trail", "CREATE TABLE audit_records (id TEXT NOT NULL)")]);
    let config = || Config::new("conform", Engine::Postgres(shared.clone())).migrations([conformance::TABLES, TRAIL]);
    let (first, second) = tokio::join!(Store::open(config()), Store::open(config()));
    let (store, _second) = (first.unwrap(), second.unwrap());
    let body = async |tx: &mut store::Tx| -> Result<u64, Error> {
        tx.append(event("streams/a", 1));
        tx.execute("INSERT INTO counters (id, count) VALUES ('a', 0)", &[]).await
    };
    store.write(site!("postgres_test.as_service"), body).await.unwrap();

    let (service, connection) = tokio_postgres::connect(&shared.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    service.batch_execute("UPDATE counters SET count = 1; INSERT INTO audit_records VALUES ('a')").await.unwrap();
    for forbidden in [
        "UPDATE audit_records SET id = ''",
        "DELETE FROM audit_records",
        "UPDATE events SET payload = ''",
        "DELETE FROM events",
        "TRUNCATE events",
        "DROP TABLE events",
        "DELETE FROM shards",
        "DELETE FROM migrations",
        "CREATE TABLE mine (id TEXT)",
        "ALTER TABLE counters ADD COLUMN more TEXT",
    ] {
        let refused = service.batch_execute(forbidden).await.err().unwrap();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{forbidden}: {refused}");
    }
    // Nothing to bring up to date, so the service's role is enough.
    let alone = Database { owner_url: None, ..shared.clone() };
    Store::open(Config::new("conform", Engine::Postgres(alone)).migrations([conformance::TABLES, TRAIL]))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL server with a certificate"]
#[allow(clippy::disallowed_methods, reason = "a test is told where its server's certificate is")]
async fn a_server_that_no_authority_vouches_for_is_not_spoken_to() {
    let Engine::Postgres(database) = fresh().await.engine else { unreachable!("asked for PostgreSQL") };
    let authority = std::env::var("STORE_TEST_POSTGRES_CA").expect("STORE_TEST_POSTGRES_CA names no file");
    let open = |url: String, authority: &std::path::Path| {
        let database = Database { url, authority: Some(authority.to_owned()), ..database.clone() };
        Store::open(Config::new("conform", Engine::Postgres(database)).migrations([conformance::TABLES]))
    };
    let store = open(database.url.clone(), authority.as_ref()).await.unwrap();
    let (client, name) = superuser(&database).await;
    let encrypted = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE datname = $1 AND application_name = 'stoa-conform'";
    let row = client.query_one(encrypted, &[&name]).await.unwrap();
    let (all, tls): (i64, i64) = (row.get(0), row.get(1));
    assert!(all > 0 && all == tls, "{tls} of {all} connections have TLS");
    drop(store);

    let other = tempfile::tempdir().unwrap();
    let stranger = other.path().join("stranger.pem");
    std::fs::write(&stranger, rcgen::generate_simple_self_signed(["stranger".to_owned()]).unwrap().cert.pem()).unwrap();
    for (url, authority) in [
        (database.url.clone(), stranger.as_path()),
        // Vouched for, but under another name.
        (database.url.replace("127.0.0.1", "localhost"), authority.as_ref()),
    ] {
        let refused = open(url, authority).await.err().unwrap();
        assert!(refused.to_string().contains("certificate"), "{refused}");
    }
}
