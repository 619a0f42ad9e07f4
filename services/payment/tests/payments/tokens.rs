//! Every token of the sandbox ends as promised, with one authorization at most.

use contracts::payment::v1::{AttemptState, PaymentState};

use crate::rig::{minor, shop};

#[tokio::test]
async fn an_approved_payment_is_one_intent_one_call_and_one_result() {
    let shop = shop().await;
    let payment = shop.authorize("payments/p", "tok_ok").await;
    assert_eq!((payment.state(), payment.in_doubt), (PaymentState::Authorized, false));
    assert_eq!(minor(&payment.authorized), 10_000);
    // Created, prepared and sent in one commit; succeeded and authorized in another.
    assert_eq!(payment.etag, "5");
    let attempts = shop.attempts("payments/p").await;
    assert_eq!((attempts.len(), attempts[0].state(), attempts[0].try_count), (1, AttemptState::Succeeded, 1));
    assert_eq!(shop.provider.entries("authorization").await.len(), 1);
}

#[tokio::test]
async fn a_declined_payment_is_an_answer() {
    let shop = shop().await;
    let payment = shop.authorize("payments/p", "tok_declined").await;
    assert_eq!((payment.state(), payment.in_doubt), (PaymentState::Failed, false));
    assert!(!payment.decline_code.is_empty());
    let unknown = shop.authorize("payments/q", "tok_nobody_knows").await;
    assert_eq!((unknown.state(), unknown.decline_code.as_str()), (PaymentState::Failed, "unknown_token"));
}

#[tokio::test]
async fn a_payment_that_requires_action_waits_for_its_buyer() {
    let shop = shop().await;
    for (name, outcome, state) in
        [("payments/p", "approve", PaymentState::Authorized), ("payments/q", "decline", PaymentState::Failed)]
    {
        let waiting = shop.authorize(name, "tok_requires_action").await;
        assert_eq!((waiting.state(), waiting.in_doubt), (PaymentState::RequiresAction, false));
        assert!(waiting.action_uri.starts_with("http://") && waiting.action_expire_time.is_some());
        shop.provider.complete(&waiting.challenge_id, outcome).await;
        let settled = shop.settled(name, state).await;
        assert_eq!(settled.challenge_id, "");
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_under_the_same_key() {
    let shop = shop().await;
    for token in ["tok_answer_lost", "tok_500_then_ok"] {
        let name = format!("payments/{token}");
        shop.authorize(&name, token).await;
        shop.settled(&name, PaymentState::Authorized).await;
        let found = shop.provider.entries("authorization").await;
        let keys: Vec<_> = found.iter().filter(|entry| entry["reference"] == name.as_str()).collect();
        assert_eq!(keys.len(), 1, "{token}");
        let attempts = shop.attempts(&name).await;
        assert_eq!(attempts.len(), 1);
        assert!(attempts[0].try_count > 1);
        assert_eq!(keys[0]["idempotency_key"], attempts[0].provider_key.as_str());
    }
}

#[tokio::test]
async fn a_slow_provider_is_waited_for_within_the_time_of_a_call() {
    let shop = shop().await;
    assert_eq!(shop.authorize("payments/p", "tok_slow").await.state(), PaymentState::Authorized);
}

#[tokio::test]
async fn a_webhook_that_comes_first_late_twice_or_never_changes_nothing_of_the_end() {
    let shop = shop().await;
    for token in ["tok_webhook_first", "tok_webhook_twice", "tok_webhook_late", "tok_webhook_never"] {
        let name = format!("payments/{token}");
        let payment = shop.authorize(&name, token).await;
        assert_eq!(payment.state(), PaymentState::Authorized, "{token}");
    }
    crate::rig::until("every webhook is taken", async || shop.provider.webhooks_pending().await == 0).await;
    for token in ["tok_webhook_first", "tok_webhook_twice", "tok_webhook_late", "tok_webhook_never"] {
        let payment = shop.get(&format!("payments/{token}")).await;
        assert_eq!((payment.state(), payment.etag.as_str()), (PaymentState::Authorized, "5"), "{token}");
    }
    assert_eq!(shop.provider.entries("authorization").await.len(), 4);
}

#[tokio::test]
async fn every_call_to_the_provider_is_a_crash_point() {
    let _shop = shop().await;
    let sites = store::crash::sites();
    for call in ["authorize", "capture", "void", "refund", "find"] {
        let name = format!("payment->provider/{call}");
        assert!(sites.contains(&name.as_str()), "{name}");
    }
}
