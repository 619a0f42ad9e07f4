//! A sale that is sold out whatever happens to a fleet meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::await_until::until;
use crate::fleet::{Copy, Fleet};
use crate::shopper::{Shopper, order_body, request_id, text};

/// How long a buyer goes on asking; kills and restarts included.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How soon what nobody disturbs is done.
pub const SOON: Duration = Duration::from_secs(30);
/// What is sold.
pub const SKU: &str = "FLEET-SALE";

const PIECES: usize = 20;
/// Who comes one after the other while processes die.
pub const BUYERS: usize = 60;
/// How often each process of a small fleet is killed.
const ROUNDS: usize = 2;

/// Every process of the fleet is killed in the middle of the sale, and comes back.
pub async fn kills(fleet: Fleet) -> Result<()> {
    let victims = fleet.running();
    let rounds = if victims.len() > 10 { 1 } else { ROUNDS };
    let victims: Vec<Copy> = std::iter::repeat_n(victims, rounds).flatten().collect();
    sold_out(fleet, async |fleet, begun| {
        for (turn, victim) in victims.iter().enumerate() {
            // By progress, not by the clock, so that each death meets buyers in the middle of something.
            begun.reach(turn * BUYERS / (victims.len() + 2)).await?;
            fleet.kill(*victim).await?;
            fleet.launch(*victim).await?;
        }
        Ok(())
    })
    .await
}

/// How many buyers have begun.
#[derive(Clone, Debug, Default)]
pub struct Begun(Arc<AtomicUsize>);

impl Begun {
    /// One more.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many that are.
    pub fn so_far(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns when more than so many have.
    pub async fn reach(&self, enough: usize) -> Result<()> {
        until(PATIENCE, "the sale goes on", async || Ok((self.0.load(Ordering::Relaxed) > enough).then_some(()))).await
    }
}

/// Sixty buyers for twenty pieces, whatever happens to the fleet meanwhile: nothing is lost or doubled, and the audit
/// finds nothing.
pub async fn sold_out(mut fleet: Fleet, trouble: impl AsyncFnOnce(&mut Fleet, &Begun) -> Result<()>) -> Result<()> {
    let sale = sale(&mut fleet, trouble).await;
    sale.with_context(|| fleet.complaints())
}

async fn sale(fleet: &mut Fleet, trouble: impl AsyncFnOnce(&mut Fleet, &Begun) -> Result<()>) -> Result<()> {
    fleet.operator().await?.stock(SKU, 20, PIECES as i64).await?;
    let begun = Begun::default();
    let mut buyers = JoinSet::new();
    let places = Arc::new(tokio::sync::Semaphore::new(4));
    for _ in 0..BUYERS {
        let (client, begun, places) = (fleet.client().insisting(PATIENCE), begun.clone(), Arc::clone(&places));
        buyers.spawn(async move {
            let _place = places.acquire_owned().await?;
            begun.0.fetch_add(1, Ordering::Relaxed);
            buy(Shopper::guest_over(client).await?).await
        });
    }
    trouble(fleet, &begun).await?;
    let mut sold = 0;
    let mut states = vec![];
    while let Some(order) = buyers.join_next().await {
        let order = order??;
        match order["state"].as_str() {
            Some("ORDER_STATE_CONFIRMED") => sold += 1,
            Some("ORDER_STATE_REJECTED") if order["rejectReason"] == "REJECT_REASON_OUT_OF_STOCK" => {}
            _ => bail!("neither sold nor out of stock: {order}"),
        }
        states.push(order);
    }
    ensure!(sold == PIECES, "{sold} of {PIECES} pieces were sold");
    let ledger = fleet.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    ensure!(ledger.authorized().count() == PIECES, "{} authorisations stand", ledger.authorized().count());
    let mut operator = fleet.operator().await?;
    let left = operator.availability(&[SKU]).await?;
    ensure!(left["availabilities"][0]["available"].as_str().unwrap_or("0") == "0", "{left}");
    // Each paid order gets its parcel, whoever was dead when it was to be made.
    for order in states.iter().filter(|order| order["state"] == "ORDER_STATE_CONFIRMED") {
        let name = text(order, "name")?;
        until(SOON, "a parcel", async || {
            let mut looking = Shopper { http: operator.http.again(), user: String::new() };
            Ok(looking.shipments(&name).await?.into_iter().next())
        })
        .await
        .with_context(|| name.clone())?;
    }
    // What totals cannot show, every log, table, answer and inbox must: nothing was lost, doubled or left half-way.
    until(SOON, "a clean audit", async || fleet.audit().await.map(Some)).await?;
    Ok(())
}

/// One buyer's way from the first look to an order that is settled.
pub async fn buy(mut shopper: Shopper) -> Result<Value> {
    let mut priced = shopper.fill("EUR", SKU, 1).await?;
    let request = request_id();
    let order = loop {
        let answer = shopper.http.post("/v1/orders", &order_body(&priced, "tok_ok", &request)).await?;
        if answer.status == 200 {
            break answer.json();
        }
        // The price is told again if the quote ran out while a process was away.
        ensure!(answer.reason() == "QUOTE_CHANGED", "{}", answer.describe());
        let cart = priced.cart.clone();
        priced = shopper.price(&cart).await?;
    };
    if order["state"] != "ORDER_STATE_PENDING" {
        return Ok(order);
    }
    let name = text(&order, "name")?;
    shopper.await_order(&name, &["ORDER_STATE_CONFIRMED", "ORDER_STATE_REJECTED"], PATIENCE).await
}
