//! A shop that somebody tries to cheat: repeats, other people's things, filters that are programs, hoarding, forged webhooks

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use integration::http::Answer;
use integration::ledger::Provider;
use integration::shopper::{Shopper, order_body, request_id, text};
use integration::{Setup, Stoa, raw};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::task::JoinSet;

/// The key that shop and provider have by default.
const SECRET: &[u8] = b"sandbox-webhook-secret";

/// One request as bytes, with a token.
fn asked(verb: &str, path: &str, token: &str, body: &Value) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    raw::request(verb, path, &headers, body.as_bytes())
}

fn token(shopper: &Shopper) -> Result<String> {
    Ok(shopper.http.token().context("no token")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_a_hundred_times_at_once_has_one_effect() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::guest(&stoa).await?;
    let sku = shopper.something().await?;
    let priced = shopper.fill("EUR", &sku, 1).await?;
    let token = token(&shopper)?;
    let item = json!({ "sku": sku, "quantity": 1, "requestId": request_id() });
    let cart = priced.cart.clone();
    let order = order_body(&priced, "tok_ok", &request_id());
    for (path, body) in [("/v1/orders".to_owned(), order), (format!("/v1/{cart}:addItem"), item)] {
        let request = asked("POST", &path, &token, &body);
        let mut crowd = JoinSet::new();
        for _ in 0..100 {
            let (address, request) = (stoa.address(), request.clone());
            crowd.spawn(async move { raw::exchange(address, &request).await });
        }
        let mut answers: Vec<Answer> = crowd.join_all().await.into_iter().collect::<Result<_>>()?;
        answers.retain(|answer| answer.status != 429 && answer.status != 503);
        let first = answers.first().context("nobody was answered")?.clone();
        for answer in &answers {
            ensure!(answer.status == first.status, "{path}: {} and {}", answer.describe(), first.describe());
        }
        let names: std::collections::BTreeSet<_> =
            answers.iter().map(|answer| answer.json()["name"].to_string()).collect();
        ensure!(names.len() == 1, "{path}: {names:?}");
    }
    let orders = shopper.http.get("/v1/orders").await?.ok()?;
    ensure!(orders["orders"].as_array().is_some_and(|all| all.len() == 1), "{orders}");
    Ok(())
}

#[tokio::test]
async fn the_same_request_id_of_two_people_is_two_requests() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let id = request_id();
    let mut carts = vec![];
    for _ in 0..2 {
        let mut shopper = Shopper::guest(&stoa).await?;
        let sku = shopper.something().await?;
        let cart = text(&shopper.cart("EUR").await?, "name")?;
        let body = json!({ "sku": sku, "quantity": 1, "requestId": id });
        let request = asked("POST", &format!("/v1/{cart}:addItem"), &token(&shopper)?, &body);
        let answer = raw::exchange(stoa.address(), &request).await?;
        ensure!(answer.status == 200, "{}", answer.describe());
        ensure!(answer.json()["cart"]["name"] == cart, "somebody else's answer: {}", answer.describe());
        carts.push(cart);
    }
    ensure!(carts[0] != carts[1], "{carts:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_of_others_is_found_by_page_or_by_filter() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut owner = Shopper::customer(&stoa).await?;
    let sku = owner.something().await?;
    let mut names = vec![];
    for _ in 0..2 {
        names.push(text(&owner.buy("EUR", &sku, 1, "tok_ok").await?, "name")?);
    }
    let page = integration::until(Duration::from_secs(20), "both orders are listed", async || {
        let page = owner.http.again().get("/v1/orders?pageSize=1").await?.ok()?;
        Ok(page["nextPageToken"].as_str().map(str::to_owned))
    });
    let page = page.await?;
    let thief = Shopper::customer(&stoa).await?;
    let thiefs = token(&thief)?;
    let taken = asked("GET", &format!("/v1/orders?pageSize=1&pageToken={page}"), &thiefs, &Value::Null);
    let answer = raw::exchange(stoa.address(), &taken).await?;
    ensure!([400, 404].contains(&answer.status), "{}", answer.describe());
    for query in ["", "?pageSize=1000", "?filter=customer%3D%22users%2F1%22", "?customer=users/1", "?parent=users/-"] {
        let request = asked("GET", &format!("/v1/orders{query}"), &thiefs, &Value::Null);
        let answer = raw::exchange(stoa.address(), &request).await?;
        ensure!([200, 400].contains(&answer.status), "{query}: {}", answer.describe());
        ensure!(!names.iter().any(|name| answer.describe().contains(name)), "{query}: {}", answer.describe());
    }
    Ok(())
}

/// What makes a program of a filter, somewhere.
const INJECTIONS: [&str; 14] = [
    "' OR 1=1 --",
    "\" OR \"1\"=\"1",
    "brand=\"x\" OR 1=1",
    "brand=\"x'; DROP TABLE products; --\"",
    "brand=\"x\" UNION SELECT 1",
    "{\"$gt\":\"\"}",
    "brand={\"$gt\":\"\"}",
    "brand[$ne]=x",
    "$where=sleep(10000)",
    "brand=~\"(a+)+$\"",
    "brand=\"(((((a*)*)*)*)*)b\"",
    "price>=1e308",
    "option.__proto__=\"x\"",
    "\u{0}",
];

#[tokio::test]
async fn a_filter_is_conditions_and_never_a_program() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let all = stoa.client().get("/v1/products?pageSize=1000").await?.ok()?;
    let all = all["products"].as_array().map_or(0, Vec::len);
    for injection in INJECTIONS {
        for (path, name) in
            [("/v1/products", "filter"), ("/v1/products:search", "filter"), ("/v1/products:search", "query")]
        {
            let target = format!("{path}?pageSize=1000&{name}={}", encoded(injection));
            let begun = std::time::Instant::now();
            let answer = raw::exchange(stoa.address(), &raw::request("GET", &target, &[], b"")).await?;
            ensure!([200, 400].contains(&answer.status), "{injection:?}: {}", answer.describe());
            // As words or as a value they find what bears them: not everything.
            let found = answer.json()["products"].as_array().map_or(0, Vec::len);
            ensure!(answer.status == 400 || found < all, "{path} {name}={injection:?} finds all {found}");
            ensure!(!answer.describe().to_ascii_lowercase().contains("sql"), "{}", answer.describe());
            ensure!(begun.elapsed() < Duration::from_secs(5), "{injection:?} took {:?}", begun.elapsed());
        }
    }
    let still = stoa.client().get("/v1/products?pageSize=1000").await?.ok()?;
    ensure!(still["products"].as_array().map_or(0, Vec::len) == all, "products are gone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_asks_for_many_carts_has_one() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let shopper = Shopper::guest(&stoa).await?;
    let request = asked("POST", "/v1/carts:getOrCreate", &token(&shopper)?, &json!({ "currencyCode": "EUR" }));
    let mut crowd = JoinSet::new();
    for _ in 0..100 {
        let (address, request) = (stoa.address(), request.clone());
        crowd.spawn(async move { raw::exchange(address, &request).await });
    }
    let mut names = std::collections::BTreeSet::new();
    for answer in crowd.join_all().await {
        let answer = answer?;
        ensure!(answer.status == 200 || answer.is_transient(), "{}", answer.describe());
        names.extend(answer.json()["cart"]["name"].as_str().map(str::to_owned));
    }
    ensure!(names.len() == 1, "{names:?}");
    Ok(())
}

#[tokio::test]
async fn a_forged_or_old_webhook_is_refused_and_one_that_comes_twice_has_one_effect() -> Result<()> {
    let provider = Provider::start().await?;
    let stoa = Stoa::start(Setup::new().provider(&provider.url())).await?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let event = json!({
        "id": "evt_abuse", "object": "event", "type": "authorization.authorized", "create_time": "2026-01-01T00:00:00Z",
        "authorization": {
            "id": "auth_abuse", "object": "authorization", "reference": format!("payments/{}", uuid::Uuid::now_v7()),
            "status": "authorized", "amount": 1, "currency": "EUR", "captured_amount": 0, "refunded_amount": 0,
            "metadata": {}, "create_time": "2026-01-01T00:00:00Z", "update_time": "2026-01-01T00:00:00Z",
        },
    })
    .to_string();
    let send = async |signature: &[&str], body: &str| {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(signature.iter().map(|value| ("Stoa-Signature", *value)));
        raw::exchange(stoa.address(), &raw::request("POST", "/v1/webhooks/sandbox", &headers, body.as_bytes())).await
    };
    let genuine = signature(SECRET, now, &event)?;
    let other = signature(b"another secret", now, &event)?;
    for (what, signatures, body) in [
        ("none", vec![], event.clone()),
        ("empty", vec![String::new()], event.clone()),
        ("by somebody else", vec![other.clone()], event.clone()),
        ("over other bytes", vec![genuine.clone()], format!("{event} ")),
        ("old", vec![signature(SECRET, now - 400, &event)?], event.clone()),
        ("from the future", vec![signature(SECRET, now + 400, &event)?], event.clone()),
        ("with another time", vec![genuine.replace(&format!("t={now}"), &format!("t={}", now + 1))], event.clone()),
        ("two of them", vec![genuine.clone(), other], event.clone()),
        ("no message", vec![signature(SECRET, now - 400, "[]")?], "[]".to_owned()),
    ] {
        let signatures: Vec<&str> = signatures.iter().map(String::as_str).collect();
        let answer = send(&signatures, &body).await?;
        ensure!(answer.status == 401, "{what}: {}", answer.describe());
    }
    let first = send(&[&genuine], &event).await?;
    ensure!(first.status == 200 && first.json()["duplicate"].is_null(), "{}", first.describe());
    for _ in 0..3 {
        let again = send(&[&genuine], &event).await?;
        ensure!(again.status == 200 && again.json()["duplicate"] == true, "{}", again.describe());
    }
    stoa.audit().await.map(drop)
}

fn signature(secret: &[u8], time: i64, body: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
    mac.update(format!("{time}.{body}").as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("t={time},v1={hex}"))
}

#[tokio::test]
async fn an_address_that_somebody_names_is_never_asked() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/image.png", elsewhere.local_addr()?);
    let operator = Shopper::operator(&stoa).await?;
    let id = format!("picture-{}", uuid::Uuid::new_v4().simple());
    let variant =
        json!({ "sku": id.to_uppercase(), "title": "one", "prices": [{ "currencyCode": "EUR", "units": "1" }] });
    let body = json!({ "title": "A picture", "imageUri": url, "variants": [variant] });
    let path = format!("/v1/products?productId={id}&requestId={}", request_id());
    let answer = raw::exchange(stoa.address(), &asked("POST", &path, &token(&operator)?, &body)).await?;
    ensure!(answer.status == 200, "{}", answer.describe());
    let read = stoa.client().get(&format!("/v1/products/{id}")).await?;
    ensure!(read.describe().contains(&url), "{}", read.describe());
    let asked = tokio::time::timeout(Duration::from_millis(500), elsewhere.accept()).await;
    ensure!(asked.is_err(), "somebody came for a picture: {asked:?} {}", read.describe());
    Ok(())
}
