//! Bad input: each mistake gets the right status and a clear reason, and nothing is stored.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use integration::http::Answer;
use integration::shopper::{Priced, Shopper, order_body, request_id, text};
use integration::{Setup, Stoa, raw};
use serde_json::{Value, json};

/// A shopper with one article in the cart, and what the cart looked like before the mistake.
struct Scene {
    stoa: Stoa,
    shopper: Shopper,
    cart: String,
    sku: String,
    before: Bytes,
}

impl Scene {
    async fn set() -> Result<Self> {
        let stoa = Stoa::start(Setup::new()).await?;
        let mut shopper = Shopper::guest(&stoa).await?;
        let sku = shopper.something().await?;
        let cart = text(&shopper.cart("EUR").await?, "name")?;
        shopper.add(&cart, &sku, 1).await?;
        let before = shopper.http.get(&format!("/v1/{cart}")).await?.body;
        Ok(Self { stoa, shopper, cart, sku, before })
    }

    /// A body of AddItem that would be good, with some fields changed.
    fn item(&self, changes: Value) -> Value {
        let mut body = json!({ "sku": self.sku, "quantity": 1, "requestId": request_id() });
        for (name, value) in changes.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    }

    async fn add(&mut self, changes: Value) -> Result<Answer> {
        let body = self.item(changes);
        self.shopper.http.post(&format!("/v1/{}:addItem", self.cart), &body).await
    }

    async fn add_bytes(&mut self, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer> {
        let path = format!("/v1/{}:addItem", self.cart);
        let kind = Some("application/json");
        self.shopper.http.send_bytes(Method::POST, &path, kind, headers, body.into()).await
    }

    /// The cart reads byte for byte as before, and no order came of it.
    async fn nothing_was_stored(&mut self) -> Result<()> {
        let after = self.shopper.http.again().get(&format!("/v1/{}", self.cart)).await?.body;
        ensure!(after == self.before, "stored: {}", String::from_utf8_lossy(&after));
        let orders = self.shopper.http.again().get("/v1/orders").await?.ok()?;
        ensure!(orders["orders"].as_array().is_none_or(Vec::is_empty), "an order: {orders}");
        Ok(())
    }
}

/// A refusal in the one shape there is: the status, the code of `google.rpc.Status`, a message.
fn refused(answer: &Answer, status: u16) -> Result<()> {
    ensure!(answer.status == status, "expected {status}, got {}", answer.describe());
    let json = answer.json();
    ensure!(json["code"].is_u64(), "no code: {}", answer.describe());
    ensure!(json["message"].as_str().is_some_and(|text| !text.is_empty()), "no message: {json}");
    Ok(())
}

fn names(answer: &Answer, field: &str) -> Result<()> {
    let violations = answer.violations();
    ensure!(violations.iter().any(|found| found.ends_with(field)), "{field} is not named: {}", answer.describe());
    Ok(())
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name() -> Result<()> {
    let mut scene = Scene::set().await?;
    let answer = scene.add(json!({ "colour": "red" })).await?;
    refused(&answer, 400)?;
    ensure!(answer.describe().contains("colour"), "{}", answer.describe());
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_wrong_type_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    for wrong in [
        json!({ "quantity": "many" }),
        json!({ "quantity": 1.5 }),
        json!({ "quantity": [1] }),
        json!({ "quantity": true }),
        json!({ "sku": 7 }),
        json!({ "sku": { "name": "x" } }),
        json!({ "requestId": "not a uuid" }),
    ] {
        let answer = scene.add(wrong.clone()).await?;
        refused(&answer, 400).with_context(|| wrong.to_string())?;
    }
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_quantity_that_is_no_quantity_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    for quantity in [json!(0), json!(-1), json!(2_147_483_648_u64), json!("9223372036854775808"), json!(1e300)] {
        let answer = scene.add(json!({ "quantity": quantity })).await?;
        refused(&answer, 400).with_context(|| quantity.to_string())?;
    }
    names(&scene.add(json!({ "quantity": -1 })).await?, "quantity")?;
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn an_unknown_sku_is_not_found() -> Result<()> {
    let mut scene = Scene::set().await?;
    let answer = scene.add(json!({ "sku": "NO-SUCH-THING" })).await?;
    refused(&answer, 404)?;
    ensure!(answer.describe().contains("NO-SUCH-THING"), "{}", answer.describe());
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_currency_nothing_is_sold_in_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    for currency in ["XXX", "eur", "EURO"] {
        let body = json!({ "currencyCode": currency });
        let answer = scene.shopper.http.post("/v1/carts:getOrCreate", &body).await?;
        refused(&answer, 400).with_context(|| currency.to_owned())?;
    }
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_price_or_owner_set_by_the_client_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    let cheap = json!({ "currencyCode": "EUR", "nanos": 10_000_000 });
    for name in ["unitPrice", "price", "owner", "customerId", "total", "state"] {
        let answer = scene.add(json!({ name: cheap })).await?;
        refused(&answer, 400).with_context(|| name.to_owned())?;
    }
    // A field that exists, for operators: somebody else's cart.
    let other = json!({ "currencyCode": "EUR", "customer": "users/somebody-else" });
    let answer = scene.shopper.http.post("/v1/carts:getOrCreate", &other).await?;
    refused(&answer, 403)?;

    let priced = scene.shopper.price(&scene.cart).await?;
    let issue = json!({
        "lines": [{ "item": format!("{}/items/1", scene.cart), "unitPrice": cheap }],
        "reason": "a discount for me",
        "requestId": request_id(),
    });
    let answer = scene.shopper.http.post(&format!("/v1/{}:issueQuote", scene.cart), &issue).await?;
    refused(&answer, 403)?;
    for (name, value) in [
        ("total", cheap.clone()),
        ("state", json!("ORDER_STATE_CONFIRMED")),
        ("customer", json!("users/somebody-else")),
    ] {
        let mut body = order_body(&priced, "tok_ok", &request_id());
        body[name] = value;
        let answer = scene.shopper.http.post("/v1/orders", &body).await?;
        refused(&answer, 400).with_context(|| name.to_owned())?;
    }
    let forged = Priced { token: tampered(&priced.token), ..priced };
    let answer = scene.shopper.http.post("/v1/orders", &order_body(&forged, "tok_ok", &request_id())).await?;
    refused(&answer, 400)?;
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_missing_forged_or_doubled_token_is_unauthenticated() -> Result<()> {
    let mut scene = Scene::set().await?;
    let good = scene.shopper.http.token().context("no token")?.to_owned();
    let path = format!("/v1/{}", scene.cart);
    let (header, rest) = good.split_once('.').context("no JWT")?;
    let (payload, signature) = rest.split_once('.').context("no JWT")?;
    let claims: Value = serde_json::from_slice(&BASE64.decode(payload)?)?;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims.clone();
        change(&mut claims);
        format!("{header}.{}.{signature}", BASE64.encode(claims.to_string()))
    };
    let none = BASE64.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    let hmac = BASE64.encode(r#"{"alg":"HS256","typ":"at+jwt"}"#);
    let far = 4_000_000_000_u64;
    let forged = [
        String::new(),
        "not-a-token".to_owned(),
        format!("{header}.{payload}."),
        format!("{none}.{payload}."),
        format!("{hmac}.{payload}.{signature}"),
        tampered(&good),
        with(&|claims| claims["exp"] = json!(far)),
        with(&|claims| claims["role"] = json!("operator")),
        with(&|claims| claims["sub"] = json!("users/somebody-else")),
        format!("{header}.{payload}.{signature}{}", "A".repeat(1 << 13)),
    ];
    for token in &forged {
        let mut client = scene.stoa.client();
        client.set_token(token.clone());
        let answer = client.get(&path).await?;
        refused(&answer, 401).with_context(|| token.chars().take(200).collect::<String>())?;
    }
    let mut nobody = scene.stoa.client();
    refused(&nobody.get(&path).await?, 401)?;
    let bearer = format!("Bearer {good}");
    let doubled = raw::request("GET", &path, &[("Authorization", &bearer), ("Authorization", &bearer)], b"");
    refused(&raw::exchange(scene.stoa.address(), &doubled).await?, 401)?;
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn an_expired_token_is_unauthenticated() -> Result<()> {
    let stoa = Stoa::start(Setup::new().flags(integration::server::SHORT_TOKENS)).await?;
    let mut guest = Shopper::guest(&stoa).await?;
    integration::until(std::time::Duration::from_secs(30), "the token expires", async || {
        Ok((guest.http.again().get("/v1/orders").await?.status == 401).then_some(()))
    })
    .await?;
    refused(&guest.http.get("/v1/orders").await?, 401)
}

#[tokio::test]
async fn guessing_passwords_is_slowed_by_account_and_by_source_whatever_the_guesser_says() -> Result<()> {
    // Cheap hashes: what is proven is the count.
    let stoa = Stoa::start(Setup::new().flags(["--password-memory-kib", "8", "--password-passes", "1"])).await?;
    let mut guesser = stoa.client();
    let mut guess = async |email: String, address: String| {
        let body = Bytes::from(json!({ "email": email, "password": "a wrong password" }).to_string());
        let headers = [("Stoa-Client-Address", address.as_str()), ("X-Forwarded-For", address.as_str())];
        let kind = Some("application/json");
        guesser.send_bytes(Method::POST, "/v1/sessions:signIn", kind, &headers, body).await
    };
    for accounts in [false, true] {
        let mut slowed = None;
        for turn in 0..200 {
            let email = if accounts { format!("{turn}@example.com") } else { "operator@stoa.local".to_owned() };
            let answer = guess(email, format!("203.0.113.{turn}")).await?;
            if answer.status != 401 {
                slowed = Some(answer);
                break;
            }
        }
        let slowed = slowed.context("200 guesses were looked at")?;
        refused(&slowed, 429)?;
        ensure!(slowed.reason() == "TOO_MANY_ATTEMPTS", "{}", slowed.describe());
        ensure!(slowed.headers.contains_key("retry-after"), "not told how long: {}", slowed.describe());
    }
    Ok(())
}

#[tokio::test]
async fn somebody_elses_cart_or_order_reads_as_one_that_does_not_exist() -> Result<()> {
    let mut scene = Scene::set().await?;
    let order = {
        let priced = scene.shopper.price(&scene.cart).await?;
        text(&scene.shopper.order(&priced, "tok_ok").await?, "name")?
    };
    let mut other = Shopper::customer(&scene.stoa).await?;
    for name in [scene.cart.clone(), order.clone()] {
        let (collection, _) = name.split_once('/').context("no name")?;
        // As long as the real one, so that even the length tells nothing.
        let missing = format!("{collection}/{}", uuid::Uuid::now_v7());
        let verbs = match collection {
            "carts" => vec![(Method::GET, String::new()), (Method::POST, ":price".to_owned())],
            _ => vec![
                (Method::GET, String::new()),
                (Method::GET, "/events".to_owned()),
                (Method::GET, "/view".to_owned()),
                (Method::POST, ":cancel".to_owned()),
            ],
        };
        for (verb, suffix) in verbs {
            let body = match suffix.as_str() {
                ":price" => Some(json!({})),
                ":cancel" => Some(json!({ "requestId": request_id() })),
                _ => None,
            };
            let theirs = format!("/v1/{name}{suffix}");
            let nobodys = format!("/v1/{missing}{suffix}");
            let theirs = other.http.send(verb.clone(), &theirs, body.as_ref()).await?;
            let nobodys = other.http.send(verb, &nobodys, body.as_ref()).await?;
            refused(&theirs, 404).with_context(|| format!("{name}{suffix}"))?;
            let same = String::from_utf8_lossy(&theirs.body).replace(&name, &missing);
            ensure!(same.as_bytes() == nobodys.body, "{same} is not {}", nobodys.describe());
        }
    }
    let list = other.http.get("/v1/orders").await?;
    ensure!(!list.describe().contains(&order), "listed: {}", list.describe());
    Ok(())
}

#[tokio::test]
async fn a_request_id_with_another_body_is_refused_and_with_the_same_body_repeated() -> Result<()> {
    let mut scene = Scene::set().await?;
    let path = format!("/v1/{}:addItem", scene.cart);
    let body = scene.item(json!({}));
    let first = scene.shopper.http.post(&path, &body).await?;
    let again = scene.shopper.http.post(&path, &body).await?;
    ensure!(first.status == 200 && first.body == again.body, "{}", again.describe());

    let mut other = body.clone();
    other["quantity"] = json!(2);
    let answer = scene.shopper.http.post(&path, &other).await?;
    refused(&answer, 400)?;
    ensure!(answer.reason() == "REQUEST_ID_REUSED", "{}", answer.describe());
    let cart = scene.shopper.http.get(&format!("/v1/{}", scene.cart)).await?.ok()?;
    ensure!(cart["items"][0]["quantity"] == 2, "one before, one added: {cart}");

    let priced = scene.shopper.price(&scene.cart).await?;
    let order = order_body(&priced, "tok_ok", &request_id());
    let placed = scene.shopper.http.post("/v1/orders", &order).await?.ok()?;
    let mut other = order.clone();
    other["paymentMethod"]["token"] = json!("tok_slow");
    let answer = scene.shopper.http.post("/v1/orders", &other).await?;
    refused(&answer, 400)?;
    ensure!(answer.reason() == "REQUEST_ID_REUSED", "{}", answer.describe());
    let repeated = scene.shopper.http.post("/v1/orders", &order).await?.ok()?;
    ensure!(repeated["name"] == placed["name"], "a second order: {repeated}");
    Ok(())
}

#[tokio::test]
async fn a_stale_etag_is_aborted() -> Result<()> {
    let mut scene = Scene::set().await?;
    let stale: Value = serde_json::from_slice(&scene.before)?;
    let stale = text(&stale, "etag")?;
    let sku = scene.sku.clone();
    scene.shopper.add(&scene.cart, &sku, 1).await?;
    scene.before = scene.shopper.http.get(&format!("/v1/{}", scene.cart)).await?.body;
    let answer = scene.add(json!({ "etag": stale })).await?;
    refused(&answer, 409)?;
    ensure!(answer.json()["code"] == 10, "not ABORTED: {}", answer.describe());
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_quote_that_no_longer_fits_the_cart_is_answered_with_the_new_one() -> Result<()> {
    let mut scene = Scene::set().await?;
    let old = scene.shopper.price(&scene.cart).await?;
    let sku = scene.sku.clone();
    let cart = scene.shopper.add(&scene.cart, &sku, 2).await?;
    scene.before = scene.shopper.http.get(&format!("/v1/{}", scene.cart)).await?.body;
    let mixed = Priced { etag: text(&cart, "etag")?, ..old };
    quote_changed(&mut scene, &mixed).await
}

#[tokio::test]
async fn an_expired_quote_is_answered_with_the_new_one() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.stoa.kill().await?;
    let short = scene.stoa.setup().clone().flags(integration::server::SHORT_QUOTES);
    scene.stoa.change(short);
    scene.stoa.restart().await?;
    let old = scene.shopper.price(&scene.cart).await?;
    // Time itself is what is waited for: longer than any quote holds.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    quote_changed(&mut scene, &old).await
}

/// The order is refused, and the quote that comes with the refusal is good for an order.
async fn quote_changed(scene: &mut Scene, old: &Priced) -> Result<()> {
    let body = order_body(old, "tok_ok", &request_id());
    let answer = scene.shopper.http.post("/v1/orders", &body).await?;
    refused(&answer, 400)?;
    ensure!(answer.json()["code"] == 9, "not FAILED_PRECONDITION: {}", answer.describe());
    ensure!(answer.reason() == "QUOTE_CHANGED", "{}", answer.describe());
    let quote = answer.detail("stoa.cart.v1.Quote").context("no new quote")?;
    scene.nothing_was_stored().await?;
    let order = scene.shopper.order(&Priced::read(&quote)?, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
    Ok(())
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    let body = scene.item(json!({ "sku": "A".repeat(10 << 20) })).to_string();
    let path = format!("/v1/{}:addItem", scene.cart);
    let bearer = scene.shopper.bearer()?;
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let request = raw::request("POST", &path, &headers, body.as_bytes());
    let answer = raw::exchange(scene.stoa.address(), &request).await?;
    ensure!([400, 413, 429].contains(&answer.status), "{}", answer.describe());
    refused(&answer, answer.status)?;
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn json_ten_thousand_deep_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let depth = 10_000;
        let deep = format!(r#"{{"sku":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
        let answer = scene.add_bytes(&[], deep.into_bytes()).await?;
        refused(&answer, 400)?;
    }
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn bytes_that_are_no_json_are_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    let good = scene.item(json!({})).to_string();
    let mut latin = good.clone().into_bytes();
    let at = latin.windows(5).position(|window| window == b"\"sku\"").context("no sku")? + 7;
    latin[at] = 0xff;
    for (what, bytes) in [
        ("invalid UTF-8", latin),
        ("half a document", good.as_bytes()[..good.len() / 2].to_vec()),
        ("a trailing comma", good.replace('}', ",}").into_bytes()),
        ("a comment", format!("/* hello */{good}").into_bytes()),
        ("a key twice", good.replacen('{', r#"{"quantity":1,"#, 1).into_bytes()),
        ("two documents", format!("{good}{good}").into_bytes()),
        ("nothing", Vec::new()),
    ] {
        let answer = scene.add_bytes(&[], bytes).await?;
        refused(&answer, 400).with_context(|| what.to_owned())?;
    }
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_truncated_or_swollen_gzip_body_is_refused() -> Result<()> {
    let mut scene = Scene::set().await?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(scene.item(json!({})).to_string().as_bytes())?;
    let whole = packed.finish()?;
    let half = whole[..whole.len() / 2].to_vec();
    refused(&scene.add_bytes(&[("Content-Encoding", "gzip")], half).await?, 400)?;

    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b' '; 64 << 20])?;
    let answer = scene.add_bytes(&[("Content-Encoding", "gzip")], bomb.finish()?).await?;
    ensure!([400, 413, 429].contains(&answer.status), "{}", answer.describe());
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() -> Result<()> {
    let mut scene = Scene::set().await?;
    for (verb, path, right) in [
        (Method::DELETE, "/v1/orders", "GET"),
        (Method::PUT, "/v1/products", "POST"),
        (Method::GET, "/v1/sessions:guest", "POST"),
        (Method::POST, "/.well-known/jwks.json", "GET"),
    ] {
        let answer = scene.shopper.http.send(verb.clone(), path, None).await?;
        refused(&answer, 405).with_context(|| format!("{verb} {path}"))?;
        let allow = answer.headers.get("allow").context("no Allow")?.to_str()?.to_owned();
        ensure!(allow.split(',').any(|method| method.trim() == right), "{verb} {path}: Allow {allow}");
        ensure!(!allow.contains(verb.as_str()), "{path} allows {verb} after all: {allow}");
    }
    scene.nothing_was_stored().await
}

#[tokio::test]
async fn an_unknown_path_is_not_found() -> Result<()> {
    let mut scene = Scene::set().await?;
    for path in [
        "/v1/nothing",
        "/v2/products",
        "/",
        "//v1/products",
        "/V1/products",
        "/v1/products/",
        "/v1/products;x",
        "/v1/products:nothing",
        "/v1/%2e%2e/products",
        "/v1/products/a/b",
    ] {
        let answer = scene.shopper.http.get(path).await?;
        ensure!([400, 404].contains(&answer.status), "{path}: {}", answer.describe());
        refused(&answer, answer.status).with_context(|| path.to_owned())?;
    }
    refused(&scene.shopper.http.get("/v1/nothing").await?, 404)?;
    scene.nothing_was_stored().await
}

/// The text with its last but one character replaced: the last may carry bits that nobody reads.
fn tampered(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = bytes.len().saturating_sub(2);
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8_lossy(&bytes).into_owned()
}
