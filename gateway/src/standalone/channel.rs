//! The connection to the server behind: one of HTTP/2, opened when somebody asks and again when it has ended.
//!
//! It stands on h2 alone. A request goes from the task that serves it straight into the connection's queue, without the
//! tasks and queues that a client for everything puts in between; for a small call they cost as much as all the rest.
//!
//! Bounds: an answer's bytes that nobody has read, [`STREAM_WINDOW`] a call and [`WINDOW`] all together; a request body that is
//! one piece waits whole for the server's window, any other is pulled as that opens.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::{
    HeaderValue, Request, Response, Uri, Version, header,
    uri::{Authority, InvalidUri, PathAndQuery, Scheme},
};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::{net::TcpStream, sync::Mutex as Turn};
use tokio_util::task::AbortOnDropHandle;
use transcode::service::{Body, BoxError, boxed};

/// How long it may take to reach the server.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of one answer that may have come and nobody has read.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same of all answers. When it is full all calls stand still, so it takes a crowd of slow readers to fill it.
const WINDOW: u32 = 64 << 20;
/// What h2 may spend on short frames that nobody has read, as it counts: up to 256 for each. When it is spent the connection
/// ends, with all calls, so a stream of short messages that somebody reads slowly must not come near it; by itself h2 would
/// allow so many as one such stream holds.
const SHORT_FRAMES: usize = 256 << 20;
/// The longest frame that is taken: a long answer that comes in fewer pieces is put together from fewer.
const FRAME: u32 = 256 << 10;
/// Bytes of headers of one answer.
const HEADERS: u32 = 16 << 10;

/// Whom the server sees.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("stoa-gateway/", env!("CARGO_PKG_VERSION")));

/// The server behind. A cheap handle.
#[derive(Clone)]
pub(super) struct Behind(Arc<Shared>);

struct Shared {
    authority: Authority,
    current: Mutex<Option<SendRequest<Bytes>>>,
    /// One opens a connection, and whoever waits meanwhile finds it.
    opening: Turn<()>,
}

impl Behind {
    /// The server at `host:port`; nothing is asked of it yet.
    pub(super) fn new(address: &str) -> Result<Self, InvalidUri> {
        let authority = address.parse()?;
        Ok(Behind(Arc::new(Shared { authority, current: Mutex::default(), opening: Turn::default() })))
    }

    /// Sends a call and waits for the head of its answer. Whoever drops the future or the answer's body takes the call back.
    pub(super) async fn call(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        self.0.call(request).await
    }
}

impl Shared {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let mut connection = self.connection().await?;
        let (parts, mut body) = request.into_parts();
        let mut head = Request::new(());
        *head.method_mut() = parts.method;
        *head.uri_mut() = self.absolute(parts.uri)?;
        *head.version_mut() = Version::HTTP_2;
        *head.headers_mut() = parts.headers;
        head.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let (answer, mut sending) = connection.send_request(head, body.is_end_stream())?;
        // Most bodies are one piece that is there already; only others are worth a task.
        let rest = match send_ready(&mut sending, &mut body)? {
            Sent::All => None,
            Sent::Some => Some(AbortOnDropHandle::new(tokio::spawn(send(sending, body)))),
        };
        let answer = answer.await?;
        Ok(answer.map(|receiving| boxed(Receiving { receiving, ended: false, _sending: rest })))
    }

    /// With the server's address in front of the path.
    fn absolute(&self, uri: Uri) -> Result<Uri, http::uri::InvalidUriParts> {
        let mut parts = uri.into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        Uri::from_parts(parts)
    }

    /// One that takes requests.
    async fn connection(&self) -> Result<SendRequest<Bytes>, BoxError> {
        if let Some(open) = self.open().await {
            return Ok(open);
        }
        let _turn = self.opening.lock().await;
        if let Some(open) = self.open().await {
            return Ok(open);
        }
        let opened = tokio::time::timeout(CONNECT, connect(&self.authority)).await;
        let opened = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        Ok(opened.ready().await?)
    }

    /// The one there is, if it goes on.
    async fn open(&self) -> Option<SendRequest<Bytes>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        current?.ready().await.ok()
    }
}

async fn connect(authority: &Authority) -> Result<SendRequest<Bytes>, BoxError> {
    let stream = TcpStream::connect(authority.as_str()).await?;
    stream.set_nodelay(true)?;
    let handshake = client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .data_frame_budget(SHORT_FRAMES)
        .handshake(stream);
    let (sender, connection) = handshake.await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the server behind ended with an error");
        }
    });
    Ok(sender)
}

/// How much of a request was sent.
enum Sent {
    All,
    Some,
}

/// Sends what of a body is there already.
fn send_ready(sending: &mut SendStream<Bytes>, body: &mut Body) -> Result<Sent, BoxError> {
    if body.is_end_stream() {
        return Ok(Sent::All);
    }
    // Without its length nobody knows how many pieces there are, and all of them might be there.
    if body.size_hint().exact().is_none() {
        return Ok(Sent::Some);
    }
    match body.frame().now_or_never() {
        None => Ok(Sent::Some),
        Some(None) => {
            sending.send_data(Bytes::new(), true)?;
            Ok(Sent::All)
        }
        Some(Some(frame)) => {
            let ends = body.is_end_stream();
            sending.send_data(frame?.into_data().unwrap_or_default(), ends)?;
            Ok(if ends { Sent::All } else { Sent::Some })
        }
    }
}

/// Sends the rest of a body as the server takes it. A body that fails takes the call back.
async fn send(mut sending: SendStream<Bytes>, mut body: Body) {
    loop {
        let frame = tokio::select! {
            // Nobody wants the rest.
            _ = std::future::poll_fn(|cx| sending.poll_reset(cx)) => return,
            frame = body.frame() => frame,
        };
        let sent = match frame {
            None => return drop(sending.send_data(Bytes::new(), true)),
            Some(Err(_)) => return sending.send_reset(Reason::CANCEL),
            // What stands behind a body is nothing that gRPC knows of a request.
            Some(Ok(frame)) => piece(&mut sending, frame.into_data().unwrap_or_default()).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Sends one piece as the window opens for it.
async fn piece(sending: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        sending.reserve_capacity(data.len());
        let room = match sending.capacity() {
            0 => match std::future::poll_fn(|cx| sending.poll_capacity(cx)).await {
                Some(room) => room?,
                None => return Err(Reason::CANCEL.into()),
            },
            room => room,
        };
        let now = data.split_to(room.min(data.len()));
        sending.send_data(now, false)?;
    }
    Ok(())
}

/// An answer on its way. Dropped before its end it takes the call back.
struct Receiving {
    receiving: RecvStream,
    ended: bool,
    _sending: Option<AbortOnDropHandle<()>>,
}

impl http_body::Body for Receiving {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.receiving.poll_data(cx)) {
            Some(Ok(data)) => {
                // Whoever takes it has it now; the window is for what nobody has.
                let _ = self.receiving.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            // A server that has said all and wants no more of the request says so in this way.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {}
            Some(Err(error)) => {
                self.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
            None => {}
        }
        let trailers = ready!(self.receiving.poll_trailers(cx));
        self.ended = true;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.receiving.is_end_stream()
    }
}
