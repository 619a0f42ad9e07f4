//! gRPC as it comes, and gRPC-Web, which differs in the frame around it: the bytes of messages are passed on untouched.
//!
//! Invariant: a stream that ends otherwise than well has a status that says so, its deadline included.

use std::{
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};

use super::{
    Kind, Shared,
    body::{self, Body, BoxError, PREFIX},
    call::Call,
    problem::Problem,
    status::{Code, Status},
    table::Method,
    upload::Failure,
    web,
};

/// Headers of the protocol itself that the service behind must see.
const PROTOCOL: [HeaderName; 2] =
    [HeaderName::from_static("grpc-encoding"), HeaderName::from_static("grpc-accept-encoding")];

/// Passes a call on.
pub(super) async fn serve(
    shared: &Shared,
    method: &Arc<Method>,
    kind: &Kind,
    request: Request<Body>,
) -> Response<Body> {
    match pass(shared, method, kind, request).await {
        Ok(response) => response,
        Err(status) => only_trailers(kind, &status),
    }
}

async fn pass(
    shared: &Shared,
    method: &Arc<Method>,
    kind: &Kind,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let call = Call::new(method, &parts.headers).map_err(|problem| problem.status)?;
    let deadline = call.deadline;
    let mut metadata = shared.forward.inward(&parts.headers).map_err(|problem| problem.status)?;
    for name in &PROTOCOL {
        for value in parts.headers.get_all(name) {
            metadata.append(name.clone(), value.clone());
        }
    }
    let failure = Failure::default();
    let body = match kind {
        Kind::Web { text: true } => body::boxed(web::Decoded::new(body, failure.clone())),
        _ => body,
    };
    let body = body::boxed(Bounded::new(body, method, failure.clone()));
    let answer = shared.call(call.request(metadata, parts.extensions, body), deadline).await;
    // Whatever was made of the broken request: the client hears what broke it.
    if let Some(problem) = failure.take() {
        return Err(problem.status);
    }
    let answer = answer?;
    let timed = answer.map(|body| Until { body, sleep: Box::pin(sleep_until(deadline)), ended: false });
    Ok(match kind {
        Kind::Web { text } => web::answer(timed.map(body::boxed), *text),
        _ => timed.map(body::boxed),
    })
}

/// An answer that is a status and nothing else.
pub(super) fn only_trailers(kind: &Kind, status: &Status) -> Response<Body> {
    let mut response = Response::new(body::empty());
    let media = match kind {
        Kind::Web { text } => web::media_type(*text),
        _ => "application/grpc",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    status.write(response.headers_mut());
    response
}

/// A request body that remembers what breaks it. One that must be one message is bounded as a whole; a stream is bounded message
/// by message, by whoever decodes it.
struct Bounded {
    inner: Body,
    left: usize,
    limit: usize,
    failure: Failure,
}

impl Bounded {
    fn new(inner: Body, method: &Method, failure: Failure) -> Self {
        let limit = method.limits.max_request_bytes;
        let left = if method.client_streaming { usize::MAX } else { PREFIX + limit };
        Bounded { inner, left, limit, failure }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(self.failure.set(body::failed(&error)).into()))),
            None => return Poll::Ready(None),
        };
        match self.left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                let reason = format!("the request is larger than {} bytes", self.limit);
                let problem = Problem::new(Code::ResourceExhausted, reason);
                Poll::Ready(Some(Err(self.failure.set(problem).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body that ends by its deadline, and one that breaks off as a status.
struct Until {
    body: Body,
    sleep: Pin<Box<Sleep>>,
    ended: bool,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => return Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => Status::from_error(&error, "the answer broke off"),
            Poll::Pending => {
                ready!(self.sleep.as_mut().poll(cx));
                Status::new(Code::DeadlineExceeded, "the stream took too long")
            }
        };
        self.ended = true;
        // The call behind ends now, not when the client has taken the last frame.
        self.body = body::empty();
        let mut trailers = HeaderMap::new();
        status.write(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_ends_by_its_deadline() {
        let first = futures_util::stream::once(async { Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x"))) });
        let endless = body::boxed(StreamBody::new(first.chain(futures_util::stream::pending())));
        let sleep = Box::pin(sleep_until(Instant::now() + Duration::from_secs(5)));
        let ended = Until { body: endless, sleep, ended: false }.collect().await.unwrap();
        assert_eq!(ended.trailers().unwrap()["grpc-status"], "4");
        assert_eq!(ended.to_bytes(), "x");
    }
}
