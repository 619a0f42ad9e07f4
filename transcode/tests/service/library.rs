//! The library of the tests: a service behind that answers what it is told and remembers what it was asked.

use std::{
    path::Path,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, StreamBody};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tower::ServiceExt as _;
use transcode::{
    rule::RuleError,
    service::{Body, BoxError, Config, Limits, Passing, Status, Transcoder, boxed},
};

/// The longest request message in these tests, in bytes.
pub(crate) const MAX_REQUEST: usize = 64 << 10;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| pool_of(Path::new("tests/schema"), "library/v1/library.proto"));

/// Compiles one file of a folder with what it imports.
pub(crate) fn pool_of(folder: &Path, file: &str) -> DescriptorPool {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([here.join(folder), here.join("tests/schema")]).unwrap();
    let set = compiler.include_imports(true).open_file(file).unwrap().encode_file_descriptor_set();
    DescriptorPool::decode(set.as_slice()).unwrap()
}

/// One piece of what the service answers.
#[derive(Clone)]
pub(crate) enum Piece {
    /// A message given as JSON of the method's output.
    Message(Value),
    /// The end with an error.
    Error(Status),
    /// The end of the connection.
    Break,
    /// Nothing ever.
    Hang,
}

/// What the service saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Vec<Value>,
}

/// A service that answers what it was told and records what it saw.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    pub(crate) pieces: Arc<Mutex<Vec<Piece>>>,
    pub(crate) head: Arc<Mutex<HeaderMap>>,
    pub(crate) trailers: Arc<Mutex<HeaderMap>>,
    /// Everything in one frame of data.
    pub(crate) in_one: Arc<Mutex<bool>>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

/// The messages in gRPC's frames, each with its flags.
pub(crate) fn frames(mut rest: &[u8]) -> Vec<(u8, Bytes)> {
    let mut found = Vec::new();
    while let Some((head, more)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        found.push((head[0], Bytes::copy_from_slice(&more[..length])));
        rest = &more[length..];
    }
    assert!(rest.is_empty(), "bytes behind the last frame");
    found
}

pub(crate) fn method(path: &str) -> MethodDescriptor {
    let name = path.rsplit_once('/').unwrap().1;
    let service = POOL.get_service_by_name("library.v1.Library").unwrap();
    service.methods().find(|method| method.name() == name).unwrap()
}

/// JSON of a message of the library as wire bytes.
pub(crate) fn wire(message: &str, json: Value) -> Vec<u8> {
    let descriptor = POOL.get_message_by_name(&format!("library.v1.{message}")).unwrap();
    DynamicMessage::deserialize(descriptor, json).unwrap().encode_to_vec()
}

/// Wire bytes of a message of the library as JSON.
pub(crate) fn json(message: &str, wire: &[u8]) -> Value {
    let descriptor = POOL.get_message_by_name(&format!("library.v1.{message}")).unwrap();
    serde_json::to_value(DynamicMessage::decode(descriptor, wire).unwrap()).unwrap()
}

impl Fake {
    pub(crate) fn answer(&self, pieces: impl IntoIterator<Item = Piece>) {
        *self.pieces.lock().unwrap() = pieces.into_iter().collect();
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn show(&self, name: &'static str, value: &'static str) {
        self.head.lock().unwrap().insert(name, value.parse().unwrap());
    }

    async fn call(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let method = method(parts.uri.path());
        let bytes = body.collect().await?.to_bytes();
        let messages = frames(&bytes).into_iter().map(|(_, message)| {
            serde_json::to_value(DynamicMessage::decode(method.input(), message).unwrap()).unwrap()
        });
        self.seen.lock().unwrap().push(Seen {
            path: parts.uri.path().to_owned(),
            version: parts.version,
            messages: messages.collect(),
            headers: parts.headers,
        });
        let pieces = self.pieces.lock().unwrap().clone();
        let mut response = Response::new(boxed(Full::new(Bytes::new())));
        *response.headers_mut() = self.head.lock().unwrap().clone();
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        if let [Piece::Error(status)] = pieces.as_slice() {
            status.write(response.headers_mut());
            return Ok(response);
        }
        *response.body_mut() = self.body(pieces, &method);
        Ok(response)
    }

    fn body(&self, mut pieces: Vec<Piece>, method: &MethodDescriptor) -> Body {
        if !pieces.iter().any(|piece| matches!(piece, Piece::Error(_) | Piece::Hang | Piece::Break)) {
            pieces.push(Piece::Error(Status::new(transcode::service::Code::Ok, "")));
        }
        let mut frames = Vec::new();
        for piece in pieces {
            let encoded = |json| DynamicMessage::deserialize(method.output(), json).unwrap().encode_to_vec();
            frames.push(match piece {
                Piece::Message(json) => Some(Ok(http_body::Frame::data(frame(&encoded(json))))),
                Piece::Error(status) => {
                    let mut trailers = self.trailers.lock().unwrap().clone();
                    status.write(&mut trailers);
                    Some(Ok(http_body::Frame::trailers(trailers)))
                }
                Piece::Break => Some(Err(BoxError::from("reset"))),
                Piece::Hang => None,
            });
        }
        if *self.in_one.lock().unwrap() {
            let data = |frame: &Option<Result<http_body::Frame<Bytes>, BoxError>>| {
                frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(|frame| frame.data_ref().cloned())
            };
            let all: Vec<Bytes> = frames.iter().filter_map(data).collect();
            frames.retain(|frame| data(frame).is_none());
            frames.insert(0, Some(Ok(http_body::Frame::data(all.concat().into()))));
        }
        let frames = futures_util::stream::unfold(frames.into_iter(), |mut frames| async move {
            match frames.next()? {
                Some(frame) => Some((frame, frames)),
                None => std::future::pending().await,
            }
        });
        boxed(StreamBody::new(frames))
    }
}

/// A transcoder in front of a [`Fake`].
pub(crate) struct Rig {
    pub(crate) transcoder: Transcoder,
    pub(crate) fake: Fake,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
    pub(crate) broke_off: bool,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let collected = body.collect().await;
        let broke_off = collected.is_err();
        let (body, trailers) = collected.map_or_else(
            |_| (Bytes::new(), HeaderMap::new()),
            |collected| {
                let trailers = collected.trailers().cloned().unwrap_or_default();
                (collected.to_bytes(), trailers)
            },
        );
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers, broke_off }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The end of a gRPC call, wherever it stands.
    pub(crate) fn status(&self) -> Status {
        Status::read(&self.trailers).or_else(|| Status::read(&self.headers)).unwrap()
    }

    /// The fields a 400 names, sorted.
    pub(crate) fn violations(&self) -> Vec<String> {
        let body = self.json();
        let details = body["details"].as_array().cloned().unwrap_or_default();
        let bad = details.iter().find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest");
        let mut fields: Vec<String> = bad
            .and_then(|bad| bad["fieldViolations"].as_array())
            .into_iter()
            .flatten()
            .map(|violation| violation["field"].as_str().unwrap_or_default().to_owned())
            .collect();
        fields.sort();
        fields
    }
}

/// What the tests configure.
pub(crate) fn config() -> Config {
    Config {
        limits: Box::new(|_| Limits { deadline: Duration::from_secs(5), max_request_bytes: MAX_REQUEST }),
        forward: Passing::Named(["x-request-id", "trace-bin"].map(|name| name.parse().unwrap()).to_vec()),
        expose: Passing::Prefixed("stoa-"),
        status_key: "stoa-http-status".parse().unwrap(),
        ..Config::default()
    }
}

pub(crate) fn load(pool: &DescriptorPool, fake: Fake) -> Result<Transcoder, RuleError> {
    Transcoder::new(pool, tower::service_fn(move |request| fake.clone().call(request)), config())
}

impl Rig {
    /// A rig whose service answers one empty message.
    pub(crate) fn new() -> Self {
        Self::with_config(config())
    }

    pub(crate) fn with_config(config: Config) -> Self {
        let fake = Fake::default();
        fake.answer([Piece::Message(serde_json::json!({}))]);
        let behind = fake.clone();
        let behind = tower::service_fn(move |request| behind.clone().call(request));
        Rig { transcoder: Transcoder::new(&POOL, behind, config).unwrap(), fake }
    }

    /// A rig in front of another service.
    pub(crate) fn before<F, R>(behind: F) -> Transcoder
    where
        F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
    {
        Transcoder::new(&POOL, tower::service_fn(behind), config()).unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.transcoder.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.with("GET", path, &[], "").await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Answer {
        self.with(method, path, &[("content-type", "application/json")], body).await
    }

    pub(crate) async fn with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(boxed(Full::new(body.into()))).unwrap()).await
    }
}
