//! Tokens that are none, forged, spent or guessed: 401, no outgoing request, and nothing is learnt from the answer

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use integration::http::{Answer, Client};
use integration::shopper::{Shopper, text};
use integration::signed::{Token, by_thief, thief};
use integration::{Setup, Stoa, raw};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tonic::Code;

const PATH: &str = "/v1/orders";
const METHOD: &str = "/stoa.orderview.v1.OrderviewService/ListOrders";

/// A genuine token of a guest's.
async fn genuine(stoa: &Stoa) -> Result<Token> {
    Token::read(Shopper::guest(stoa).await?.http.token().context("no token")?)
}

fn unauthenticated(answer: &Answer) -> Result<()> {
    ensure!(answer.status == 401 && answer.json()["code"] == 16, "{}", answer.describe());
    ensure!(answer.json()["message"] == "a valid token is needed", "it tells more: {}", answer.describe());
    Ok(())
}

/// As JSON and as gRPC, in bytes.
async fn is_refused(stoa: &Stoa, authorization: &[&str]) -> Result<()> {
    let shown: Vec<_> = authorization.iter().map(|value| ("Authorization", *value)).collect();
    let answer = raw::exchange(stoa.address(), &raw::request("GET", PATH, &shown, b"")).await?;
    unauthenticated(&answer)?;
    let status = raw::grpc(stoa.address(), METHOD, &shown, raw::message(false, 0, b"")).await?;
    ensure!(status.code() == Code::Unauthenticated, "{status:?}");
    Ok(())
}

#[tokio::test]
async fn no_token_an_empty_one_two_and_what_is_none_are_unauthenticated() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let genuine = Shopper::guest(&stoa).await?.bearer()?;
    is_refused(&stoa, &[]).await.context("none")?;
    for value in ["", "Bearer", "Bearer ", "Bearer x", "Bearer a.b.c", "Basic b3BlcmF0b3I6eA==", "bearer\u{a0}x"] {
        is_refused(&stoa, &[value]).await.with_context(|| format!("{value:?}"))?;
    }
    is_refused(&stoa, &[&genuine, &genuine]).await.context("twice")?;
    is_refused(&stoa, &[&genuine, "Bearer x"]).await.context("and another")?;
    is_refused(&stoa, &[&format!("{genuine}, {genuine}")]).await.context("in one line")?;
    let good = raw::exchange(stoa.address(), &raw::request("GET", PATH, &[("Authorization", &genuine)], b"")).await?;
    ensure!(good.status == 200, "the good one: {}", good.describe());
    Ok(())
}

#[tokio::test]
async fn a_token_that_chooses_its_own_algorithm_or_key_is_unauthenticated_and_nobody_is_asked() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let genuine = genuine(&stoa).await?;
    let jwks = stoa.client().get("/.well-known/jwks.json").await?.ok()?;
    let public = BASE64.decode(text(&jwks["keys"][0], "x")?)?;
    // Whoever fetched a key would have to come here.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/keys", elsewhere.local_addr()?);
    let mac = |message: &[u8]| {
        Hmac::<Sha256>::new_from_slice(&public).map(|mut mac| {
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        })
    };
    let none = |spelling: &str| genuine.with_header("alg", json!(spelling)).signed(|_| vec![]);
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(thief().verifying_key()) });
    let stolen = |name: &str, value: Value| genuine.with_header(name, value).signed(by_thief);
    let forged = [
        none("none"),
        none("None"),
        none("nOnE"),
        none(""),
        genuine.with_header("alg", json!("HS256")).signed(|message| mac(message).unwrap_or_default()),
        stolen("alg", json!("ES256")),
        genuine.signed(by_thief),
        stolen("kid", json!("somebody-elses")),
        stolen("kid", json!("../../etc/passwd")),
        stolen("kid", json!("' OR '1'='1")),
        stolen("jku", json!(url)),
        stolen("x5u", json!(url)),
        stolen("jwk", jwk),
        stolen("x5c", json!(["MIIB"])),
        stolen("crit", json!(["exp"])),
    ];
    for token in &forged {
        is_refused(&stoa, &[&format!("Bearer {token}")]).await.with_context(|| token.clone())?;
    }
    // A key's name of a megabyte does not even arrive.
    let huge = stolen("kid", json!("k".repeat(1 << 20)));
    let request = raw::request("GET", PATH, &[("Authorization", &format!("Bearer {huge}"))], b"");
    let answer = raw::exchange(stoa.address(), &request).await;
    ensure!(answer.as_ref().map_or(true, |answer| [400, 401, 431].contains(&answer.status)), "{answer:?}");

    let asked = tokio::time::timeout(Duration::from_millis(500), elsewhere.accept()).await;
    ensure!(asked.is_err(), "somebody came for a key: {asked:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_whose_claims_were_changed_is_unauthenticated() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let genuine = genuine(&stoa).await?;
    for changed in changed_claims(&genuine) {
        let bearer = format!("Bearer {}", changed.written());
        is_refused(&stoa, &[&bearer]).await.with_context(|| changed.claims.to_string())?;
    }
    Ok(())
}

/// Every claim missing, of the wrong type, or another's.
fn changed_claims(genuine: &Token) -> Vec<Token> {
    let claims = &genuine.claims;
    let far = 4_000_000_000_u64;
    let without = ["iss", "aud", "sub", "exp", "role", "sid"].map(|name| genuine.without(name));
    let with = [
        ("iss", json!("somebody")),
        ("iss", json!(["stoa"])),
        ("aud", json!("another-shop")),
        ("aud", json!([claims["aud"]])),
        ("sub", json!("")),
        ("sub", json!(1)),
        ("exp", json!(1)),
        ("exp", json!(claims["exp"].to_string())),
        ("exp", Value::Null),
        ("exp", json!(far)),
        ("nbf", json!(far)),
        ("iat", json!("now")),
        ("role", json!("admin")),
        ("role", json!("operator")),
    ];
    without.into_iter().chain(with.map(|(name, value)| genuine.with(name, value))).collect()
}

#[tokio::test]
async fn a_spent_refresh_token_ends_the_session_of_whoever_has_the_next() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut client = stoa.client();
    let session = client.post("/v1/sessions:guest", &json!({})).await?.ok()?;
    let first = text(&session, "refreshToken")?;
    let second = refreshed(&mut client, &first).await?.ok()?;
    let third = refreshed(&mut client, &text(&second, "refreshToken")?).await?.ok()?;
    // The first was spent two turns ago: whoever has it is a thief, or was robbed.
    unauthenticated_by_token(&refreshed(&mut client, &first).await?)?;
    unauthenticated_by_token(&refreshed(&mut client, &text(&third, "refreshToken")?).await?)?;
    let bearer = format!("Bearer {}", text(&third, "accessToken")?);
    is_refused(&stoa, &[&bearer]).await.context("the access token of the session that ended")
}

async fn refreshed(client: &mut Client, token: &str) -> Result<Answer> {
    client.post("/v1/sessions:refresh", &json!({ "refreshToken": token })).await
}

fn unauthenticated_by_token(answer: &Answer) -> Result<()> {
    ensure!(answer.status == 401, "{}", answer.describe());
    Ok(())
}

#[tokio::test]
async fn of_ten_thousand_guesses_few_are_looked_at() -> Result<()> {
    const GUESSES: usize = 10_000;
    // Cheap hashes: what is proven is the count.
    let stoa = Stoa::start(Setup::new().flags(["--password-memory-kib", "8", "--password-passes", "1"])).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..8 {
        let mut client = stoa.client();
        tasks.spawn(async move {
            let mut looked_at = 0;
            for turn in 0..GUESSES / 8 {
                let body = json!({ "email": "operator@stoa.local", "password": format!("guess {connection} {turn}") });
                let claimed = format!("203.0.113.{}", turn % 250);
                let headers = [("X-Forwarded-For", claimed.as_str()), ("Stoa-Client-Address", claimed.as_str())];
                let bytes = body.to_string().into();
                let kind = Some("application/json");
                let answer = client.send_bytes(Method::POST, "/v1/sessions:signIn", kind, &headers, bytes).await?;
                match answer.status {
                    401 => looked_at += 1,
                    429 => {}
                    _ => anyhow::bail!("{}", answer.describe()),
                }
            }
            Ok(looked_at)
        });
    }
    let mut looked_at = 0;
    for counted in tasks.join_all().await {
        looked_at += counted?;
    }
    // Ten in a quarter of an hour, and what comes back meanwhile.
    ensure!(looked_at <= 20, "{looked_at} guesses were looked at");
    Ok(())
}
