//! Metrics: a purchase is counted where it went, and nothing that somebody sends becomes a series.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::http::Client;
use integration::shopper::{Shopper, text};
use integration::{Setup, Stoa, until};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_purchase_is_counted_at_the_door_in_each_service_and_on_each_way() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let sku = shopper.something().await?;
    let before = Metrics::read(stoa.address()).await?;
    let order = shopper.buy("EUR", &sku, 1, "tok_ok").await?;
    ensure!(order["state"] == "ORDER_STATE_CONFIRMED", "not confirmed: {order}");

    let placed =
        r#"stoa_server_calls_total{service="ordering",method="stoa.ordering.v1.OrderingService/PlaceOrder",code="OK"}"#;
    let reserved = r#"stoa_client_calls_total{caller="ordering",callee="inventory",code="OK"}"#;
    let paid = r#"stoa_client_calls_total{caller="ordering",callee="payment",code="OK"}"#;
    let settled = r#"stoa_sagas_settled_total{saga="checkout",phase="DONE"}"#;
    let after = until(SOON, "the end of the checkout", async || {
        let now = Metrics::read(stoa.address()).await?;
        Ok((now.of(settled) > before.of(settled)).then_some(now))
    })
    .await?;
    ensure!(after.of(placed) - before.of(placed) == 1.0, "{placed}: {} after {}", after.of(placed), before.of(placed));
    for way in [reserved, paid] {
        ensure!(after.of(way) >= before.of(way) + 1.0, "{way}: {} after {}", after.of(way), before.of(way));
    }
    // Stock is held and committed by two calls, each served once.
    for method in ["HoldStock", "CommitReservation"] {
        let served = after.sum("stoa_server_calls_total", &[r#"service="inventory""#, &format!("/{method}\"")]);
        ensure!(served == 1.0, "{method} was served {served} times");
    }
    let took = r#"stoa_server_call_duration_seconds_count{service="ordering",method="stoa.ordering.v1.OrderingService/PlaceOrder"}"#;
    ensure!(after.of(took) == 1.0, "{took}: {}", after.of(took));
    let longest = r#"stoa_server_call_duration_seconds_bucket{le="+Inf",service="ordering",method="stoa.ordering.v1.OrderingService/PlaceOrder"}"#;
    ensure!(after.of(longest) == 1.0, "{}", after.0);
    let posts = r#"stoa_http_requests_total{verb="POST",status="200"}"#;
    ensure!(after.of(posts) > before.of(posts), "{posts}");

    // Nothing is in flight and nothing waits once all is done.
    until(SOON, "a quiet shop", async || {
        let now = Metrics::read(stoa.address()).await?;
        let waits = ["stoa_server_calls_in_flight", "stoa_client_calls_in_flight", "stoa_consumer_lag_messages"]
            .map(|name| now.sum(name, &[]));
        let holds = now.of("stoa_stock_holds");
        let open = now.of(r#"stoa_sagas{service="ordering",phase="RUNNING"}"#);
        Ok((waits == [0.0; 3] && holds == 0.0 && open == 0.0).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_hold_and_a_saga_that_waits_are_seen_while_they_last() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let sku = shopper.something().await?;
    // The provider asks the buyer for something, who does not come.
    let order = shopper.buy("EUR", &sku, 1, "tok_requires_action").await?;
    ensure!(order["state"] == "ORDER_STATE_AWAITING_PAYMENT_ACTION", "{order}");
    until(SOON, "a hold and an open saga", async || {
        let now = Metrics::read(stoa.address()).await?;
        let open = now.of(r#"stoa_sagas{service="ordering",phase="RUNNING"}"#);
        Ok((now.of("stoa_stock_holds") == 1.0 && open == 1.0).then_some(()))
    })
    .await?;
    let name = text(&order, "name")?;
    shopper.await_order(&name, &["ORDER_STATE_REJECTED", "ORDER_STATE_CANCELLED"], SOON).await?;
    until(SOON, "neither", async || {
        let now = Metrics::read(stoa.address()).await?;
        let unwound = now.of(r#"stoa_sagas_settled_total{saga="checkout",phase="UNWOUND"}"#);
        Ok((now.of("stoa_stock_holds") == 0.0 && unwound == 1.0).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_thousand_odd_paths_are_no_series() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut anyone = stoa.client();
    let odd = |n: u32| format!("/v1/odd{n}/products/odd%20{n}?odd{n}=1");
    // One of each kind, so that what there is once for all is there.
    anyone.get(&odd(0)).await?;
    anyone.post(&odd(0), &serde_json::json!({})).await?;
    anyone.get("/v1/products/odd0").await?;
    let before = Metrics::read(stoa.address()).await?;
    for n in 1..=500 {
        anyone.get(&odd(n)).await?;
        anyone.get(&format!("/v1/products/odd{n}")).await?;
    }
    let after = Metrics::read(stoa.address()).await?;
    let answered = |it: &Metrics| it.sum("stoa_http_requests_total", &[]);
    ensure!(answered(&after) - answered(&before) >= 1000.0, "they were not counted: {}", answered(&after));
    ensure!(!after.0.contains("odd"), "what was sent is a label");
    let series = |it: &Metrics| it.0.lines().filter(|line| !line.starts_with('#')).count();
    // What the shop does by itself may have begun meanwhile.
    ensure!(series(&after) < series(&before) + 100, "{} series were {}", series(&after), series(&before));
    Ok(())
}

#[tokio::test]
async fn metrics_with_an_address_of_their_own_are_not_at_the_door() -> Result<()> {
    let stoa = Stoa::start(Setup::new().flags(["--metrics", "127.0.0.1:0"])).await?;
    ensure!(stoa.client().get("/metrics").await?.status == 404, "the door tells as well");
    let told = until(SOON, "where the metrics are", async || {
        let lines = stoa.output().tail(100);
        let address = lines.lines().find_map(|line| line.strip_prefix("metrics at http://")?.strip_suffix("/metrics"));
        Ok(address.map(str::to_owned))
    })
    .await?;
    let apart: SocketAddr = told.parse().context("no address")?;
    let metrics = Metrics::read(apart).await?;
    ensure!(metrics.sum("stoa_http_requests_total", &[]) >= 1.0, "{}", metrics.0);
    for path in ["/", "/v1/products", "/healthz"] {
        ensure!(Client::new(apart).get(path).await?.status == 404, "{path} is answered there");
    }
    Ok(())
}

/// What a process counts, as its text.
struct Metrics(String);

impl Metrics {
    async fn read(address: SocketAddr) -> Result<Self> {
        let answer = Client::new(address).get("/metrics").await?;
        ensure!(answer.status == 200, "{}", answer.describe());
        let text = String::from_utf8(answer.body.to_vec())?;
        ensure!(text.ends_with("# EOF\n"), "not whole");
        Ok(Self(text))
    }

    /// One series, by its whole name; 0 where there is none yet.
    fn of(&self, series: &str) -> f64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// The sum of all series of this name with these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = self.0.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}
