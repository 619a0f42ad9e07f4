//! Guards: each one that is opened lets its abuse in, and with it standing the same abuse stays out

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures_util::future::BoxFuture;
use http::Method;
use integration::attack::Attack;
use integration::attack::http1::{Slow, crawl};
use integration::server::SHORT_TOKENS;
use integration::shopper::{Priced, Shopper, order_body, request_id, text};
use integration::signed::{Token, by_thief, now, webhook};
use integration::{Setup, Stoa, command_line, raw, skip, until};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Servers at the same time.
const SIDE_BY_SIDE: usize = 3;

/// Tries to come in; whether it did.
type Abuse = for<'a> fn(&'a Stoa) -> BoxFuture<'a, Result<bool>>;

struct Case {
    guard: &'static str,
    /// Guards in front of it that have to be open for anybody to come so far.
    before: &'static [&'static str],
    /// What the server is started with beyond that.
    flags: &'static [&'static str],
    abuse: Abuse,
}

const fn case(guard: &'static str, abuse: Abuse) -> Case {
    Case { guard, before: &[], flags: &[], abuse }
}

/// What only operators may read.
const OPERATORS: &str = "/v1/warehouses/-/stockItems";

const CASES: [Case; 22] = [
    case("token-signature", |stoa| Box::pin(forged_token(stoa, "role", json!("operator"), OPERATORS))),
    Case { flags: &SHORT_TOKENS, ..case("token-time", |stoa| Box::pin(expired_token(stoa))) },
    Case {
        before: &["token-signature"],
        ..case("token-audience", |stoa| Box::pin(forged_token(stoa, "aud", json!("another-shop"), "/v1/orders")))
    },
    case("one-token", |stoa| Box::pin(two_tokens(stoa))),
    case("ended-session", |stoa| Box::pin(ended_session(stoa))),
    case("spent-token", |stoa| Box::pin(spent_token(stoa))),
    case("guesses", |stoa| Box::pin(guesses(stoa, false))),
    case("client-address", |stoa| Box::pin(guesses(stoa, true))),
    case("policy", |stoa| Box::pin(other_role(stoa))),
    case("ownership", |stoa| Box::pin(others_cart(stoa))),
    case("page-token", |stoa| Box::pin(others_page(stoa))),
    case("request-id", |stoa| Box::pin(repeated(stoa))),
    case("request-body", |stoa| Box::pin(other_body(stoa))),
    case("message-size", |stoa| Box::pin(large_body(stoa))),
    case("field-rules", |stoa| Box::pin(broken_rule(stoa))),
    case("quote", |stoa| Box::pin(forged_quote(stoa))),
    case("webhook-signature", |stoa| Box::pin(forged_webhook(stoa, 0))),
    Case { before: &["webhook-signature"], ..case("webhook-age", |stoa| Box::pin(forged_webhook(stoa, 400))) },
    case("framing", |stoa| Box::pin(two_lengths(stoa))),
    case("frames", |stoa| Box::pin(flood(stoa, Attack::Ping, 1_000))),
    case("resets", |stoa| Box::pin(flood(stoa, Attack::PacedReset, 100))),
    case("header-time", |stoa| Box::pin(slow_headers(stoa))),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_guard_that_is_opened_lets_its_abuse_in_and_keeps_it_out_while_it_stands() -> Result<()> {
    let Some(binary) = command_line::planted_binary() else {
        skip::not_proven("the guards: no binary whose guards can be opened");
        return Ok(());
    };
    let places = Arc::new(Semaphore::new(SIDE_BY_SIDE));
    let mut tries = JoinSet::new();
    for Case { guard, before, flags, abuse } in CASES {
        let (places, binary) = (Arc::clone(&places), binary.clone());
        tries.spawn(async move {
            let _place = places.acquire_owned().await?;
            let came = came_in(&binary, before, flags, abuse).await.with_context(|| format!("{guard} standing"))?;
            ensure!(!came, "{guard} stands, and its abuse comes in");
            let open = [before, &[guard]].concat();
            let came = came_in(&binary, &open, flags, abuse).await.with_context(|| format!("{guard} open"))?;
            ensure!(came, "{guard} is open, and nobody notices");
            Ok::<_, Error>(())
        });
    }
    let failed: Vec<String> =
        tries.join_all().await.into_iter().filter_map(Result::err).map(|e| format!("{e:#}")).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

async fn came_in(binary: &Path, open: &[&str], flags: &[&str], abuse: Abuse) -> Result<bool> {
    // Cheap hashes: what is proven is who is let in.
    let cheap = ["--password-memory-kib", "8", "--password-passes", "1"];
    let open = open.iter().flat_map(|guard| ["--open-guard", guard]);
    let stoa = Stoa::start(Setup::new().binary(binary).flags(cheap).flags(open).flags(flags.iter().copied())).await?;
    abuse(&stoa).await
}

#[tokio::test]
async fn every_guard_of_the_binary_has_its_abuse_and_a_release_has_none_to_open() -> Result<()> {
    let tried: BTreeSet<String> = CASES.iter().map(|case| case.guard.to_owned()).collect();
    ensure!(tried.len() == CASES.len(), "one is there twice");
    if let Some(binary) = command_line::planted_binary() {
        let has = guards_of(&binary).await?;
        ensure!(has.as_ref() == Some(&tried), "the binary has others: {has:?}");
    } else {
        skip::not_proven("the names of guards: no binary whose guards can be opened");
    }
    let release = command_line::binary()?;
    if command_line::planted_binary().as_ref() == Some(&release) {
        skip::not_proven("that a release has no guard to open: there is only a binary that has");
        return Ok(());
    }
    let open = guards_of(&release).await?;
    ensure!(open.is_none(), "a release can be opened: {open:?}");
    Ok(())
}

/// The names a binary takes, told by its refusal of one that is none; nothing where it knows no such flag.
async fn guards_of(binary: &PathBuf) -> Result<Option<BTreeSet<String>>> {
    let mut command = Command::new(binary);
    let ended = command_line::run(command.args(["--open-guard", "nobody"]), Duration::from_secs(60)).await?;
    ensure!(ended.code == Some(2), "{ended:?}");
    let names = ended.errors.split_once("possible values: ").and_then(|(_, rest)| rest.split_once(']'));
    Ok(names.map(|(names, _)| names.split(',').map(|name| name.trim().to_owned()).collect()))
}

/// One request over a connection of its own; its status.
async fn status(stoa: &Stoa, verb: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<u16> {
    Ok(raw::exchange(stoa.address(), &raw::request(verb, path, headers, body)).await?.status)
}

/// Whether it is one of the two answers there may be: the first means in.
fn either(status: u16, came: u16, kept: u16) -> Result<bool> {
    ensure!([came, kept].contains(&status), "neither {came} nor {kept}: {status}");
    Ok(status == came)
}

async fn guest(stoa: &Stoa) -> Result<(Shopper, String)> {
    let guest = Shopper::guest(stoa).await?;
    let bearer = guest.bearer()?;
    Ok((guest, bearer))
}

/// A token with one claim changed, signed with a key of one's own.
async fn forged_token(stoa: &Stoa, claim: &str, value: Value, path: &str) -> Result<bool> {
    let (guest, _) = guest(stoa).await?;
    let token = Token::read(guest.http.token().context("no token")?)?;
    let bearer = format!("Bearer {}", token.with(claim, value).signed(by_thief));
    either(status(stoa, "GET", path, &[("Authorization", &bearer)], b"").await?, 200, 401)
}

/// A token whose time was over longer ago than the five seconds that clocks may differ.
async fn expired_token(stoa: &Stoa) -> Result<bool> {
    let (guest, bearer) = guest(stoa).await?;
    let token = Token::read(guest.http.token().context("no token")?)?;
    let end = token.claims["exp"].as_i64().context("no end")?;
    until(Duration::from_secs(60), "the token is old", async || Ok((now()? > end + 6).then_some(()))).await?;
    either(status(stoa, "GET", "/v1/orders", &[("Authorization", &bearer)], b"").await?, 200, 401)
}

async fn two_tokens(stoa: &Stoa) -> Result<bool> {
    let (_, bearer) = guest(stoa).await?;
    let twice = [("Authorization", bearer.as_str()), ("Authorization", bearer.as_str())];
    either(status(stoa, "GET", "/v1/orders", &twice, b"").await?, 200, 401)
}

async fn ended_session(stoa: &Stoa) -> Result<bool> {
    let mut customer = Shopper::customer(stoa).await?;
    let user = customer.user.clone();
    let sessions = customer.http.get(&format!("/v1/{user}/sessions")).await?.ok()?;
    let session = text(&sessions["sessions"][0], "name")?;
    customer.http.post(&format!("/v1/{session}:revoke"), &json!({})).await?.ok()?;
    either(customer.http.get("/v1/orders").await?.status, 200, 401)
}

async fn spent_token(stoa: &Stoa) -> Result<bool> {
    let mut client = stoa.client();
    let session = client.post("/v1/sessions:guest", &json!({})).await?.ok()?;
    let first = text(&session, "refreshToken")?;
    let mut refresh = async |token: &str| client.post("/v1/sessions:refresh", &json!({ "refreshToken": token })).await;
    let second = refresh(&first).await?.ok()?;
    let third = refresh(&text(&second, "refreshToken")?).await?.ok()?;
    let stolen = refresh(&first).await?;
    ensure!(stolen.status == 401, "{}", stolen.describe());
    either(refresh(&text(&third, "refreshToken")?).await?.status, 200, 401)
}

/// More than a source may; with other addresses claimed, or with one.
async fn guesses(stoa: &Stoa, claims: bool) -> Result<bool> {
    let mut client = stoa.client();
    for turn in 0..150 {
        let email = if claims { format!("{turn}@example.com") } else { "operator@stoa.local".to_owned() };
        let body = json!({ "email": email, "password": "a wrong password" }).to_string();
        let address = format!("203.0.113.{turn}");
        let headers = if claims { vec![("Stoa-Client-Address", address.as_str())] } else { vec![] };
        let kind = Some("application/json");
        let answer = client.send_bytes(Method::POST, "/v1/sessions:signIn", kind, &headers, body.into()).await?;
        if !either(answer.status, 401, 429)? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn other_role(stoa: &Stoa) -> Result<bool> {
    let (_, bearer) = guest(stoa).await?;
    either(status(stoa, "GET", OPERATORS, &[("Authorization", &bearer)], b"").await?, 200, 403)
}

async fn others_cart(stoa: &Stoa) -> Result<bool> {
    let (mut owner, _) = guest(stoa).await?;
    let cart = text(&owner.cart("EUR").await?, "name")?;
    let (_, bearer) = guest(stoa).await?;
    either(status(stoa, "GET", &format!("/v1/{cart}"), &[("Authorization", &bearer)], b"").await?, 200, 404)
}

async fn others_page(stoa: &Stoa) -> Result<bool> {
    let page = stoa.client().get("/v1/products?pageSize=1").await?.ok()?;
    let path = format!("/v1/products?pageSize=1&pageToken={}", text(&page, "nextPageToken")?);
    let (_, bearer) = guest(stoa).await?;
    either(status(stoa, "GET", &path, &[("Authorization", &bearer)], b"").await?, 200, 400)
}

/// A cart, and a request that puts one thing into it.
async fn adding(stoa: &Stoa) -> Result<(Shopper, String, Value)> {
    let (mut guest, _) = guest(stoa).await?;
    let sku = guest.something().await?;
    let cart = text(&guest.cart("EUR").await?, "name")?;
    Ok((guest, format!("/v1/{cart}"), json!({ "sku": sku, "quantity": 1, "requestId": request_id() })))
}

async fn repeated(stoa: &Stoa) -> Result<bool> {
    let (mut guest, cart, body) = adding(stoa).await?;
    for _ in 0..2 {
        guest.http.post(&format!("{cart}:addItem"), &body).await?.ok()?;
    }
    let read = guest.http.get(&cart).await?.ok()?;
    Ok(read["items"][0]["quantity"] == 2)
}

async fn other_body(stoa: &Stoa) -> Result<bool> {
    let (mut guest, cart, mut body) = adding(stoa).await?;
    guest.http.post(&format!("{cart}:addItem"), &body).await?.ok()?;
    body["quantity"] = json!(5);
    either(guest.http.post(&format!("{cart}:addItem"), &body).await?.status, 200, 400)
}

/// As large as nobody's name is: whoever reads it all refuses it for that, and whoever does not, for its size.
async fn large_body(stoa: &Stoa) -> Result<bool> {
    let body = json!({ "email": "a".repeat(8 << 20), "password": "x" }).to_string();
    let headers = [("Content-Type", "application/json")];
    let request = raw::request("POST", "/v1/sessions:signIn", &headers, body.as_bytes());
    let answer = raw::exchange(stoa.address(), &request).await?;
    ensure!((400..500).contains(&answer.status), "{}", answer.describe());
    Ok(!answer.describe().contains("larger than"))
}

async fn broken_rule(stoa: &Stoa) -> Result<bool> {
    either(status(stoa, "GET", "/v1/products?pageSize=5000", &[], b"").await?, 200, 400)
}

async fn forged_quote(stoa: &Stoa) -> Result<bool> {
    let (mut guest, _) = guest(stoa).await?;
    let sku = guest.something().await?;
    let priced = guest.fill("EUR", &sku, 1).await?;
    let (terms, _) = priced.token.split_once('.').context("no quote")?;
    let token = format!("{terms}.{}", BASE64.encode([7; 32]));
    let body = order_body(&Priced { token, ..priced }, "tok_ok", &request_id());
    either(guest.http.post("/v1/orders", &body).await?.status, 200, 400)
}

/// A message signed with somebody else's key, so many seconds ago.
async fn forged_webhook(stoa: &Stoa, ago: i64) -> Result<bool> {
    let event = json!({
        "id": "evt_guard", "object": "event", "type": "authorization.authorized", "create_time": "2026-01-01T00:00:00Z",
        "authorization": { "id": "auth_guard", "reference": format!("payments/{}", uuid::Uuid::now_v7()) },
    })
    .to_string();
    let signature = webhook(b"another key", now()? - ago, &event)?;
    let headers = [("Content-Type", "application/json"), ("Stoa-Signature", signature.as_str())];
    either(status(stoa, "POST", "/v1/webhooks/sandbox", &headers, event.as_bytes()).await?, 200, 401)
}

async fn two_lengths(stoa: &Stoa) -> Result<bool> {
    let request =
        b"POST /v1/sessions:guest HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\nContent-Type: application/json\r\n\
                    Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    either(raw::exchange(stoa.address(), request).await?.status, 200, 400)
}

async fn flood(stoa: &Stoa, attack: Attack, rounds: usize) -> Result<bool> {
    let end = attack.run(stoa.address(), rounds).await?;
    Ok(!end.closed)
}

/// Headers have ten seconds; without that, a first request has thirty.
async fn slow_headers(stoa: &Stoa) -> Result<bool> {
    let ends = crawl(stoa.address(), Slow::Headers, 3, Duration::from_secs(20)).await?;
    Ok(ends.iter().any(|end| !end.closed))
}
