//! What every engine must do, as a function over a store: run it against each engine with a real server behind it.
//!
//! A failure is a panic that says what was expected, like in any test.

mod data;
mod transactions;

use std::path::Path;
#[cfg(feature = "fleet")]
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Audit, Config, Engine, Error, Migration, MigrationSet, NewEvent, Store, Tx, params};

/// The tables of this suite.
pub const TABLES: MigrationSet = MigrationSet::new(
    "conformance",
    &[Migration::new(
        1,
        "tables with one of each",
        "CREATE TABLE owners (id TEXT NOT NULL PRIMARY KEY);
         CREATE TABLE counters (
             id TEXT NOT NULL PRIMARY KEY,
             count BIGINT NOT NULL CHECK (count >= 0),
             owner TEXT REFERENCES owners (id),
             flag BOOLEAN NOT NULL DEFAULT false,
             data BYTEA,
             change_time BIGINT
         );
         CREATE TABLE copies (id TEXT NOT NULL, part BIGINT NOT NULL, flag BOOLEAN NOT NULL, data BYTEA, PRIMARY KEY (id, part))",
    )],
);

/// Runs the whole suite; `fresh` names an empty place for a store at each call, without tables of its own.
pub async fn run(fresh: impl AsyncFn() -> Config) {
    let open = async || Store::open(fresh().await.migrations([TABLES])).await.expect("an empty store opens");
    data::what_is_written_is_read_back(open().await).await;
    data::events_are_read_back_as_they_were_appended(open().await).await;
    transactions::a_failed_body_leaves_neither_rows_nor_events_nor_a_hole(open().await).await;
    transactions::a_version_that_is_taken_or_not_next_is_a_conflict(open().await).await;
    transactions::a_failed_savepoint_undoes_its_rows_and_events_alone(open().await).await;
    transactions::a_swallowed_error_cannot_commit(open().await).await;
    transactions::a_panic_in_a_body_undoes_it_and_is_reported(open().await).await;
    transactions::a_body_that_fails_undoes_nothing_of_those_beside_it(open().await).await;
    data::constraints_are_told_apart_by_kind(open().await).await;
    data::a_read_cannot_write(open().await).await;
    transactions::sixty_four_concurrent_writers_lose_no_update(open().await).await;
    transactions::a_reader_sees_one_moment(open().await).await;
    transactions::a_caller_that_vanishes_does_not_cut_its_body(open().await).await;
    data::a_table_is_rebuilt_in_a_scratch_store_and_replaced(open().await).await;
    data::tables_adopt_the_rows_of_a_scratch_store_or_stay_as_they_are(open().await).await;
    data::everything_is_there_after_reopening(fresh().await).await;
    data::a_store_that_does_not_fit_the_binary_is_refused(fresh().await).await;
    data::an_older_binary_opens_a_store_that_was_expanded_and_none_that_was_contracted(fresh().await).await;
    data::an_unmarked_migration_refuses_whoever_does_not_know_it(fresh().await).await;
    data::a_closed_store_answers_that_it_is_stopped(open().await).await;
}

/// An empty place for a store: a database of its own on the server that `STORE_TEST_POSTGRES` names, or, without the fleet's
/// engine or such a server, a file that is not flushed. For the suites of everything that is built on a store.
pub async fn engine() -> Engine {
    #[cfg(feature = "fleet")]
    if let Some(url) = address_of(None, "store") {
        return postgres(url).await;
    }
    Engine::Temporary { folder: None }
}

/// The same for a store that is opened again: one file in `folder`, or the database that belongs to it.
pub async fn engine_of(folder: &Path, name: &str) -> Engine {
    #[cfg(feature = "fleet")]
    if let Some(url) = address_of(Some(folder), name) {
        return postgres(url).await;
    }
    Engine::Sqlite { path: folder.join(format!("{name}.db")) }
}

/// Where the database of that name lies for a test, on the server that `STORE_TEST_POSTGRES` names: the one that belongs to
/// the folder, or a new one.
#[cfg(feature = "fleet")]
#[allow(clippy::disallowed_methods, reason = "a test is told where its server is")]
pub fn address_of(folder: Option<&Path>, name: &str) -> Option<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = std::env::var("STORE_TEST_POSTGRES").ok()?;
    let (base, _) = server.rsplit_once('/').expect("postgres://user@host/database");
    let place = match folder {
        Some(folder) => format!("f{:08x}", crc32fast::hash(folder.as_os_str().as_encoded_bytes())),
        None => COUNT.fetch_add(1, Ordering::Relaxed).to_string(),
    };
    Some(format!("{base}/t{}_{place}_{name}", std::process::id()))
}

#[cfg(feature = "fleet")]
async fn postgres(url: String) -> Engine {
    let (server, name) = url.rsplit_once('/').expect("postgres://user@host/database");
    crate::create_database(&format!("{server}/postgres"), name).await.expect("a database is created");
    Engine::Postgres(crate::Database::at(url))
}

type Outcome<T = ()> = Result<T, Error>;

fn event(stream: &str, version: u64) -> NewEvent {
    NewEvent {
        stream: stream.to_owned(),
        version,
        name: "stoa.conformance.v1.Counted",
        schema: 1,
        payload: version.to_le_bytes().to_vec(),
        subject: None,
        causation: "cause".to_owned(),
        correlation: "story".to_owned(),
        traceparent: String::new(),
    }
}

async fn add(tx: &mut Tx, id: &str, count: i64) -> Outcome<u64> {
    tx.execute("INSERT INTO counters (id, count) VALUES ($1, $2)", params![id, count]).await
}

async fn count(store: &Store, id: &'static str) -> Option<i64> {
    let read = store.read(async move |tx| {
        let row = tx.query_opt("SELECT count FROM counters WHERE id = $1", params![id]).await?;
        row.map(|row| row.get::<i64>("count")).transpose()
    });
    read.await.expect("a counter is read")
}

/// All events by way of the shards' tails, which also checks that positions are dense and checksums fit.
async fn everything(store: &Store) -> Vec<(String, u64)> {
    let read = store.read(async |tx| {
        let mut all = Vec::new();
        for (shard, head) in (0..).zip(tx.heads().await?) {
            let mut after = 0;
            while after < head {
                let page = tx.tail(shard, after, 7).await?;
                assert!(!page.is_empty(), "shard {shard} says {head} events and ends at {after}");
                after += page.len() as u64;
                all.extend(page.into_iter().map(|event| (event.stream, event.version)));
            }
            assert!(tx.tail(shard, head, 7).await?.is_empty(), "shard {shard} has events beyond its head");
        }
        Ok::<_, Error>(all)
    });
    let all = read.await.expect("the log is read");
    let audit = store.audit().await.expect("the store is audited");
    assert_eq!(audit, Audit { events: all.len() as u64, problems: Vec::new() });
    all
}
