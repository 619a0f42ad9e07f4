//! Charging, giving back and cancelling, as the provider's ledger sees it; and who may look.

use auth::Role;
use contracts::payment::v1 as proto;
use contracts::payment::v1::{AttemptKind, AttemptState, PaymentState};
use tonic::Code;

use crate::rig::{CUSTOMER, minor, operator, person, shop};

#[tokio::test]
async fn a_shipment_is_charged_once_however_often_it_is_asked_for() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_ok").await;
    let replies = futures_util::future::join_all(
        ["a", "a", "b", "c"].map(|request| shop.capture("payments/p", "s", 4_000, request)),
    )
    .await;
    for reply in replies {
        let reply = reply.unwrap();
        assert_eq!(reply.attempt.unwrap().state(), AttemptState::Succeeded);
        assert_eq!(minor(&reply.payment.unwrap().captured), 4_000);
    }
    assert_eq!(shop.provider.entries("capture").await.len(), 1);
    let refused = shop.capture("payments/p", "t", 6_001, "d").await.unwrap_err();
    assert_eq!(server::status::reason(&refused).as_deref(), Some("AMOUNT_TOO_LARGE"));
    let rest = shop.capture("payments/p", "t", 6_000, "e").await.unwrap().payment.unwrap();
    assert_eq!(rest.state(), PaymentState::Captured);
    assert_eq!(shop.provider.find("payments/p").await["captured_amount"], 10_000);
}

#[tokio::test]
async fn what_is_not_charged_is_freed_and_when_all_of_it_is_the_provider_is_told() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_ok").await;
    let part = shop.refund("payments/p", "r1", 3_000).await.unwrap();
    let (attempt, payment) = (part.attempt.unwrap(), part.payment.unwrap());
    assert_eq!((attempt.kind(), attempt.state(), attempt.try_count), (AttemptKind::Void, AttemptState::Succeeded, 0));
    assert_eq!((payment.state(), minor(&payment.authorized)), (PaymentState::Authorized, 7_000));
    assert!(shop.provider.entries("void").await.is_empty());
    assert!(shop.capture("payments/p", "s", 7_001, "a").await.is_err());
    let whole = shop.refund("payments/p", "r2", 7_000).await.unwrap().payment.unwrap();
    assert_eq!(whole.state(), PaymentState::Voided);
    assert_eq!(shop.provider.find("payments/p").await["status"], "voided");
}

#[tokio::test]
async fn what_is_charged_is_given_back_once_a_return() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_ok").await;
    shop.capture("payments/p", "s", 10_000, "a").await.unwrap();
    for _ in 0..2 {
        let back = shop.refund("payments/p", "r1", 2_500).await.unwrap().payment.unwrap();
        assert_eq!((back.state(), minor(&back.refunded)), (PaymentState::PartiallyRefunded, 2_500));
    }
    assert_eq!(shop.provider.entries("refund").await.len(), 1);
    let refused = shop.refund("payments/p", "r2", 7_501).await.unwrap_err();
    assert_eq!(server::status::reason(&refused).as_deref(), Some("AMOUNT_TOO_LARGE"));
    let all = shop.refund("payments/p", "r3", 7_500).await.unwrap().payment.unwrap();
    assert_eq!(all.state(), PaymentState::Refunded);
}

#[tokio::test]
async fn a_cancel_brings_the_net_to_zero_whatever_was_done() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_ok").await;
    let voided = shop.cancel("payments/p").await;
    assert_eq!((voided.state(), voided.cancel_requested), (PaymentState::Voided, false));
    assert_eq!(shop.cancel("payments/p").await, voided);

    shop.authorize("payments/q", "tok_ok").await;
    shop.capture("payments/q", "s", 4_000, "q").await.unwrap();
    let refunded = shop.cancel("payments/q").await;
    assert_eq!((refunded.state(), minor(&refunded.refunded)), (PaymentState::Refunded, 4_000));
    assert_eq!(shop.provider.entries("void").await.len(), 1);
    assert_eq!(shop.provider.entries("refund").await.len(), 1);
}

#[tokio::test]
async fn another_currency_or_no_amount_is_refused() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_ok").await;
    let ask = |currency: &str, units| proto::RefundPaymentRequest {
        name: "payments/p".to_owned(),
        amount: Some(contracts::google::r#type::Money { currency_code: currency.to_owned(), units, nanos: 0 }),
        return_id: String::new(),
        reason: String::new(),
        request_id: crate::rig::id(currency),
    };
    let refused = shop.outside().refund_payment(operator().request(ask("USD", 1))).await.unwrap_err();
    assert_eq!(server::status::reason(&refused).as_deref(), Some("CURRENCY_MISMATCH"));
    for (currency, units) in [("EUR", 0), ("GBP", -1), ("XXX", 1)] {
        let refused = shop.outside().refund_payment(operator().request(ask(currency, units))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{currency}");
    }
}

#[tokio::test]
async fn a_payment_is_shown_to_its_owner_and_to_operators_and_to_nobody_else() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_ok").await;
    let get = async |who: client::Outgoing, name: &str| {
        let ask = proto::GetPaymentRequest { name: name.to_owned() };
        shop.outside().get_payment(who.request(ask)).await
    };
    assert!(get(person(CUSTOMER, Role::Customer), "payments/p").await.is_ok());
    assert!(get(operator(), "payments/p").await.is_ok());
    let other = get(person("users/u2", Role::Customer), "payments/p").await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
    let missing = get(person("users/u2", Role::Customer), "payments/x").await.unwrap_err();
    let same = |status: &tonic::Status| String::from_utf8_lossy(status.details()).replace("payments/x", "payments/p");
    assert_eq!(same(&other), same(&missing));
}

#[tokio::test]
async fn attempts_are_listed_in_pages() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_ok").await;
    for shipment in ["a", "b", "c"] {
        shop.capture("payments/p", shipment, 1_000, shipment).await.unwrap();
    }
    let mut names = vec![];
    let mut page_token = String::new();
    loop {
        let ask = proto::ListAttemptsRequest { parent: "payments/p".to_owned(), page_size: 3, page_token };
        let page = shop.outside().list_attempts(operator().request(ask)).await.unwrap().into_inner();
        names.extend(page.attempts.into_iter().map(|attempt| attempt.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (1..=4).map(|n| format!("payments/p/attempts/{n}")).collect();
    assert_eq!(names, expected);
}
