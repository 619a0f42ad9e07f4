//! Spans arrive at a collector behind TLS, with the headers it wants, as the parts of one trace.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use telemetry::Trace;
use telemetry::spans::{self, Kind, Limits, Running};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

const SOON: Duration = Duration::from_secs(20);

/// A collector that believes whoever shows the word it knows.
struct Collector {
    taken: mpsc::Sender<(String, Span)>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if request.metadata().get("authorization").is_none_or(|word| word != "Bearer a=b") {
            return Err(Status::unauthenticated("who is that?"));
        }
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|it| it.attributes).unwrap_or_default();
            let service = text(&attributes, "service.name").unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.taken.send((service.clone(), span)).await.map_err(|_| Status::internal("over"))?;
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|it| it.key == key)?.value.as_ref()?;
    match value {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text.clone()),
        _ => None,
    }
}

/// A collector on a port of its own, whose certificate is in the file.
async fn collector(certificate: &Path) -> anyhow::Result<(u16, mpsc::Receiver<(String, Span)>)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(certificate, made.cert.pem())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("localhost:0").await?;
    let port = listener.local_addr()?.port();
    let (taken, spans) = mpsc::channel(64);
    let routes = Routes::new(TraceServiceServer::new(Collector { taken }));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let service = TowerToHyperService::new(routes.clone());
            let server = Builder::new(TokioExecutor::new());
            tokio::spawn(async move { server.serve_connection(TokioIo::new(tls), service).await });
        }
    });
    Ok((port, spans))
}

#[tokio::test]
async fn a_trace_arrives_as_it_was_recorded() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let certificate = folder.path().join("collector.pem");
    let (port, mut taken) = collector(&certificate).await?;
    spans::configure(Limits { ratio: 1.0, ..Limits::default() });
    let exporter = otlp::start(&otlp::Config {
        endpoint: format!("https://localhost:{port}"),
        headers: "authorization=Bearer%20a%3Db".to_owned(),
        certificate: Some(certificate),
        timeout: Duration::from_secs(5),
    })?;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(exporter.run(shutdown.clone()));

    let story = Trace::new_root();
    let mut outer = Running::begin("ordering", Kind::Client, "a.B/C", &story);
    outer.set("rpc.method", "a.B/C");
    Running::begin("inventory", Kind::Server, "a.B/C", &outer.trace()).end_rpc(13);
    outer.end_rpc(13);

    let mut all = Vec::new();
    while all.len() < 2 {
        all.extend(tokio::time::timeout(SOON, taken.recv()).await?);
    }
    all.sort_by_key(|(_, span)| span.parent_span_id.len());
    let (callers, client) = &all[0];
    let (callees, server) = &all[1];
    assert_eq!((callers.as_str(), callees.as_str()), ("ordering", "inventory"));
    assert_eq!(client.trace_id, story.trace_id);
    assert_eq!(server.trace_id, story.trace_id);
    assert_eq!(server.parent_span_id, client.span_id);
    assert_eq!((client.kind(), server.kind()), (SpanKind::Client, SpanKind::Server));
    assert_eq!(text(&client.attributes, "rpc.method").as_deref(), Some("a.B/C"));
    assert_eq!(text(&server.attributes, "rpc.response.status_code").as_deref(), Some("INTERNAL"));
    assert!(all.iter().all(|(_, span)| span.status.as_ref().is_some_and(|it| it.code() == StatusCode::Error)));
    assert!(server.start_time_unix_nano >= client.start_time_unix_nano);
    assert!(server.end_time_unix_nano <= client.end_time_unix_nano);

    // What is recorded last is sent on the way out.
    Running::begin("ordering", Kind::Internal, "last", &Trace::new_root()).end();
    shutdown.cancel();
    tokio::time::timeout(SOON, running).await??;
    let (_, last) = tokio::time::timeout(SOON, taken.recv()).await?.ok_or_else(|| anyhow::anyhow!("nothing"))?;
    assert_eq!((last.name.as_str(), last.parent_span_id.is_empty()), ("last", true));
    let exported = telemetry::metrics::text();
    assert!(exported.contains("\nstoa_spans_exported_total 3\n"), "{exported}");
    Ok(())
}
