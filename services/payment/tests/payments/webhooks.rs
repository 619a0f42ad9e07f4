//! Messages of the provider: genuine ones have one effect, forged ones none, early ones wait.

use contracts::payment::v1::PaymentState;
use serde_json::json;
use tonic::Code;

use crate::rig::{SECRET, Setup, Shop, shop, signed};

fn event(id: &str, kind: &str, payment: &str, authorization: &str, status: &str) -> Vec<u8> {
    let body = json!({
        "id": id,
        "object": "event",
        "type": kind,
        "create_time": "2026-01-01T00:00:00Z",
        "authorization": {"id": authorization, "object": "authorization", "reference": payment, "status": status,
            "amount": 10_000, "currency": "EUR"},
    });
    body.to_string().into_bytes()
}

#[tokio::test]
async fn a_forged_old_or_unsigned_message_is_refused_and_has_no_effect() {
    let shop = Shop::start(Setup { told: false, ..Setup::default() }).await;
    let waiting = shop.authorize("payments/p", "tok_requires_action").await;
    let body = event("evt_1", "authorization.authorized", "payments/p", "auth_x", "authorized");
    let old = sandbox::signature(SECRET, 1_700_000_000, &body);
    let other = sandbox::signature("other", store::Clock::system().now().as_second(), &body);
    for signature in [None, Some("t=1,v1=00"), Some(old.as_str()), Some(other.as_str())] {
        let refused = shop.ingest(&body, signature).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{signature:?}");
    }
    assert_eq!(shop.get("payments/p").await.etag, waiting.etag);
}

#[tokio::test]
async fn a_message_has_one_effect_however_often_it_comes() {
    let mut setup = Setup { told: false, ..Setup::default() };
    setup.windows.sweep = std::time::Duration::from_secs(600);
    let shop = Shop::start(setup).await;
    let waiting = shop.authorize("payments/p", "tok_requires_action").await;
    shop.provider.complete(&waiting.challenge_id, "approve").await;
    let id = shop.provider.find("payments/p").await["id"].as_str().unwrap().to_owned();
    let body = event("evt_1", "authorization.authorized", "payments/p", &id, "authorized");
    let signature = signed(&body);
    let replies = futures_util::future::join_all((0..8).map(|_| shop.ingest(&body, Some(signature.as_str())))).await;
    let first: Vec<bool> = replies.into_iter().map(Result::unwrap).collect();
    assert_eq!(first.iter().filter(|duplicate| !**duplicate).count(), 1);
    let payment = shop.get("payments/p").await;
    assert_eq!(payment.state(), PaymentState::Authorized);
    // A later message that says less, or the same, changes nothing.
    for (event_id, kind) in
        [("evt_2", "authorization.requires_action"), ("evt_3", "authorization.authorized"), ("evt_4", "x.y")]
    {
        let body = event(event_id, kind, "payments/p", &id, "authorized");
        assert!(!shop.ingest(&body, Some(&signed(&body))).await.unwrap());
    }
    assert_eq!(shop.get("payments/p").await.etag, payment.etag);
}

#[tokio::test]
async fn a_message_about_an_unknown_payment_waits_for_it() {
    let shop = Shop::start(Setup { told: false, ..Setup::default() }).await;
    let body = event("evt_1", "authorization.authorized", "payments/p", "auth_early", "authorized");
    assert!(!shop.ingest(&body, Some(&signed(&body))).await.unwrap());
    assert!(shop.ingest(&body, Some(&signed(&body))).await.unwrap(), "parked is known");
    shop.authorize("payments/p", "tok_requires_action").await;
    shop.settled("payments/p", PaymentState::Authorized).await;
}

#[tokio::test]
async fn the_lot_of_parked_messages_is_bounded() {
    let mut setup = Setup { told: false, ..Setup::default() };
    setup.config.parked_webhooks = 1;
    let shop = Shop::start(setup).await;
    for (id, expected) in [("evt_1", Code::Ok), ("evt_2", Code::Unavailable)] {
        let body = event(id, "authorization.authorized", "somebody/else", "auth_x", "authorized");
        let answer = shop.ingest(&body, Some(&signed(&body))).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), expected);
    }
}

#[tokio::test]
async fn a_genuine_message_that_is_none_is_refused() {
    let shop = shop().await;
    for body in [&b"[]"[..], b"{\"id\":\"a b\"}", b"\xff"] {
        let refused = shop.ingest(body, Some(&signed(body))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_yes_after_the_payment_was_given_up_is_recorded_and_undone() {
    let mut setup = Setup { told: false, ..Setup::default() };
    setup.config.call_timeout = std::time::Duration::from_millis(100);
    let shop = Shop::start(setup).await;
    shop.authorize("payments/p", "tok_never").await;
    shop.cancel("payments/p").await;
    shop.settled("payments/p", PaymentState::Failed).await;
    // The provider did it after all, under the same reference.
    let authorization = shop.provider.authorize_by_hand("payments/p").await;
    let body = event("evt_1", "authorization.authorized", "payments/p", &authorization, "authorized");
    shop.ingest(&body, Some(&signed(&body))).await.unwrap();
    shop.settled("payments/p", PaymentState::Voided).await;
    assert_eq!(shop.provider.find("payments/p").await["status"], "voided");
}
