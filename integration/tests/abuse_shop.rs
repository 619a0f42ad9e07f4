//! A shop that somebody tries to cheat: repeats, other people's things, filters that are programs, hoarding, forged webhooks

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::http::Answer;
use integration::ledger::Provider;
use integration::shopper::{Shopper, order_body, request_id, text};
use integration::signed::{WEBHOOK_SECRET, now, webhook};
use integration::{Setup, Stoa, raw, until};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// When the list of orders knows what happened.
const SOON: Duration = Duration::from_secs(30);

/// One request of somebody as bytes.
fn asked(shopper: &Shopper, verb: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
    let bearer = shopper.bearer()?;
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Ok(raw::request(verb, path, &headers, body.as_bytes()))
}

/// The same request a hundred times at once: what was answered otherwise than "not now".
async fn a_hundred_times(stoa: &Stoa, request: &[u8]) -> Result<Vec<Answer>> {
    let mut crowd = JoinSet::new();
    for _ in 0..100 {
        let (address, request) = (stoa.address(), request.to_vec());
        crowd.spawn(async move { raw::exchange(address, &request).await });
    }
    let mut answers = crowd.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    answers.retain(|answer| !answer.is_transient());
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_a_hundred_times_at_once_has_one_effect() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::guest(&stoa).await?;
    let sku = shopper.something().await?;
    let cart = text(&shopper.cart("EUR").await?, "name")?;
    let item = json!({ "sku": sku, "quantity": 1, "requestId": request_id() });
    one_answer(&stoa, &asked(&shopper, "POST", &format!("/v1/{cart}:addItem"), &item)?, "/cart").await?;
    let read = shopper.http.get(&format!("/v1/{cart}")).await?.ok()?;
    ensure!(read["items"][0]["quantity"] == 1, "{read}");

    let order = order_body(&shopper.price(&cart).await?, "tok_ok", &request_id());
    one_answer(&stoa, &asked(&shopper, "POST", "/v1/orders", &order)?, "/name").await?;
    let listed = until(SOON, "the order is listed", async || {
        let list = shopper.http.again().get("/v1/orders").await?.ok()?;
        Ok(list["orders"].as_array().filter(|all| !all.is_empty()).map(Vec::len))
    });
    ensure!(listed.await? == 1, "a second order");
    // Nobody is charged twice, and no stock is held for nobody.
    stoa.audit().await.map(drop)
}

/// Whoever sends the same request a hundred times at once hears the same from all that are answered; `part` of it, as a JSON
/// pointer.
async fn one_answer(stoa: &Stoa, request: &[u8], part: &str) -> Result<()> {
    let answers = a_hundred_times(stoa, request).await?;
    let first = answers.first().context("nobody was answered")?.json();
    ensure!(first.pointer(part).is_some(), "no {part}: {first}");
    for answer in &answers {
        ensure!(answer.status == 200, "{}", answer.describe());
        ensure!(answer.json().pointer(part) == first.pointer(part), "{} is not {first}", answer.describe());
    }
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
        let request = asked(&shopper, "POST", &format!("/v1/{cart}:addItem"), &body)?;
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
    let mut names = vec![text(&owner.buy("EUR", &sku, 1, "tok_ok").await?, "name")?];
    let second = until(SOON, "a second order", async || {
        // The cart of the first may not be closed yet, and takes nothing more.
        let mut again = Shopper { http: owner.http.again(), user: owner.user.clone() };
        text(&again.buy("EUR", &sku, 1, "tok_ok").await?, "name").map(Some)
    });
    names.push(second.await?);
    let page = until(SOON, "both orders are listed", async || {
        let page = owner.http.again().get("/v1/orders?pageSize=1").await?.ok()?;
        Ok(page["nextPageToken"].as_str().map(str::to_owned))
    });
    let page = page.await?;
    let thief = Shopper::customer(&stoa).await?;
    let taken = asked(&thief, "GET", &format!("/v1/orders?pageSize=1&pageToken={page}"), &Value::Null)?;
    let answer = raw::exchange(stoa.address(), &taken).await?;
    ensure!([400, 404].contains(&answer.status), "{}", answer.describe());
    for query in ["", "?pageSize=1000", "?filter=customer%3D%22users%2F1%22", "?customer=users/1", "?parent=users/-"] {
        let request = asked(&thief, "GET", &format!("/v1/orders{query}"), &Value::Null)?;
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
    let request = asked(&shopper, "POST", "/v1/carts:getOrCreate", &json!({ "currencyCode": "EUR" }))?;
    let mut names = BTreeSet::new();
    for answer in a_hundred_times(&stoa, &request).await? {
        ensure!(answer.status == 200, "{}", answer.describe());
        names.extend(answer.json()["cart"]["name"].as_str().map(str::to_owned));
    }
    ensure!(names.len() == 1, "{names:?}");
    Ok(())
}

#[tokio::test]
async fn a_forged_or_old_webhook_is_refused_and_one_that_comes_twice_has_one_effect() -> Result<()> {
    let provider = Provider::start().await?;
    let stoa = Stoa::start(Setup::new().provider(&provider.url())).await?;
    let now = now()?;
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
    let genuine = webhook(WEBHOOK_SECRET, now, &event)?;
    let other = webhook(b"another secret", now, &event)?;
    for (what, signatures, body) in [
        ("none", vec![], event.clone()),
        ("empty", vec![String::new()], event.clone()),
        ("by somebody else", vec![other.clone()], event.clone()),
        ("over other bytes", vec![genuine.clone()], format!("{event} ")),
        ("old", vec![webhook(WEBHOOK_SECRET, now - 400, &event)?], event.clone()),
        ("from the future", vec![webhook(WEBHOOK_SECRET, now + 400, &event)?], event.clone()),
        ("with another time", vec![genuine.replace(&format!("t={now}"), &format!("t={}", now + 1))], event.clone()),
        ("two of them", vec![genuine.clone(), other], event.clone()),
        ("no message", vec![webhook(WEBHOOK_SECRET, now - 400, "[]")?], "[]".to_owned()),
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
    let answer = raw::exchange(stoa.address(), &asked(&operator, "POST", &path, &body)?).await?;
    ensure!(answer.status == 200, "{}", answer.describe());
    let read = stoa.client().get(&format!("/v1/products/{id}")).await?;
    ensure!(read.describe().contains(&url), "{}", read.describe());
    let asked = tokio::time::timeout(Duration::from_millis(500), elsewhere.accept()).await;
    ensure!(asked.is_err(), "somebody came for a picture: {asked:?} {}", read.describe());
    Ok(())
}
