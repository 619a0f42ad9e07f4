//! Who is calling, as services hear it: only what a verified token says.

use std::time::Duration;

use auth::{Principal, Role, SigningKey};
use contracts::catalog::v1::Product;
use contracts::identity::v1::CheckSessionResponse;

use crate::rig::Rig;

const GET_PRODUCT: &str = "/stoa.catalog.v1.CatalogService/GetProduct";

async fn get_with(rig: &Rig, headers: &[(&str, &str)]) -> u16 {
    rig.answer(GET_PRODUCT, &Product::default());
    let answer = rig.send("GET", "/v1/products/1", headers, "").await;
    if answer.status == 401 {
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"stoa\"");
        assert_eq!(answer.json()["code"], 16);
    }
    answer.status
}

#[tokio::test]
async fn without_a_token_a_call_is_the_gateways_for_nobody() {
    let rig = Rig::new().await;
    assert_eq!(get_with(&rig, &[]).await, 200);
    let identity = rig.last().identity;
    assert_eq!((identity.caller.as_ref(), identity.principal), ("gateway", Principal::Anonymous));
}

#[tokio::test]
async fn a_valid_token_makes_the_call_its_subjects() {
    let rig = Rig::new().await;
    let token = rig.token("users/1", Role::Customer);
    for value in [format!("Bearer {token}"), format!("bearer {token}")] {
        assert_eq!(get_with(&rig, &[("authorization", &value)]).await, 200);
        let identity = rig.last().identity;
        let subject = identity.principal.subject().unwrap();
        assert_eq!(
            (subject.id.as_str(), subject.role, identity.caller.as_ref()),
            ("users/1", Role::Customer, "gateway")
        );
    }
}

#[tokio::test]
async fn a_token_that_is_not_believed_is_401_and_no_call_is_made() {
    let rig = Rig::new().await;
    let good = rig.token("users/1", Role::Customer);
    let foreign = rig.signed(&SigningKey::from_seed(&[9; 32]), "stoa", "users/1", Role::Operator);
    let other_issuer = rig.signed(&SigningKey::from_seed(&[1; 32]), "elsewhere", "users/1", Role::Operator);
    let mut forged = good.clone();
    forged.replace_range(good.len() - 4.., "AAAA");
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    for bad in [foreign, other_issuer, forged, none, "x".repeat(10_000), "abc".to_owned(), String::new()] {
        assert_eq!(get_with(&rig, &[("authorization", &format!("Bearer {bad}"))]).await, 401, "{bad:.40}");
    }
    for bad in [
        good.clone(),
        format!("Basic {good}"),
        format!("Bearer {good}, Bearer {good}"),
        format!("Bearer {good} {good}"),
    ] {
        assert_eq!(get_with(&rig, &[("authorization", &bad)]).await, 401, "{bad:.40}");
    }
    let once = format!("Bearer {good}");
    assert_eq!(get_with(&rig, &[("authorization", &once), ("authorization", &once)]).await, 401, "two tokens");
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn an_expired_token_is_401() {
    let rig = Rig::new().await;
    let subject = auth::Subject { id: "users/1".to_owned(), role: Role::Customer, session: String::new() };
    let issuer =
        auth::Issuer::new(SigningKey::from_seed(&[1; 32]), "stoa", "stoa", std::time::Duration::from_secs(300));
    let past = rig.context.clock.now() - std::time::Duration::from_secs(3600);
    let token = issuer.issue(&subject, past).unwrap().token;
    assert_eq!(get_with(&rig, &[("authorization", &format!("Bearer {token}"))]).await, 401);
}

#[tokio::test]
async fn identity_in_headers_is_nothing_in_any_spelling() {
    let rig = Rig::new().await;
    let forged = [
        ("stoa-caller", "ordering"),
        ("Stoa-Subject", "users/1"),
        ("x-stoa-principal", "users/1"),
        ("x_user_id", "1"),
        ("X-User-Id", "1"),
        ("x-forwarded-user", "root"),
        ("x-forwarded-client-cert", "By=spiffe://stoa/ordering"),
        ("proxy-authorization", "Basic x"),
        ("cookie", "session=1"),
        ("grpc-timeout", "1H"),
        ("te", "trailers"),
        ("x-request-id", "r1"),
        ("stoa-client-address", "203.0.113.7"),
        ("Stoa-Client-Address", "203.0.113.8"),
        ("x-forwarded-for", "203.0.113.9"),
    ];
    assert_eq!(get_with(&rig, &forged).await, 200);
    let seen = rig.last();
    let mut names: Vec<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "stoa-client-address", "te", "x-request-id"]);
    let sources: Vec<_> = seen.headers.get_all("stoa-client-address").iter().collect();
    assert_eq!(sources, ["127.0.0.1"], "where a call comes from is what the listener saw");
    assert_eq!(seen.identity.principal, Principal::Anonymous);
}

const CHECK_SESSION: &str = "/stoa.identity.v1.IdentityService/CheckSession";

#[tokio::test]
async fn a_token_whose_session_was_ended_is_refused_at_once_and_others_are_not() {
    let rig = Rig::new().await;
    let ended = format!("Bearer {}", rig.token("users/1", Role::Customer));
    let good = format!("Bearer {}", rig.token("users/2", Role::Customer));
    assert_eq!(get_with(&rig, &[("authorization", &ended)]).await, 200);
    let mark = cache::Mark { id: "users/1/sessions/1".to_owned(), remaining: Duration::from_secs(300) };
    rig.context.cache.marks().put(&[mark]).await.unwrap();
    let calls = rig.calls();
    assert_eq!(get_with(&rig, &[("authorization", &ended)]).await, 401);
    assert_eq!(rig.calls(), calls);
    assert_eq!(get_with(&rig, &[("authorization", &good)]).await, 200);
    assert_eq!(get_with(&rig, &[]).await, 200);
}

/// Marks that know nothing, as those of a cache that is away.
async fn without_a_cache() -> Rig {
    Rig::with(cache::Cache::of_one_process()).await
}

#[tokio::test]
async fn identity_is_asked_while_the_cache_does_not_know_and_its_answer_is_not_remembered() {
    let rig = without_a_cache().await;
    let token = format!("Bearer {}", rig.token("users/1", Role::Customer));
    rig.answer(CHECK_SESSION, &CheckSessionResponse { revoked: false });
    assert_eq!(get_with(&rig, &[("authorization", &token)]).await, 200);
    rig.answer(CHECK_SESSION, &CheckSessionResponse { revoked: true });
    assert_eq!(get_with(&rig, &[("authorization", &token)]).await, 401);
}

#[tokio::test]
async fn a_token_is_refused_when_neither_the_cache_nor_identity_knows() {
    let rig = without_a_cache().await;
    rig.refuse(CHECK_SESSION, tonic::Status::unavailable("away"));
    let token = format!("Bearer {}", rig.token("users/1", Role::Customer));
    rig.answer(GET_PRODUCT, &Product::default());
    let answer = rig.send("GET", "/v1/products/1", &[("authorization", &token)], "").await;
    assert_eq!(answer.status, 503);
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(get_with(&rig, &[]).await, 200);
}
