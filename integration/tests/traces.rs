//! Traces: one purchase is one trace with every hop, read back from the shop and from its command line

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use integration::hops::{HOPS, buy, trace_of};
use integration::http::Client;
use integration::shopper::{Shopper, text};
use integration::sold_out::{PATIENCE, SKU};
use integration::{Fleet, Setup, Stoa, command_line, grpc, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_purchase_is_one_trace_from_the_door_to_the_last_consumer() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let (id, order) = buy(&mut shopper).await?;
    let mut operator = Shopper::operator(&stoa).await?;
    let path = format!("/v1/services/ordering/traces/{id}");
    let spans = until(SOON, "every hop", async || whole(&mut operator.http.again(), &path).await).await?;

    // One tree: everything is a part of what the door answered.
    let ids: BTreeSet<String> = spans.iter().map(|span| text(span, "spanId")).collect::<Result<_>>()?;
    // A payment that is looked after by itself knows the trace and not the span.
    let by_itself =
        |span: &&Value| span["parentSpanId"].as_str().is_none_or(str::is_empty) && span["title"] != "reconcile";
    let roots: Vec<&Value> = spans.iter().filter(by_itself).collect();
    ensure!(roots.len() == 1 && roots[0]["service"] == "gateway", "{} roots: {roots:?}", roots.len());
    for span in &spans {
        let parent = span["parentSpanId"].as_str().unwrap_or("");
        ensure!(parent.is_empty() || ids.contains(parent), "a part of nothing that is known: {span}");
    }
    // A call that is answered is a part of the call that was made.
    let by_id: BTreeMap<&str, &Value> =
        spans.iter().filter_map(|span| Some((span["spanId"].as_str()?, span))).collect();
    let held = find(&spans, "inventory", "stoa.inventory.v1.InventoryService/HoldStock").context("no hold")?;
    let call = by_id.get(held["parentSpanId"].as_str().unwrap_or("")).context("no call")?;
    ensure!(call["kind"] == "SPAN_KIND_CLIENT" && call["service"] == "ordering", "{call}");
    let step = by_id.get(call["parentSpanId"].as_str().unwrap_or("")).context("no step")?;
    ensure!(step["title"] == "step hold_stock", "{step}");
    let text_of_all = serde_json::to_string(&spans)?;
    ensure!(!text_of_all.contains(order.trim_start_matches("orders/")), "a span names the order");

    // The command line draws the same, and `explain` says which trace it is.
    let folder = stoa.data().display().to_string();
    let drawn = command_line::stoa(["trace", &id, "--data", &folder]).await?;
    ensure!(drawn.code == Some(0), "{drawn:?}");
    for (service, title) in HOPS {
        ensure!(
            drawn.output.contains(&format!("{service} {title}")),
            "{service} {title} is not drawn:\n{}",
            drawn.output
        );
    }
    let explained = command_line::stoa(["explain", &order, "--data", &folder]).await?;
    ensure!(explained.output.contains(&format!("trace {id}")), "{explained:?}");
    let unknown = command_line::stoa(["trace", &"0f".repeat(16), "--data", &folder]).await?;
    ensure!(unknown.code == Some(1), "{unknown:?}");

    // Nobody else is told.
    ensure!(stoa.client().get(&path).await?.status == 401);
    ensure!(shopper.http.get(&path).await?.status == 403);
    ensure!(operator.http.get("/v1/services/ordering/traces/no-id").await?.status == 400);
    // The gateway's process can be asked by its own name.
    ensure!(operator.http.get(&format!("/v1/services/gateway/traces/{id}")).await?.status == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_in_a_fleet_is_one_trace_that_every_process_tells_its_part_of() -> Result<()> {
    let fleet = Fleet::start(command_line::binary()?, None).await?;
    let mut operator = fleet.operator().await?;
    operator.stock(SKU, 20, 100).await?;
    let (id, _) = buy(&mut Shopper::customer_over(fleet.client()).await?).await?;
    let drawn = until(PATIENCE, "every hop beyond the door", async || {
        let drawn = fleet.ask(&["trace", &id]).await?;
        let beyond = HOPS.iter().filter(|(service, _)| *service != "gateway");
        let whole = beyond.clone().all(|(service, title)| drawn.output.contains(&format!("{service} {title}")));
        Ok(whole.then_some(drawn.output))
    })
    .await?;
    // What the door did it tells itself, and the first that it called says that this was its cause.
    let told = operator.http.get(&format!("/v1/services/gateway/traces/{id}")).await?.ok()?;
    let spans = told["spans"].as_array().context("no spans")?;
    let call = find(spans, "gateway", "stoa.ordering.v1.OrderingService/PlaceOrder").context("no call")?;
    let told = operator.http.get(&format!("/v1/services/ordering/traces/{id}")).await?.ok()?;
    let served = told["spans"].as_array().context("no spans")?;
    let served = find(served, "ordering", "stoa.ordering.v1.OrderingService/PlaceOrder").context("not served")?;
    ensure!(served["parentSpanId"] == call["spanId"], "{served} is no part of {call}\n{drawn}");
    Ok(())
}

#[tokio::test]
async fn the_callers_own_trace_goes_on_in_the_shop() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut operator = Shopper::operator(&stoa).await?;
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let header = format!("00-{trace}-{span}-01");
    let headers = [("traceparent", header.as_str())];
    let answer = stoa.client().send_bytes(Method::GET, "/v1/products", None, &headers, Bytes::new()).await?;
    ensure!(answer.headers.get("stoa-trace-id").is_some_and(|id| id == trace), "{:?}", answer.headers);
    let told = operator.http.get(&format!("/v1/services/catalog/traces/{trace}")).await?.ok()?;
    let first = &told["spans"][0];
    ensure!(first["parentSpanId"] == span && first["service"] == "gateway", "{told}");

    // In gRPC as in JSON, and down to the service.
    let (trace, span) = ("5cf92f3577b34da6a3ce929d0e0e4736", "10f067aa0ba902b7");
    let grpc = grpc::Client::connect(stoa.address()).await?.in_trace(format!("00-{trace}-{span}-00"));
    let method = "stoa.catalog.v1.CatalogService/ListProducts";
    grpc.call(method, &json!({})).await??;
    let told = operator.http.get(&format!("/v1/services/catalog/traces/{trace}")).await?.ok()?;
    let spans = told["spans"].as_array().context("no spans")?;
    ensure!(spans[0]["parentSpanId"] == span && spans[0]["service"] == "gateway", "{told}");
    ensure!(find(spans, "catalog", method).is_some_and(|it| it["kind"] == "SPAN_KIND_SERVER"), "{told}");
    Ok(())
}

#[tokio::test]
async fn what_failed_is_held_when_a_thousand_others_are_given_up() -> Result<()> {
    // Nothing listens there: no attempt at a payment has an answer.
    let small = ["--trace-ratio", "0", "--trace-memory-kib", "256", "--psp", "http://127.0.0.1:9"];
    let stoa = Stoa::start(Setup::new().flags(small)).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let went_well = trace_of(&stoa.client().get("/v1/products").await?.headers)?;
    let (failed, _) = buy(&mut shopper).await?;
    let mut anyone = stoa.client();
    for _ in 0..1000 {
        anyone.get("/v1/products?pageSize=1").await?;
    }
    let mut operator = Shopper::operator(&stoa).await?;
    let gone = operator.http.get(&format!("/v1/services/catalog/traces/{went_well}")).await?;
    ensure!(gone.status == 404, "what went well is held for ever: {}", gone.describe());
    let held = operator.http.get(&format!("/v1/services/catalog/traces/{failed}")).await?.ok()?;
    let spans = held["spans"].as_array().context("no spans")?;
    let provider = find(spans, "payment", "POST provider").context("the failed call is not held")?;
    ensure!(provider["failed"] == true, "{provider}");
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_away_keeps_nobody_waiting() -> Result<()> {
    let away = ["--trace-ratio", "1", "--otlp-endpoint", "http://127.0.0.1:9", "--otlp-timeout", "500"];
    let mut stoa = Stoa::start(Setup::new().flags(away)).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let (_, order) = buy(&mut shopper).await?;
    ensure!(!order.is_empty());
    until(SOON, "spans that are given up, and counted", async || {
        let text = String::from_utf8(stoa.client().get("/metrics").await?.body.to_vec())?;
        let dropped = text.lines().find_map(|line| line.strip_prefix("stoa_spans_dropped_total ")?.parse::<f64>().ok());
        Ok(dropped.is_some_and(|count| count > 0.0).then_some(()))
    })
    .await?;
    let status = stoa.stop().await?;
    ensure!(status.success(), "the drain ended with {status}");
    Ok(())
}

/// The spans of a trace, once every hop is among them.
async fn whole(http: &mut Client, path: &str) -> Result<Option<Vec<Value>>> {
    let answer = http.get(path).await?;
    if answer.status != 200 {
        return Ok(None);
    }
    let spans = answer.json()["spans"].as_array().cloned().unwrap_or_default();
    Ok(HOPS.iter().all(|(service, title)| find(&spans, service, title).is_some()).then_some(spans))
}

fn find<'a>(spans: &'a [Value], service: &str, title: &str) -> Option<&'a Value> {
    spans.iter().find(|span| span["service"] == service && span["title"] == title)
}
