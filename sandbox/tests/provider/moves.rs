//! Captures, voids and refunds: their limits, and what a key protects.

use serde_json::{Value, json};

use crate::rig::{Provider, code, fresh};

async fn capture(provider: &Provider, id: &str, key: &str, amount: i64) -> (u16, Value) {
    let path = format!("/v1/authorizations/{id}/capture");
    provider.post(&path, key, json!({"amount": amount, "reference": "shipments/1"})).await
}

async fn refund(provider: &Provider, parent: &str, key: &str, amount: i64) -> (u16, Value) {
    let path = format!("/v1/{parent}/refund");
    provider.post(&path, key, json!({"amount": amount, "reference": "refunds/1"})).await
}

#[tokio::test]
async fn a_second_capture_of_everything_is_refused() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let id = provider.authorized("p").await;
    let (status, answer) = capture(provider, &id, "c1", 1000).await;
    assert_eq!((status, &answer["object"]), (200, &json!("capture")));
    let (status, answer) = capture(provider, &id, "c2", 1000).await;
    assert_eq!((status, code(&answer)), (422, "already_captured"));
}

#[tokio::test]
async fn captures_in_parts_stop_at_what_was_authorized() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let id = provider.authorized("p").await;
    assert_eq!(capture(provider, &id, "c0", 1001).await.0, 422);
    assert_eq!(capture(provider, &id, "c1", 600).await.0, 200);
    let (status, answer) = capture(provider, &id, "c2", 401).await;
    assert_eq!((status, code(&answer)), (422, "amount_too_large"));
    assert_eq!(capture(provider, &id, "c3", 400).await.0, 200);
    let (_, seen) = provider.get(&format!("/v1/authorizations/{id}")).await;
    assert_eq!(seen["captured_amount"], 1000);
    assert_eq!(seen["captures"].as_array().unwrap().len(), 2);
    assert_eq!(seen["captures"][0]["reference"], "shipments/1");
}

#[tokio::test]
async fn refunds_stop_at_what_was_captured_by_capture_and_in_all() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let id = provider.authorized("p").await;
    let all = format!("authorizations/{id}");
    let (status, answer) = refund(provider, &all, "r0", 1).await;
    assert_eq!((status, code(&answer)), (422, "amount_too_large"));
    let (_, first) = capture(provider, &id, "c1", 600).await;
    capture(provider, &id, "c2", 400).await;
    let of_first = format!("captures/{}", first["id"].as_str().unwrap());
    assert_eq!(refund(provider, &of_first, "r1", 601).await.0, 422);
    assert_eq!(refund(provider, &of_first, "r2", 500).await.0, 200);
    assert_eq!(refund(provider, &of_first, "r3", 101).await.0, 422);
    assert_eq!(refund(provider, &all, "r4", 501).await.0, 422);
    assert_eq!(refund(provider, &all, "r5", 500).await.0, 200);
    assert_eq!(refund(provider, &of_first, "r6", 100).await.0, 422);
    assert_eq!(refund(provider, "captures/cap_none", "r7", 1).await.0, 404);
}

#[tokio::test]
async fn a_void_after_a_capture_is_refused_and_a_capture_after_a_void() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let captured = provider.authorized("p1").await;
    capture(provider, &captured, "c1", 1).await;
    let path = format!("/v1/authorizations/{captured}/void");
    let (status, answer) = provider.post(&path, "v1", json!({})).await;
    assert_eq!((status, code(&answer)), (422, "authorization_captured"));
    let voided = provider.authorized("p2").await;
    let path = format!("/v1/authorizations/{voided}/void");
    let (status, answer) = provider.post(&path, "v2", json!({"reference": "x"})).await;
    assert_eq!((status, &answer["object"]), (200, &json!("void")));
    let (status, answer) = capture(provider, &voided, "c2", 1).await;
    assert_eq!((status, code(&answer)), (422, "wrong_status"));
    let (status, _) = provider.post(&path, "v3", json!({})).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn the_same_key_has_one_effect_and_one_answer() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let first = provider.authorize("p", "tok_ok").await;
    assert_eq!(provider.authorize("p", "tok_ok").await, first);
    let id = first.1["id"].as_str().unwrap();
    let captured = capture(provider, id, "c", 1000).await;
    assert_eq!(capture(provider, id, "c", 1000).await, captured);
    let refused = capture(provider, id, "d", 1).await;
    assert_eq!(refused.0, 422);
    assert_eq!(capture(provider, id, "d", 1).await, refused);
    assert_eq!(provider.ledger().await.len(), 2);
}

#[tokio::test]
async fn the_same_key_with_another_body_or_path_is_refused() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let id = provider.authorized("p").await;
    let (status, answer) = provider.authorize("p", "tok_declined").await;
    assert_eq!((status, code(&answer)), (409, "idempotency_key_reused"));
    let (status, answer) = capture(provider, &id, "p", 1000).await;
    assert_eq!((status, code(&answer)), (409, "idempotency_key_reused"));
    assert_eq!(provider.ledger().await.len(), 1);
}

#[tokio::test]
async fn two_keys_for_one_reference_are_two_authorizations_and_the_ledger_shows_it() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    for key in ["k1", "k2"] {
        let body = crate::rig::payment("payments/1", "tok_ok");
        assert_eq!(provider.post("/v1/authorizations", key, body).await.0, 200);
    }
    let (_, summary) = provider.get("/ledger/summary").await;
    assert_eq!(summary["references_authorized_twice"], 1);
    let (_, found) = provider.get("/v1/authorizations?reference=payments/1").await;
    assert_eq!(found["authorizations"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn bad_requests_are_refused_and_nothing_is_recorded() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let path = "/v1/authorizations";
    for body in [
        r#"{"amount":0,"currency":"EUR","token":"tok_ok","reference":"r"}"#,
        r#"{"amount":-1,"currency":"EUR","token":"tok_ok","reference":"r"}"#,
        r#"{"amount":9223372036854775808,"currency":"EUR","token":"tok_ok","reference":"r"}"#,
        r#"{"amount":1.5,"currency":"EUR","token":"tok_ok","reference":"r"}"#,
        r#"{"amount":1,"currency":"eur","token":"tok_ok","reference":"r"}"#,
        r#"{"amount":1,"currency":"EUR","token":"tok_ok","reference":""}"#,
        r#"{"amount":1,"currency":"EUR","token":"tok_ok","reference":"r","tip":1}"#,
        "{",
        "",
    ] {
        let (status, text) = provider.send("POST", path, Some("k"), body).await.unwrap();
        assert_eq!(status, 400, "{body}: {text}");
    }
    let good = crate::rig::payment("r", "tok_ok").to_string();
    let keyless = provider.send("POST", path, None, &good).await.unwrap();
    assert_eq!(keyless.0, 400);
    let large = format!("{}{good}", " ".repeat(70_000));
    let large = provider.send("POST", path, Some("k"), &large).await.unwrap();
    assert_eq!(large.0, 400);
    assert_eq!(provider.send("DELETE", path, None, "").await.unwrap().0, 405);
    assert_eq!(provider.send("GET", "/v2", None, "").await.unwrap().0, 404);
    assert!(provider.ledger().await.is_empty());
}
