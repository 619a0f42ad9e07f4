//! Small plays that together use everything the shop can do: the crash matrix kills the server in the
//! middle of each, at every point where it commits or calls.
//!
//! Every act insists: it repeats what was not answered, as a real client would, and holds what must hold
//! whatever happened to the server in between. Each starts from its own article, user and cart, so acts
//! may run on one server one after the other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::http::Client;
use crate::ledger::Provider;
use crate::server::OPERATOR;
use crate::shopper::{Shopper, order_body, request_id, text};
use crate::until;

/// How long an act waits for one thing where nothing else is said: a restart, a saga, a doubt that is cleared.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Returns when tokens are signed with the key of this id: the one before it is retired now.
async fn signs(stage: &Stage<'_>, kid: &str) -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        let guest = stage.client().post("/v1/sessions:guest", &json!({})).await?.ok()?;
        let token = text(&guest, "accessToken")?;
        let header = token.split('.').next().unwrap_or_default();
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        if header["kid"] == kid {
            return Ok(());
        }
        ensure!(start.elapsed() < stage.patience, "signed with another key than {kid}: {header}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An act by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Accounts, sessions, keys.
    People,
    /// Products created, changed, imported; stock received.
    Goods,
    /// A cart in all its moods.
    Cart,
    /// From guest to a delivered, mailed, partly returned order.
    Sale,
    /// Orders that come to nothing: no stock, no money, changed minds.
    Refusals,
    /// A provider that misbehaves, and its webhooks.
    Provider,
    /// Payments nobody knows the end of, and the operators who look after them.
    Doubts,
    /// Stock that is not held long enough.
    Overdue,
    /// What the operators of the services do.
    Operations,
    /// The first start on an empty folder: the sample catalogue, the operator.
    FirstStart,
}

impl Act {
    /// All of them; where several reach a point, the first one is played.
    pub const ALL: [Act; 10] = [
        Act::People,
        Act::Goods,
        Act::Cart,
        Act::Sale,
        Act::Refusals,
        Act::Provider,
        Act::Doubts,
        Act::Overdue,
        Act::Operations,
        Act::FirstStart,
    ];

    /// The times a server has in this act: seconds where a shop has minutes.
    pub fn windows(self) -> Vec<String> {
        let hold = if self == Act::Overdue { "1s" } else { "60s" };
        let windows = [
            ("--window-hold", hold),
            // Longer than a server that was killed takes to come back.
            ("--window-action", "20s"),
            ("--window-in-doubt", "10s"),
            ("--psp-timeout", "2s"),
            ("--psp-late-window", "3s"),
            ("--key-notice", "300ms"),
            ("--retry-base", "50ms"),
            ("--retry-cap", "1s"),
            ("--sweep", "100ms"),
            ("--drain", "5s"),
        ];
        windows.into_iter().flat_map(|(flag, time)| [flag.to_owned(), time.to_owned()]).collect()
    }

    /// Plays the act against a server, over connections like the one given.
    pub async fn play(self, stage: &Stage<'_>) -> Result<()> {
        let played = match self {
            Act::People => people(stage).await,
            Act::Goods => goods(stage).await,
            Act::Cart => cart(stage).await,
            Act::Sale => sale(stage).await,
            Act::Refusals => refusals(stage).await,
            Act::Provider => provider(stage).await,
            Act::Doubts => doubts(stage).await,
            Act::Overdue => overdue(stage).await,
            Act::Operations => operations(stage).await,
            Act::FirstStart => first_start(stage).await,
        };
        played.with_context(|| format!("{self:?}"))
    }
}

/// Where an act is played.
pub struct Stage<'a> {
    /// A connection of which each actor takes a copy.
    pub client: &'a Client,
    /// The payment provider.
    pub provider: &'a Provider,
    /// How long an act waits for one thing; [`PATIENCE`] where one process is killed.
    pub patience: Duration,
}

impl Stage<'_> {
    fn client(&self) -> Client {
        self.client.again().insisting(self.patience)
    }

    async fn operator(&self) -> Result<Shopper> {
        Shopper::sign_in(self.client(), OPERATOR.0, OPERATOR.1).await
    }

    async fn guest(&self) -> Result<Shopper> {
        Shopper::guest_over(self.client()).await
    }

    /// A new article with so many pieces.
    async fn article(&self, pieces: i64) -> Result<String> {
        let sku = format!("ACT-{}", uuid::Uuid::new_v4().simple());
        self.operator().await?.stock(&sku, 20, pieces).await?;
        Ok(sku)
    }
}

async fn people(stage: &Stage<'_>) -> Result<()> {
    let mut customer = Shopper::customer_over(stage.client()).await?;
    let sessions = format!("/v1/{}/sessions", customer.user);
    let list = customer.http.get(&sessions).await?.ok()?;
    let session = text(&list["sessions"][0], "name")?;

    let guest = stage.client().post("/v1/sessions:guest", &json!({})).await?.ok()?;
    let refresh = json!({ "refreshToken": text(&guest, "refreshToken")? });
    let renewed = stage.client().post("/v1/sessions:refresh", &refresh).await?;
    // A lost answer may be served to the same client within seconds; later the token counts as stolen.
    ensure!([200, 401].contains(&renewed.status), "{}", renewed.describe());

    let revoke = json!({ "requestId": request_id() });
    let revoked = customer.http.post(&format!("/v1/{session}:revoke"), &revoke).await?;
    // Who asks again after a lost answer does so with a token of the session that has ended.
    ensure!([200, 401].contains(&revoked.status), "{}", revoked.describe());
    let refused = customer.http.get(&sessions).await?;
    ensure!(refused.status == 401, "a session that was ended is let in: {}", refused.describe());

    let mut operator = stage.operator().await?;
    let users = json!({
        "users": [{ "externalId": uuid::Uuid::new_v4().to_string(), "displayName": "Import" }],
        "requestId": request_id(),
    });
    let imported = operator.http.post("/v1/users:import", &users).await?.ok()?;
    let user = text(&imported["users"][0], "name")?;
    let id = json!({ "requestId": request_id() });
    let rotated = operator.http.post("/v1/signingKeys:rotate", &id).await?.ok()?;
    signs(stage, &text(&rotated["signingKey"], "kid")?).await?;

    // Somebody with a cart and an order is forgotten, everywhere.
    let mut leaver = Shopper::customer_over(stage.client()).await?;
    let sku = stage.article(1).await?;
    let order = leaver.buy("EUR", &sku, 1, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
    // Their parcel is there by then: otherwise it would be luck whether it is ever made.
    let bought = text(&order, "name")?;
    until(stage.patience, "a parcel", async || {
        let mut looking = Shopper { http: operator.http.again(), user: String::new() };
        Ok(looking.shipments(&bought).await?.into_iter().next())
    })
    .await?;
    for name in [user, leaver.user.clone()] {
        let id = json!({ "requestId": request_id() });
        operator.http.post(&format!("/v1/{name}:erase"), &id).await?.ok()?;
    }
    let order = format!("/v1/{}", text(&order, "name")?);
    let start = std::time::Instant::now();
    loop {
        let order = operator.http.get(&order).await?.ok()?;
        ensure!(order["total"].is_object(), "the amounts are gone: {order}");
        if order["shippingAddress"]["street"].as_str().unwrap_or_default().is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < stage.patience, "still readable: {order}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn goods(stage: &Stage<'_>) -> Result<()> {
    let sku = stage.article(5).await?;
    let mut operator = stage.operator().await?;
    let found = operator.http.get(&format!("/v1/products:batchGetVariants?skus={sku}")).await?.ok()?;
    let product = text(&found["variants"][0], "product")?;
    let change = json!({ "description": "now with words" });
    let path = format!("/v1/{product}?requestId={}", request_id());
    let changed = operator.http.patch(&path, &change).await?.ok()?;
    ensure!(changed["description"] == "now with words", "{changed}");

    let line = |number: u32| {
        json!({
            "title": format!("Imported {number}"),
            "variants": [{
                "sku": format!("{sku}-{number}"),
                "prices": [{ "currencyCode": "EUR", "units": "7" }],
            }],
        })
        .to_string()
    };
    let lines = format!("{}\n{}\n", line(1), line(2));
    let imported = operator
        .http
        .send_bytes(Method::POST, "/v1/products:import", Some("application/x-ndjson"), &[], Bytes::from(lines))
        .await?
        .ok()?;
    ensure!(imported["receivedCount"] == "2", "{imported}");

    let warehouse = operator.warehouse().await?;
    let body = json!({
        "adjustments": [{ "sku": sku, "delta": "3" }, { "sku": format!("{sku}-1"), "delta": "4" }],
        "requestId": request_id(),
    });
    operator.http.post(&format!("/v1/{warehouse}/stockItems:batchAdjust"), &body).await?.ok()?;
    let stock = operator.availability(&[&sku]).await?;
    ensure!(stock["availabilities"][0]["available"] == "8", "{stock}");
    Ok(())
}

async fn cart(stage: &Stage<'_>) -> Result<()> {
    let sku = stage.article(100).await?;
    let mut guest = stage.guest().await?;
    let cart = text(&guest.cart("EUR").await?, "name")?;
    guest.add(&cart, &sku, 2).await?;
    let items = json!({
        "items": [{ "sku": sku, "quantity": 1, "separateLine": true }, { "sku": sku, "quantity": 3 }],
        "requestId": request_id(),
    });
    let added = guest.http.post(&format!("/v1/{cart}:batchAddItems"), &items).await?.ok()?;
    let lines = added["cart"]["items"].as_array().context("no items")?.clone();
    ensure!(lines.len() == 2, "{added}");
    let (first, second) = (text(&lines[0], "name")?, text(&lines[1], "name")?);
    let change = json!({ "quantity": 9 });
    let path = format!("/v1/{first}?requestId={}", request_id());
    guest.http.patch(&path, &change).await?.ok()?;
    let path = format!("/v1/{second}?requestId={}", request_id());
    guest.http.delete(&path).await?.ok()?;
    guest.price(&cart).await?;

    let mut operator = stage.operator().await?;
    let customer = Shopper::customer_over(stage.client()).await?;
    let theirs = json!({ "currencyCode": "EUR", "customer": customer.user });
    let theirs = operator.http.post("/v1/carts:getOrCreate", &theirs).await?.ok()?;
    let theirs = text(&theirs["cart"], "name")?;
    let cart = operator.add(&theirs, &sku, 1).await?;
    let line = text(&cart["items"][0], "name")?;
    let quote = json!({
        "lines": [{ "item": line, "unitPrice": { "currencyCode": "EUR", "units": "3" } }],
        "reason": "negotiated",
        "requestId": request_id(),
    });
    let quote = operator.http.post(&format!("/v1/{theirs}:issueQuote"), &quote).await?.ok()?;
    ensure!(quote["quote"]["total"]["units"] == "3", "{quote}");
    Ok(())
}

async fn sale(stage: &Stage<'_>) -> Result<()> {
    let sku = stage.article(10).await?;
    let mut customer = Shopper::customer_over(stage.client()).await?;
    let order = customer.buy("EUR", &sku, 3, "tok_ok").await?;
    let name = text(&order, "name")?;
    customer.await_order(&name, &["ORDER_STATE_CONFIRMED"], stage.patience).await?;
    let mut operator = stage.operator().await?;
    operator.ship(&name, stage.patience).await?;
    let shipped = customer.await_order(&name, &["ORDER_STATE_SHIPPED"], stage.patience).await?;
    for shipment in operator.shipments(&name).await? {
        let path = format!("/v1/{}:recordTracking", text(&shipment, "name")?);
        let body = json!({ "status": "TRACKING_STATUS_DELIVERED", "requestId": request_id() });
        operator.http.post(&path, &body).await?.ok()?;
    }
    customer.await_order(&name, &["ORDER_STATE_DELIVERED", "ORDER_STATE_CLOSED"], stage.patience).await?;

    let line = text(&shipped["lines"][0], "line")?;
    let back = json!({
        "lines": [{ "line": line, "quantity": 1 }],
        "restock": true,
        "reason": "too many",
        "requestId": request_id(),
    });
    operator.http.post(&format!("/v1/{name}:returnLines"), &back).await?.ok()?;
    let start = std::time::Instant::now();
    loop {
        let order = customer.http.get(&format!("/v1/{name}")).await?.ok()?;
        if order["returns"][0]["state"] == "ORDER_RETURN_STATE_DONE" {
            break;
        }
        ensure!(start.elapsed() < stage.patience, "the return is not done: {order}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Money that goes back for no parcel at all.
    let payment = text(&shipped, "payment")?;
    let refund = json!({
        "amount": { "currencyCode": "EUR", "units": "1" },
        "reason": "goodwill",
        "requestId": request_id(),
    });
    operator.http.post(&format!("/v1/{payment}:refund"), &refund).await?.ok()?;
    let stock = operator.availability(&[&sku]).await?;
    ensure!(stock["availabilities"][0]["available"] == "8", "10 less 3 plus 1: {stock}");
    let start = std::time::Instant::now();
    loop {
        // Who composes stories may not have heard of the order yet.
        let story = operator.http.get(&format!("/v1/{name}:explain")).await?;
        if story.status == 200 && story.json()["missing"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        ensure!(start.elapsed() < stage.patience, "the story has holes: {}", story.describe());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn refusals(stage: &Stage<'_>) -> Result<()> {
    let sku = stage.article(2).await?;
    let rejected = ["ORDER_STATE_REJECTED"];
    let mut greedy = stage.guest().await?;
    let order = greedy.buy("EUR", &sku, 3, "tok_ok").await?;
    let order = greedy.await_order(&text(&order, "name")?, &rejected, stage.patience).await?;
    ensure!(order["rejectReason"] == "REJECT_REASON_OUT_OF_STOCK", "{order}");

    let mut broke = stage.guest().await?;
    let order = broke.buy("EUR", &sku, 1, "tok_declined").await?;
    let order = broke.await_order(&text(&order, "name")?, &rejected, stage.patience).await?;
    ensure!(order["rejectReason"] == "REJECT_REASON_DECLINED", "{order}");

    let mut fickle = stage.guest().await?;
    let order = fickle.buy("EUR", &sku, 1, "tok_ok").await?;
    let name = text(&order, "name")?;
    fickle.await_order(&name, &["ORDER_STATE_CONFIRMED"], stage.patience).await?;
    let cancel = json!({ "reason": "changed my mind", "requestId": request_id() });
    fickle.http.post(&format!("/v1/{name}:cancel"), &cancel).await?.ok()?;
    fickle.await_order(&name, &["ORDER_STATE_CANCELLED"], stage.patience).await?;

    let mut twice = stage.guest().await?;
    let priced = twice.fill("EUR", &sku, 1).await?;
    let body = order_body(&priced, "tok_ok", &request_id());
    let first = twice.http.post("/v1/orders", &body).await?.ok()?;
    let second = twice.http.post("/v1/orders", &body).await?.ok()?;
    ensure!(first["name"] == second["name"], "one request, two orders: {second}");

    let stock = stage.operator().await?.availability(&[&sku]).await?;
    ensure!(stock["availabilities"][0]["available"] == "1", "2 less the last one: {stock}");
    Ok(())
}

async fn provider(stage: &Stage<'_>) -> Result<()> {
    let sku = stage.article(20).await?;
    let settled = ["ORDER_STATE_CONFIRMED", "ORDER_STATE_REJECTED"];
    for token in ["tok_answer_lost", "tok_500_then_ok", "tok_webhook_first", "tok_webhook_twice", "tok_webhook_late"] {
        let mut guest = stage.guest().await?;
        let order = guest.buy("EUR", &sku, 1, token).await?;
        let order = guest.await_order(&text(&order, "name")?, &settled, stage.patience).await?;
        ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{token}: {order}");
    }
    for approve in [true, false] {
        let mut guest = stage.guest().await?;
        let order = guest.buy("EUR", &sku, 1, "tok_requires_action").await?;
        let name = text(&order, "name")?;
        let waiting = ["ORDER_STATE_AWAITING_PAYMENT_ACTION"];
        let order = guest.await_order(&name, &waiting, stage.patience).await?;
        let challenge = text(&order["paymentAction"], "challengeId")?;
        stage.provider.complete(&challenge, approve).await?;
        let order = guest.await_order(&name, &settled, stage.patience).await?;
        let confirmed = order["state"] == "ORDER_STATE_CONFIRMED";
        ensure!(confirmed == approve, "approved: {approve}, but {order}");
    }
    let ledger = stage.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    Ok(())
}

/// An order that is waited for no longer than asked, once it is in that state.
async fn pending(stage: &Stage<'_>, guest: &mut Shopper, sku: &str, token: &str, state: &str) -> Result<Value> {
    let priced = guest.fill("EUR", sku, 1).await?;
    let mut body = order_body(&priced, token, &request_id());
    body["waitTimeout"] = json!("0.5s");
    let order = guest.http.post("/v1/orders", &body).await?.ok()?;
    guest.await_order(&text(&order, "name")?, &[state], stage.patience).await
}

async fn doubts(stage: &Stage<'_>) -> Result<()> {
    let sku = stage.article(10).await?;
    let mut operator = stage.operator().await?;
    let rejected = ["ORDER_STATE_REJECTED"];
    let asks = ("tok_requires_action", "ORDER_STATE_AWAITING_PAYMENT_ACTION");

    // Asked for more than money, a buyer goes away.
    let mut guest = stage.guest().await?;
    let order = pending(stage, &mut guest, &sku, asks.0, asks.1).await?;
    let (name, payment) = (text(&order, "name")?, text(&order, "payment")?);
    let id = json!({ "requestId": request_id() });
    operator.http.post(&format!("/v1/{payment}:reconcile"), &id).await?.ok()?;
    let cancel = json!({ "reason": "too much ado", "requestId": request_id() });
    guest.http.post(&format!("/v1/{name}:cancel"), &cancel).await?.ok()?;
    guest.await_order(&name, &["ORDER_STATE_CANCELLED"], stage.patience).await?;

    // An operator looks after an order that waits, and then ends it.
    let mut guest = stage.guest().await?;
    let order = pending(stage, &mut guest, &sku, asks.0, asks.1).await?;
    let name = text(&order, "name")?;
    let saga = format!("/v1/services/ordering/sagas/{}", name.trim_start_matches("orders/"));
    let id = json!({ "requestId": request_id() });
    operator.http.post(&format!("{saga}:retryStep"), &id).await?.ok()?;
    let undo = json!({ "reason": "suspicious", "requestId": request_id() });
    // Asked again after a crash, it may be undone already.
    operator.http.post(&format!("{saga}:forceCompensate"), &undo).await?;
    guest.await_order(&name, &rejected, stage.patience).await?;

    // The provider never answers; the operator asks there and says what is known.
    let mut guest = stage.guest().await?;
    let order = pending(stage, &mut guest, &sku, "tok_never", "ORDER_STATE_PENDING").await?;
    let (name, payment) = (text(&order, "name")?, text(&order, "payment")?);
    let start = std::time::Instant::now();
    loop {
        let order = guest.http.get(&format!("/v1/{name}")).await?.ok()?;
        if order["state"] == rejected[0] {
            break;
        }
        ensure!(start.elapsed() < stage.patience, "still in doubt: {order}");
        // A payment that has not begun has no attempts.
        let attempts = operator.http.get(&format!("/v1/{payment}/attempts")).await?.json();
        if attempts["attempts"][0]["state"] == "ATTEMPT_STATE_IN_DOUBT" {
            let attempt = text(&attempts["attempts"][0], "name")?;
            let answer = json!({
                "resolution": "ATTEMPT_RESOLUTION_NOT_FOUND",
                "note": "the provider has nothing",
                "requestId": request_id(),
            });
            // Refused if it is known by now; the order tells.
            operator.http.post(&format!("/v1/{attempt}:resolve"), &answer).await?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let stock = operator.availability(&[&sku]).await?;
    ensure!(stock["availabilities"][0]["available"] == "10", "nothing was sold: {stock}");
    Ok(())
}

async fn overdue(stage: &Stage<'_>) -> Result<()> {
    let sku = stage.article(2).await?;
    let settled = ["ORDER_STATE_CONFIRMED", "ORDER_STATE_REJECTED"];
    let mut guest = stage.guest().await?;
    let order = guest.buy("EUR", &sku, 1, "tok_slow").await?;
    let order = guest.await_order(&text(&order, "name")?, &settled, stage.patience).await?;
    // The provider's answer came after the hold was over, unless a crash asked it again.
    let left = if order["state"] == "ORDER_STATE_CONFIRMED" {
        "1"
    } else {
        ensure!(order["rejectReason"] == "REJECT_REASON_STOCK_GONE", "{order}");
        "2"
    };
    let stock = stage.operator().await?.availability(&[&sku]).await?;
    ensure!(stock["availabilities"][0]["available"] == left, "{left} are left: {stock}");
    Ok(())
}

async fn operations(stage: &Stage<'_>) -> Result<()> {
    let mut operator = stage.operator().await?;
    for service in SERVICES {
        let parent = format!("/v1/services/{service}");
        let list = operator.http.get(&format!("{parent}/projections")).await?.ok()?;
        let projections = list["projections"].as_array().cloned().unwrap_or_default();
        for projection in projections {
            let name = text(&projection, "name")?;
            let id = json!({ "requestId": request_id() });
            let rebuilt = operator.http.post(&format!("/v1/{name}:rebuild"), &id).await?.ok()?;
            let differences = rebuilt["differenceCount"].as_str().unwrap_or("0");
            ensure!(differences == "0", "{name} was not what its log says: {rebuilt}");
        }
        let id = json!({ "requestId": request_id() });
        operator.http.post(&format!("{parent}/deadLetters:redrive"), &id).await?.ok()?;
        let sagas: Value = operator.http.get(&format!("{parent}/sagas?pageSize=1")).await?.ok()?;
        if let Some(name) = sagas["sagas"][0]["name"].as_str() {
            let dry = json!({ "requestId": request_id(), "validateOnly": true });
            operator.http.post(&format!("/v1/{name}:retryStep"), &dry).await?;
        }
    }
    let mail = json!({
        "dedupeKey": uuid::Uuid::new_v4().to_string(),
        "recipient": "ada@example.com",
        "template": "TEMPLATE_ORDER_CONFIRMED",
        "requestId": request_id(),
    });
    operator.http.post("/v1/notifications:send", &mail).await?;
    Ok(())
}

async fn first_start(stage: &Stage<'_>) -> Result<()> {
    let list = stage.client().get("/v1/products?pageSize=100").await?.ok()?;
    let products = list["products"].as_array().context("no products")?;
    ensure!(products.len() >= 40, "only {} products", products.len());
    let sku = text(&products[0]["variants"][0], "sku")?;
    let stock = stage.operator().await?.availability(&[&sku]).await?;
    ensure!(stock["availabilities"][0]["available"].is_string(), "no stock: {stock}");
    Ok(())
}

/// The nine services.
pub const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "orderview", "payment", "shipping", "notification"];
