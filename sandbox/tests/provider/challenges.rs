//! Payments that wait for their customer.

use serde_json::{Value, json};

use crate::rig::{Provider, Shop, code, fresh, quick, start};

async fn challenged(provider: &Provider) -> (String, String) {
    let (status, answer) = provider.authorize("p", "tok_requires_action").await;
    assert_eq!((status, &answer["status"]), (200, &json!("requires_action")));
    let challenge = answer["challenge"]["id"].as_str().unwrap();
    assert_eq!(answer["challenge"]["url"], format!("{}/challenges/{challenge}", provider.base));
    (answer["id"].as_str().unwrap().to_owned(), challenge.to_owned())
}

async fn complete(provider: &Provider, challenge: &str, outcome: &str) -> (u16, Value) {
    let path = format!("/challenges/{challenge}:complete");
    let body = json!({ "outcome": outcome }).to_string();
    let (status, text) = provider.send("POST", &path, None, &body).await.unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn an_approved_challenge_authorizes_and_is_told_by_webhook() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::open().await;
    let mut config = quick(folder.path());
    config.webhook_url = Some(shop.url.clone());
    let running = start(config).await;
    let (id, challenge) = challenged(&running.provider).await;
    for _ in 0..2 {
        let (status, answer) = complete(&running.provider, &challenge, "approve").await;
        assert_eq!((status, &answer["status"]), (200, &json!("authorized")));
    }
    let (status, answer) = complete(&running.provider, &challenge, "decline").await;
    assert_eq!((status, code(&answer)), (422, "challenge_closed"));
    let received = shop.next().await;
    assert_eq!(received.event["type"], "authorization.authorized");
    assert_eq!(received.event["authorization"]["id"], id.as_str());
    running.stop().await;
    assert!(shop.arrived().is_none());
}

#[tokio::test]
async fn a_declined_challenge_declines() {
    let (_folder, running) = fresh().await;
    let (id, challenge) = challenged(&running.provider).await;
    complete(&running.provider, &challenge, "decline").await;
    let (_, seen) = running.provider.get(&format!("/v1/authorizations/{id}")).await;
    assert_eq!(seen["status"], "declined");
}

#[tokio::test]
async fn a_challenge_of_a_voided_payment_is_closed() {
    let (_folder, running) = fresh().await;
    let (id, challenge) = challenged(&running.provider).await;
    let path = format!("/v1/authorizations/{id}/void");
    assert_eq!(running.provider.post(&path, "v", json!({})).await.0, 200);
    let (status, _) = complete(&running.provider, &challenge, "approve").await;
    assert_eq!(status, 422);
    let (status, _) = complete(&running.provider, "chl_none", "approve").await;
    assert_eq!(status, 404);
}
