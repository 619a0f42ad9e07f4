//! Checkouts from guest to CONFIRMED: token, cart, item, look, price, order, look.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use integration::ledger::Provider;
use integration::shopper::Shopper;
use integration::{Setup, Stoa, until};
use tokio::task::JoinSet;

use crate::Bench;
use crate::load::{Latency, Load, MEASURED, SHOPPERS, Used, finish, micros_each, millis};

/// As fast as they can.
pub(crate) async fn full(bench: &mut Bench) -> Result<()> {
    let run = run(bench, None).await?;
    run.tell("checkouts", bench);
    Ok(())
}

/// At half of what is possible, by the clock.
pub(crate) async fn half(bench: &mut Bench) -> Result<()> {
    let full = run(bench, None).await?;
    let half = run(bench, Some(full.per_second / 2.0)).await?;
    half.tell("half_load", bench);
    Ok(())
}

struct Run {
    count: u64,
    per_second: f64,
    whole: Latency,
    order: Latency,
    used: Used,
}

impl Run {
    fn tell(&self, name: &str, bench: &mut Bench) {
        let mut add = |what: &str, value, unit| bench.figures.add(&format!("{name}.{what}"), value, unit);
        add("rate", self.per_second, "/s");
        add("whole_p50", millis(self.whole.p50), "ms");
        add("whole_p99", millis(self.whole.p99), "ms");
        add("order_p50", millis(self.order.p50), "ms");
        add("order_p99", millis(self.order.p99), "ms");
        add("server_cpu", micros_each(self.used.server, self.count) / 1000.0, "ms each");
        add("provider_cpu", micros_each(self.used.provider, self.count) / 1000.0, "ms each");
    }
}

async fn run(bench: &Bench, rate: Option<f64>) -> Result<Run> {
    let folder = bench.folder()?;
    let provider = Provider::start().await?;
    let setup = Setup::default().provider(&provider.url()).data(folder.path().join("data"));
    let stoa = Stoa::start(setup).await?;
    provider.send_webhooks_to(stoa.address()).await?;
    let mut operator = Shopper::operator(&stoa).await?;
    operator.stock("BENCH", 10, 100_000_000).await?;
    let load = Load::begin(&stoa, Some(&provider))?;
    let orders = Arc::new(Load::empty());
    let mut buying = JoinSet::new();
    for number in 0..SHOPPERS {
        let (stoa_client, load, orders) = (stoa.client(), load.clone(), Arc::clone(&orders));
        let pause = rate.map(|rate| Duration::from_secs_f64(SHOPPERS as f64 / rate));
        buying.spawn(async move {
            let mut turn = pause.map(|pause| {
                let first = pause.mul_f64(number as f64 / SHOPPERS as f64);
                tokio::time::interval_at((Instant::now() + first).into(), pause)
            });
            while !load.is_over() {
                if let Some(turn) = &mut turn {
                    turn.tick().await;
                }
                let begun = Instant::now();
                let mut guest = Shopper::guest_over(stoa_client.again()).await?;
                let cart = guest.cart("EUR").await?;
                let cart = cart["name"].as_str().context("no cart")?.to_owned();
                guest.add(&cart, "BENCH", 1).await?;
                guest.http.get(&format!("/v1/{cart}")).await?.ok()?;
                let priced = guest.price(&cart).await?;
                let ordering = Instant::now();
                let order = guest.order(&priced, "tok_ok").await?;
                ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "{order}");
                if load.counts() {
                    orders.note(ordering.elapsed());
                }
                let name = order["name"].as_str().context("no order")?;
                guest.http.get(&format!("/v1/{name}")).await?.ok()?;
                load.done(begun);
            }
            anyhow::Ok(())
        });
    }
    let used = load.cpu(&stoa, Some(&provider)).await?;
    finish(buying).await?;
    let (count, whole) = load.result();
    let (_, order) = orders.result();
    let per_second = count as f64 / MEASURED.as_secs_f64();
    let how = match rate {
        Some(rate) => format!("at a rate of {rate:.0}/s"),
        None => format!("{SHOPPERS} shoppers at once"),
    };
    println!(
        "checkouts, {how}: {per_second:.0}/s; whole p50 {:.0} ms, p99 {:.0} ms; PlaceOrder to CONFIRMED p50 {:.0} ms, p99 {:.0} ms",
        millis(whole.p50),
        millis(whole.p99),
        millis(order.p50),
        millis(order.p99),
    );
    println!(
        "  CPU a checkout: server {:.2} ms, provider {:.2} ms, load generator {:.2} ms",
        micros_each(used.server, count) / 1000.0,
        micros_each(used.provider, count) / 1000.0,
        micros_each(used.generator, count) / 1000.0,
    );
    let ledger = provider.ledger().await?;
    ensure!(ledger.doubled().is_empty(), "charged twice");
    until(Duration::from_secs(120), "a clean audit", async || stoa.audit().await.map(Some)).await?;
    Ok(Run { count, per_second, whole, order, used })
}
