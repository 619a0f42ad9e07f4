//! A trace for a person to read: what was done, as a part of what, when, for how long.

use std::collections::{BTreeMap, BTreeSet};

use contracts::operations::v1::trace_service_client::TraceServiceClient;
use contracts::operations::v1::{GetTraceRequest, Span};
use jiff::Timestamp;
use tonic::Code;

use crate::shop::{Shop, Unreached};
use crate::work::Voice;

/// Characters of a bar.
const BAR: usize = 24;

/// Gathers a trace from all processes and draws it; false where nobody holds any of it.
pub(crate) async fn trace(shop: &Shop, id: &str, voice: &Voice) -> anyhow::Result<bool> {
    anyhow::ensure!(telemetry::Trace::parse_id(id).is_ok(), "{id} is no trace id: 32 digits, 0 to 9 and a to f");
    let spans = gather(shop, id).await?;
    if spans.is_empty() {
        voice.line(format!("no process holds anything of trace {id} (any more)")).await;
        return Ok(false);
    }
    for line in drawn(id, &spans) {
        voice.line(line).await;
    }
    Ok(true)
}

/// Spans by the order they began. Several services of one process hold the same ones.
async fn gather(shop: &Shop, id: &str) -> anyhow::Result<Vec<Drawn>> {
    let mut found = BTreeMap::new();
    if shop.copies.is_empty() {
        // One process answers for all of it.
        ask(shop, "ordering", id, &mut found).await?;
    }
    for (&service, copies) in &shop.copies {
        for copy in copies {
            shop.context.clients.locate(service, std::slice::from_ref(copy))?;
            ask(shop, service, id, &mut found).await?;
        }
        shop.context.clients.locate(service, copies)?;
    }
    let mut spans: Vec<Drawn> = found.into_values().collect();
    spans.sort_by_key(|span| (span.begin_ns, std::cmp::Reverse(span.took_ns)));
    Ok(spans)
}

async fn ask(shop: &Shop, service: &'static str, id: &str, found: &mut BTreeMap<String, Drawn>) -> anyhow::Result<()> {
    let mut client = TraceServiceClient::new(shop.channel(service));
    let request = GetTraceRequest { name: operations::trace_name(service, id) };
    match client.get_trace(Shop::by_operator(request)).await {
        Ok(trace) => {
            for span in trace.into_inner().spans {
                found.insert(span.span_id.clone(), Drawn::from(span));
            }
            Ok(())
        }
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(Unreached::or_said(service, &status)),
    }
}

/// A span as it is drawn.
struct Drawn {
    id: String,
    parent: String,
    service: String,
    title: String,
    begin_ns: i128,
    took_ns: i128,
    failed: bool,
    code: String,
}

impl From<Span> for Drawn {
    fn from(span: Span) -> Self {
        let begin = span.start_time.and_then(|time| Timestamp::try_from(time).ok());
        let took = span.duration.and_then(|took| std::time::Duration::try_from(took).ok()).unwrap_or_default();
        let code = |key: &str| ["rpc.response.status_code", "http.response.status_code", "error.type"].contains(&key);
        Drawn {
            begin_ns: begin.map_or(0, Timestamp::as_nanosecond),
            took_ns: i128::try_from(took.as_nanos()).unwrap_or(i128::MAX),
            failed: span.failed,
            code: span.attributes.into_iter().find(|it| code(&it.key)).map(|it| it.value).unwrap_or_default(),
            id: span.span_id,
            parent: span.parent_span_id,
            service: span.service,
            title: span.title,
        }
    }
}

/// One line a span, under what it is a part of.
fn drawn(id: &str, spans: &[Drawn]) -> Vec<String> {
    let begin = spans.iter().map(|span| span.begin_ns).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.begin_ns + span.took_ns).max().unwrap_or(0);
    let whole = (end - begin).max(1);
    let known: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let mut parts: BTreeMap<&str, Vec<&Drawn>> = BTreeMap::new();
    for span in spans {
        // What is a part of something that nobody holds stands by itself.
        let parent = if known.contains(span.parent.as_str()) { span.parent.as_str() } else { "" };
        parts.entry(parent).or_default().push(span);
    }
    let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    let mut lines =
        vec![format!("trace {id}: {} spans of {} services, {}", spans.len(), services.len(), milliseconds(whole))];
    let mut open: Vec<(usize, &Drawn)> = parts.get("").into_iter().flatten().rev().map(|span| (0, *span)).collect();
    while let Some((depth, span)) = open.pop() {
        let after = span.begin_ns - begin;
        let bar = bar(after, span.took_ns, whole);
        let failed = if span.failed { " FAILED" } else { "" };
        let code = if span.code.is_empty() { String::new() } else { format!("  {}", span.code) };
        let (after, took) = (milliseconds(after), milliseconds(span.took_ns));
        let indent = "  ".repeat(depth);
        lines.push(format!("{after:>14} {took:>12} |{bar}| {indent}{} {}{code}{failed}", span.service, span.title));
        open.extend(parts.get(span.id.as_str()).into_iter().flatten().rev().map(|part| (depth + 1, *part)));
    }
    lines
}

fn bar(after: i128, took: i128, whole: i128) -> String {
    let at = |time: i128| usize::try_from(time * BAR as i128 / whole).unwrap_or(0).min(BAR);
    let from = at(after).min(BAR - 1);
    let to = at(after + took).max(from + 1);
    format!("{}{}{}", " ".repeat(from), "=".repeat(to - from), " ".repeat(BAR - to))
}

fn milliseconds(ns: i128) -> String {
    format!("{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: &str, begin_ns: i128, took_ns: i128) -> Drawn {
        let [id, parent, service, title] = [id, parent, "a", id].map(str::to_owned);
        Drawn { id, parent, service, title, begin_ns, took_ns, failed: false, code: String::new() }
    }

    #[test]
    fn a_span_stands_under_what_it_is_a_part_of_and_as_long_as_it_took() {
        let spans = [
            span("root", "", 1_000_000_000, 8_000_000),
            span("first", "root", 1_001_000_000, 1_000_000),
            span("inner", "first", 1_001_500_000, 500_000),
            span("second", "root", 1_004_000_000, 4_000_000),
            span("lost", "nobody", 1_007_000_000, 1_000_000),
        ];
        let lines = drawn("x", &spans);
        assert_eq!(lines[0], "trace x: 5 spans of 1 services, 8.000 ms");
        let told: Vec<&str> = lines[1..].iter().map(|line| line.rsplit('|').next().unwrap_or_default()).collect();
        assert_eq!(told, [" a root", "   a first", "     a inner", "   a second", " a lost"]);
        assert!(lines[4].contains("|            ============|"), "{}", lines[4]);
    }
}
