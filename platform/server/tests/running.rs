//! A process ends when a part of it is dead, and opens its stores where it is told.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use contract::Table;
use server::{Context, Failed, Storage, Task, Windows, supervise};

fn context() -> Context {
    Context::temporary(Table(&[]))
}

fn until_shutdown(context: &Context) -> Task {
    let shutdown = context.shutdown.clone();
    Task::endless("patient", async move { shutdown.cancelled().await })
}

#[tokio::test]
async fn a_task_that_fails_ends_the_process() {
    let context = context();
    let failing = Task::new("ordering.checkout", async { Err::<(), _>("the store is stopped") });
    let failed = supervise(vec![until_shutdown(&context), failing], &context).await.unwrap_err();
    assert!(matches!(&failed, Failed::Task { name, .. } if name == "ordering.checkout"), "{failed}");
    assert!(context.shutdown.is_cancelled());
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process() {
    let context = context();
    let panicking = Task::endless("cart.sweep", async { panic!("index out of bounds") });
    let failed = supervise(vec![panicking, until_shutdown(&context)], &context).await.unwrap_err();
    assert!(
        matches!(&failed, Failed::Panic { name, message } if name == "cart.sweep" && message == "index out of bounds"),
        "{failed}"
    );
}

#[tokio::test]
async fn a_shutdown_is_no_failure() {
    let context = context();
    let tasks = vec![until_shutdown(&context), Task::endless("brief", async {})];
    context.shutdown.cancel();
    supervise(tasks, &context).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_is_cut_after_the_drain() {
    let mut context = context();
    context.windows = Windows { drain: Duration::from_secs(3), ..Windows::default() };
    let start = tokio::time::Instant::now();
    context.shutdown.cancel();
    supervise(vec![Task::endless("deaf", std::future::pending())], &context).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn each_service_has_a_file_of_its_own_with_the_tables_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new");
    let context = Context::new(Storage::Folder(data.clone()), &data, Table(&[]), &[1; 32]);
    let store = context.open("ordering", &[]).await.unwrap();
    let _other = context.open("cart", &[log::MIGRATIONS]).await.unwrap();
    assert!(data.join("ordering.db").exists() && data.join("cart.db").exists());
    let second = context.open("ordering", &[]).await;
    assert!(matches!(second, Err(store::Error::Locked { .. })));
    store.close().await;
}
