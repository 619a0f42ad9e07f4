//! Whole requests, in any protocol, to a transcoder in front of a service that answers whatever it is told.

use std::convert::Infallible;
use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::stream::iter;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;
use transcode::service::{Body, BoxError, Code, Config, Passing, Status, Transcoder};

use crate::schema;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("no runtime"));

static LIBRARY: LazyLock<Transcoder> = LazyLock::new(|| {
    let pool = schema::pool("library", "library/v1/library.proto");
    let config = Config { forward: Passing::Custom, expose: Passing::Custom, ..Config::default() };
    Transcoder::new(&pool, tower::service_fn(behind), config).expect("no routes")
});

/// What the service behind answers: an extension of the request.
#[derive(Clone)]
struct Told(Bytes);

/// Takes what comes and answers what it was told, as the bytes of a gRPC answer, and OK behind them.
async fn behind(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let told = request.extensions().get::<Told>().cloned();
    // How the request ends is the transcoder's affair.
    let _ = request.into_body().collect().await;
    let mut trailers = HeaderMap::new();
    Status::new(Code::Ok, "").write(&mut trailers);
    let frames = told.into_iter().flat_map(|Told(bytes)| halves(bytes)).chain([Frame::trailers(trailers)]);
    let frames: Vec<Result<Frame<Bytes>, Infallible>> = frames.map(Ok).collect();
    let mut response = Response::new(transcode::service::boxed(StreamBody::new(iter(frames))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// The input is a head as HTTP/1.1 writes it, an empty line, the body, and behind the last `\n--\n` what the service answers.
pub fn request(input: &[u8]) {
    let (input, told) = cut(input, b"\n--\n").unwrap_or((input, &[]));
    let (head, body) = cut(input, b"\n\n").unwrap_or((input, &[]));
    let Some(mut request) = std::str::from_utf8(head).ok().and_then(self::head) else { return };
    request.extensions_mut().insert(Told(Bytes::copy_from_slice(told)));
    let body: Vec<_> = halves(Bytes::copy_from_slice(body)).map(Ok::<_, Infallible>).collect();
    let request = request.map(|()| transcode::service::boxed(StreamBody::new(iter(body))));
    RUNTIME.block_on(async {
        let Ok(response) = LIBRARY.clone().oneshot(request).await;
        assert!(response.status().as_u16() >= 200, "{}", response.status());
        // A stream that fails breaks off.
        let _ = response.into_body().collect().await;
    });
}

/// `POST /path?query` and then a header a line; nothing where HTTP itself would refuse it.
fn head(text: &str) -> Option<Request<()>> {
    let mut lines = text.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).ok()?).uri(target);
    for line in lines.take(32) {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    request.body(()).ok()
}

/// What is before and behind the last place of these bytes.
fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let place = if at.len() == 2 {
        bytes.windows(at.len()).position(|window| window == at)?
    } else {
        bytes.windows(at.len()).rposition(|window| window == at)?
    };
    Some((&bytes[..place], &bytes[place + at.len()..]))
}

/// The bytes in two frames, so that what is read is in the middle of something.
fn halves(mut bytes: Bytes) -> impl Iterator<Item = Frame<Bytes>> {
    let first = bytes.split_to(bytes.len() / 2);
    [first, bytes].into_iter().filter(|half| !half.is_empty()).map(Frame::data)
}
