//! Checkouts from guest to CONFIRMED: token, cart, item, look, price, order, look.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::http::Client;
use integration::ledger::Provider;
use integration::shopper::{Shopper, text};
use integration::{Setup, Stoa, until};
use tokio::task::JoinSet;

use crate::Bench;
use crate::load::{Latency, Load, MEASURED, SHOPPERS, Used, finish, micros_each, millis};

/// How long an order may be pending before something is wrong with it.
const PENDING: Duration = Duration::from_secs(60);

/// As fast as they can.
pub(crate) async fn full(bench: &mut Bench) -> Result<()> {
    let run = run(bench, None).await?;
    run.tell("checkouts", bench);
    Ok(())
}

/// At half of what is possible, by the clock.
pub(crate) async fn half(bench: &mut Bench) -> Result<()> {
    let full = run(bench, None).await?;
    let half = run(bench, Some(full.sales.per_second / 2.0)).await?;
    half.tell("half_load", bench);
    Ok(())
}

struct Run {
    sales: Sales,
    used: Used,
}

impl Run {
    fn tell(&self, name: &str, bench: &mut Bench) {
        self.sales.tell(name, bench);
        let mut add = |what: &str, value, unit| bench.figures.add(&format!("{name}.{what}"), value, unit);
        add("server_cpu", micros_each(self.used.server, self.sales.count) / 1000.0, "ms each");
        add("provider_cpu", micros_each(self.used.provider, self.sales.count) / 1000.0, "ms each");
    }
}

async fn run(bench: &Bench, rate: Option<f64>) -> Result<Run> {
    let folder = bench.folder()?;
    let provider = Provider::start().await?;
    let setup = Setup::default().provider(&provider.url()).data(folder.path().join("data"));
    let stoa = Stoa::start(setup).await?;
    provider.send_webhooks_to(stoa.address()).await?;
    let buying = Buying::begin(Shopper::operator(&stoa).await?, rate).await?;
    let used = buying.load.cpu(&stoa, Some(&provider)).await?;
    let sales = buying.end().await?;
    println!(
        "  CPU a checkout: server {:.2} ms, provider {:.2} ms, load generator {:.2} ms",
        micros_each(used.server, sales.count) / 1000.0,
        micros_each(used.provider, sales.count) / 1000.0,
        micros_each(used.generator, sales.count) / 1000.0,
    );
    let ledger = provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice");
    until(Duration::from_secs(120), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    Ok(Run { sales, used })
}

/// Shoppers who go on buying as long as the load lasts.
pub(crate) struct Buying {
    pub(crate) load: Load,
    orders: Load,
    shoppers: JoinSet<Result<()>>,
    how: String,
}

/// What they bought in the measured part, and how long it took.
pub(crate) struct Sales {
    pub(crate) count: u64,
    pub(crate) per_second: f64,
    whole: Latency,
    order: Latency,
}

impl Buying {
    /// As fast as they can, or together at a rate; the operator puts what they buy on sale.
    pub(crate) async fn begin(mut operator: Shopper, rate: Option<f64>) -> Result<Self> {
        operator.stock("BENCH", 10, 100_000_000).await?;
        let how = match rate {
            Some(rate) => format!("at a rate of {rate:.0}/s"),
            None => format!("{SHOPPERS} shoppers at once"),
        };
        let mut buying = Self { load: Load::empty(), orders: Load::empty(), shoppers: JoinSet::new(), how };
        for number in 0..SHOPPERS {
            let (client, load, orders) = (operator.http.again(), buying.load.clone(), buying.orders.clone());
            let pause = rate.map(|rate| Duration::from_secs_f64(SHOPPERS as f64 / rate));
            buying.shoppers.spawn(async move {
                let mut turn = pause.map(|pause| {
                    let first = pause.mul_f64(number as f64 / SHOPPERS as f64);
                    tokio::time::interval_at((Instant::now() + first).into(), pause)
                });
                while !load.is_over() {
                    if let Some(turn) = &mut turn {
                        turn.tick().await;
                    }
                    let begun = Instant::now();
                    let ordered = checkout(client.again().anonymous()).await?;
                    if load.counts() {
                        orders.note(ordered);
                    }
                    load.done(begun);
                }
                Ok(())
            });
        }
        Ok(buying)
    }

    /// Waits for the last of them.
    pub(crate) async fn end(self) -> Result<Sales> {
        finish(self.shoppers).await?;
        let (count, whole) = self.load.result();
        let (_, order) = self.orders.result();
        let per_second = count as f64 / MEASURED.as_secs_f64();
        println!(
            "checkouts, {}: {per_second:.0}/s; whole p50 {:.0} ms, p99 {:.0} ms; PlaceOrder to CONFIRMED p50 {:.0} ms, p99 {:.0} ms",
            self.how,
            millis(whole.p50),
            millis(whole.p99),
            millis(order.p50),
            millis(order.p99),
        );
        Ok(Sales { count, per_second, whole, order })
    }
}

impl Sales {
    pub(crate) fn tell(&self, name: &str, bench: &mut Bench) {
        let mut add = |what: &str, value, unit| bench.figures.add(&format!("{name}.{what}"), value, unit);
        add("rate", self.per_second, "/s");
        add("whole_p50", millis(self.whole.p50), "ms");
        add("whole_p99", millis(self.whole.p99), "ms");
        add("order_p50", millis(self.order.p50), "ms");
        add("order_p99", millis(self.order.p99), "ms");
    }
}

/// One guest's way; says how long PlaceOrder took.
async fn checkout(client: Client) -> Result<Duration> {
    let mut guest = Shopper::guest_over(client).await?;
    let cart = text(&guest.cart("EUR").await?, "name")?;
    guest.add(&cart, "BENCH", 1).await?;
    guest.http.get(&format!("/v1/{cart}")).await?.ok()?;
    let priced = guest.price(&cart).await?;
    let ordering = Instant::now();
    let mut order = guest.order(&priced, "tok_ok").await?;
    let name = text(&order, "name")?;
    if order["state"] == "ORDER_STATE_PENDING" {
        // The machine is so busy that PlaceOrder ended its wait; that is slow, and no promise is broken.
        order = guest.await_order(&name, &["ORDER_STATE_CONFIRMED"], PENDING).await?;
    }
    let ordered = ordering.elapsed();
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
    guest.http.get(&format!("/v1/{name}")).await?.ok()?;
    Ok(ordered)
}
