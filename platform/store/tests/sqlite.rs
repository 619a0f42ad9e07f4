//! The embedded engine: the conformance suite, and what only a file can suffer.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use store::{Config, Error, Migration, MigrationSet, NewEvent, Store, conformance, params, site};

const TABLES: MigrationSet = MigrationSet::new(
    "test",
    &[Migration::new(1, "notes", "CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY, text TEXT NOT NULL)")],
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::run(async || {
        count.set(count.get() + 1);
        Config::sqlite("conform", folder.path().join(format!("{}.db", count.get())))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_store_conforms_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    conformance::run(async || {
        Config::new("conform", store::Engine::Temporary { folder: Some(folder.path().to_owned()) })
    })
    .await;
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn event(stream: &str, version: u64, payload: &[u8]) -> NewEvent {
    NewEvent {
        stream: stream.to_owned(),
        version,
        name: "stoa.test.v1.Noted",
        schema: 1,
        payload: payload.to_vec(),
        subject: None,
        causation: "cause".to_owned(),
        correlation: "story".to_owned(),
        traceparent: String::new(),
    }
}

async fn open(path: &Path) -> Store {
    Store::open(Config::sqlite("test", path).migrations([TABLES])).await.unwrap()
}

/// Beside bodies whose failure makes the others run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_can_run_only_once_does_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("test.db")).await;
    let bodies = (0..200_i64).map(|number| {
        let store = store.clone();
        async move {
            let insert = "INSERT INTO notes (id, text) VALUES ($1, 'note')";
            if number % 10 == 5 {
                let mut taken = Some(number);
                let body = async move |tx: &mut store::Tx| {
                    let number = taken.take().ok_or(Error::Suspended)?;
                    tx.execute(insert, params![number]).await
                };
                store.write_alone(site!("test.alone"), body).await
            } else {
                let body = async move |tx: &mut store::Tx| {
                    let rows = tx.execute(insert, params![number]).await?;
                    if number % 2 == 0 { Ok(rows) } else { Err(Error::ReadOnly) }
                };
                store.write(site!("test.beside"), body).await
            }
        }
    });
    for (number, outcome) in futures_util::future::join_all(bodies).await.into_iter().enumerate() {
        assert_eq!(outcome.is_ok(), number % 2 == 0 || number % 10 == 5, "{number}: {outcome:?}");
    }
    let count = store.read(async |tx| tx.query("SELECT id FROM notes", &[]).await).await.unwrap().len();
    assert_eq!(count, 120);
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_who_holds_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let store = open(&path).await;
    let refused = Store::open(Config::sqlite("test", &path).migrations([TABLES])).await;
    match refused {
        Err(Error::Locked { path: named, holder }) => {
            assert_eq!(named, path);
            assert_eq!(holder, format!("process {}", std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    store.close().await;
    open(&path).await;
}

#[tokio::test]
async fn a_scratch_store_stops_with_the_body_that_fails_and_says_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("test.db")).await;
    let scratch = store.scratch().await.unwrap();
    let count = async |store: &Store| {
        let read = store.read(async |tx: &mut store::Tx| tx.query("SELECT 1 FROM migrations", &[]).await);
        read.await.map(|rows| rows.len())
    };
    assert!(count(&scratch).await.unwrap() > 0);
    let failed: Result<(), Error> = scratch
        .write(store::site!("test.fail"), async |tx: &mut store::Tx| {
            tx.execute("DELETE FROM migrations", &[]).await?;
            Err(Error::Busy { detail: "its own reason".to_owned() })
        })
        .await;
    assert!(matches!(&failed, Err(Error::Busy { detail }) if detail == "its own reason"), "{failed:?}");
    let after: Result<(), Error> = scratch.write(store::site!("test.after"), async |_: &mut store::Tx| Ok(())).await;
    assert!(matches!(after, Err(Error::Stopped { .. })), "{after:?}");
    assert!(matches!(count(&scratch).await, Err(Error::Stopped { .. })));
    assert!(count(&store).await.unwrap() > 0);
}

#[tokio::test]
async fn a_holder_that_is_ending_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let store = open(&path).await;
    // The last handle is in a body whose caller has gone: the reader's own thread closes the store, after the body.
    let (begun, running) = std::sync::mpsc::sync_channel(1);
    let (resume, held) = std::sync::mpsc::sync_channel::<()>(1);
    let held = std::sync::Mutex::new(held);
    let (last, reader) = (store.clone(), store.clone());
    let body = async move |_: &mut store::Tx| {
        begun.send(()).unwrap();
        held.lock().unwrap().recv().unwrap();
        Ok::<_, Error>(last.name())
    };
    let waiting = tokio::spawn(async move { reader.read(body).await });
    tokio::task::spawn_blocking(move || running.recv().unwrap()).await.unwrap();
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    drop(store);
    let again = tokio::spawn({
        let path = path.clone();
        async move { open(&path).await }
    });
    resume.send(()).unwrap();
    again.await.unwrap();
}

#[tokio::test]
async fn rebuilds_left_by_a_killed_process_are_removed_and_living_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    for suffix in ["", "-wal", ".lock"] {
        fs::write(folder.path().join(format!("test.scratch-1-0{suffix}")), b"left").unwrap();
    }
    let store = open(&path).await;
    assert!(!folder.path().join("test.scratch-1-0").exists() && !folder.path().join("test.scratch-1-0-wal").exists());
    let scratch = store.scratch().await.unwrap();
    drop(store);
    drop(open(&path).await);
    scratch
        .write(site!("sqlite_test.scratch"), async |tx| {
            tx.execute("INSERT INTO notes (id, text) VALUES (1, 'a')", &[]).await
        })
        .await
        .unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let _store = open(&path).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_reads_and_later_writes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("test.db")).await;
    let limit = async |pages: u32| {
        let sql = format!("PRAGMA max_page_count = {pages}");
        store.write(site!("sqlite_test.limit"), async move |tx| tx.query(&sql, &[]).await.map(drop)).await.unwrap();
    };
    let write = async |id: u64| {
        store
            .write(site!("sqlite_test.fill"), async move |tx| {
                tx.append(event("notes", id, &[7; 3000]));
                tx.execute("INSERT INTO notes (id, text) VALUES ($1, $2)", params![id, "x".repeat(3000)]).await
            })
            .await
    };
    limit(60).await;
    let mut kept = 0;
    let error: Error = loop {
        match write(kept + 1).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1000, "the limit has no effect");
    };
    assert!(matches!(error, Error::Full { service: "test" }), "{error:?}");
    assert!(matches!(write(kept + 1).await, Err(Error::Full { .. })));
    let seen = store
        .read(async |tx| Ok::<_, Error>((tx.tail(0, 0, 1000).await?.len(), tx.rows("notes").await?.len())))
        .await
        .unwrap();
    assert_eq!(seen, (kept as usize, kept as usize));
    assert!(kept > 2);

    limit(10_000).await;
    for id in kept + 1..kept + 10 {
        write(id).await.unwrap();
    }
    assert_eq!(store.read(async |tx| tx.tail(0, 0, 1000).await).await.unwrap().len() as u64, kept + 9);
}

#[tokio::test]
async fn a_flipped_byte_is_found_named_and_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    // Damage the payload, then the traceparent-sized columns, then the length in the record's header by way of the name.
    for target in [&b"PAYLOAD-TO-DAMAGE"[..], b"CAUSE-TO-DAMAGE", b"stoa.test.v1.Noted"] {
        for file in ["test.db", "test.db.lock"] {
            let _ = fs::remove_file(folder.path().join(file));
        }
        let store = open(&path).await;
        for version in 1..=3 {
            store
                .write(site!("sqlite_test.damage"), async move |tx| {
                    let payload: &[u8] = if version == 2 { b"PAYLOAD-TO-DAMAGE" } else { b"sound" };
                    let causation = if version == 2 { "CAUSE-TO-DAMAGE" } else { "cause" };
                    tx.append(NewEvent { causation: causation.to_owned(), ..event("notes/1", version, payload) });
                    Ok::<_, Error>(())
                })
                .await
                .unwrap();
        }
        store.close().await;

        let mut file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        // Of three names the one in the middle; of the others the only one. SQLite fills a page from its end.
        let found: Vec<_> =
            bytes.windows(target.len()).enumerate().filter(|(_, window)| *window == target).map(|(at, _)| at).collect();
        let at = found[found.len() / 2] + 3;
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[bytes[at] ^ 0x80]).unwrap();
        drop(file);

        let store = open(&path).await;
        for error in [
            store.read(async |tx| tx.tail(0, 0, 10).await).await.unwrap_err(),
            store.read(async |tx| tx.events("notes/1", 2, 1).await).await.unwrap_err(),
            store
                .write(site!("sqlite_test.read_damage"), async |tx| tx.events("notes/1", 1, 10).await)
                .await
                .unwrap_err(),
        ] {
            match error {
                Error::Corrupt { service: "test", stream, version: 2, shard: 0, position: 2, .. } => {
                    assert_eq!(stream, "notes/1")
                }
                other => panic!("{other:?}"),
            }
        }
        let audit = store.audit().await.unwrap();
        assert_eq!((audit.events, audit.problems.len()), (2, 1), "{:?}", audit.problems);
        assert_eq!(store.read(async |tx| tx.tail(0, 2, 10).await).await.unwrap().len(), 1, "the sound ones are served");
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_overwritten_is_not_in_the_file_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let store = open(&path).await;
    let secret = |number: i64| format!("secret-{number:04}-{:032x}", u128::from(number.unsigned_abs()) << 64);
    let write = async |sql: &'static str, text: &dyn Fn(i64) -> String| {
        let rows: Vec<_> = (0..200).map(|number| (number, text(number))).collect();
        let body = async move |tx: &mut store::Tx| {
            for (number, text) in &rows {
                tx.execute(sql, params![*number, text.as_str()]).await?;
            }
            Ok::<_, Error>(())
        };
        store.write(site!("sqlite_test.overwritten"), body).await.unwrap();
    };
    write("INSERT INTO notes (id, text) VALUES ($1, $2)", &secret).await;
    write("UPDATE notes SET text = $2 WHERE id = $1", &|_| String::new()).await;
    store.close().await;
    let file = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    let left: Vec<_> = (0..200).map(secret).filter(|secret| file.contains(secret.as_str())).collect();
    assert!(left.is_empty(), "{} of 200 are left: {left:?}", left.len());
}

#[tokio::test]
async fn a_removed_event_is_a_hole_that_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let store = open(&path).await;
    for version in 1..=3 {
        let append = async move |tx: &mut store::Tx| -> Result<(), Error> {
            tx.append(event("notes/1", version, b"x"));
            Ok(())
        };
        store.write(site!("sqlite_test.hole"), append).await.unwrap();
    }
    store
        .write(site!("sqlite_test.remove"), async |tx| tx.execute("DELETE FROM events WHERE position = 2", &[]).await)
        .await
        .unwrap();
    assert!(matches!(store.read(async |tx| tx.tail(0, 0, 10).await).await, Err(Error::Corrupt { position: 3, .. })));
    assert!(matches!(
        store.read(async |tx| tx.events("notes/1", 1, 10).await).await,
        Err(Error::Corrupt { version: 3, .. })
    ));
    let audit = store.audit().await.unwrap();
    assert_eq!((audit.events, audit.problems.len()), (2, 2), "{:?}", audit.problems);
    store
        .write(site!("sqlite_test.remove_last"), async |tx| {
            tx.execute("DELETE FROM events WHERE position = 3", &[]).await
        })
        .await
        .unwrap();
    drop(store);
    let refused = Store::open(Config::sqlite("test", &path).migrations([TABLES])).await;
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_body_that_waits_for_anything_else_is_refused() {
    let store = Store::open(Config::temporary("test").migrations([TABLES])).await.unwrap();
    let suspended: Result<(), Error> = store
        .write(site!("sqlite_test.suspended"), async |tx| {
            tx.execute("INSERT INTO notes (id, text) VALUES (1, 'a')", &[]).await?;
            tokio::task::yield_now().await;
            std::future::pending().await
        })
        .await;
    assert!(matches!(suspended, Err(Error::Suspended)), "{suspended:?}");
    assert!(store.read(async |tx| tx.rows("notes").await).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_read_without_end_is_interrupted() {
    let config = Config { read_limit: std::time::Duration::from_millis(20), ..Config::temporary("test") };
    let store = Store::open(config).await.unwrap();
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS n FROM n";
    let late = store.read(async move |tx| tx.query(endless, &[]).await).await;
    assert!(matches!(late, Err(Error::Busy { .. })), "{late:?}");
    assert_eq!(store.read(async |tx| tx.heads().await).await.unwrap(), [0]);
}

#[tokio::test]
async fn the_write_ahead_log_stays_bounded_under_readers_that_overlap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let store = open(&path).await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let reader = async || {
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            store.read(async |tx| tx.query("SELECT count(*) AS n FROM notes", &[]).await).await.unwrap();
        }
    };
    let writer = async {
        let mut largest = 0;
        for id in 0..200_u64 {
            let rewrite =
                "INSERT INTO notes (id, text) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET text = excluded.text";
            let write =
                async move |tx: &mut store::Tx| tx.execute(rewrite, params![id % 4, "y".repeat(1_000_000)]).await;
            store.write(site!("sqlite_test.wal"), write).await.unwrap();
            largest = largest.max(fs::metadata(folder.path().join("test.db-wal")).unwrap().len());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        largest
    };
    let (largest, (), ()) = futures_util::join!(writer, reader(), reader());
    assert!(largest < 140 << 20, "{largest} bytes");
}
