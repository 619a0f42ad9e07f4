//! The listener: accepts connections, speaks HTTP/1.1 or HTTP/2 on each, bounds what a peer can make it hold, drains at the end.
//!
//! The library's own server leaves several bounds open, so the loop is ours. Bounded are: connections and their age, streams a
//! connection, headers, the time to the first request and of every header, silence in the middle of a body, frames that ask for
//! nothing, resets a peer can cause, answers that nobody takes, and the drain. An open connection that stays silent after its
//! keep-alive is closed. Where peers show certificates, handshakes are bounded in time and number. The numbers are those of
//! [`Limits`]; the age is also for certificates: what is believed of a peer is believed of the one it has now.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tls::{Credentials, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arriving::{Arriving, Leaving};
use crate::descriptors;
pub use crate::limits::Limits;
use crate::watched::{Open, Watched};

/// The address at the other end of the connection that a request came by; an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// Whose certificate the connection was opened with that a request came by; an extension of every request where peers show
/// certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified(pub tls::Name);

/// Where connections come in, and what they have to prove.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    credentials: Option<Credentials>,
}

impl Listener {
    /// Lets in only who shows a certificate of the same trust domain, and shows its own.
    pub fn certified(tcp: TcpListener, credentials: Credentials) -> Self {
        Listener { tcp, credentials: Some(credentials) }
    }
}

impl From<TcpListener> for Listener {
    /// Lets everybody in.
    fn from(tcp: TcpListener) -> Self {
        Listener { tcp, credentials: None }
    }
}

/// How many requests are in flight, and the most there have been. Clones read the same counts.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    most_requests: AtomicUsize,
    connections: AtomicUsize,
}

impl Gauge {
    /// Requests in flight now: received, not answered.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// The most requests that were in flight at once.
    pub fn most_requests(&self) -> usize {
        self.counts.most_requests.load(Ordering::Relaxed)
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    fn request(&self) -> InFlight {
        let now = self.counts.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.counts.most_requests.fetch_max(now, Ordering::Relaxed);
        InFlight(Arc::clone(&self.counts), |counts| &counts.requests)
    }

    fn connection(&self) -> InFlight {
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.counts), |counts| &counts.connections)
    }
}

struct InFlight(Arc<Counts>, fn(&Counts) -> &AtomicUsize);

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers what comes in on the listener with the service, until shutdown; then stops accepting, lets requests end within the
/// drain limit, and cuts the rest.
pub async fn run<S, B>(
    listener: impl Into<Listener>,
    service: S,
    limits: Limits,
    gauge: Gauge,
    shutdown: CancellationToken,
) where
    S: tower::Service<Request<Arriving>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Listener { tcp, credentials } = listener.into();
    let room = Arc::new(Semaphore::new(limits.connections.min(descriptors::left_to_connections())));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let door = Arc::new(Doorway {
        builder: builder(&limits),
        handshakes: Semaphore::new(limits.handshakes),
        credentials,
        limits,
        shutdown,
    });
    while let Some((stream, peer, permit)) = next(&tcp, &room, &door.shutdown).await {
        let connection = Connection {
            service: service.clone(),
            gauge: gauge.clone(),
            peer: Peer(peer.ip().to_canonical()),
            port: peer.port(),
            certified: None,
            began: Arc::default(),
            open: Open::default(),
            silence: door.limits.body,
        };
        let serving = welcome(stream, Arc::clone(&door), connection);
        let (cut, open) = (cut.clone(), gauge.connection());
        connections.spawn(async move {
            let _held = (permit, open);
            cut.run_until_cancelled(serving).await;
        });
    }
    drop(tcp);
    connections.close();
    if tokio::time::timeout(door.limits.drain, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
        cut.cancel();
        connections.wait().await;
    }
}

/// What all connections of a listener have in common.
struct Doorway {
    builder: auto::Builder<TokioExecutor>,
    handshakes: Semaphore,
    credentials: Option<Credentials>,
    limits: Limits,
    shutdown: CancellationToken,
}

/// The next connection, or nothing after shutdown.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let accepted = async {
        let permit = Arc::clone(room).acquire_owned().await.ok()?;
        let mut pause = FIRST_PAUSE;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, permit)),
                // The peer has gone already; the listener is well.
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: a connection that ends is what helps, and asking at once does not.
                    tracing::warn!(%error, ?pause, "no connection can be accepted");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    };
    shutdown.run_until_cancelled(accepted).await.flatten()
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.next_request)
        .max_buf_size((limits.header_bytes as usize).max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_bytes)
        .max_local_error_reset_streams(1024)
        .max_pending_accept_reset_streams(20)
        .initial_stream_window_size(limits.unread_bytes / 4)
        .initial_connection_window_size(limits.unread_bytes)
        .max_send_buf_size(limits.unsent_bytes)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// Finds out who is at the other end, where that has to be proven, and serves.
async fn welcome<S, B>(tcp: TcpStream, door: Arc<Doorway>, mut connection: Connection<S>)
where
    S: tower::Service<Request<Arriving>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY is not set");
    }
    let Some(credentials) = &door.credentials else {
        return serve(Stream::Plain(tcp), door.builder.clone(), connection, &door).await;
    };
    let handshake = async {
        let _turn = door.handshakes.acquire().await.map_err(io::Error::other)?;
        credentials.accept(tcp).await
    };
    // Also after shutdown: the peer may have begun a request, and is told that it was not taken up.
    match tokio::time::timeout(door.limits.handshake, handshake).await {
        Ok(Ok((stream, name))) => {
            connection.certified = Some(Certified(name));
            // Nothing has to be found out about what is spoken, and a peer that is early is told of a shutdown.
            serve(stream, door.builder.clone().http2_only(), connection, &door).await;
        }
        // Nothing was claimed: somebody looked whether the port is open.
        Ok(Err(error)) if is_gone(&error) => tracing::debug!(%error, "a connection ended before it was one"),
        Ok(Err(error)) => {
            tracing::warn!(target: "audit", peer = %connection.peer.0, reason = %error, "connection refused");
        }
        Err(_) => tracing::debug!(peer = %connection.peer.0, "a handshake took too long"),
    }
}

/// Serves one connection; asks it to end when it is silent at first, when it is old, or at shutdown.
async fn serve<S, B>(stream: Stream, builder: auto::Builder<TokioExecutor>, connection: Connection<S>, door: &Doorway)
where
    S: tower::Service<Request<Arriving>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let began = Arc::clone(&connection.began);
    let Limits { headers, unread_answer, .. } = door.limits;
    let age = age(door.limits.age, connection.port);
    let stream = Watched::new(stream, connection.open.clone(), headers, unread_answer);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), connection));
    let silent = async {
        tokio::time::sleep(door.limits.first_request).await;
        if began.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let old = tokio::time::sleep(age);
    let farewell = tokio::select! {
        ended = serving.as_mut() => return told(ended),
        () = door.shutdown.cancelled() => None,
        // A peer that has sent nothing yet gets no long farewell.
        () = silent => Some(Duration::from_secs(1)),
        () = old => Some(door.limits.farewell),
    };
    serving.as_mut().graceful_shutdown();
    let ended = match farewell {
        Some(limit) => tokio::time::timeout(limit, serving).await.ok(),
        // The drain has a limit of its own.
        None => Some(serving.await),
    };
    if let Some(ended) = ended {
        told(ended);
    }
}

/// By the peer's port, which is as good as chance: up to a tenth longer.
fn age(least: Duration, port: u16) -> Duration {
    least + least / 1000 * u32::from(port % 100)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn told(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// The service as one connection sees it: counts what is in flight.
#[derive(Clone)]
struct Connection<S> {
    service: S,
    gauge: Gauge,
    peer: Peer,
    port: u16,
    certified: Option<Certified>,
    began: Arc<AtomicBool>,
    open: Open,
    silence: Duration,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Connection<S>
where
    S: tower::Service<Request<Arriving>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Leaving<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Leaving<B>>, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        if let Some(certified) = &self.certified {
            request.extensions_mut().insert(certified.clone());
        }
        self.began.store(true, Ordering::Relaxed);
        let (in_flight, open) = (self.gauge.request(), self.open.begin());
        let mut service = self.service.clone();
        let silence = self.silence;
        Box::pin(async move {
            let _in_flight = in_flight;
            std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
            let response = service.call(request.map(|body| Arriving::new(body, silence))).await?;
            Ok(response.map(|body| Leaving::new(body, open)))
        })
    }
}
