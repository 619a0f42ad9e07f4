//! What every engine must do, as a function over a store: run it against each engine with a real server behind it.
//!
//! A failure is a panic that says what was expected, like in any test.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{FutureExt as _, future::join_all};
use jiff::Timestamp;

use crate::{
    Config, ConstraintKind, Error, Migration, MigrationSet, NewEvent, Store, Tx, Value, params,
    site,
};

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
    let open = async || {
        Store::open(fresh().await.migrations([TABLES]))
            .await
            .expect("an empty store opens")
    };
    what_is_written_is_read_back(open().await).await;
    events_are_read_back_as_they_were_appended(open().await).await;
    a_failed_body_leaves_neither_rows_nor_events_nor_a_hole(open().await).await;
    a_version_that_is_taken_or_not_next_is_a_conflict(open().await).await;
    a_failed_savepoint_undoes_its_rows_and_events_alone(open().await).await;
    a_swallowed_error_cannot_commit(open().await).await;
    a_panic_in_a_body_undoes_it_and_is_reported(open().await).await;
    constraints_are_told_apart_by_kind(open().await).await;
    a_read_cannot_write(open().await).await;
    sixty_four_concurrent_writers_lose_no_update(open().await).await;
    a_reader_sees_one_moment(open().await).await;
    a_caller_that_vanishes_does_not_cut_its_body(open().await).await;
    a_table_is_rebuilt_in_a_scratch_store_and_replaced(open().await).await;
    everything_is_there_after_reopening(fresh().await).await;
    a_store_that_does_not_fit_the_binary_is_refused(fresh().await).await;
    a_closed_store_answers_that_it_is_stopped(open().await).await;
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
    tx.execute(
        "INSERT INTO counters (id, count) VALUES ($1, $2)",
        params![id, count],
    )
    .await
}

async fn count(store: &Store, id: &'static str) -> Option<i64> {
    let read = store.read(async move |tx| {
        let row = tx
            .query_opt("SELECT count FROM counters WHERE id = $1", params![id])
            .await?;
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
                assert!(
                    !page.is_empty(),
                    "shard {shard} says {head} events and ends at {after}"
                );
                after += page.len() as u64;
                all.extend(page.into_iter().map(|event| (event.stream, event.version)));
            }
            assert!(
                tx.tail(shard, head, 7).await?.is_empty(),
                "shard {shard} has events beyond its head"
            );
        }
        Ok::<_, Error>(all)
    });
    read.await.expect("the log is read")
}

async fn what_is_written_is_read_back(store: Store) {
    let time = Timestamp::from_microsecond(1_291_191_960_000_001).expect("a time");
    let wrote = store
        .write(site!("conformance.values"), async move |tx| {
            // Parameters out of order and twice, as services write them.
            tx.execute(
                "INSERT INTO counters (flag, id, data, count, change_time) VALUES ($3, $2, $4, $1, CAST($5 AS BIGINT))",
                params![i64::MAX, "a'b\u{1F600}", true, vec![0_u8, 255], time],
            )
            .await?;
            tx.execute("INSERT INTO counters (id, count, data) VALUES ($1, $2, $3)", params!["empty", 0, None::<Vec<u8>>]).await?;
            tx.execute("UPDATE counters SET count = count + $1 WHERE id = $2 AND count < $1", params![7, "empty"]).await
        })
        .await;
    assert_eq!(wrote.expect("rows are written"), 1);
    let rows = store
        .read(async |tx| tx.query("SELECT * FROM counters ORDER BY id", &[]).await)
        .await
        .expect("rows are read");
    let [first, second] = rows.as_slice() else {
        panic!("two rows, not {rows:?}")
    };
    assert_eq!(first.get::<String>("id").expect("text"), "a'b\u{1F600}");
    assert_eq!(first.get::<i64>("count").expect("number"), i64::MAX);
    assert!(first.get::<bool>("flag").expect("flag"));
    assert_eq!(first.get::<Vec<u8>>("data").expect("bytes"), [0, 255]);
    assert_eq!(first.get::<Timestamp>("change_time").expect("time"), time);
    assert_eq!(first.get::<Option<String>>("owner").expect("null"), None);
    assert_eq!(
        (
            second.get::<i64>("count").ok(),
            second.get::<bool>("flag").ok()
        ),
        (Some(7), Some(false))
    );
    assert_eq!(second.get::<Option<Vec<u8>>>("data").expect("null"), None);
    assert!(matches!(
        second.get::<String>("count"),
        Err(Error::Mismatch { .. })
    ));
    assert!(matches!(
        second.get::<String>("no_such_column"),
        Err(Error::Mismatch { .. })
    ));
    let too_large = store.write(site!("conformance.too_large"), async |tx| {
        tx.execute("UPDATE counters SET count = $1", params![u64::MAX])
            .await
    });
    assert!(matches!(too_large.await, Err(Error::Mismatch { .. })));
}

async fn events_are_read_back_as_they_were_appended(store: Store) {
    let now = store
        .write(site!("conformance.append"), async |tx| {
            for version in 1..=9 {
                tx.append(NewEvent {
                    subject: Some("users/1".to_owned()),
                    ..event("streams/1", version)
                });
            }
            tx.append(NewEvent {
                payload: Vec::new(),
                ..event("streams/2", 1)
            });
            assert_eq!(tx.appended().len(), 10);
            Ok::<_, Error>(tx.now())
        })
        .await
        .expect("events are appended");
    let read = store.read(async |tx| {
        assert_eq!(tx.version("streams/1").await?, 9);
        assert_eq!(tx.version("streams/none").await?, 0);
        assert_eq!(
            tx.events("streams/1", 4, 3)
                .await?
                .iter()
                .map(|event| event.version)
                .collect::<Vec<_>>(),
            [4, 5, 6]
        );
        assert_eq!(tx.events("streams/1", 10, 3).await?, []);
        Ok::<_, Error>((
            tx.events("streams/1", 0, 100).await?,
            tx.events("streams/2", 1, 100).await?,
        ))
    });
    let (first, second) = read.await.expect("events are read");
    assert_eq!(first.len(), 9);
    for (recorded, version) in first.iter().zip(1..) {
        let appended = event("streams/1", version);
        assert_eq!(
            (recorded.version, recorded.name.as_str(), recorded.schema),
            (version, appended.name, 1)
        );
        assert_eq!(
            (&recorded.payload, recorded.subject.as_deref()),
            (&appended.payload, Some("users/1"))
        );
        assert_eq!(
            (
                recorded.causation.as_str(),
                recorded.correlation.as_str(),
                recorded.traceparent.as_str()
            ),
            ("cause", "story", "")
        );
        assert_eq!(recorded.occur_time, now);
    }
    assert_eq!(second.len(), 1);
    assert!(
        second
            .iter()
            .all(|event| event.payload.is_empty() && event.subject.is_none())
    );
    assert_eq!(everything(&store).await.len(), 10);
}

async fn a_failed_body_leaves_neither_rows_nor_events_nor_a_hole(store: Store) {
    let mut head = store.head();
    for round in 1..=20_u64 {
        let fails = round % 3 == 0;
        let done = store
            .write(site!("conformance.atomic"), async move |tx| {
                add(tx, &format!("c{round}"), 1).await?;
                tx.append(event(&format!("c/{round}"), 1));
                tx.append(event(&format!("c/{round}"), 2));
                if fails { Err(Error::ReadOnly) } else { Ok(()) }
            })
            .await;
        assert_eq!(done.is_err(), fails);
    }
    assert_eq!(count(&store, "c2").await, Some(1));
    assert_eq!(count(&store, "c3").await, None);
    let all = everything(&store).await;
    assert_eq!(all.len(), 28);
    assert!(!all.iter().any(|(stream, _)| stream == "c/3"));
    assert!(head.has_changed().expect("the store lives") && *head.borrow_and_update() > 0);
}

async fn a_version_that_is_taken_or_not_next_is_a_conflict(store: Store) {
    let append = async |version| {
        store
            .write(site!("conformance.conflict"), async move |tx| {
                tx.execute(
                    "UPDATE counters SET count = count + 1 WHERE id = $1",
                    params!["c"],
                )
                .await?;
                tx.append(event("s/1", version));
                Ok::<_, Error>(())
            })
            .await
    };
    store
        .write(site!("conformance.conflict_row"), async |tx| {
            add(tx, "c", 0).await
        })
        .await
        .expect("a row");
    append(1).await.expect("the first version");
    append(2).await.expect("the next version");
    for version in [1, 2, 4] {
        match append(version).await {
            Err(Error::Conflict {
                stream,
                version: named,
            }) => assert_eq!((stream.as_str(), named), ("s/1", version)),
            other => panic!("version {version} is a conflict, not {other:?}"),
        }
    }
    append(3).await.expect("the next version");
    assert_eq!(count(&store, "c").await, Some(3));
    assert_eq!(
        everything(&store).await,
        [
            ("s/1".to_owned(), 1),
            ("s/1".to_owned(), 2),
            ("s/1".to_owned(), 3)
        ]
    );
}

async fn a_failed_savepoint_undoes_its_rows_and_events_alone(store: Store) {
    let wrote = store
        .write(site!("conformance.savepoint"), async |tx| {
            add(tx, "before", 1).await?;
            tx.append(event("s/1", 1));
            // A constraint that fails inside costs only what is inside.
            let inside: Outcome<u64> = tx
                .savepoint(async |tx: &mut Tx| {
                    add(tx, "inside", 1).await?;
                    tx.append(event("s/2", 1));
                    add(tx, "before", 2).await
                })
                .await?;
            assert!(inside.is_err_and(|error| error.is_unique()));
            let refused: Result<(), &str> = tx
                .savepoint(async |tx: &mut Tx| {
                    tx.append(event("s/3", 1));
                    Err("the domain says no")
                })
                .await?;
            assert_eq!(refused, Err("the domain says no"));
            let kept: Outcome<u64> = tx
                .savepoint(async |tx: &mut Tx| {
                    tx.append(event("s/4", 1));
                    add(tx, "kept", 1).await
                })
                .await?;
            kept?;
            add(tx, "after", 1).await
        })
        .await;
    wrote.expect("the transaction lives on");
    assert_eq!(
        (count(&store, "before").await, count(&store, "inside").await),
        (Some(1), None)
    );
    assert_eq!(
        (count(&store, "kept").await, count(&store, "after").await),
        (Some(1), Some(1))
    );
    let streams: BTreeSet<String> = everything(&store)
        .await
        .into_iter()
        .map(|(stream, _)| stream)
        .collect();
    assert_eq!(streams, ["s/1", "s/4"].map(String::from).into());

    let hidden: Outcome = store
        .write(site!("conformance.savepoint_hides"), async |tx| {
            let inside: Result<Outcome, Error> = tx
                .savepoint(async |tx: &mut Tx| {
                    let _ = add(tx, "kept", 2).await;
                    Ok(())
                })
                .await;
            assert!(
                inside.is_err(),
                "an error that the inside did not report is the outside's"
            );
            Ok(())
        })
        .await;
    assert!(hidden.is_err_and(|error| error.is_unique()));
}

async fn a_swallowed_error_cannot_commit(store: Store) {
    let swallowed: Outcome = store
        .write(site!("conformance.swallow"), async |tx| {
            add(tx, "a", 1).await?;
            let _ = add(tx, "a", 2).await;
            tx.append(event("s/1", 1));
            // Whatever comes afterwards gets the same error.
            assert!(add(tx, "b", 1).await.is_err_and(|error| error.is_unique()));
            Ok(())
        })
        .await;
    assert!(swallowed.is_err_and(|error| error.is_unique()));
    assert_eq!(
        (count(&store, "a").await, count(&store, "b").await),
        (None, None)
    );
    assert_eq!(everything(&store).await, []);
}

async fn a_panic_in_a_body_undoes_it_and_is_reported(store: Store) {
    let panicked: Outcome = store
        .write(site!("conformance.panic"), async |tx| {
            add(tx, "a", 1).await?;
            tx.append(event("s/1", 1));
            std::panic::resume_unwind(Box::new("planted"));
        })
        .await;
    assert!(matches!(panicked, Err(Error::Panicked { message }) if message == "planted"));
    let read: Outcome = store
        .read(async |_tx| std::panic::resume_unwind(Box::new("planted too".to_owned())))
        .await;
    assert!(matches!(read, Err(Error::Panicked { message }) if message == "planted too"));
    store
        .write(site!("conformance.after_panic"), async |tx| {
            add(tx, "b", 1).await
        })
        .await
        .expect("the store lives on");
    assert_eq!(
        (count(&store, "a").await, count(&store, "b").await),
        (None, Some(1))
    );
}

async fn constraints_are_told_apart_by_kind(store: Store) {
    let kind = async |sql: &'static str| match store
        .write(site!("conformance.constraint"), async move |tx| {
            tx.execute(sql, &[]).await
        })
        .await
    {
        Err(Error::Constraint { kind, .. }) => kind,
        other => panic!("{sql} violates a constraint, not {other:?}"),
    };
    assert_eq!(
        kind("INSERT INTO counters (id, count) VALUES ('a', 1), ('a', 2)").await,
        ConstraintKind::Unique
    );
    assert_eq!(
        kind("INSERT INTO counters (id, count) VALUES ('a', -1)").await,
        ConstraintKind::Check
    );
    assert_eq!(
        kind("INSERT INTO counters (id, count, owner) VALUES ('a', 1, 'nobody')").await,
        ConstraintKind::ForeignKey
    );
    assert_eq!(
        kind("INSERT INTO counters (id) VALUES ('a')").await,
        ConstraintKind::NotNull
    );
    let wrong: Outcome<u64> = store
        .write(site!("conformance.type"), async |tx| {
            tx.execute(
                "INSERT INTO counters (id, count) VALUES ($1, $2)",
                params!["a", "one"],
            )
            .await
        })
        .await;
    assert!(wrong.is_err(), "a text is no number");
}

async fn a_read_cannot_write(store: Store) {
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

async fn sixty_four_concurrent_writers_lose_no_update(store: Store) {
    const TASKS: u64 = 64;
    const ROUNDS: u64 = 10;
    store
        .write(site!("conformance.counter"), async |tx| {
            add(tx, "shared", 0).await
        })
        .await
        .expect("a row");
    let tasks = (0..TASKS).map(|task| {
        let store = store.clone();
        async move {
            for round in 1..=ROUNDS {
                loop {
                    let wrote: Outcome = store
                        .write(site!("conformance.concurrent"), async move |tx| {
                            let row = tx
                                .query_opt(
                                    "SELECT count FROM counters WHERE id = $1",
                                    params!["shared"],
                                )
                                .await?;
                            let seen: i64 = row.map_or(Ok(0), |row| row.get("count"))?;
                            let changed = tx
                                .execute(
                                    "UPDATE counters SET count = $1 WHERE id = $2 AND count = $3",
                                    params![seen + 1, "shared", seen],
                                )
                                .await?;
                            if changed == 0 {
                                return Err(Error::Busy {
                                    detail: "another was faster".to_owned(),
                                });
                            }
                            tx.append(event("shared", u64::try_from(seen + 1).unwrap_or(0)));
                            tx.append(event(&format!("own/{task}"), round));
                            Ok(())
                        })
                        .await;
                    match wrote {
                        Ok(()) => break,
                        Err(error) if error.is_transient() => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    });
    join_all(tasks).await;
    assert_eq!(count(&store, "shared").await, Some(640));
    let all = everything(&store).await;
    assert_eq!(all.len(), 1280);
    assert_eq!(
        all.iter()
            .filter(|(stream, _)| stream == "shared")
            .map(|(_, version)| *version)
            .collect::<Vec<_>>(),
        (1..=640).collect::<Vec<_>>()
    );
}

async fn a_reader_sees_one_moment(store: Store) {
    let both = async |tx: &mut Tx| -> Outcome {
        add(tx, "left", 0).await?;
        add(tx, "right", 0).await.map(drop)
    };
    store
        .write(site!("conformance.pair"), both)
        .await
        .expect("two rows");
    let writer = async {
        for _ in 0..100 {
            let wrote: Outcome<u64> = store
                .write(site!("conformance.pair_moves"), async |tx| {
                    tx.execute(
                        "UPDATE counters SET count = count + 1 WHERE id = 'left'",
                        &[],
                    )
                    .await?;
                    tx.execute(
                        "UPDATE counters SET count = count + 1 WHERE id = 'right'",
                        &[],
                    )
                    .await
                })
                .await;
            wrote.expect("both rows move");
        }
    };
    let reader = async {
        for _ in 0..50 {
            let read: Outcome<Vec<i64>> = store
                .read(async |tx| {
                    let mut seen = Vec::new();
                    for _ in 0..10 {
                        for id in ["left", "right"] {
                            let row = tx
                                .query_opt("SELECT count FROM counters WHERE id = $1", params![id])
                                .await?;
                            seen.push(row.map_or(Ok(-1), |row| row.get("count"))?);
                        }
                    }
                    Ok(seen)
                })
                .await;
            let seen = read.expect("both rows are read");
            assert!(
                seen.windows(2).all(|pair| pair.first() == pair.last()),
                "{seen:?}"
            );
        }
    };
    futures_util::join!(writer, reader);
}

async fn a_caller_that_vanishes_does_not_cut_its_body(store: Store) {
    let mut head = store.head();
    let mut write = Box::pin(
        store.write(site!("conformance.vanish"), async |tx| -> Outcome {
            add(tx, "a", 1).await?;
            tx.append(event("s/1", 1));
            Ok(())
        }),
    );
    // The first poll queues it; then the caller is gone.
    let _ = write.as_mut().now_or_never();
    drop(write);
    head.wait_for(|head| *head > 0)
        .await
        .expect("the store lives");
    assert_eq!(count(&store, "a").await, Some(1));
}

async fn a_table_is_rebuilt_in_a_scratch_store_and_replaced(store: Store) {
    let insert = "INSERT INTO copies (id, part, flag, data) VALUES ($1, $2, $3, $4)";
    let fill = move |order: [i64; 3]| {
        async move |tx: &mut Tx| -> Outcome {
            for part in order {
                tx.execute(
                    insert,
                    params!["b", part, part > 1, vec![u8::try_from(part).unwrap_or(0)]],
                )
                .await?;
            }
            tx.execute(insert, params!["a", 9, false, Value::Null])
                .await
                .map(drop)
        }
    };
    let rows = async |store: &Store| {
        store
            .read(async |tx| tx.rows("copies").await)
            .await
            .expect("rows are read")
    };
    store
        .write(site!("conformance.fill"), fill([3, 1, 2]))
        .await
        .expect("rows are written");
    let scratch = store.scratch().await.expect("a scratch store opens");
    assert_eq!(rows(&scratch).await, []);
    scratch
        .write(site!("conformance.fill_scratch"), fill([1, 2, 3]))
        .await
        .expect("rows are written");
    let rebuilt = rows(&scratch).await;
    assert_eq!(rebuilt.len(), 4);
    assert_eq!(
        rows(&store).await,
        rebuilt,
        "the order of writing does not show"
    );

    let changed: Outcome<u64> = store
        .write(site!("conformance.tamper"), async |tx| {
            tx.execute("UPDATE copies SET flag = true WHERE id = 'a'", &[])
                .await
        })
        .await;
    assert_eq!(changed.expect("a row is changed by hand"), 1);
    assert_ne!(rows(&store).await, rebuilt);
    let rebuilt = Arc::new(rebuilt);
    let captured = Arc::clone(&rebuilt);
    let replaced: Outcome<u64> = store
        .write(site!("conformance.replace"), async move |tx| {
            tx.replace("copies", captured.iter().cloned()).await
        })
        .await;
    assert_eq!(replaced.expect("the table is replaced"), 4);
    assert_eq!(&rows(&store).await, &*rebuilt);
    let none: Outcome<Vec<crate::Row>> =
        store.read(async |tx| tx.rows("no_such_table").await).await;
    assert!(none.is_err());
}

async fn everything_is_there_after_reopening(config: Config) {
    let store = Store::open(config.clone().migrations([TABLES]))
        .await
        .expect("an empty store opens");
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
    if matches!(config.engine, crate::Engine::Temporary { .. }) {
        return;
    }
    let head = *store.head().borrow();
    drop(store);
    let store = Store::open(config.migrations([TABLES]))
        .await
        .expect("a dropped store opens again at once");
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

async fn a_store_that_does_not_fit_the_binary_is_refused(config: Config) {
    const TWO: MigrationSet = MigrationSet::new(
        "conformance",
        &[
            Migration::new(1, "one", "CREATE TABLE one (id TEXT NOT NULL PRIMARY KEY)"),
            Migration::new(2, "two", "CREATE TABLE two (id TEXT NOT NULL PRIMARY KEY)"),
        ],
    );
    const ONE: MigrationSet = MigrationSet::new(
        "conformance",
        &[Migration::new(
            1,
            "one",
            "CREATE TABLE one (id TEXT NOT NULL PRIMARY KEY)",
        )],
    );
    const CHANGED: MigrationSet = MigrationSet::new(
        "conformance",
        &[Migration::new(
            1,
            "one",
            "CREATE TABLE one (id TEXT NOT NULL)",
        )],
    );
    const BROKEN: MigrationSet = MigrationSet::new(
        "broken",
        &[Migration::new(
            1,
            "half",
            "CREATE TABLE half (id TEXT NOT NULL PRIMARY KEY); CREATE TABLE",
        )],
    );
    if matches!(config.engine, crate::Engine::Temporary { .. }) {
        return;
    }
    let open = async |sets: &[MigrationSet]| {
        Store::open(config.clone().migrations(sets.iter().copied()))
            .await
            .map(drop)
    };
    open(&[ONE]).await.expect("an empty store opens");
    open(&[TWO])
        .await
        .expect("an older store is brought up to date");
    open(&[TWO]).await.expect("and opened again");
    for sets in [&[ONE][..], &[CHANGED], &[], &[TWO, BROKEN], &[TWO, TWO]] {
        let refused = open(sets).await;
        assert!(
            matches!(refused, Err(Error::Migration { .. })),
            "{sets:?}: {refused:?}"
        );
    }
    open(&[TWO])
        .await
        .expect("a migration that failed leaves nothing");
}

async fn a_closed_store_answers_that_it_is_stopped(store: Store) {
    let other = store.clone();
    store.close().await;
    let wrote: Outcome<u64> = other
        .write(site!("conformance.closed"), async |tx| {
            add(tx, "a", 1).await
        })
        .await;
    assert!(matches!(wrote, Err(Error::Stopped { .. })));
    let read: Outcome<Vec<u64>> = other.read(async |tx| tx.heads().await).await;
    assert!(matches!(read, Err(Error::Stopped { .. })));
    assert!(matches!(other.stopped().await, Error::Stopped { .. }));
}
