//! Flash sale: many buyers, few pieces, everybody at the same moment, and kills of the server in between.
//!
//! Every buyer is a guest of their own with a cart and a connection of their own. What must come out does not
//! depend on luck: exactly as many orders as there are pieces are confirmed and paid, all others are told
//! that there is none left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

use crate::http::Client;
use crate::ledger::Provider;
use crate::shopper::{Priced, Shopper, order_body, request_id, text};
use crate::{Setup, Stoa, limits, machine, until};

const SKU: &str = "FLASH-SALE";

/// What is sold, and to how many.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) sku: String,
    pub(crate) buyers: usize,
    pub(crate) pieces: usize,
}

/// How long a buyer goes on asking; kills and restarts included.
const PATIENCE: Duration = Duration::from_secs(600);

/// An access token lives for five minutes: one older than this is renewed at the door.
const TOKEN_AGE: Duration = Duration::from_secs(100);

/// Buyers who get ready at the same time; the sale itself is everybody at once.
const GETTING_READY: usize = 48;

/// How big a sale is.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who wants one.
    pub buyers: usize,
    /// How many there are.
    pub pieces: usize,
    /// How often the server is killed while buyers wait.
    pub kills: usize,
    /// How the server is started, beside its provider. Its window of holds must be longer than the sale: who holds a piece
    /// and does not come to pay in that time loses it to somebody else, and is told another reason.
    pub setup: Setup,
}

/// What a sale was like, apart from its result, which is always the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sale {
    /// Until everybody had a session, a cart and a price.
    pub preparing: Duration,
    /// From everybody's first word to the last settled order.
    pub time: Duration,
    /// The most requests in flight at one moment, by the server's own count, over all its lives.
    pub in_flight: u64,
    /// CPU time of the server during the sale, over all its lives.
    pub server_cpu: Duration,
    /// CPU time of this process, which is all buyers, during the sale.
    pub buyers_cpu: Duration,
}

/// A buyer at the door: cart filled and priced, connection open.
pub(crate) struct Buyer {
    shopper: Shopper,
    priced: Priced,
    refresh_token: String,
    since: Instant,
}

impl Buyer {
    /// A guest with a cart.
    async fn arrive(mut client: Client, sku: &str) -> Result<Self> {
        let session = client.post("/v1/sessions:guest", &json!({})).await?.ok()?;
        let refresh_token = text(&session, "refreshToken")?;
        let mut shopper = Shopper::with_session(client, &session)?;
        let priced = shopper.fill("EUR", sku, 1).await?;
        Ok(Self { shopper, priced, refresh_token, since: Instant::now() })
    }

    async fn renew(&mut self) -> Result<()> {
        let body = json!({ "refreshToken": self.refresh_token });
        let session = self.shopper.http.post("/v1/sessions:refresh", &body).await?.ok()?;
        self.shopper.http.set_token(text(&session, "accessToken")?);
        self.refresh_token = text(&session, "refreshToken")?;
        self.since = Instant::now();
        Ok(())
    }

    /// Orders, however often the server dies or a token runs out, always under the same request id, and looks until the
    /// order is settled.
    async fn order(&mut self) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        let body = order_body(&self.priced, "tok_ok", &request_id());
        let mut pause = Duration::from_millis(50);
        let mut answer = self.shopper.http.post("/v1/orders", &body).await?;
        loop {
            if answer.status == 401 {
                self.renew().await?;
            } else {
                let order = answer.ok()?;
                let state = order["state"].as_str().unwrap_or_default();
                if matches!(state, "ORDER_STATE_CONFIRMED" | "ORDER_STATE_REJECTED") {
                    return Ok(order);
                }
                ensure!(Instant::now() < deadline, "not settled within {PATIENCE:?}: {order}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            // The same words again: the answer is the order as it is by now.
            answer = self.shopper.http.post("/v1/orders", &body).await?;
        }
    }
}

/// Holds a sale; an error if any total is not what it must be.
pub async fn hold(plan: &Plan) -> Result<Sale> {
    let files = limits::raise_open_files();
    // One connection each here and at the server, which inherits the limit, and room for its files.
    ensure!(files >= plan.buyers as u64 + 1000, "only {files} files may be open, of {} buyers", plan.buyers);
    let provider = Provider::start().await?;
    let mut stoa = Stoa::start(plan.setup.clone().provider(&provider.url())).await?;
    Shopper::operator(&stoa).await?.stock(SKU, 10, plan.pieces as i64).await?;
    let begun = Instant::now();
    let offer = Offer { sku: SKU.to_owned(), buyers: plan.buyers, pieces: plan.pieces };
    let buyers = get_ready(&offer, |_| stoa.client()).await?;

    let mut sale = Sale { preparing: begun.elapsed(), ..Sale::default() };
    let mut before = server_cpu(&stoa)?;
    let buyers_before = machine::cpu_time(std::process::id())?;
    let finished = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let orders = open(buyers, Arc::clone(&finished));
    for kill in 0..plan.kills {
        // By progress, not by the clock: each kill meets buyers who wait for their answer.
        let enough = kill * plan.buyers / (plan.kills + 1);
        until(PATIENCE, "the sale goes on", async || Ok((finished.load(Ordering::Relaxed) > enough).then_some(())))
            .await?;
        sale.note(&stoa, before).await?;
        ensure!(finished.load(Ordering::Relaxed) < plan.buyers, "kill {kill} came after the sale");
        stoa.kill().await?;
        stoa.restart().await?;
        before = Duration::ZERO;
    }
    let orders = orders.join_all().await;
    sale.time = begun.elapsed();
    sale.note(&stoa, before).await?;
    sale.buyers_cpu = machine::cpu_time(std::process::id())?.saturating_sub(buyers_before);
    let orders = orders.into_iter().collect::<Result<Vec<_>>>()?;
    judge(&offer, &orders)?;
    paid(&provider, plan.pieces).await?;
    nothing_left(&mut Shopper::operator(&stoa).await?, &offer).await?;
    until(Duration::from_secs(120), "the audit is clean", async || stoa.audit().await.map(Some)).await?;
    Ok(sale)
}

impl Sale {
    /// Adds what this life of the server has counted.
    async fn note(&mut self, stoa: &Stoa, before: Duration) -> Result<()> {
        self.server_cpu += server_cpu(stoa)?.saturating_sub(before);
        self.in_flight = self.in_flight.max(in_flight_peak(stoa).await?);
        Ok(())
    }
}

fn server_cpu(stoa: &Stoa) -> Result<Duration> {
    machine::cpu_time(stoa.pid().context("no server")?)
}

/// Everybody with a priced cart, each over the connection for its number.
pub(crate) async fn get_ready(offer: &Offer, client: impl Fn(usize) -> Client) -> Result<Vec<Buyer>> {
    let gate = Arc::new(Semaphore::new(GETTING_READY));
    let mut preparing = JoinSet::new();
    for number in 0..offer.buyers {
        let (gate, client, sku) = (Arc::clone(&gate), client(number).insisting(PATIENCE), offer.sku.clone());
        preparing.spawn(async move {
            let _place = gate.acquire_owned().await?;
            Buyer::arrive(client, &sku).await
        });
    }
    let mut buyers = preparing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let mut renewing = JoinSet::new();
    for mut buyer in buyers.extract_if(.., |buyer| buyer.since.elapsed() > TOKEN_AGE).collect::<Vec<_>>() {
        let gate = Arc::clone(&gate);
        renewing.spawn(async move {
            let _place = gate.acquire_owned().await?;
            buyer.renew().await?;
            anyhow::Ok(buyer)
        });
    }
    for buyer in renewing.join_all().await {
        buyers.push(buyer?);
    }
    Ok(buyers)
}

/// Everybody orders at the same moment, and asks again with the same request id until there is an answer.
pub(crate) fn open(buyers: Vec<Buyer>, finished: Arc<AtomicUsize>) -> JoinSet<Result<Value>> {
    let start = Arc::new(Barrier::new(buyers.len()));
    let mut orders = JoinSet::new();
    for mut buyer in buyers {
        let (start, finished) = (Arc::clone(&start), Arc::clone(&finished));
        orders.spawn(async move {
            start.wait().await;
            let order = buyer.order().await;
            finished.fetch_add(1, Ordering::Relaxed);
            order
        });
    }
    orders
}

/// Exactly as many orders as there are pieces are confirmed, all others are told that there is none left.
pub(crate) fn judge(offer: &Offer, orders: &[Value]) -> Result<()> {
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for order in orders {
        let outcome = match order["rejectReason"].as_str() {
            Some(reason) if order["state"] == "ORDER_STATE_REJECTED" => reason.trim_start_matches("REJECT_REASON_"),
            _ => order["state"].as_str().unwrap_or("no state"),
        };
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
    let wanted = [("ORDER_STATE_CONFIRMED", offer.pieces), ("OUT_OF_STOCK", offer.buyers - offer.pieces)];
    let wanted = wanted.map(|(outcome, count)| (outcome.to_owned(), count));
    ensure!(outcomes == BTreeMap::from(wanted), "of {} buyers: {outcomes:?}", offer.buyers);
    Ok(())
}

/// So many authorisations stand with the provider, and no payment has two.
pub(crate) async fn paid(provider: &Provider, pieces: usize) -> Result<()> {
    let ledger = provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    let authorized = ledger.authorized().count();
    ensure!(authorized == pieces, "{authorized} authorisations stand at the provider, for {pieces} pieces");
    Ok(())
}

/// Neither stock nor holds are left.
pub(crate) async fn nothing_left(operator: &mut Shopper, offer: &Offer) -> Result<()> {
    let stock = operator.availability(&[&offer.sku]).await?;
    let left = &stock["availabilities"][0];
    ensure!(left["available"].as_str().unwrap_or("0") == "0", "stock left: {left}");
    let held = operator.http.get("/v1/reservations?state=RESERVATION_STATE_HELD").await?.ok()?;
    if held["reservations"].as_array().is_some_and(|list| !list.is_empty()) {
        bail!("holds left: {held}");
    }
    Ok(())
}

/// The most requests the server saw in flight at one moment.
async fn in_flight_peak(stoa: &Stoa) -> Result<u64> {
    let metrics = Client::new(stoa.address()).insisting(PATIENCE).get("/metrics").await?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("stoa_requests_in_flight_peak "))
        .with_context(|| format!("no peak in {text}"))?;
    Ok(value.trim().parse::<f64>()? as u64)
}
