//! Collector: Jaeger, given spans over OTLP, has a purchase as one trace with every hop

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration::hops::{HOPS, buy};
use integration::http::Client;
use integration::shopper::Shopper;
use integration::{Setup, Stoa, skip, until};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_collector_has_the_whole_purchase_as_one_trace() -> Result<()> {
    let Some((otlp, query)) = jaeger() else { return Ok(()) };
    let flags = ["--trace-ratio", "1", "--otlp-endpoint", &otlp];
    let stoa = Stoa::start(Setup::new().flags(flags)).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let (id, _) = buy(&mut shopper).await?;
    let address: SocketAddr = query.parse()?;
    let spans = until(SOON, "every hop in the collector", async || {
        let answer = Client::new(address).get(&format!("/api/traces/{id}")).await?;
        if answer.status != 200 {
            return Ok(None);
        }
        let trace = answer.json()["data"][0].clone();
        let services = trace["processes"].clone();
        let spans = trace["spans"].as_array().cloned().unwrap_or_default();
        let passed = |service: &str, title: &str| {
            spans.iter().any(|span| {
                let process = span["processID"].as_str().unwrap_or_default();
                span["operationName"] == title && services[process]["serviceName"] == service
            })
        };
        Ok(HOPS.iter().all(|(service, title)| passed(service, title)).then_some(spans))
    })
    .await?;
    let ids: BTreeSet<&str> = spans.iter().filter_map(|span| span["spanID"].as_str()).collect();
    let mut roots = 0;
    for span in &spans {
        ensure!(span["traceID"] == id, "{span}");
        let parents: Vec<&str> =
            span["references"].as_array().into_iter().flatten().filter_map(|it| it["spanID"].as_str()).collect();
        // A payment that is looked after by itself knows the trace and not the span.
        roots += usize::from(parents.is_empty() && span["operationName"] != "reconcile");
        ensure!(parents.iter().all(|parent| ids.contains(parent)), "a part of nothing the collector has: {span}");
    }
    ensure!(roots == 1, "{roots} roots");
    Ok(())
}

/// Where Jaeger takes spans and where it is asked, if a lane has started it.
fn jaeger() -> Option<(String, String)> {
    match (std::env::var("STOA_TEST_OTLP"), std::env::var("STOA_TEST_JAEGER")) {
        (Ok(otlp), Ok(query)) => Some((otlp, query)),
        _ => {
            skip::not_proven("Jaeger is not there");
            None
        }
    }
}
