//! What is stored is what was given, now, after a rebuild, and after the store was opened again.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Outcome, TABLES, add, count, event, everything};
use crate::{
    Config, ConstraintKind, Engine, Error, Migration, MigrationSet, NewEvent, Row, Store, Tx, Value, params, site,
};

pub(super) async fn what_is_written_is_read_back(store: Store) {
    let time = Timestamp::from_microsecond(1_291_191_960_000_001).expect("a time");
    let wrote = store
        .write(site!("conformance.values"), async move |tx| {
            // Parameters out of order and twice, as services write them.
            tx.execute(
                "INSERT INTO counters (flag, id, data, count, change_time) VALUES ($3, $2, $4, $1, CAST($5 AS BIGINT))",
                params![i64::MAX, "a'b\u{1F600}", true, vec![0_u8, 255], time],
            )
            .await?;
            tx.execute(
                "INSERT INTO counters (id, count, data) VALUES ($1, $2, $3)",
                params!["empty", 0, None::<Vec<u8>>],
            )
            .await?;
            tx.execute("UPDATE counters SET count = count + $1 WHERE id = $2 AND count < $1", params![7, "empty"]).await
        })
        .await;
    assert_eq!(wrote.expect("rows are written"), 1);
    let rows =
        store.read(async |tx| tx.query("SELECT * FROM counters ORDER BY id", &[]).await).await.expect("rows are read");
    let [first, second] = rows.as_slice() else { panic!("two rows, not {rows:?}") };
    assert_eq!(first.get::<String>("id").expect("text"), "a'b\u{1F600}");
    assert_eq!(first.get::<i64>("count").expect("number"), i64::MAX);
    assert!(first.get::<bool>("flag").expect("flag"));
    assert_eq!(first.get::<Vec<u8>>("data").expect("bytes"), [0, 255]);
    assert_eq!(first.get::<Timestamp>("change_time").expect("time"), time);
    assert_eq!(first.get::<Option<String>>("owner").expect("null"), None);
    assert_eq!((second.get::<i64>("count").ok(), second.get::<bool>("flag").ok()), (Some(7), Some(false)));
    assert_eq!(second.get::<Option<Vec<u8>>>("data").expect("null"), None);
    assert!(matches!(second.get::<String>("count"), Err(Error::Mismatch { .. })));
    assert!(matches!(second.get::<String>("no_such_column"), Err(Error::Mismatch { .. })));
    let too_large = store.write(site!("conformance.too_large"), async |tx| {
        tx.execute("UPDATE counters SET count = $1", params![u64::MAX]).await
    });
    assert!(matches!(too_large.await, Err(Error::Mismatch { .. })));
}

pub(super) async fn events_are_read_back_as_they_were_appended(store: Store) {
    let now = store
        .write(site!("conformance.append"), async |tx| {
            for version in 1..=9 {
                tx.append(NewEvent { subject: Some("users/1".to_owned()), ..event("streams/1", version) });
            }
            tx.append(NewEvent { payload: Vec::new(), ..event("streams/2", 1) });
            assert_eq!(tx.appended().len(), 10);
            Ok::<_, Error>(tx.now())
        })
        .await
        .expect("events are appended");
    let read = store.read(async |tx| {
        assert_eq!(tx.version("streams/1").await?, 9);
        assert_eq!(tx.version("streams/none").await?, 0);
        assert_eq!(
            tx.events("streams/1", 4, 3).await?.iter().map(|event| event.version).collect::<Vec<_>>(),
            [4, 5, 6]
        );
        assert_eq!(tx.events("streams/1", 10, 3).await?, []);
        Ok::<_, Error>((tx.events("streams/1", 0, 100).await?, tx.events("streams/2", 1, 100).await?))
    });
    let (first, second) = read.await.expect("events are read");
    assert_eq!(first.len(), 9);
    for (recorded, version) in first.iter().zip(1..) {
        let appended = event("streams/1", version);
        assert_eq!((recorded.version, recorded.name.as_str(), recorded.schema), (version, appended.name, 1));
        assert_eq!((&recorded.payload, recorded.subject.as_deref()), (&appended.payload, Some("users/1")));
        assert_eq!(
            (recorded.causation.as_str(), recorded.correlation.as_str(), recorded.traceparent.as_str()),
            ("cause", "story", "")
        );
        assert_eq!(recorded.occur_time, now);
    }
    assert_eq!(second.len(), 1);
    assert!(second.iter().all(|event| event.payload.is_empty() && event.subject.is_none()));
    assert_eq!(everything(&store).await.len(), 10);
}

pub(super) async fn constraints_are_told_apart_by_kind(store: Store) {
    let kind = async |sql: &'static str| match store
        .write(site!("conformance.constraint"), async move |tx| tx.execute(sql, &[]).await)
        .await
    {
        Err(Error::Constraint { kind, .. }) => kind,
        other => panic!("{sql} violates a constraint, not {other:?}"),
    };
    assert_eq!(kind("INSERT INTO counters (id, count) VALUES ('a', 1), ('a', 2)").await, ConstraintKind::Unique);
    assert_eq!(kind("INSERT INTO counters (id, count) VALUES ('a', -1)").await, ConstraintKind::Check);
    assert_eq!(
        kind("INSERT INTO counters (id, count, owner) VALUES ('a', 1, 'nobody')").await,
        ConstraintKind::ForeignKey
    );
    assert_eq!(kind("INSERT INTO counters (id) VALUES ('a')").await, ConstraintKind::NotNull);
    let wrong: Outcome<u64> = store
        .write(site!("conformance.type"), async |tx| {
            tx.execute("INSERT INTO counters (id, count) VALUES ($1, $2)", params!["a", "one"]).await
        })
        .await;
    assert!(wrong.is_err(), "a text is no number");
}

pub(super) async fn a_read_cannot_write(store: Store) {
    let wrote: Outcome<u64> = store.read(async |tx| add(tx, "a", 1).await).await;
    assert!(matches!(wrote, Err(Error::ReadOnly)), "{wrote:?}");
    let appended: Outcome = store
        .read(async |tx| {
            tx.append(event("s/1", 1));
            Ok(())
        })
        .await;
    assert!(matches!(appended, Err(Error::ReadOnly)), "{appended:?}");
    assert_eq!(count(&store, "a").await, None);
}

pub(super) async fn a_table_is_rebuilt_in_a_scratch_store_and_replaced(store: Store) {
    let insert = "INSERT INTO copies (id, part, flag, data) VALUES ($1, $2, $3, $4)";
    let fill = move |order: [i64; 3]| {
        async move |tx: &mut Tx| -> Outcome {
            for part in order {
                tx.execute(insert, params!["b", part, part > 1, vec![u8::try_from(part).unwrap_or(0)]]).await?;
            }
            tx.execute(insert, params!["a", 9, false, Value::Null]).await.map(drop)
        }
    };
    let rows = async |store: &Store| store.read(async |tx| tx.rows("copies").await).await.expect("rows are read");
    store.write(site!("conformance.fill"), fill([3, 1, 2])).await.expect("rows are written");
    let scratch = store.scratch().await.expect("a scratch store opens");
    assert_eq!(rows(&scratch).await, []);
    scratch.write(site!("conformance.fill_scratch"), fill([1, 2, 3])).await.expect("rows are written");
    let rebuilt = rows(&scratch).await;
    assert_eq!(rebuilt.len(), 4);
    assert_eq!(rows(&store).await, rebuilt, "the order of writing does not show");

    let changed: Outcome<u64> = store
        .write(site!("conformance.tamper"), async |tx| {
            tx.execute("UPDATE copies SET flag = true WHERE id = 'a'", &[]).await
        })
        .await;
    assert_eq!(changed.expect("a row is changed by hand"), 1);
    assert_ne!(rows(&store).await, rebuilt);
    let rebuilt = Arc::new(rebuilt);
    let captured = Arc::clone(&rebuilt);
    let replaced: Outcome<u64> = store
        .write(site!("conformance.replace"), async move |tx| tx.replace("copies", captured.iter().cloned()).await)
        .await;
    assert_eq!(replaced.expect("the table is replaced"), 4);
    assert_eq!(&rows(&store).await, &*rebuilt);
    let none: Outcome<Vec<Row>> = store.read(async |tx| tx.rows("no_such_table").await).await;
    assert!(none.is_err());
}

pub(super) async fn tables_adopt_the_rows_of_a_scratch_store_or_stay_as_they_are(store: Store) {
    const TABLES: &[&str] = &["owners", "counters", "copies"];
    let fill = |owner: &'static str, parts: i64| {
        async move |tx: &mut Tx| -> Outcome {
            tx.execute("INSERT INTO owners (id) VALUES ($1)", params![owner]).await?;
            let sql = "INSERT INTO counters (id, count, owner, flag) VALUES ($1, $2, $3, $4)";
            tx.execute(sql, params![format!("of {owner}"), parts, owner, parts > 1]).await?;
            for part in 0..parts {
                let sql = "INSERT INTO copies (id, part, flag, data) VALUES ($1, $2, $3, $4)";
                tx.execute(sql, params![owner, part, part > 1, vec![7_u8; 3000]]).await?;
            }
            Ok(())
        }
    };
    let all = async |store: &Store| {
        let rows = store.read(async |tx: &mut Tx| {
            let mut all = Vec::new();
            for table in TABLES {
                all.push(tx.rows(table).await?);
            }
            Ok::<_, Error>(all)
        });
        rows.await.expect("rows are read")
    };
    store.write(site!("conformance.fill"), fill("before", 3)).await.expect("rows are written");
    let before = all(&store).await;
    for (owner, parts) in [("many", 700), ("few", 2)] {
        let scratch = store.scratch().await.expect("a scratch store opens");
        scratch.write(site!("conformance.fill_scratch"), fill(owner, parts)).await.expect("rows are written");
        let wanted = all(&scratch).await;

        let was = all(&store).await;
        let source = scratch.clone();
        let failed: Outcome = store
            .write(site!("conformance.adopt"), async move |tx| {
                tx.adopt(&source, TABLES).await?;
                Err(Error::Busy { detail: "after all".to_owned() })
            })
            .await;
        assert!(failed.is_err());
        assert_eq!(all(&store).await, was, "a body that fails leaves the rows as they are");

        let (source, other) = (scratch.clone(), scratch.clone());
        let adopt = store.write(site!("conformance.adopt"), async move |tx| tx.adopt(&source, TABLES).await);
        let again = store.write(site!("conformance.adopt"), async move |tx| tx.adopt(&other, TABLES).await);
        let (adopted, again): (Outcome<u64>, Outcome<u64>) = tokio::join!(adopt, again);
        assert_eq!(adopted.expect("rows are adopted"), 2 + parts.unsigned_abs());
        assert_eq!(again.expect("rows are adopted"), 2 + parts.unsigned_abs());
        scratch.close().await;
        assert_eq!(all(&store).await, wanted);
    }
    assert_ne!(all(&store).await, before);
    // The store's own constraints and writes go on.
    store.write(site!("conformance.fill"), fill("after", 1)).await.expect("rows are written");
    assert_eq!(count(&store, "of few").await, Some(2));
    assert_eq!(everything(&store).await, []);
}

pub(super) async fn everything_is_there_after_reopening(config: Config) {
    let store = Store::open(config.clone().migrations([TABLES])).await.expect("an empty store opens");
    for version in 1..=3 {
        let wrote: Outcome<u64> = store
            .write(site!("conformance.reopen"), async move |tx| {
                tx.append(event("s/1", version));
                add(
                    tx,
                    if version == 1 {
                        "a"
                    } else if version == 2 {
                        "b"
                    } else {
                        "c"
                    },
                    1,
                )
                .await
            })
            .await;
        wrote.expect("it is written");
    }
    if matches!(config.engine, Engine::Temporary { .. }) {
        return;
    }
    let head = *store.head().borrow();
    drop(store);
    let store = Store::open(config.migrations([TABLES])).await.expect("a dropped store opens again at once");
    assert_eq!(*store.head().borrow(), head);
    assert_eq!(count(&store, "c").await, Some(1));
    assert_eq!(everything(&store).await.len(), 3);
    let wrote: Outcome = store
        .write(site!("conformance.reopened"), async |tx| {
            tx.append(event("s/1", 4));
            Ok(())
        })
        .await;
    wrote.expect("the stream goes on");
    assert_eq!(everything(&store).await.len(), 4);
}

pub(super) async fn a_store_that_does_not_fit_the_binary_is_refused(config: Config) {
    const TWO: MigrationSet = MigrationSet::new(
        "conformance",
        &[
            Migration::new(1, "one", "CREATE TABLE one (id TEXT NOT NULL PRIMARY KEY)"),
            Migration::new(2, "two", "CREATE TABLE two (id TEXT NOT NULL PRIMARY KEY)"),
        ],
    );
    const ONE: MigrationSet = MigrationSet::new(
        "conformance",
        &[Migration::new(1, "one", "CREATE TABLE one (id TEXT NOT NULL PRIMARY KEY)")],
    );
    const CHANGED: MigrationSet =
        MigrationSet::new("conformance", &[Migration::new(1, "one", "CREATE TABLE one (id TEXT NOT NULL)")]);
    const BROKEN: MigrationSet = MigrationSet::new(
        "broken",
        &[Migration::new(1, "half", "CREATE TABLE half (id TEXT NOT NULL PRIMARY KEY); CREATE TABLE")],
    );
    if matches!(config.engine, Engine::Temporary { .. }) {
        return;
    }
    let open =
        async |sets: &[MigrationSet]| Store::open(config.clone().migrations(sets.iter().copied())).await.map(drop);
    open(&[ONE]).await.expect("an empty store opens");
    open(&[TWO]).await.expect("an older store is brought up to date");
    open(&[TWO]).await.expect("and opened again");
    for sets in [&[ONE][..], &[CHANGED], &[], &[TWO, BROKEN], &[TWO, TWO]] {
        let refused = open(sets).await;
        assert!(matches!(refused, Err(Error::Migration { .. })), "{sets:?}: {refused:?}");
    }
    open(&[TWO]).await.expect("a migration that failed leaves nothing");
}

pub(super) async fn an_older_binary_opens_a_store_that_was_expanded_and_none_that_was_contracted(config: Config) {
    const ONE: Migration =
        Migration::new(1, "one", "CREATE TABLE kept (id TEXT NOT NULL PRIMARY KEY, count BIGINT NOT NULL)");
    const TWO: Migration = Migration::new(
        2,
        "two",
        "-- expand\nALTER TABLE kept ADD COLUMN note TEXT; CREATE TABLE notes (id TEXT NOT NULL PRIMARY KEY)",
    );
    const THREE: Migration = Migration::new(3, "three", "-- contract: needs version 2\nDROP TABLE notes");
    const UNMARKED: Migration = Migration::new(3, "three", "CREATE TABLE more (id TEXT NOT NULL PRIMARY KEY)");
    const UNKNOWN: Migration = Migration::new(3, "three", "-- expands\nCREATE TABLE more (id TEXT NOT NULL)");
    const OLD: MigrationSet = MigrationSet::new("rolled", &[ONE]);
    const NEW: MigrationSet = MigrationSet::new("rolled", &[ONE, TWO]);
    const NEWER: MigrationSet = MigrationSet::new("rolled", &[ONE, TWO, THREE]);
    const WITH_UNMARKED: MigrationSet = MigrationSet::new("rolled", &[ONE, TWO, UNMARKED]);
    const WITH_UNKNOWN: MigrationSet = MigrationSet::new("rolled", &[ONE, TWO, UNKNOWN]);
    const ADDED: MigrationSet =
        MigrationSet::new("added", &[Migration::new(1, "set", "-- expand\nCREATE TABLE added (id TEXT NOT NULL)")]);
    if matches!(config.engine, Engine::Temporary { .. }) {
        return;
    }
    let open = async |sets: &[MigrationSet]| Store::open(config.clone().migrations(sets.iter().copied())).await;
    let insert = async |store: &Store, id: &'static str| -> Outcome<u64> {
        let sql = "INSERT INTO kept (id, count) VALUES ($1, 7)";
        store.write(site!("conformance.rolled"), async move |tx| tx.execute(sql, params![id]).await).await
    };
    drop(open(&[OLD]).await.expect("an empty store opens"));
    drop(open(&[NEW, ADDED]).await.expect("a newer binary expands it"));

    let old = open(&[OLD]).await.expect("the older one opens what was expanded");
    insert(&old, "by the older").await.expect("and writes");
    // A rebuild there fills the columns the older one knows; what was added stays empty.
    let scratch = old.scratch().await.expect("a scratch store opens");
    insert(&scratch, "rebuilt").await.expect("it is written");
    let adopted: Outcome<u64> = old
        .write(site!("conformance.rolled"), {
            let scratch = scratch.clone();
            async move |tx| tx.adopt(&scratch, &["kept"]).await
        })
        .await;
    assert_eq!(adopted.expect("the rows are adopted"), 1);
    drop((scratch, old));

    let refused = open(&[WITH_UNKNOWN]).await.map(drop);
    assert!(matches!(&refused, Err(Error::Migration { detail, .. }) if detail.contains("no mark")), "{refused:?}");
    let new = open(&[NEW, ADDED]).await.expect("the newer one opens it again");
    let rows = new.read(async |tx| tx.query("SELECT id, note FROM kept", &[]).await).await.expect("rows are read");
    assert_eq!(rows.iter().map(Row::values).collect::<Vec<_>>(), [[Value::from("rebuilt"), Value::Null]]);
    drop(new);

    drop(open(&[NEWER]).await.expect("a newer binary contracts it"));
    drop(open(&[NEW]).await.expect("who knows version 2 goes on"));
    let refused = open(&[OLD]).await.map(drop);
    let Err(Error::Migration { detail, .. }) = &refused else { panic!("{refused:?}") };
    for said in
        ["version 3 of rolled", "at least version 2", "knows version 1", "older than the store", "start the release"]
    {
        assert!(detail.contains(said), "{detail}");
    }
    drop(open(&[NEWER]).await.expect("the refused one has changed nothing"));
    let refused = open(&[WITH_UNMARKED]).await.map(drop);
    assert!(matches!(refused, Err(Error::Migration { .. })), "another text for version 3: {refused:?}");
}

pub(super) async fn an_unmarked_migration_refuses_whoever_does_not_know_it(config: Config) {
    const ONE: Migration = Migration::new(1, "one", "CREATE TABLE one (id TEXT NOT NULL PRIMARY KEY)");
    const TWO: Migration = Migration::new(2, "two", "CREATE TABLE two (id TEXT NOT NULL PRIMARY KEY)");
    const OLD: MigrationSet = MigrationSet::new("unmarked", &[ONE]);
    const NEW: MigrationSet = MigrationSet::new("unmarked", &[ONE, TWO]);
    if matches!(config.engine, Engine::Temporary { .. }) {
        return;
    }
    drop(Store::open(config.clone().migrations([NEW])).await.expect("an empty store opens"));
    let refused = Store::open(config.migrations([OLD])).await.map(drop);
    assert!(matches!(refused, Err(Error::Migration { .. })), "{refused:?}");
}

pub(super) async fn a_closed_store_answers_that_it_is_stopped(store: Store) {
    let other = store.clone();
    store.close().await;
    let wrote: Outcome<u64> = other.write(site!("conformance.closed"), async |tx| add(tx, "a", 1).await).await;
    assert!(matches!(wrote, Err(Error::Stopped { .. })));
    let read: Outcome<Vec<u64>> = other.read(async |tx| tx.heads().await).await;
    assert!(matches!(read, Err(Error::Stopped { .. })));
    assert!(matches!(other.stopped().await, Error::Stopped { .. }));
}
