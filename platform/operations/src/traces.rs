//! Stories as the process holds them: the same for every service in it, since spans belong to the process.

use contracts::operations::v1::trace_service_server::{TraceService, TraceServiceServer};
use contracts::operations::v1::{self as proto, SpanKind};
use contracts::wkt;
use jiff::Timestamp;
use server::{Component, status};
use telemetry::Trace;
use telemetry::spans::{self, Kind, Span, Value};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// What a trace is called at a service.
pub fn trace_name(service: &str, trace: &str) -> String {
    format!("services/{service}/traces/{trace}")
}

/// A component that answers for a process what it holds of a story, and nothing else.
pub fn traces_of(service: &'static str) -> Component {
    Component::new(service, contracts::METHODS, Routes::new(server(service)))
}

pub(crate) fn server(service: &'static str) -> TraceServiceServer<Traces> {
    TraceServiceServer::new(Traces { service })
}

pub(crate) struct Traces {
    service: &'static str,
}

#[tonic::async_trait]
impl TraceService for Traces {
    async fn get_trace(&self, request: Request<proto::GetTraceRequest>) -> Result<Response<proto::Trace>, Status> {
        let asked = request.into_inner().name;
        let prefix = trace_name(self.service, "");
        let id = asked.strip_prefix(&prefix).and_then(|id| Trace::parse_id(id).ok());
        let found = id.map(|id| spans::find(&id)).unwrap_or_default();
        if found.is_empty() {
            return Err(status::not_found(&asked));
        }
        Ok(Response::new(proto::Trace { name: asked, spans: found.into_iter().map(shown).collect() }))
    }
}

fn shown(span: Span) -> proto::Span {
    let kind = match span.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
    };
    let text = |value: Value| match value {
        Value::Text(text) => text.into_owned(),
        Value::Number(number) => number.to_string(),
    };
    proto::Span {
        span_id: span.id(),
        parent_span_id: span.parent_id(),
        service: span.service.to_owned(),
        kind: kind.into(),
        start_time: Timestamp::from_nanosecond(span.begin_ns.into()).ok().map(wkt::Timestamp::from),
        duration: Some(std::time::Duration::from_nanos(span.duration_ns).into()),
        failed: span.failed,
        attributes: span
            .attributes
            .into_iter()
            .map(|(key, value)| proto::SpanAttribute { key: key.to_owned(), value: text(value) })
            .collect(),
        title: span.name.to_string(),
    }
}
