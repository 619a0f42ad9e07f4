//! The library of the tests: descriptors compiled from `tests/proto`, and an upstream that remembers what it was asked.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use gateway::transcode::{
    Call, Config, Transcoder, Upstream,
    codec::Reflected,
    table::{Limits, LoadError},
};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tonic::{Status, body::Body};

/// The largest request message in these tests.
pub(crate) const MAX_REQUEST: usize = 64 << 10;

/// Compiles the test protos.
pub(crate) fn pool() -> DescriptorPool {
    pool_of(Path::new("tests/proto"), "library/v1/library.proto")
}

/// Compiles one file of another folder with what it imports.
pub(crate) fn pool_of(folder: &Path, file: &str) -> DescriptorPool {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler =
        protox::Compiler::new([here.join(folder), here.join("tests/proto"), here.join("../proto")]).unwrap();
    let set = compiler.include_imports(true).open_file(file).unwrap().encode_file_descriptor_set();
    DescriptorPool::decode(set.as_slice()).unwrap()
}

/// One piece of what the upstream answers.
#[derive(Clone)]
pub(crate) enum Piece {
    /// A message given as JSON of the method's output.
    Message(Value),
    /// The end with an error.
    Error(Status),
    /// Nothing ever.
    Hang,
}

/// What the upstream saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Vec<Value>,
}

/// An upstream that answers with what it was given and records what it saw.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    pub(crate) pieces: Arc<Mutex<Vec<Piece>>>,
    pub(crate) head: Arc<Mutex<HeaderMap>>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
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
}

pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

impl Upstream for Fake {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        let fake = self.clone();
        Box::pin(async move {
            let (parts, body) = call.request.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let mut messages = Vec::new();
            let mut rest = bytes.as_ref();
            while rest.len() >= 5 {
                let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
                let message = DynamicMessage::decode(call.method.input.clone(), &rest[5..5 + length]).unwrap();
                messages.push(serde_json::to_value(&message).unwrap());
                rest = &rest[5 + length..];
            }
            fake.seen.lock().unwrap().push(Seen {
                path: parts.uri.path().to_owned(),
                headers: parts.headers,
                messages,
            });
            let pieces = fake.pieces.lock().unwrap().clone();
            if let [Piece::Error(status)] = pieces.as_slice() {
                return Ok(status.clone().into_http());
            }
            let output = call.method.output.clone();
            let mut frames: Vec<Piece> = pieces;
            if !frames.iter().any(|piece| matches!(piece, Piece::Error(_) | Piece::Hang)) {
                frames.push(Piece::Error(Status::ok("")));
            }
            let frames =
                futures_util::stream::unfold((frames.into_iter(), output), |(mut pieces, output)| async move {
                    let frame = match pieces.next()? {
                        Piece::Message(json) => http_body::Frame::data(frame(
                            &DynamicMessage::deserialize(output.clone(), json).unwrap().encode_to_vec(),
                        )),
                        Piece::Error(status) => {
                            let mut trailers = HeaderMap::new();
                            status.add_header(&mut trailers).unwrap();
                            http_body::Frame::trailers(trailers)
                        }
                        Piece::Hang => std::future::pending().await,
                    };
                    Some((Ok::<_, Status>(frame), (pieces, output)))
                });
            let mut response = Response::new(Body::new(StreamBody::new(frames)));
            *response.headers_mut() = fake.head.lock().unwrap().clone();
            response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            Ok(response)
        })
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
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
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

pub(crate) fn load(pool: DescriptorPool, upstream: impl Upstream) -> Result<Transcoder, LoadError> {
    Transcoder::new(Config {
        pool,
        limits: Box::new(|_| Limits { deadline: Duration::from_secs(5), max_request_bytes: MAX_REQUEST }),
        codec: Arc::new(Reflected),
        upstream: Arc::new(upstream),
        forward: vec!["x-request-id".parse().unwrap()],
        expose: "stoa-",
    })
}

impl Rig {
    /// A rig whose upstream answers one empty message.
    pub(crate) fn new() -> Self {
        let fake = Fake::default();
        fake.answer([Piece::Message(serde_json::json!({}))]);
        Rig { transcoder: load(pool(), fake.clone()).unwrap(), fake }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = match self.transcoder.find(request.method(), request.uri()) {
            Ok(matched) => self.transcoder.serve(&matched, request).await,
            Err(problem) => self.transcoder.problem(&problem),
        };
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
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
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::new(http_body_util::Full::new(body.into()))).unwrap()).await
    }
}
