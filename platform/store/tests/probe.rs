#![allow(clippy::unwrap_used, missing_docs)]
use store::{Config, Error, Migration, MigrationSet, NewEvent, Store, params, site};
#[tokio::test]
async fn probe() {
    let dir = tempfile::tempdir().unwrap();
    const SETS: [MigrationSet; 1] = [MigrationSet::new("t", &[Migration::new(1, "a", "CREATE TABLE a (id TEXT NOT NULL PRIMARY KEY, n BIGINT NOT NULL)")])];
    let store = Store::open(Config::sqlite("x", dir.path().join("x.db")).migrations(SETS)).await.unwrap();
    let name = "k".to_owned();
    let n = store.write(site!("probe"), async move |tx| {
        tx.execute("INSERT INTO a (id, n) VALUES ($1, $2)", params![&name, 5]).await?;
        tx.append(NewEvent { stream: "a/1".into(), version: 1, name: "x.Y", schema: 1, payload: vec![1], subject: None, causation: "c".into(), correlation: "d".into(), traceparent: String::new() });
        let row = tx.query_opt("SELECT n FROM a WHERE id = $1", params![&name]).await?.unwrap();
        Ok::<i64, Error>(row.get("n")?)
    }).await.unwrap();
    assert_eq!(n, 5);
    let events = store.read(async |tx| tx.events("a/1", 1, 10).await).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(*store.head().borrow(), 1);
    let spawned = tokio::spawn({ let store = store.clone(); async move {
        store.write(site!("probe2"), async |tx| { tx.execute("UPDATE a SET n = n + 1", &[]).await }).await
    }}).await.unwrap().unwrap();
    assert_eq!(spawned, 1);
    store.close().await;
}
