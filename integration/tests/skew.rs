//! Skew: with clocks half a minute ahead and half a minute behind everything is still right; further apart is refused, and says so

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::acts::{Act, Stage};
use integration::fleet::{Plan, SERVICES};
use integration::shopper::{Shopper, order_body, request_id, text};
use integration::{Fleet, command_line, skip, until};
use serde_json::{Value, json};

/// Whose clock is ahead of the gateway's and the provider's, or behind in the second fleet. Who decides together is on two sides:
/// ordering, and the stock it holds and the money it takes; identity, and whoever believes its tokens stands in the middle.
const AHEAD: [&str; 4] = ["identity", "ordering", "cart", "notification"];
/// The others.
const BEHIND: [&str; 5] = ["catalog", "inventory", "payment", "shipping", "orderview"];
/// By how many seconds a clock is off.
const OFF: i64 = 30;
/// More than any token allows.
const FAR: i64 = 600;

/// Times of a shop in a hurry, longer than clocks are apart.
const WINDOWS: [&str; 22] = [
    "--window-hold",
    "100s",
    "--window-action",
    "20s",
    "--window-in-doubt",
    "10s",
    "--psp-timeout",
    "2s",
    "--psp-late-window",
    "3s",
    "--retry-base",
    "50ms",
    "--retry-cap",
    "1s",
    "--sweep",
    "500ms",
    "--drain",
    "5s",
    "--key-notice",
    "5s",
    "--access-token",
    "150s",
];

/// How long an act waits for one thing.
const PATIENCE: Duration = Duration::from_secs(120);
/// A hold, an action that nobody takes and the distance of two clocks, or the life of a token with it; and as much again.
const RUN_OUT: Duration = Duration::from_secs(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ordering_ahead_of_stock_and_money_all_is_right() -> Result<()> {
    let Some(fleet) = fleet(OFF).await? else { return Ok(()) };
    all_is_right(fleet).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ordering_behind_stock_and_money_all_is_right_and_a_clock_that_is_far_off_is_named() -> Result<()> {
    let Some(fleet) = fleet(-OFF).await? else { return Ok(()) };
    let mut fleet = all_is_right(fleet).await?;
    for off in [FAR, -FAR] {
        let cart = ("cart", 0);
        fleet.leave(cart).await?;
        fleet.change_clock("cart", off);
        fleet.launch(cart).await?;
        let mut guest = Shopper::guest_over(fleet.client()).await?;
        let answer = until(PATIENCE, "a refusal that names the clocks", async || {
            let mut asking = guest.http.again();
            let answer = asking.post("/v1/carts:getOrCreate", &json!({ "currencyCode": "EUR" })).await?;
            // Who was just away, or fails too often, is not asked each time.
            let is_asked = !["UNAVAILABLE", "CIRCUIT_OPEN"].contains(&answer.reason().as_str());
            Ok((answer.status != 503 || is_asked).then_some(answer))
        });
        let answer = answer.await.with_context(|| format!("{off} s"))?;
        // Nobody is told that their own token is not good.
        ensure!(answer.status == 503 && answer.reason() == "CLOCKS_APART", "{off} s off: {}", answer.describe());
        ensure!(answer.describe().contains("clocks of cart"), "{}", answer.describe());
        ensure!(fleet.said_by(cart, "token refused"), "nothing in the log of cart");
        // The rest of the shop goes on.
        guest.http.get("/v1/products?pageSize=1").await?.ok()?;
    }
    Ok(())
}

/// Ten processes of which nine have a clock that is off, or nothing if there is no binary that can have one.
async fn fleet(off: i64) -> Result<Option<Fleet>> {
    let Some(binary) = command_line::planted_binary() else {
        skip::not_proven("clocks that are off: no binary with planted bugs");
        return Ok(None);
    };
    let clocks: Vec<_> = AHEAD.map(|name| (name, off)).into_iter().chain(BEHIND.map(|name| (name, -off))).collect();
    let plan = Plan { windows: &WINDOWS, clocks: &clocks, ..Plan::default() };
    Ok(Some(Fleet::start_as(binary, &plan).await?))
}

/// People come and go, sales of every kind are made, and stock that nobody pays for comes back.
async fn all_is_right(mut fleet: Fleet) -> Result<Fleet> {
    let left = ended_session(&fleet).await?;
    for act in [Act::Sale, Act::Refusals, Act::Provider, Act::Doubts] {
        let stage = Stage { client: &fleet.client(), provider: &fleet.provider, patience: PATIENCE };
        act.play(&stage).await?;
    }
    hold_runs_out(&mut fleet).await?;
    // Without a store of marks that processes share, the door lets it in until it runs out, by the door's own clock.
    until(RUN_OUT, "the end of a token", async || {
        let mut http = fleet.client();
        http.set_token(left.as_str());
        Ok((http.get("/v1/orders").await?.status == 401).then_some(()))
    })
    .await?;
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    until(PATIENCE, "a clean audit", async || fleet.audit().await.map(Some)).await?;
    // Nor was a call between processes refused and made again.
    for service in SERVICES {
        ensure!(!fleet.said_by((service, 0), "token refused"), "{}", fleet.tail((service, 0), 40));
    }
    Ok(fleet)
}

/// Somebody signs in, goes on with another token, and ends the session: no token is to be had for it any more. The last one.
async fn ended_session(fleet: &Fleet) -> Result<String> {
    let mut http = fleet.client();
    let (email, password) = (format!("{}@example.com", uuid::Uuid::new_v4().simple()), "a long enough password");
    let user = json!({ "email": email, "password": password, "requestId": request_id() });
    http.post("/v1/users", &user).await?.ok()?;
    let session = http.post("/v1/sessions:signIn", &json!({ "email": email, "password": password })).await?.ok()?;
    let refresh = |session: &Value| Ok::<_, anyhow::Error>(json!({ "refreshToken": text(session, "refreshToken")? }));
    let session = http.post("/v1/sessions:refresh", &refresh(&session)?).await?.ok()?;
    let token = text(&session, "accessToken")?;
    http.set_token(token.as_str());
    // Good from the moment it was made, whosever clock says when that is.
    http.get("/v1/orders").await?.ok()?;
    let revoke = json!({ "requestId": request_id() });
    http.post(&format!("/v1/{}:revoke", text(&session, "session")?), &revoke).await?.ok()?;
    let mut http = http.anonymous();
    let again = http.post("/v1/sessions:refresh", &refresh(&session)?).await?;
    ensure!(again.status == 401, "a session that was ended goes on: {}", again.describe());
    Ok(token)
}

/// Ordering dies while a buyer is asked for more than money: the stock comes back by itself, and not before a hold is over.
async fn hold_runs_out(fleet: &mut Fleet) -> Result<()> {
    let sku = "SKEW-HOLD";
    fleet.operator().await?.stock(sku, 20, 3).await?;
    let available = async |fleet: &Fleet| {
        let found = Shopper::guest_over(fleet.client()).await?.availability(&[sku]).await?;
        text(&found["availabilities"][0], "available")
    };
    let mut guest = Shopper::guest_over(fleet.client()).await?;
    let priced = guest.fill("EUR", sku, 2).await?;
    let mut body = order_body(&priced, "tok_requires_action", &request_id());
    body["waitTimeout"] = json!("0.5s");
    let name = text(&guest.http.post("/v1/orders", &body).await?.ok()?, "name")?;
    guest.await_order(&name, &["ORDER_STATE_AWAITING_PAYMENT_ACTION"], PATIENCE).await?;
    let ordering = ("ordering", 0);
    fleet.kill(ordering).await?;
    let held = available(fleet).await?;
    ensure!(held == "1", "of 3 pieces 2 are held, and {held} are there");
    until(RUN_OUT, "the stock comes back", async || Ok((available(fleet).await? == "3").then_some(()))).await?;
    fleet.launch(ordering).await?;
    // The buyer's own token has run out meanwhile.
    fleet.operator().await?.await_order(&name, &["ORDER_STATE_REJECTED"], PATIENCE).await?;
    let back = available(fleet).await?;
    ensure!(back == "3", "nobody bought any of 3 pieces, and {back} are there");
    Ok(())
}
