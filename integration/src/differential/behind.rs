//! The service behind a gateway: takes any call, keeps what came, and answers what the call asks to be answered.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Says which request it is; gateways hand it on.
pub(super) const CASE: &str = "x-case";
/// Says which status of gRPC the call ends with.
pub(super) const ANSWER: &str = "x-answer";
/// The method that answers what it is asked; the others answer an empty message.
const MIRROR: &str = "/gallery.v1.GalleryService/Describe";
/// Before a message: whether it is packed, and its length.
const HEAD: usize = 5;

/// A call that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// `/package.Service/Method`.
    pub method: String,
    /// The message, without its frame; nothing where the body was not one message.
    pub message: Option<Bytes>,
}

/// A service, until it is dropped.
pub struct Behind {
    /// Where it listens.
    pub address: SocketAddr,
    reached: Arc<Mutex<HashMap<u64, Reached>>>,
    serving: AbortHandle,
}

impl Behind {
    /// Listens on a port of its own.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let reached: Arc<Mutex<HashMap<u64, Reached>>> = Arc::default();
        let kept = Arc::clone(&reached);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let answer = service_fn(move |request| answer(request, Arc::clone(&kept)));
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Self { address, reached, serving: serving.abort_handle() })
    }

    /// What came with this request, if anything did.
    pub fn take(&self, case: u64) -> Option<Reached> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).remove(&case)
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    kept: Arc<Mutex<HashMap<u64, Reached>>>,
) -> Result<Response<Said>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let kind = parts.headers.get("content-type").map_or(&b""[..], HeaderValue::as_bytes);
    if !kind.starts_with(b"application/grpc") {
        // No call. "gRPC servers SHOULD respond with HTTP status of 415", doc/PROTOCOL-HTTP2.md of grpc/grpc.
        return Ok(no_call());
    }
    let number = |name: &str| parts.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let method = parts.uri.path().to_owned();
    let message = only_message(&body);
    if let Some(case) = number(CASE) {
        let reached = Reached { method: method.clone(), message: message.clone() };
        kept.lock().unwrap_or_else(PoisonError::into_inner).insert(case, reached);
    }
    let status = number(ANSWER).unwrap_or(0);
    let echoed = if method == MIRROR { message.unwrap_or_default() } else { Bytes::new() };
    let length = u32::try_from(echoed.len()).unwrap_or(u32::MAX).to_be_bytes();
    let data = Bytes::from([&[0], &length[..], &echoed].concat());
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from(status))]);
    let frames = (status == 0).then(|| Frame::data(data)).into_iter().chain([Frame::trailers(trailers)]);
    let mut response = Response::new(said(frames));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

type Said = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

fn said(frames: impl Iterator<Item = Frame<Bytes>>) -> Said {
    StreamBody::new(stream::iter(frames.map(Ok).collect::<Vec<_>>()))
}

fn no_call() -> Response<Said> {
    let mut response = Response::new(said(std::iter::empty()));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

fn only_message(body: &Bytes) -> Option<Bytes> {
    let head = body.first_chunk::<HEAD>()?;
    let [0, length @ ..] = *head else { return None };
    let message = body.slice(HEAD..);
    (message.len() == u32::from_be_bytes(length) as usize).then_some(message)
}
