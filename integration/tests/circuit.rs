//! Circuits: a service that fails is left alone and comes back by itself; what is known of the catalogue stands in for it, marked

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::fleet::{Copy, GATEWAY};
use integration::hops::trace_of;
use integration::http::{Answer, STALE};
use integration::shopper::{Shopper, text};
use integration::sold_out::{PATIENCE, SKU, SOON, buy};
use integration::{Fleet, command_line, skip, until};
use serde_json::Value;
use tokio::task::JoinSet;

/// What a process says when it leaves another one alone.
const OPEN: &str = "the circuit is open";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_service_that_fails_is_left_alone_and_taken_back() -> Result<()> {
    let Some(binary) = command_line::planted_binary() else {
        skip::not_proven("a service that fails a share of its calls: no binary built with the planted faults");
        return Ok(());
    };
    let mut fleet = Fleet::start(binary, None).await?;
    let trouble = left_alone_and_taken_back(&mut fleet).await;
    trouble.map_err(|error| error.context(fleet.complaints()))
}

async fn left_alone_and_taken_back(fleet: &mut Fleet) -> Result<()> {
    fleet.operator().await?.stock(SKU, 20, 100).await?;
    let order = buy(Shopper::guest_over(fleet.client()).await?).await?;
    let payment = format!("/v1/{}", text(&order, "payment")?);
    // Who hears each answer and does not insist on a better one.
    let mut operator = Shopper::operator_over(fleet.client()).await?;
    operator.http.get(&payment).await?.ok()?;

    let failing: Copy = ("payment", 0);
    fleet.kill(failing).await?;
    fleet.launch_with(failing, &["--planted-failures", "60"]).await?;
    // Each answer is the payment, or says that there is none now; from some call on, that it is not even asked for.
    let open = until(PATIENCE, "the circuit opens", async || {
        let answer = operator.http.again().get(&payment).await?;
        ensure!(answer.status == 200 || answer.status == 503, "{}", answer.describe());
        Ok((answer.reason() == "CIRCUIT_OPEN").then_some(answer))
    })
    .await?;
    ensure!(open.retry_after().is_some(), "no word of when to come again: {}", open.describe());
    ensure!(fleet.said_by((GATEWAY, 0), OPEN), "the gateway does not say so");
    let trace = format!("/v1/services/gateway/traces/{}", trace_of(&open.headers)?);
    let told = operator.http.get(&trace).await?.ok()?;
    let refused = told["spans"].as_array().into_iter().flatten().any(|span| stands(span).is_some());
    ensure!(refused, "the refused call does not tell where the breaker stands: {told}");

    // Whoever pays meanwhile waits and is served later: nothing is lost, nothing is charged twice.
    let mut buyers = JoinSet::new();
    for _ in 0..12 {
        let client = fleet.client().insisting(PATIENCE);
        buyers.spawn(async move { buy(Shopper::guest_over(client).await?).await });
    }
    until(PATIENCE, "ordering leaves payment alone too", async || {
        Ok(fleet.said_by(("ordering", 0), OPEN).then_some(()))
    })
    .await?;
    fleet.kill(failing).await?;
    fleet.launch(failing).await?;
    until(SOON, "the circuit closes", async || {
        Ok((operator.http.again().get(&payment).await?.status == 200).then_some(()))
    })
    .await?;
    for _ in 0..20 {
        operator.http.get(&payment).await?.ok()?;
    }
    let mut orders = 1;
    while let Some(bought) = buyers.join_next().await {
        let order = bought??;
        ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
        orders += 1;
    }
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    ensure!(ledger.authorized().count() == orders, "{} authorisations stand", ledger.authorized().count());
    until(SOON, "a clean audit", async || fleet.audit().await.map(Some)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_of_the_catalogue_stands_in_for_it_and_says_so() -> Result<()> {
    let mut fleet = Fleet::start(command_line::binary()?, None).await?;
    let mut keeper = fleet.operator().await?;
    for sku in [SKU, "UNSEEN"] {
        keeper.stock(sku, 20, 10).await?;
    }
    let mut anybody = fleet.client();
    let list = anybody.get("/v1/products?pageSize=3").await?.ok()?;
    let product = format!("/v1/{}", text(&list["products"][0], "name")?);
    let unseen = format!("/v1/{}", text(&list["products"][1], "name")?);
    let page = format!("/v1/storefront/{}?currencyCode=EUR", text(&list["products"][0], "name")?);
    let screen = format!("/v1/mobile/{}?currencyCode=EUR", text(&list["products"][0], "name")?);
    let live = anybody.get(&product).await?;
    ensure!(live.status == 200 && !live.headers.contains_key(STALE), "{}", live.describe());
    anybody.get(&page).await?.ok()?;
    // Who hears each answer and does not insist on a better one.
    let mut operator = Shopper::operator_over(fleet.client()).await?;
    operator.http.get(&product).await?.ok()?;

    let catalog: Copy = ("catalog", 0);
    fleet.kill(catalog).await?;
    let stale = anybody.get(&product).await?;
    ensure!(stale.status == 200 && stale.body == live.body, "{}", stale.describe());
    ensure!(since(&stale).is_some_and(|time| time.ends_with('Z')), "not marked: {:?}", stale.headers);
    let listed = anybody.get("/v1/products?pageSize=3").await?;
    ensure!(listed.json() == list && since(&listed).is_some(), "{}", listed.describe());
    let page = anybody.get(&page).await?.ok()?;
    ensure!(page["product"]["mark"]["status"] == "PART_STATUS_STALE", "{page}");
    let screen = anybody.get(&screen).await?.ok()?;
    let marks = screen["notLive"].as_array().context("nothing is marked")?;
    ensure!(marks.iter().any(|it| it["service"] == "catalog" && it["status"] == "PART_STATUS_STALE"), "{screen}");
    ensure!(screen["title"] == page["product"]["product"]["title"], "{screen}");
    // What nobody has asked for is not known, and operators are never shown what may be over.
    let unknown = anybody.get(&unseen).await?;
    ensure!(unknown.status == 503, "{}", unknown.describe());
    let refused = operator.http.get(&product).await?;
    ensure!(refused.status == 503, "{}", refused.describe());

    fleet.launch(catalog).await?;
    until(Duration::from_secs(30), "the catalogue's own answer", async || {
        let answer = fleet.client().get(&product).await?;
        Ok((answer.status == 200 && since(&answer).is_none()).then_some(()))
    })
    .await
}

/// Where the breaker stood that refused the call of this span.
fn stands(span: &Value) -> Option<&str> {
    let attributes = span["attributes"].as_array()?;
    let state = attributes.iter().find(|it| it["key"] == "stoa.circuit.state")?["value"].as_str()?;
    (span["failed"] == true && ["open", "half-open"].contains(&state)).then_some(state)
}

fn since(answer: &Answer) -> Option<&str> {
    answer.headers.get(STALE)?.to_str().ok()
}
