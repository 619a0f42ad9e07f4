//! gRPC as it comes: the same headers rule, the same identity, the same deadlines as for JSON, and the bytes untouched.
//!
//! Policies are the services' own; a method that is internal answers `PERMISSION_DENIED` there, or here where the gateway
//! itself may call it. Errors are gRPC answers of
//! headers only.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use contract::{Access, Method, Table};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full, StreamBody};
use server::status;
use tokio::time::Instant;
use tonic::{Status, body::Body, service::Routes};
use tower::Service as _;

use crate::{
    standard,
    upstream::{self, Services},
};

/// The name under which the gateway calls.
const GATEWAY: &str = "gateway";

/// Bytes before each message: a flag and the length.
const PREFIX: usize = 5;

/// Headers of the protocol itself that a service must see.
const PROTOCOL: [HeaderName; 2] =
    [HeaderName::from_static("grpc-encoding"), HeaderName::from_static("grpc-accept-encoding")];

/// True for a native gRPC request; gRPC-Web says something longer.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// Passes gRPC calls on.
pub(crate) struct Passthrough {
    methods: Table,
    services: Arc<Services>,
    standard: Routes,
    forward: Vec<HeaderName>,
}

impl Passthrough {
    pub(crate) fn new(methods: Table, services: Arc<Services>, standard: Routes, forward: Vec<HeaderName>) -> Self {
        Passthrough { methods, services, standard, forward }
    }

    /// The method that is called by this path, if a contract has one.
    pub(crate) fn method(&self, path: &str) -> Option<&'static Method> {
        self.methods.by_path(path)
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if standard::answers(request.uri().path()) {
            return match self.standard.clone().call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
        }
        self.pass(request).await.unwrap_or_else(Status::into_http)
    }

    async fn pass(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        if request.version() < Version::HTTP_2 {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return Ok(response);
        }
        let Some(method) = self.methods.by_path(request.uri().path()) else {
            return Err(Status::unimplemented("no such method"));
        };
        if request.method() != http::Method::POST {
            return Err(Status::invalid_argument("a gRPC call is a POST"));
        }
        // What services ask each other is refused by the service; but what this gateway itself may ask, it must not ask for
        // somebody else.
        if method.policy.access == Access::Internal && method.policy.callers.contains(&GATEWAY) {
            tracing::warn!(target: "audit", method = method.path, caller = GATEWAY, "denied: asked from outside");
            return Err(status::permission_denied("PERMISSION_DENIED", "the caller may not do this"));
        }
        let timeout = server::requested_deadline(request.headers())?.unwrap_or(method.deadline).min(method.deadline);
        let deadline = Instant::now() + timeout;
        let (parts, body) = request.into_parts();
        let body = bounded(method, body);
        let (first, body) = if self.services.needs_first_message(method.path) {
            let (first, body) = tokio::time::timeout_at(deadline, peek(body, method.max_request_bytes as usize))
                .await
                .map_err(|_| Status::deadline_exceeded("the request took too long"))??;
            (Some(first), body)
        } else {
            (None, body)
        };
        let mut channel = self.services.channel(method.path, first.as_deref())?;
        let mut inward = Request::new(body);
        *inward.method_mut() = http::Method::POST;
        *inward.version_mut() = Version::HTTP_2;
        *inward.uri_mut() = http::Uri::from_static(method.path);
        *inward.headers_mut() = self.inward_headers(&parts.headers);
        *inward.extensions_mut() = parts.extensions;
        upstream::address(&mut inward, Some(deadline));
        let answer = channel.call(inward).await?;
        Ok(if method.server_streaming { answer.map(|body| until(deadline, body)) } else { answer })
    }

    fn inward_headers(&self, outside: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        for name in PROTOCOL.iter().chain(&self.forward) {
            for value in outside.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers
    }
}

/// A request that must be one message is bounded as a whole; a stream is bounded message by message, by its decoder.
fn bounded(method: &Method, body: Body) -> Body {
    if method.client_streaming {
        return body;
    }
    Body::new(Bounded {
        inner: body,
        left: PREFIX + method.max_request_bytes as usize,
        limit: method.max_request_bytes,
    })
}

struct Bounded {
    inner: Body,
    left: usize,
    limit: u32,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(http_body::Frame::data_ref) {
            match self.left.checked_sub(data.len()) {
                Some(left) => self.left = left,
                None => {
                    return Poll::Ready(Some(Err(Status::resource_exhausted(format!(
                        "the request is larger than {} bytes",
                        self.limit
                    )))));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// A streamed answer that ends by its deadline, with the status that says so.
fn until(deadline: Instant, body: Body) -> Body {
    let frames = futures_util::stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(frame) => frame.map(|frame| (frame, Some(body))),
            Err(_) => {
                let late = Status::deadline_exceeded("the stream took too long");
                let mut trailers = HeaderMap::new();
                let ended = late.add_header(&mut trailers);
                let frame = ended.map(|()| http_body::Frame::trailers(trailers));
                Some((frame, None))
            }
        }
    });
    Body::new(StreamBody::new(frames))
}

/// Reads the first message and gives it back together with a body that still has it.
async fn peek(mut body: Body, limit: usize) -> Result<(Bytes, Body), Status> {
    let mut read = BytesMut::new();
    loop {
        if let Some((prefix, rest)) = read.split_first_chunk::<PREFIX>() {
            let [flag, length @ ..] = *prefix;
            let length = u32::from_be_bytes(length) as usize;
            if flag != 0 {
                return Err(Status::unimplemented("compressed requests are not taken"));
            }
            if length > limit {
                return Err(Status::resource_exhausted(format!("the request is larger than {limit} bytes")));
            }
            if let Some(message) = rest.get(..length) {
                let message = Bytes::copy_from_slice(message);
                return Ok((message, rejoin(read.freeze(), body)));
            }
        }
        match body.frame().await {
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    read.put(data);
                }
            }
            None => return Err(Status::invalid_argument("the request holds no message")),
        }
    }
}

fn rejoin(read: Bytes, rest: Body) -> Body {
    if http_body::Body::is_end_stream(&rest) {
        return Body::new(Full::new(read));
    }
    let frames = futures_util::stream::unfold((Some(read), rest), |(read, mut rest)| async move {
        match read {
            Some(read) => Some((Ok::<_, Status>(http_body::Frame::data(read)), (None, rest))),
            None => rest.frame().await.map(|frame| (frame, (None, rest))),
        }
    });
    Body::new(StreamBody::new(frames))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn grpc_is_told_from_its_web_cousins() {
        let say = |value: &str| is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]));
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"] {
            assert!(say(good), "{good}");
        }
        for bad in ["application/grpc-web", "application/grpc-web+proto", "application/json", "application/grpcx"] {
            assert!(!say(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_peeked_message_is_still_in_the_body() {
        let whole = [&[0, 0, 0, 0, 3][..], b"abc", b"rest"].concat();
        for split in [1, 5, 7, 8, 10] {
            let chunks = [Bytes::copy_from_slice(&whole[..split]), Bytes::copy_from_slice(&whole[split..])];
            let frames = futures_util::stream::iter(chunks.map(|chunk| Ok::<_, Status>(http_body::Frame::data(chunk))));
            let (first, body) = peek(Body::new(StreamBody::new(frames)), 10).await.unwrap();
            assert_eq!(first, "abc");
            assert_eq!(body.collect().await.unwrap().to_bytes(), whole);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_ends_by_its_deadline() {
        let first =
            futures_util::stream::once(async { Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(b"x"))) });
        let endless = Body::new(StreamBody::new(first.chain(futures_util::stream::pending())));
        let ended = until(Instant::now() + Duration::from_secs(5), endless).collect().await.unwrap();
        assert_eq!(ended.trailers().unwrap()["grpc-status"], "4");
        assert_eq!(ended.to_bytes(), "x");
    }

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let body = Body::new(Full::new(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])));
        assert_eq!(peek(body, 10).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
