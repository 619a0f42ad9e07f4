//! A process that dies at a commit, or whose disk fails: what was acknowledged is there, the rest is not.
//!
//! Each test starts this very binary again as the process that dies.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use store::{Config, Error, Migration, MigrationSet, NewEvent, Store, crash, params, site};

const TABLES: MigrationSet =
    MigrationSet::new("test", &[Migration::new(1, "notes", "CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY)")]);
const FOLDER: &str = "STORE_CRASH_TEST_FOLDER";

async fn open(folder: &Path) -> Store {
    Store::open(Config::sqlite("test", folder.join("test.db")).migrations([TABLES])).await.unwrap()
}

async fn note(store: &Store, id: u64) -> Result<(), Error> {
    store
        .write(site!("crash_test.note"), async move |tx| {
            tx.execute("INSERT INTO notes (id) VALUES ($1)", params![id]).await?;
            tx.append(NewEvent {
                stream: "notes".to_owned(),
                version: id,
                name: "stoa.test.v1.Noted",
                schema: 1,
                payload: vec![0; 2000],
                subject: None,
                causation: "cause".to_owned(),
                correlation: "story".to_owned(),
                traceparent: String::new(),
            });
            Ok(())
        })
        .await
}

/// The process that dies: it acknowledges on standard output what the store has acknowledged.
#[allow(clippy::disallowed_methods, reason = "the parent test names its folder to the child it starts")]
#[tokio::test]
#[ignore = "run by the other tests as their child"]
async fn child() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    if let Ok(spec) = fs::read_to_string(folder.join("spec")) {
        crash::arm(spec.parse().unwrap());
    }
    crash::record(&folder.join("record")).unwrap();
    let store = open(folder).await;
    let mut acknowledged = fs::File::create(folder.join("acknowledged")).unwrap();
    for id in 1..=300 {
        if let Err(error) = note(&store, id).await {
            fs::write(folder.join("first"), format!("{error:?}")).unwrap();
            fs::write(folder.join("second"), format!("{:?}", note(&store, id + 1).await)).unwrap();
            fs::write(folder.join("stopped"), store.stopped().await.to_string()).unwrap();
            return;
        }
        acknowledged.write_all(b".").unwrap();
    }
}

fn run_child(folder: &Path, shell: &str) -> std::process::ExitStatus {
    let binary = std::env::current_exe().unwrap();
    Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" --exact child --ignored")])
        .arg(binary)
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

async fn stored(folder: &Path) -> (usize, usize) {
    let store = open(folder).await;
    store
        .read(async |tx| Ok::<_, Error>((tx.rows("notes").await?.len(), tx.tail(0, 0, 1000).await?.len())))
        .await
        .unwrap()
}

fn acknowledged(folder: &Path) -> usize {
    fs::read(folder.join("acknowledged")).unwrap().len()
}

#[tokio::test]
async fn a_process_killed_before_the_commit_has_stored_nothing_of_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("spec"), "commit.before:crash_test.note:5").unwrap();
    assert!(!run_child(folder.path(), "").success());
    assert_eq!(acknowledged(folder.path()), 4);
    assert_eq!(stored(folder.path()).await, (4, 4));
}

#[tokio::test]
async fn a_process_killed_after_the_commit_has_stored_what_nobody_was_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("spec"), "commit.after:crash_test.note:5").unwrap();
    assert!(!run_child(folder.path(), "").success());
    assert_eq!(acknowledged(folder.path()), 4);
    assert_eq!(stored(folder.path()).await, (5, 5));
}

#[tokio::test]
async fn every_point_that_is_passed_is_recorded_once() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run_child(folder.path(), "").success());
    let record = fs::read_to_string(folder.path().join("record")).unwrap();
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(lines, ["commit.before:crash_test.note", "commit.after:crash_test.note"]);
    let sites: BTreeSet<&str> = crash::sites().into_iter().collect();
    assert!(sites.contains("crash_test.note"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_input_output_error_in_a_commit_stops_the_store_and_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    // No file may grow beyond a few MiB: the write-ahead log cannot be written, and that is no full disk.
    assert!(run_child(folder.path(), "trap '' XFSZ; ulimit -f 4096;").success());
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(read("first").starts_with("InDoubt"), "{}", read("first"));
    assert!(read("second").starts_with("Err(Stopped"), "{}", read("second"));
    assert!(read("stopped").contains("disk I/O error"), "{}", read("stopped"));
    let known = acknowledged(folder.path());
    assert!(known > 10);
    let (rows, events) = stored(folder.path()).await;
    assert!(rows == events && (rows == known || rows == known + 1), "{known} acknowledged, {rows} stored");
}
