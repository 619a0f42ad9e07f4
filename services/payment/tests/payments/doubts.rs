//! Doubts end: by the same key, by asking, by an operator, over a crash; never by a second charge.

use std::time::Duration;

use client::Outgoing;
use contracts::payment::v1 as proto;
use contracts::payment::v1::{AttemptState, PaymentState};
use tonic::Code;

use crate::rig::{self, Provider, Setup, Shop, authorize, id, operator, ordering, shop, until};

#[tokio::test]
async fn a_caller_who_vanishes_cuts_nothing() {
    let shop = shop().await;
    let ask = authorize("payments/p", "tok_slow", &id("vanished"));
    let call = Outgoing::default().within(Duration::from_millis(50)).request(ask.clone());
    let _ = shop.ordering().authorize_payment(call).await;
    let again = shop.ordering().authorize_payment(ask).await.unwrap().into_inner().payment.unwrap();
    assert_eq!(again.state(), PaymentState::Authorized);
    let attempts = shop.attempts("payments/p").await;
    assert_eq!((attempts.len(), attempts[0].try_count), (1, 1));
    assert_eq!(shop.provider.entries("authorization").await.len(), 1);
}

#[tokio::test]
async fn an_impatient_caller_is_told_of_the_doubt() {
    let shop = shop().await;
    let call = Outgoing::default().within(Duration::from_millis(250));
    let ask = call.request(authorize("payments/p", "tok_slow", &id("impatient")));
    let payment = shop.ordering().authorize_payment(ask).await.unwrap().into_inner().payment.unwrap();
    assert_eq!((payment.state(), payment.in_doubt), (PaymentState::Created, true));
    shop.settled("payments/p", PaymentState::Authorized).await;
}

#[tokio::test]
async fn a_request_id_has_one_effect_and_one_body_and_a_payment_one_authorization() {
    let shop = shop().await;
    let ask = authorize("payments/p", "tok_ok", &id("a"));
    let mut ordering = shop.ordering();
    let replies = futures_util::future::join_all((0..8).map(|_| {
        let (mut ordering, ask) = (shop.ordering(), ask.clone());
        async move { ordering.authorize_payment(ask).await.unwrap().into_inner() }
    }))
    .await;
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    let other = authorize("payments/q", "tok_ok", &id("a"));
    let refused = ordering.authorize_payment(other).await.unwrap_err();
    assert_eq!(server::status::reason(&refused).as_deref(), Some("REQUEST_ID_REUSED"));
    let same = ordering.authorize_payment(authorize("payments/p", "tok_ok", &id("b"))).await.unwrap().into_inner();
    assert_eq!(same, replies[0]);
    let mut dearer = authorize("payments/p", "tok_ok", &id("c"));
    dearer.amount = rig::money(10_001);
    let refused = ordering.authorize_payment(dearer).await.unwrap_err();
    assert_eq!(server::status::reason(&refused).as_deref(), Some("PAYMENT_EXISTS"));
    assert_eq!(shop.provider.entries("authorization").await.len(), 1);
}

/// What a crash leaves: the runtime of the first process is thrown away in the middle of its call.
#[test]
fn an_attempt_that_was_sent_when_the_process_died_is_settled_by_the_next() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outside = runtime();
    let folder = tempfile::tempdir().unwrap();
    let provider = outside.block_on(Provider::start(Duration::from_secs(60), None));
    let Setup { config, windows, .. } = Setup::default();
    let config = payment::Config { call_timeout: Duration::from_secs(60), ..config };

    let first = runtime();
    first.block_on(async {
        let context = rig::serve(folder.path(), &provider.url, config.clone(), windows.clone()).await;
        for token in ["tok_slow", "tok_never"] {
            let ask = authorize(&format!("payments/{token}"), token, &id(token));
            let mut ordering = ordering(&context);
            tokio::spawn(async move { ordering.authorize_payment(ask).await });
        }
        until("the provider has it", async || provider.entries("authorization").await.len() == 1).await;
        until("both are sent", async || {
            let ask = proto::GetPaymentRequest { name: "payments/tok_never".to_owned() };
            rig::outside(&context).get_payment(operator().request(ask)).await.is_ok()
        })
        .await;
    });
    first.shutdown_timeout(Duration::from_secs(5));

    let second = runtime();
    second.block_on(async {
        let config = payment::Config { call_timeout: Duration::from_millis(300), ..config };
        let context = rig::serve(folder.path(), &provider.url, config, windows).await;
        let get = async |name: &str| {
            let ask = proto::GetPaymentRequest { name: name.to_owned() };
            rig::outside(&context).get_payment(operator().request(ask)).await.unwrap().into_inner()
        };
        until("it is settled", async || get("payments/tok_slow").await.state() == PaymentState::Authorized).await;
        assert!(get("payments/tok_never").await.in_doubt);
        let cancel = proto::CancelPaymentRequest {
            name: "payments/tok_never".to_owned(),
            order: "orders/tok_never".to_owned(),
            reason: String::new(),
            request_id: id("cancel"),
        };
        ordering(&context).cancel_payment(cancel).await.unwrap();
        until("it is given up", async || get("payments/tok_never").await.state() == PaymentState::Failed).await;
        assert_eq!(provider.entries("authorization").await.len(), 1);
    });
}

#[tokio::test]
async fn a_cancel_while_in_doubt_ends_in_a_void_of_what_the_provider_did() {
    let mut setup = Setup { slow: Duration::from_secs(5), ..Setup::default() };
    setup.config.call_timeout = Duration::from_millis(200);
    setup.windows.retry_base = Duration::from_secs(2);
    setup.windows.retry_cap = Duration::from_secs(2);
    let shop = Shop::start(setup).await;
    let doubtful = shop.authorize("payments/p", "tok_slow").await;
    assert!(doubtful.in_doubt);
    let cancelled = shop.cancel("payments/p").await;
    assert!(cancelled.cancel_requested || cancelled.state() == PaymentState::Voided, "{cancelled:?}");
    shop.settled("payments/p", PaymentState::Voided).await;
    assert_eq!(shop.provider.find("payments/p").await["status"], "voided");
    assert_eq!(shop.provider.entries("authorization").await.len(), 1);
    let refused = shop.capture("payments/p", "s", 1, "capture").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_cancel_that_overtakes_its_authorization_wins() {
    let shop = shop().await;
    let closed = shop.cancel("payments/p").await;
    assert_eq!((closed.state(), closed.cancel_requested), (PaymentState::Failed, false));
    let payment = shop.authorize("payments/p", "tok_ok").await;
    assert_eq!((payment.state(), payment.decline_code.as_str()), (PaymentState::Failed, "CANCELLED"));
    assert!(shop.provider.entries("authorization").await.is_empty());
}

#[tokio::test]
async fn what_the_provider_does_not_know_after_the_key_window_is_abandoned() {
    let mut setup = Setup::default();
    setup.config.call_timeout = Duration::from_millis(100);
    setup.config.key_window = Duration::from_millis(500);
    let shop = Shop::start(setup).await;
    assert!(shop.authorize("payments/p", "tok_never").await.in_doubt);
    let failed = shop.settled("payments/p", PaymentState::Failed).await;
    assert_eq!(failed.decline_code, "NEVER_ARRIVED");
    assert_eq!(shop.attempts("payments/p").await[0].state(), AttemptState::Abandoned);
}

#[tokio::test]
async fn a_buyer_who_does_not_act_in_time_loses_the_payment() {
    let mut setup = Setup::default();
    setup.windows.action = Duration::from_millis(300);
    let shop = Shop::start(setup).await;
    shop.authorize("payments/p", "tok_requires_action").await;
    shop.settled("payments/p", PaymentState::Expired).await;
    assert_eq!(shop.provider.find("payments/p").await["status"], "voided");
}

#[tokio::test]
async fn a_cancel_of_a_payment_that_waits_for_its_buyer_ends_whoever_is_faster() {
    let shop = shop().await;
    shop.authorize("payments/p", "tok_requires_action").await;
    let cancelled = shop.cancel("payments/p").await;
    assert_eq!((cancelled.state(), cancelled.cancel_requested), (PaymentState::Failed, false));
    assert_eq!(shop.provider.find("payments/p").await["status"], "voided");

    let waiting = shop.authorize("payments/q", "tok_requires_action").await;
    shop.provider.complete(&waiting.challenge_id, "approve").await;
    shop.cancel("payments/q").await;
    shop.settled("payments/q", PaymentState::Voided).await;

    let waiting = shop.authorize("payments/r", "tok_requires_action").await;
    shop.provider.complete(&waiting.challenge_id, "decline").await;
    shop.cancel("payments/r").await;
    shop.settled("payments/r", PaymentState::Failed).await;
}

#[tokio::test]
async fn an_operator_asks_now_or_says_what_became_of_it() {
    let mut setup = Setup::default();
    setup.windows.retry_base = Duration::from_secs(600);
    setup.windows.retry_cap = Duration::from_secs(600);
    setup.config.call_timeout = Duration::from_millis(100);
    let shop = Shop::start(setup).await;
    assert!(shop.authorize("payments/p", "tok_500_then_ok").await.in_doubt);
    let ask = proto::ReconcilePaymentRequest { name: "payments/p".to_owned(), request_id: id("reconcile") };
    let reply = shop.outside().reconcile_payment(operator().request(ask)).await.unwrap().into_inner();
    assert_eq!((reply.payment.unwrap().state(), reply.resolved_count), (PaymentState::Authorized, 1));

    assert!(shop.authorize("payments/q", "tok_never").await.in_doubt);
    let resolve = |validate_only, request: &str| proto::ResolveInDoubtRequest {
        name: "payments/q/attempts/1".to_owned(),
        resolution: proto::AttemptResolution::NotFound.into(),
        provider_reference: String::new(),
        note: "their support says so".to_owned(),
        request_id: id(request),
        validate_only,
    };
    let tried = shop.outside().resolve_in_doubt(operator().request(resolve(true, "r1"))).await.unwrap().into_inner();
    assert_eq!(tried.attempt.unwrap().state(), AttemptState::Abandoned);
    assert!(shop.get("payments/q").await.in_doubt, "a dry run has no effect");
    shop.outside().resolve_in_doubt(operator().request(resolve(false, "r2"))).await.unwrap();
    assert_eq!(shop.get("payments/q").await.state(), PaymentState::Failed);
    let again = shop.outside().resolve_in_doubt(operator().request(resolve(false, "r3"))).await.unwrap_err();
    assert_eq!(server::status::reason(&again).as_deref(), Some("NOT_IN_DOUBT"));
}
