//! A span as OpenTelemetry's SDK has it, which the exporter takes.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value as Given};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use telemetry::spans::{Kind, Span, Value};

/// The name of who instrumented.
const SCOPE: &str = "stoa";

pub(crate) fn data(span: Span) -> SpanData {
    let start_time = SystemTime::UNIX_EPOCH + Duration::from_nanos(span.begin_ns);
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.trace_id),
            SpanId::from_bytes(span.span_id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: matches!(span.kind, Kind::Server | Kind::Consumer),
        span_kind: match span.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Producer => SpanKind::Producer,
            Kind::Consumer => SpanKind::Consumer,
        },
        name: span.name.to_string().into(),
        start_time,
        end_time: start_time + Duration::from_nanos(span.duration_ns),
        attributes: span.attributes.into_iter().map(|(key, value)| KeyValue::new(key, given(value))).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if span.failed { Status::error("") } else { Status::Unset },
        instrumentation_scope: InstrumentationScope::builder(SCOPE).build(),
    }
}

fn given(value: Value) -> Given {
    match value {
        Value::Text(text) => Given::String(text.into()),
        Value::Number(number) => Given::I64(number),
    }
}
