//! The gateway in front of one gRPC server of anybody's, which it knows by its descriptors alone.
//!
//! Descriptors are the server's own, by reflection, or a file's. Until they are there every request is answered `UNAVAILABLE`;
//! when they change, new requests are served by the new ones and calls in progress end as they began.
//!
//! Every processor has a lane: a thread with its own part of the clients' connections and its own connection to the server. A
//! request is served where it came in, so that nothing is handed from one thread to another, which costs a small request more
//! than its JSON does. A connection is not moved: what it asks for is served by one processor.

mod channel;
mod descriptors;
mod reflection;

use std::{
    convert::Infallible,
    ffi::OsString,
    io::{self, Write as _},
    num::NonZero,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use futures_util::future::{BoxFuture, ready};
use http::{HeaderValue, Request, Response, header};
use prost_reflect::DescriptorPool;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;
use tower::Service;
use transcode::service::{BoxError, Code, Config, Limits, Passing, Problem, Transcoder};

use self::channel::Behind;
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

/// True if a command line means this gateway and not that of the suite.
pub fn is_asked(arguments: impl IntoIterator<Item = OsString>) -> bool {
    arguments.into_iter().any(|argument| argument.to_str().is_some_and(|text| text.starts_with("--upstream")))
}

/// The whole program.
pub fn main() -> ExitCode {
    let settings = Settings::parse();
    let ended = lane().map_err(BoxError::from).and_then(|runtime| runtime.block_on(whole(settings)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stoa-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What one thread serves with.
fn lane() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
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
    let lanes = std::thread::available_parallelism().map_or(1, NonZero::get);
    run_on(lanes, settings, listener, shutdown).await
}

/// Serves in this thread until shutdown, and then lets calls end. An error is one of the settings.
pub async fn run(settings: Settings, listener: TcpListener, shutdown: CancellationToken) -> Result<(), BoxError> {
    run_on(1, settings, listener, shutdown).await
}

async fn run_on(
    lanes: usize,
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let behind = || Behind::new(&settings.upstream);
    behind().map_err(|error| format!("no address of a server: {}: {error}", settings.upstream))?;
    let (told, current) = watch::channel(None);
    let make = Maker { settings: settings.clone(), told };
    let describing = match settings.descriptors.clone() {
        Some(file) => {
            // A file that is no good now is a mistake of whoever names it.
            let read = descriptors::read(&file).await?;
            make.tell(&read)?;
            tokio::spawn(descriptors::follow(make, file, read))
        }
        None => tokio::spawn(reflection::follow(make, reflection::reach(&settings.upstream)?)),
    };
    let all = server::Limits::default();
    let connections = all.connections.min(server::descriptors::left_to_connections());
    let limits = server::Limits { connections: (connections / lanes).max(1), ..all };
    let nobody = nobody()?;
    let door = || -> Result<Door, BoxError> {
        Ok(Door(Arc::new(Lane { current: current.clone(), nobody: nobody.clone(), behind: behind()? })))
    };
    let listener = listener.into_std()?;
    let mut others = Vec::new();
    for _ in 1..lanes {
        // All take from one queue: whoever has nothing to do is there first.
        let (runtime, listener, door) = (lane()?, listener.try_clone()?, door()?);
        let (limits, shutdown) = (limits.clone(), shutdown.clone());
        let serve = move || runtime.block_on(serve(listener, door, limits, shutdown));
        let thread = std::thread::Builder::new().name("lane".to_owned()).spawn(serve)?;
        others.push(tokio::task::spawn_blocking(|| thread.join()));
    }
    serve(listener, door()?, limits, shutdown).await?;
    for other in others {
        other.await?.map_err(|_| "a lane stopped at an error of its own")??;
    }
    describing.abort();
    Ok(())
}

/// Serves in one thread.
async fn serve(
    listener: std::net::TcpListener,
    door: Door,
    limits: server::Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    server::accept::run(listener, door, limits, server::Gauge::default(), shutdown).await;
    Ok(())
}

/// Makes a transcoder of descriptors and tells it to the door.
struct Maker {
    settings: Settings,
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
        let transcoder = Transcoder::new(&pool, Server, config)?;
        let (methods, routes) = (transcoder.methods().count(), transcoder.routes());
        tracing::info!(methods, routes, "descriptors are in use");
        self.told.send_replace(Some(transcoder));
        Ok(())
    }
}

/// The server behind, over the connection of the lane that a request came in on.
#[derive(Clone)]
struct Server;

impl Service<Request<transcode::service::Body>> for Server {
    type Response = Response<transcode::service::Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<transcode::service::Body>) -> Self::Future {
        match request.extensions_mut().remove::<Behind>() {
            Some(behind) => Box::pin(behind.call(request)),
            None => Box::pin(ready(Err("a request that came in nowhere".into()))),
        }
    }
}

/// What answers until there are descriptors: it serves nothing.
fn nobody() -> Result<Transcoder, BoxError> {
    let behind = tower::service_fn(|_| ready(Err::<Response<transcode::service::Body>, _>(BoxError::from("nobody"))));
    Ok(Transcoder::new(&DescriptorPool::new(), behind, Config::default())?)
}

/// What a lane's listener serves. A cheap handle, since every request has one of its own.
#[derive(Clone)]
struct Door(Arc<Lane>);

struct Lane {
    current: watch::Receiver<Option<Transcoder>>,
    nobody: Transcoder,
    behind: Behind,
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

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.0.behind.clone());
        let current = self.0.current.borrow().clone();
        match current {
            Some(mut transcoder) => transcoder.call(request.map(arriving)),
            None => {
                let problem = Problem::new(Code::Unavailable, "the service behind has not been reached yet");
                let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
                let grpc = kind.starts_with(b"application/grpc");
                let answer = if grpc { refusal(&problem) } else { self.0.nobody.problem(&problem) };
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
