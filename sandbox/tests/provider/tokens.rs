//! Each payment token does what its name says.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::{code, fresh, payment};

#[tokio::test]
async fn an_approved_payment_is_authorized_and_found_by_reference() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let (status, answer) = provider.authorize("payments/1", "tok_ok").await;
    assert_eq!(status, 200);
    assert_eq!(answer["status"], "authorized");
    assert_eq!((&answer["amount"], &answer["currency"]), (&json!(1000), &json!("EUR")));
    assert_eq!(answer["metadata"]["order"], "orders/1");
    let (status, found) = provider.get("/v1/authorizations?reference=payments%2F1").await;
    assert_eq!(status, 200);
    assert_eq!(found["authorizations"][0]["id"], answer["id"]);
    let path = format!("/v1/authorizations/{}", answer["id"].as_str().unwrap());
    assert_eq!(provider.get(&path).await.1["captures"], json!([]));
    running.stop().await;
}

#[tokio::test]
async fn a_declined_payment_says_so_and_cannot_be_captured() {
    let (_folder, running) = fresh().await;
    let (status, answer) = running.provider.authorize("p", "tok_declined").await;
    assert_eq!(status, 200);
    assert_eq!((&answer["status"], &answer["decline_code"]), (&json!("declined"), &json!("card_declined")));
    let path = format!("/v1/authorizations/{}/capture", answer["id"].as_str().unwrap());
    let (status, refusal) = running.provider.post(&path, "c", json!({"amount": 1, "reference": "s"})).await;
    assert_eq!((status, code(&refusal)), (422, "wrong_status"));
}

#[tokio::test]
async fn a_lost_answer_is_committed_and_the_same_key_gets_it() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let body = payment("p", "tok_answer_lost").to_string();
    let lost = provider.send("POST", "/v1/authorizations", Some("p"), &body).await;
    assert_eq!(lost, None);
    assert_eq!(provider.get("/v1/authorizations?reference=p").await.1["authorizations"][0]["status"], "authorized");
    let (status, answer) = provider.authorize("p", "tok_answer_lost").await;
    assert_eq!((status, &answer["status"]), (200, &json!("authorized")));
    assert_eq!(provider.ledger().await.len(), 1);
}

#[tokio::test]
async fn a_failure_records_nothing_and_the_same_key_then_succeeds() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    assert_eq!(provider.authorize("p", "tok_500_then_ok").await.0, 500);
    assert_eq!(provider.get("/v1/authorizations?reference=p").await.0, 404);
    for _ in 0..2 {
        let (status, answer) = provider.authorize("p", "tok_500_then_ok").await;
        assert_eq!((status, &answer["status"]), (200, &json!("authorized")));
    }
    assert_eq!(provider.ledger().await.len(), 1);
}

#[tokio::test]
async fn a_slow_answer_comes_late_but_is_on_the_ledger_at_once() {
    let (_folder, running) = fresh().await;
    let provider = running.provider.clone();
    let begun = Instant::now();
    let slow = tokio::spawn({
        let provider = provider.clone();
        async move { provider.authorize("p", "tok_slow").await }
    });
    while provider.get("/v1/authorizations?reference=p").await.0 == 404 {
        tokio::task::yield_now().await;
    }
    let (status, answer) = slow.await.unwrap();
    assert_eq!((status, &answer["status"]), (200, &json!("authorized")));
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_request_that_is_never_answered_leaves_no_trace() {
    let (_folder, running) = fresh().await;
    let provider = &running.provider;
    let unanswered = tokio::time::timeout(Duration::from_millis(200), provider.authorize("p", "tok_never")).await;
    assert!(unanswered.is_err());
    assert_eq!(provider.get("/v1/authorizations?reference=p").await.0, 404);
    assert!(provider.ledger().await.is_empty());
    // Nor does it hold up the end.
    running.stop().await;
}

#[tokio::test]
async fn an_unknown_token_is_refused() {
    let (_folder, running) = fresh().await;
    let (status, answer) = running.provider.authorize("p", "tok_free_money").await;
    assert_eq!((status, code(&answer)), (422, "unknown_token"));
}
