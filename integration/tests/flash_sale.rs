//! Flash sale: 2,000 buyers, 100 pieces: exactly 100 are sold and paid, over kills of the server too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::ledger::Provider;
use integration::shopper::{Priced, Shopper, order_body, request_id, text};
use integration::{Setup, Stoa, limits, until};
use serde_json::Value;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

const BUYERS: usize = 2000;
const PIECES: usize = 100;
const SKU: &str = "FLASH-SALE";

/// How long a buyer goes on asking; kills and restarts included.
const PATIENCE: Duration = Duration::from_secs(150);

/// Buyers who get ready at the same time; the sale itself is everybody at once.
const GETTING_READY: usize = 48;

/// A buyer at the door: cart filled and priced, connection open.
struct Buyer {
    shopper: Shopper,
    priced: Priced,
}

struct Sale {
    provider: Provider,
    stoa: Stoa,
    buyers: Vec<Buyer>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_buyers_get_exactly_the_hundred_pieces_there_are() -> Result<()> {
    let mut sale = prepare().await?;
    let (sold, finished) = (std::mem::take(&mut sale.buyers), Arc::new(AtomicUsize::new(0)));
    let orders = open(sold, finished).join_all().await;
    judge(&mut sale, orders).await?;
    let peak = in_flight_peak(&sale.stoa).await?;
    ensure!(peak >= 1000, "only {peak} requests were in flight at once, by the server's own count");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_kills_during_the_sale_change_no_total() -> Result<()> {
    let mut sale = prepare().await?;
    let (buyers, finished) = (std::mem::take(&mut sale.buyers), Arc::new(AtomicUsize::new(0)));
    let orders = open(buyers, Arc::clone(&finished));
    for kill in 0..5 {
        // By progress, not by the clock: each kill meets buyers who wait for their answer.
        let enough = kill * BUYERS / 6;
        until(PATIENCE, "the sale goes on", async || Ok((finished.load(Ordering::Relaxed) > enough).then_some(())))
            .await?;
        ensure!(finished.load(Ordering::Relaxed) < BUYERS, "kill {kill} came after the sale");
        sale.stoa.kill().await?;
        sale.stoa.restart().await?;
    }
    let orders = orders.join_all().await;
    judge(&mut sale, orders).await
}

/// A provider of its own, a server, one article with 100 pieces, everybody with a priced cart.
async fn prepare() -> Result<Sale> {
    let files = limits::raise_open_files();
    ensure!(files >= 3 * BUYERS as u64, "only {files} files may be open");
    let provider = Provider::start().await?;
    let stoa = Stoa::start(Setup::new().provider(&provider.url())).await?;
    Shopper::operator(&stoa).await?.stock(SKU, 10, PIECES as i64).await?;

    let gate = Arc::new(Semaphore::new(GETTING_READY));
    let mut preparing = JoinSet::new();
    for _ in 0..BUYERS {
        let (gate, client) = (Arc::clone(&gate), stoa.client().insisting(PATIENCE));
        preparing.spawn(async move {
            let _place = gate.acquire_owned().await?;
            let mut shopper = Shopper::guest_over(client).await?;
            let priced = shopper.fill("EUR", SKU, 1).await?;
            anyhow::Ok(Buyer { shopper, priced })
        });
    }
    let buyers = preparing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Sale { provider, stoa, buyers })
}

/// Everybody orders at the same moment, and asks again with the same request id until there is an answer.
fn open(buyers: Vec<Buyer>, finished: Arc<AtomicUsize>) -> JoinSet<Result<Value>> {
    let start = Arc::new(Barrier::new(buyers.len()));
    let mut orders = JoinSet::new();
    for mut buyer in buyers {
        let (start, finished) = (Arc::clone(&start), Arc::clone(&finished));
        orders.spawn(async move {
            let body = order_body(&buyer.priced, "tok_ok", &request_id());
            start.wait().await;
            let order = buyer.shopper.http.post("/v1/orders", &body).await?.ok()?;
            let settled = ["ORDER_STATE_CONFIRMED", "ORDER_STATE_REJECTED"];
            let name = text(&order, "name")?;
            let order = buyer.shopper.await_order(&name, &settled, PATIENCE).await?;
            finished.fetch_add(1, Ordering::Relaxed);
            Ok(order)
        });
    }
    orders
}

/// The totals that must hold whatever happened in between.
async fn judge(sale: &mut Sale, orders: Vec<Result<Value>>) -> Result<()> {
    let orders = orders.into_iter().collect::<Result<Vec<_>>>()?;
    let confirmed = orders.iter().filter(|order| order["state"] == "ORDER_STATE_CONFIRMED").count();
    let sold_out = orders
        .iter()
        .filter(|order| {
            let reason = order["rejectReason"].as_str().unwrap_or_default();
            order["state"] == "ORDER_STATE_REJECTED" && reason.ends_with("OUT_OF_STOCK")
        })
        .count();
    ensure!(
        (confirmed, sold_out) == (PIECES, BUYERS - PIECES),
        "{confirmed} confirmed, {sold_out} out of stock, of {BUYERS}"
    );

    let ledger = sale.provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice: {:?}", ledger.doubled());
    let authorized = ledger.authorized().count();
    ensure!(authorized == PIECES, "{authorized} authorisations stand at the provider");

    let mut operator = Shopper::operator(&sale.stoa).await?;
    let stock = operator.availability(&[SKU]).await?;
    let left = &stock["availabilities"][0];
    ensure!(left["available"].as_str().unwrap_or("0") == "0", "stock left: {left}");
    let held = operator.http.get("/v1/reservations?state=RESERVATION_STATE_HELD").await?.ok()?;
    if held["reservations"].as_array().is_some_and(|list| !list.is_empty()) {
        bail!("holds left: {held}");
    }
    until(Duration::from_secs(30), "the audit is clean", async || sale.stoa.audit().await.map(Some)).await?;
    Ok(())
}

/// The most requests the server saw in flight at one moment.
async fn in_flight_peak(stoa: &Stoa) -> Result<u64> {
    let metrics = stoa.client().get("/metrics").await?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("stoa_requests_in_flight_peak "))
        .with_context(|| format!("no peak in {text}"))?;
    Ok(value.trim().parse::<f64>()? as u64)
}
