//! Webhooks come first, twice, late, never; signed; and again until they are accepted.

use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::rig::{Running, Shop, quick, start};

async fn with_shop() -> (TempDir, Shop, Running) {
    let folder = tempfile::tempdir().unwrap();
    let shop = Shop::open().await;
    let mut config = quick(folder.path());
    config.webhook_url = Some(shop.url.clone());
    let running = start(config).await;
    (folder, shop, running)
}

#[tokio::test]
async fn the_webhook_arrives_before_the_answer() {
    let (_folder, mut shop, running) = with_shop().await;
    let (_, answer) = running.provider.authorize("p", "tok_webhook_first").await;
    let received = shop.arrived().expect("the webhook is there when the answer is");
    assert_eq!(received.event["authorization"]["id"], answer["id"]);
    let signed = received.signature.trim_start_matches("t=").split(',').next().unwrap();
    assert_eq!(
        received.signature,
        sandbox::signature("sandbox-webhook-secret", signed.parse().unwrap(), received.body.as_bytes())
    );
}

#[tokio::test]
async fn the_webhook_arrives_twice_under_one_event_id() {
    let (_folder, mut shop, running) = with_shop().await;
    running.provider.authorize("p", "tok_webhook_twice").await;
    let (first, second) = (shop.next().await, shop.next().await);
    assert_eq!(first.event["id"], second.event["id"]);
    running.stop().await;
    assert!(shop.arrived().is_none());
}

#[tokio::test]
async fn the_webhook_arrives_late() {
    let (_folder, mut shop, running) = with_shop().await;
    let begun = Instant::now();
    running.provider.authorize("p", "tok_webhook_late").await;
    shop.next().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn tokens_without_webhooks_send_none_and_captures_of_webhook_tokens_do() {
    let (_folder, mut shop, running) = with_shop().await;
    running.provider.authorize("p1", "tok_webhook_never").await;
    running.provider.authorize("p2", "tok_ok").await;
    let (_, answer) = running.provider.authorize("p3", "tok_webhook_first").await;
    assert_eq!(shop.next().await.event["authorization"]["reference"], "p3");
    let path = format!("/v1/authorizations/{}/capture", answer["id"].as_str().unwrap());
    running.provider.post(&path, "c", json!({"amount": 1000, "reference": "s"})).await;
    let received = shop.next().await;
    assert_eq!(received.event["type"], "capture.succeeded");
    assert_eq!(received.event["operation"]["amount"], 1000);
    assert_eq!(received.event["authorization"]["captured_amount"], 1000);
}

#[tokio::test]
async fn a_refused_webhook_comes_again_with_the_same_id() {
    let (_folder, mut shop, running) = with_shop().await;
    shop.refusals.add_permits(3);
    running.provider.authorize("p", "tok_webhook_twice").await;
    let received = shop.next().await;
    assert_eq!(received.event["authorization"]["reference"], "p");
    assert_eq!(shop.refusals.available_permits(), 0);
}

#[tokio::test]
async fn webhooks_wait_over_a_restart_until_there_is_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(quick(folder.path())).await;
    running.provider.authorize("p", "tok_webhook_first").await;
    running.stop().await;
    let mut shop = Shop::open().await;
    let running = start(quick(folder.path())).await;
    let endpoint = json!({"url": shop.url, "secret": "another"}).to_string();
    let (status, _) = running.provider.send("PUT", "/webhook_endpoint", None, &endpoint).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(shop.next().await.event["authorization"]["reference"], "p");
    // The address survives a restart too.
    running.stop().await;
    let running = start(quick(folder.path())).await;
    running.provider.authorize("p2", "tok_webhook_first").await;
    assert_eq!(shop.arrived().unwrap().event["authorization"]["reference"], "p2");
}
