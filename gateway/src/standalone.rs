//! The gateway in front of one gRPC server of anybody's, which it knows by its descriptors alone.
//!
//! Descriptors are the server's own, by reflection, or a file's. Until they are there every request is answered `UNAVAILABLE`;
//! when they change, new requests are served by the new ones and calls in progress end as they began.

mod descriptors;
mod reflection;

use std::{
    convert::Infallible,
    ffi::OsString,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use futures_util::future::{BoxFuture, ready};
use http::{HeaderValue, Request, Response, header};
use prost_reflect::DescriptorPool;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::Service;
use transcode::service::{BoxError, Code, Config, Limits, Passing, Problem, Transcoder, boxed};

use crate::upstream::{arriving, refusal};

/// The door in front of any gRPC server: REST, gRPC, gRPC-Web and Connect on one port.
#[derive(Debug, Clone, Parser)]
#[command(name = "stoa-gateway", version, max_term_width = 110)]
pub struct Settings {
    /// The gRPC server behind, which speaks HTTP/2 without TLS.
    #[arg(long, value_name = "HOST:PORT")]
    pub upstream: String,
    /// Where requests come in; port 0 takes a free one. The address is the first line of the output.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// A descriptor set of the server's services with all imports, instead of its reflection; read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub descriptors: Option<PathBuf>,
    /// The services to serve, by full name; all of them if none is named.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub services: Vec<String>,
    /// The longest message in either direction, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub max_message: usize,
    /// Unknown fields of requests are passed over instead of refused.
    #[arg(long)]
    pub ignore_unknown: bool,
}

/// How long a call may take when its client does not say less.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long it may take to reach the server.
const CONNECT: Duration = Duration::from_secs(5);

/// True if a command line means this gateway and not that of the suite.
pub fn is_asked(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments.into_iter().any(|argument| argument.to_str().is_some_and(|text| text.starts_with("--upstream")))
}

/// The whole program.
pub fn main() -> ExitCode {
    let settings = Settings::parse();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BoxError::from)
        .and_then(|runtime| runtime.block_on(whole(settings)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stoa-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn whole(settings: Settings) -> Result<(), BoxError> {
    telemetry::init(telemetry::Format::Pretty, "info").map_err(|error| error.to_string())?;
    server::descriptors::raise();
    let shutdown = CancellationToken::new();
    process::until_asked_to_stop(shutdown.clone())?;
    let listener = TcpListener::bind(&settings.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    run(settings, listener, shutdown).await
}

/// Serves until shutdown, and then lets calls end. An error is one of the settings.
pub async fn run(settings: Settings, listener: TcpListener, shutdown: CancellationToken) -> Result<(), BoxError> {
    let upstream = Endpoint::from_shared(format!("http://{}", settings.upstream))
        .map_err(|error| format!("no address of a server: {}: {error}", settings.upstream))?
        .connect_timeout(CONNECT)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .connect_lazy();
    let (told, current) = watch::channel(None);
    let make = Maker { settings: settings.clone(), upstream: upstream.clone(), told };
    let describing = match settings.descriptors {
        Some(file) => {
            // A file that is no good now is a mistake of whoever names it.
            let read = descriptors::read(&file).await?;
            make.tell(&read)?;
            tokio::spawn(descriptors::follow(make, file, read))
        }
        None => tokio::spawn(reflection::follow(make)),
    };
    let front = Door { current, nobody: nobody()? };
    server::accept::run(listener, front, server::Limits::default(), server::Gauge::default(), shutdown).await;
    describing.abort();
    Ok(())
}

/// Makes a transcoder of descriptors and tells it to the door.
struct Maker {
    settings: Settings,
    upstream: Channel,
    told: watch::Sender<Option<Transcoder>>,
}

impl Maker {
    /// Takes an encoded descriptor set into use; an error leaves what was in use.
    fn tell(&self, descriptor_set: &[u8]) -> Result<(), BoxError> {
        let pool = DescriptorPool::decode(descriptor_set).map_err(|error| format!("the descriptors: {error}"))?;
        let names = self.settings.services.clone();
        for name in &names {
            pool.get_service_by_name(name).ok_or_else(|| format!("the descriptors have no service {name}"))?;
        }
        let limits = Limits { deadline: DEADLINE, max_request_bytes: self.settings.max_message };
        let config = Config {
            services: Box::new(move |name| names.is_empty() || names.iter().any(|wanted| wanted == name)),
            limits: Box::new(move |_| limits),
            max_response_bytes: self.settings.max_message,
            ignore_unknown: self.settings.ignore_unknown,
            forward: Passing::Custom,
            expose: Passing::Custom,
            ..Config::default()
        };
        let transcoder = Transcoder::new(&pool, Server(self.upstream.clone()), config)?;
        let (methods, routes) = (transcoder.methods().count(), transcoder.routes());
        tracing::info!(methods, routes, "descriptors are in use");
        self.told.send_replace(Some(transcoder));
        Ok(())
    }
}

/// The server behind.
#[derive(Clone)]
struct Server(Channel);

impl Service<Request<transcode::service::Body>> for Server {
    type Response = Response<transcode::service::Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<transcode::service::Body>) -> Self::Future {
        let answer = self.0.call(request.map(tonic::body::Body::new));
        Box::pin(async move { Ok(answer.await?.map(boxed)) })
    }
}

/// What answers until there are descriptors: it serves nothing.
fn nobody() -> Result<Transcoder, BoxError> {
    let behind = tower::service_fn(|_| ready(Err::<Response<transcode::service::Body>, _>(BoxError::from("nobody"))));
    Ok(Transcoder::new(&DescriptorPool::new(), behind, Config::default())?)
}

/// What the listener serves.
#[derive(Clone)]
struct Door {
    current: watch::Receiver<Option<Transcoder>>,
    nobody: Transcoder,
}

impl<B> Service<Request<B>> for Door
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<transcode::service::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let current = self.current.borrow().clone();
        match current {
            Some(mut transcoder) => transcoder.call(request.map(arriving)),
            None => {
                let problem = Problem::new(Code::Unavailable, "the service behind has not been reached yet");
                let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
                let grpc = kind.starts_with(b"application/grpc");
                let answer = if grpc { refusal(&problem) } else { self.nobody.problem(&problem) };
                Box::pin(ready(Ok(answer)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Settings::command().debug_assert();
        assert!(is_asked(["stoa-gateway", "--upstream", "a:1"].map(OsString::from)));
        assert!(is_asked(["stoa-gateway", "--upstream=a:1"].map(OsString::from)));
        assert!(!is_asked(["stoa-gateway", "--fleet", "map.toml"].map(OsString::from)));
    }
}
