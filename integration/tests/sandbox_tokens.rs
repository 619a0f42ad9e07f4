//! Sandbox tokens: each kind of payment ends as promised, and the provider's ledger agrees.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::ledger::Provider;
use integration::shopper::{Shopper, request_id, text};
use integration::{Setup, Stoa, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const SKU: &str = "TOKENS";

struct Shop {
    provider: Provider,
    stoa: Stoa,
}

impl Shop {
    async fn open() -> Result<Self> {
        let provider = Provider::start().await?;
        let stoa = Stoa::start(Setup::new().provider(&provider.url())).await?;
        provider.send_webhooks_to(stoa.address()).await?;
        Shopper::operator(&stoa).await?.stock(SKU, 20, 100).await?;
        Ok(Self { provider, stoa })
    }

    /// Buys one piece with the token and waits for one of the states.
    async fn buy(&self, token: &str, states: &[&str]) -> Result<(Shopper, Value)> {
        let mut guest = Shopper::guest(&self.stoa).await?;
        let order = guest.buy("EUR", SKU, 1, token).await?;
        let order = guest.await_order(&text(&order, "name")?, states, SOON).await?;
        Ok((guest, order))
    }

    /// The ledger holds exactly so many standing authorisations and no doubled one; the audit is clean.
    async fn judge(&self, authorized: usize) -> Result<()> {
        let ledger = self.provider.ledger().await?;
        ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
        let found = ledger.authorized().count();
        ensure!(found == authorized, "{found} authorisations stand, not {authorized}");
        until(SOON, "a clean audit", async || self.stoa.audit().await.map(Some)).await?;
        Ok(())
    }
}

#[tokio::test]
async fn tokens_that_approve_confirm_the_order_once() -> Result<()> {
    let shop = Shop::open().await?;
    let tokens = [
        "tok_ok",
        "tok_answer_lost",
        "tok_500_then_ok",
        "tok_slow",
        "tok_webhook_first",
        "tok_webhook_twice",
        "tok_webhook_late",
        "tok_webhook_never",
    ];
    for token in tokens {
        let settled = ["ORDER_STATE_CONFIRMED", "ORDER_STATE_REJECTED"];
        let (_, order) = shop.buy(token, &settled).await?;
        ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{token}: {order}");
    }
    shop.judge(tokens.len()).await
}

#[tokio::test]
async fn a_declined_payment_rejects_the_order_and_gives_the_stock_back() -> Result<()> {
    let shop = Shop::open().await?;
    let (_, order) = shop.buy("tok_declined", &["ORDER_STATE_REJECTED"]).await?;
    ensure!(order["rejectReason"] == "REJECT_REASON_DECLINED", "{order}");
    let stock = Shopper::operator(&shop.stoa).await?.availability(&[SKU]).await?;
    ensure!(stock["availabilities"][0]["available"] == "100", "{stock}");
    shop.judge(0).await
}

#[tokio::test]
async fn a_payment_that_requires_action_waits_for_the_customer() -> Result<()> {
    let shop = Shop::open().await?;
    for (approve, expected) in [(true, "ORDER_STATE_CONFIRMED"), (false, "ORDER_STATE_REJECTED")] {
        let waiting = ["ORDER_STATE_AWAITING_PAYMENT_ACTION"];
        let (mut guest, order) = shop.buy("tok_requires_action", &waiting).await?;
        ensure!(order["paymentAction"]["uri"].is_string(), "nowhere to go: {order}");
        let challenge = text(&order["paymentAction"], "challengeId")?;
        shop.provider.complete(&challenge, approve).await?;
        guest.await_order(&text(&order, "name")?, &[expected], SOON).await?;
    }
    shop.judge(1).await
}

#[tokio::test]
async fn a_challenge_nobody_finishes_expires_with_the_order() -> Result<()> {
    let shop = Shop::open().await?;
    let (_, order) = shop.buy("tok_requires_action", &["ORDER_STATE_REJECTED"]).await?;
    ensure!(order["rejectReason"] == "REJECT_REASON_ACTION_EXPIRED", "{order}");
    shop.judge(0).await
}

#[tokio::test]
async fn a_payment_without_any_answer_ends_in_a_rejection_and_no_charge() -> Result<()> {
    let shop = Shop::open().await?;
    let (_, order) = shop.buy("tok_never", &["ORDER_STATE_REJECTED"]).await?;
    ensure!(order["rejectReason"] == "REJECT_REASON_PAYMENT_TIMEOUT", "{order}");
    shop.judge(0).await
}

#[tokio::test]
async fn an_unknown_token_is_a_refusal_and_no_charge() -> Result<()> {
    let shop = Shop::open().await?;
    let mut guest = Shopper::guest(&shop.stoa).await?;
    let priced = guest.fill("EUR", SKU, 1).await?;
    let body = integration::shopper::order_body(&priced, "4111111111111111", &request_id());
    let answer = guest.http.post("/v1/orders", &body).await?;
    let refused = answer.status == 400 || answer.json()["state"] == "ORDER_STATE_REJECTED";
    ensure!(refused, "{}", answer.describe());
    shop.judge(0).await
}

#[tokio::test]
async fn a_forged_webhook_is_unauthenticated_and_has_no_effect() -> Result<()> {
    let shop = Shop::open().await?;
    let (mut guest, order) = shop.buy("tok_requires_action", &["ORDER_STATE_AWAITING_PAYMENT_ACTION"]).await?;
    let event = json!({ "id": "evt_1", "type": "authorization.authorized", "authorization": {} });
    for headers in [
        vec![],
        vec![("Stoa-Signature", "t=1,v1=00")],
        vec![("Webhook-Signature", "t=1,v1=00"), ("Sandbox-Signature", "t=1,v1=00")],
    ] {
        let answer = shop
            .stoa
            .client()
            .send_bytes(
                http::Method::POST,
                "/v1/webhooks/sandbox",
                Some("application/json"),
                &headers,
                event.to_string().into(),
            )
            .await?;
        ensure!(answer.status == 401, "{}", answer.describe());
    }
    let unknown = shop.stoa.client().post("/v1/webhooks/nobody", &event).await?;
    ensure!([401, 404].contains(&unknown.status), "{}", unknown.describe());
    let name = text(&order, "name")?;
    let still = guest.http.get(&format!("/v1/{name}")).await?.ok()?;
    ensure!(still["state"] != "ORDER_STATE_CONFIRMED", "a forged webhook paid: {still}");
    Ok(())
}
