//! What the ledger shows, that it stays, and that it keeps up.

use std::time::Instant;

use serde_json::json;

use crate::rig::{fresh, payment, quick, start};

#[tokio::test]
async fn a_restart_keeps_the_ledger_and_the_answers() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(quick(folder.path())).await;
    let before = running.provider.authorize("p", "tok_ok").await;
    let entries = running.provider.ledger().await;
    running.stop().await;
    let running = start(quick(folder.path())).await;
    assert_eq!(running.provider.ledger().await, entries);
    assert_eq!(running.provider.authorize("p", "tok_ok").await, before);
    assert_eq!(running.provider.ledger().await.len(), 1);
}

#[tokio::test]
async fn a_second_provider_on_the_same_folder_is_refused() {
    let (folder, running) = fresh().await;
    let second = sandbox::build(quick(folder.path())).await;
    assert!(matches!(second, Err(sandbox::Error::Locked(_))));
    running.stop().await;
    sandbox::build(quick(folder.path())).await.unwrap();
}

#[tokio::test]
async fn entries_tell_what_happened_in_order() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let id = provider.authorized("payments/1").await;
    let path = format!("/v1/authorizations/{id}");
    provider.post(&format!("{path}/capture"), "c", json!({"amount": 700, "reference": "shipments/1"})).await;
    provider.post(&format!("{path}/refund"), "r", json!({"amount": 200, "reference": "returns/1"})).await;
    let entries = provider.ledger().await;
    let told: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry["seq"].as_i64().unwrap(),
                entry["kind"].as_str().unwrap(),
                entry["reference"].as_str().unwrap(),
                entry["idempotency_key"].as_str().unwrap(),
                entry["amount"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "authorization", "payments/1", "payments/1", 1000),
            (2, "capture", "shipments/1", "c", 700),
            (3, "refund", "returns/1", "r", 200)
        ]
    );
    let (_, page) = provider.get("/ledger?after=1&limit=1").await;
    assert_eq!(page[0]["kind"], "capture");
    assert_eq!(page.as_array().unwrap().len(), 1);
    let (_, summary) = provider.get("/ledger/summary").await;
    assert_eq!(
        summary["currencies"]["EUR"],
        json!({"authorized_amount": 1000, "voided_amount": 0, "captured_amount": 700, "refunded_amount": 200})
    );
    assert_eq!(summary["authorizations"]["authorized"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_share_commits_and_every_entry_is_listed_once() {
    const CLIENTS: usize = 64;
    const EACH: usize = 40;
    let (_folder, running) = fresh().await;
    let begun = Instant::now();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let provider = running.provider.clone();
        clients.push(tokio::spawn(async move {
            for number in 0..EACH {
                let key = format!("payments/{client}-{number}");
                let body = payment(&key, "tok_ok");
                let (status, _) = provider.post("/v1/authorizations", &key, body).await;
                assert_eq!(status, 200);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let rate = (CLIENTS * EACH) as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} authorisations a second");
    let entries = running.provider.ledger().await;
    assert_eq!(entries.len(), CLIENTS * EACH);
    let dense = entries.iter().zip(1..).all(|(entry, seq)| entry["seq"] == json!(seq));
    assert!(dense, "positions have a hole");
    let (_, health) = running.provider.get("/health").await;
    assert_eq!(health["status"], "ok");
}
