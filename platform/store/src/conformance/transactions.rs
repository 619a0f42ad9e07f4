//! All of a body or nothing of it, whatever happens to it or beside it.

use std::collections::BTreeSet;

use futures_util::{FutureExt as _, future::join_all};

use super::{Outcome, add, count, event, everything};
use crate::{Error, Store, Tx, params, site};

pub(super) async fn a_failed_body_leaves_neither_rows_nor_events_nor_a_hole(store: Store) {
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

pub(super) async fn a_version_that_is_taken_or_not_next_is_a_conflict(store: Store) {
    let append = async |version| {
        store
            .write(site!("conformance.conflict"), async move |tx| {
                tx.execute("UPDATE counters SET count = count + 1 WHERE id = $1", params!["c"]).await?;
                tx.append(event("s/1", version));
                Ok::<_, Error>(())
            })
            .await
    };
    store.write(site!("conformance.conflict_row"), async |tx| add(tx, "c", 0).await).await.expect("a row");
    append(1).await.expect("the first version");
    append(2).await.expect("the next version");
    for version in [1, 2, 4] {
        match append(version).await {
            Err(Error::Conflict { stream, version: named }) => assert_eq!((stream.as_str(), named), ("s/1", version)),
            other => panic!("version {version} is a conflict, not {other:?}"),
        }
    }
    append(3).await.expect("the next version");
    assert_eq!(count(&store, "c").await, Some(3));
    assert_eq!(everything(&store).await, [("s/1".to_owned(), 1), ("s/1".to_owned(), 2), ("s/1".to_owned(), 3)]);
}

pub(super) async fn a_failed_savepoint_undoes_its_rows_and_events_alone(store: Store) {
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
    assert_eq!((count(&store, "before").await, count(&store, "inside").await), (Some(1), None));
    assert_eq!((count(&store, "kept").await, count(&store, "after").await), (Some(1), Some(1)));
    let streams: BTreeSet<String> = everything(&store).await.into_iter().map(|(stream, _)| stream).collect();
    assert_eq!(streams, ["s/1", "s/4"].map(String::from).into());

    let hidden: Outcome = store
        .write(site!("conformance.savepoint_hides"), async |tx| {
            let inside: Result<Outcome, Error> = tx
                .savepoint(async |tx: &mut Tx| {
                    let _ = add(tx, "kept", 2).await;
                    Ok(())
                })
                .await;
            assert!(inside.is_err(), "an error that the inside did not report is the outside's");
            Ok(())
        })
        .await;
    assert!(hidden.is_err_and(|error| error.is_unique()));
}

pub(super) async fn a_swallowed_error_cannot_commit(store: Store) {
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
    assert_eq!((count(&store, "a").await, count(&store, "b").await), (None, None));
    assert_eq!(everything(&store).await, []);
}

pub(super) async fn a_panic_in_a_body_undoes_it_and_is_reported(store: Store) {
    let panicked: Outcome = store
        .write(site!("conformance.panic"), async |tx| {
            add(tx, "a", 1).await?;
            tx.append(event("s/1", 1));
            std::panic::resume_unwind(Box::new("planted"));
        })
        .await;
    assert!(matches!(panicked, Err(Error::Panicked { message }) if message == "planted"));
    let read: Outcome = store.read(async |_tx| std::panic::resume_unwind(Box::new("planted too".to_owned()))).await;
    assert!(matches!(read, Err(Error::Panicked { message }) if message == "planted too"));
    store.write(site!("conformance.after_panic"), async |tx| add(tx, "b", 1).await).await.expect("the store lives on");
    assert_eq!((count(&store, "a").await, count(&store, "b").await), (None, Some(1)));
}

pub(super) async fn a_body_that_fails_undoes_nothing_of_those_beside_it(store: Store) {
    const BODIES: u64 = 300;
    let refusal = || Error::Busy { detail: "the domain says no".to_owned() };
    let bodies = (0..BODIES).map(|number| {
        let store = store.clone();
        let body = async move |tx: &mut Tx| -> Outcome {
            if number % 6 == 1 {
                return Err(refusal());
            }
            add(tx, &format!("c{number}"), 1).await?;
            tx.append(event(&format!("c/{number}"), if number % 6 == 2 { 2 } else { 1 }));
            match number % 6 {
                3 => Err(refusal()),
                4 => {
                    let inside: Outcome = tx
                        .savepoint(async |tx: &mut Tx| {
                            add(tx, &format!("in{number}"), 1).await?;
                            tx.append(event(&format!("in/{number}"), 1));
                            Err(refusal())
                        })
                        .await?;
                    assert!(inside.is_err());
                    Ok(())
                }
                _ => Ok(()),
            }
        };
        async move {
            if number % 50 == 5 {
                store.write_alone(site!("conformance.beside_alone"), body).await
            } else {
                store.write(site!("conformance.beside"), body).await
            }
        }
    });
    let outcomes = join_all(bodies).await;
    let kept = |number: u64| matches!(number % 6, 0 | 4 | 5);
    for (number, outcome) in (0..).zip(&outcomes) {
        assert_eq!(outcome.is_ok(), kept(number), "{number}: {outcome:?}");
        assert_eq!(matches!(outcome, Err(Error::Conflict { .. })), number % 6 == 2, "{number}: {outcome:?}");
    }
    let rows = store.read(async |tx| tx.query("SELECT id FROM counters", &[]).await).await.expect("the rows");
    let rows: BTreeSet<String> = rows.iter().map(|row| row.get("id").expect("an id")).collect();
    let names =
        |prefix: &str| (0..BODIES).filter(|number| kept(*number)).map(|number| format!("{prefix}{number}")).collect();
    assert_eq!(rows, names("c"));
    let streams: BTreeSet<String> = everything(&store).await.into_iter().map(|(stream, _)| stream).collect();
    assert_eq!(streams, names("c/"));
}

pub(super) async fn sixty_four_concurrent_writers_lose_no_update(store: Store) {
    const TASKS: u64 = 64;
    const ROUNDS: u64 = 10;
    store.write(site!("conformance.counter"), async |tx| add(tx, "shared", 0).await).await.expect("a row");
    let tasks = (0..TASKS).map(|task| {
        let store = store.clone();
        async move {
            for round in 1..=ROUNDS {
                loop {
                    let wrote: Outcome = store
                        .write(site!("conformance.concurrent"), async move |tx| {
                            let row =
                                tx.query_opt("SELECT count FROM counters WHERE id = $1", params!["shared"]).await?;
                            let seen: i64 = row.map_or(Ok(0), |row| row.get("count"))?;
                            let changed = tx
                                .execute(
                                    "UPDATE counters SET count = $1 WHERE id = $2 AND count = $3",
                                    params![seen + 1, "shared", seen],
                                )
                                .await?;
                            if changed == 0 {
                                return Err(Error::Busy { detail: "another was faster".to_owned() });
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
        all.iter().filter(|(stream, _)| stream == "shared").map(|(_, version)| *version).collect::<Vec<_>>(),
        (1..=640).collect::<Vec<_>>()
    );
}

pub(super) async fn a_reader_sees_one_moment(store: Store) {
    let both = async |tx: &mut Tx| -> Outcome {
        add(tx, "left", 0).await?;
        add(tx, "right", 0).await.map(drop)
    };
    store.write(site!("conformance.pair"), both).await.expect("two rows");
    let writer = async {
        for _ in 0..100 {
            let wrote: Outcome<u64> = store
                .write(site!("conformance.pair_moves"), async |tx| {
                    tx.execute("UPDATE counters SET count = count + 1 WHERE id = 'left'", &[]).await?;
                    tx.execute("UPDATE counters SET count = count + 1 WHERE id = 'right'", &[]).await
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
                            let row = tx.query_opt("SELECT count FROM counters WHERE id = $1", params![id]).await?;
                            seen.push(row.map_or(Ok(-1), |row| row.get("count"))?);
                        }
                    }
                    Ok(seen)
                })
                .await;
            let seen = read.expect("both rows are read");
            assert!(seen.windows(2).all(|pair| pair.first() == pair.last()), "{seen:?}");
        }
    };
    futures_util::join!(writer, reader);
}

pub(super) async fn a_caller_that_vanishes_does_not_cut_its_body(store: Store) {
    let mut head = store.head();
    let mut write = Box::pin(store.write(site!("conformance.vanish"), async |tx| -> Outcome {
        add(tx, "a", 1).await?;
        tx.append(event("s/1", 1));
        Ok(())
    }));
    // The first poll queues it; then the caller is gone.
    let _ = write.as_mut().now_or_never();
    drop(write);
    head.wait_for(|head| *head > 0).await.expect("the store lives");
    assert_eq!(count(&store, "a").await, Some(1));
}
