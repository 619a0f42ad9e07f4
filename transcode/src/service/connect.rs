//! Connect: unary calls by POST and, where a method has no side effects, by GET; streams in envelopes. JSON and protobuf.
//!
//! Messages that are protobuf already pass undecoded. A stream answers 200 whatever comes: how it ended is in its last
//! envelope, and it always has one.

mod get;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::timeout_at;

use super::{
    Shared,
    body::{self, Body, BoxError},
    call::{Begun, Call, Failed},
    metadata::Passing,
    negotiate::{self, Coding, unsupported},
    not_allowed,
    problem::Problem,
    rest,
    status::Code,
    table::{JSON_FACTOR, Method},
};

const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Proto,
}

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Get,
    Post(Codec),
    Stream(Codec),
}

impl Codec {
    fn of(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Codec::Json),
            "proto" => Some(Codec::Proto),
            _ => None,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Codec::Json => "application/json",
            Codec::Proto => "application/proto",
        }
    }

    /// How much longer than a message what stands for it may be.
    fn limit(self, method: &Method) -> usize {
        match self {
            Codec::Json => method.limits.max_request_bytes.saturating_mul(JSON_FACTOR),
            Codec::Proto => method.limits.max_request_bytes,
        }
    }

    /// A message of a request as the service behind takes it; 400 if it is none.
    fn read(self, shared: &Shared, method: &Method, message: Bytes) -> Result<Bytes, Problem> {
        let limit = method.limits.max_request_bytes;
        let wire = match self {
            Codec::Proto => message,
            Codec::Json => {
                let mut out = Vec::new();
                let read = method.input.json_to_wire(&message, &shared.parse, &mut out);
                read.map_err(|error| Problem::text(&error))?;
                Bytes::from(out)
            }
        };
        if wire.len() > limit { Err(Problem::too_large(limit)) } else { Ok(wire) }
    }
}

impl Form {
    /// The kind of a request to this method; a refusal if it is none that the method takes.
    pub(super) fn of<B>(method: &Method, request: &Request<B>, content_type: &str) -> Result<Self, Problem> {
        let streaming = method.client_streaming || method.server_streaming;
        if *request.method() != HttpMethod::POST {
            let gettable = method.safe && !streaming;
            return match (gettable, request.method() == HttpMethod::GET) {
                (true, true) => Ok(Form::Get),
                (true, false) => Err(not_allowed("GET, POST")),
                (false, _) => Err(not_allowed("POST")),
            };
        }
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let name = media.strip_prefix("application/");
        let form = name.and_then(|name| match name.strip_prefix("connect+") {
            Some(name) => Codec::of(name).filter(|_| streaming).map(Form::Stream),
            None => Codec::of(name).filter(|_| !streaming).map(Form::Post),
        });
        form.filter(|_| {
            media != "application/json" || negotiate::content(request.headers()) == negotiate::Content::Json
        })
        .ok_or_else(|| {
            let taken = if streaming {
                "application/connect+json, application/connect+proto"
            } else {
                "application/json, application/proto"
            };
            unsupported("Content-Type").with_header(ACCEPT_POST, HeaderValue::from_static(taken))
        })
    }
}

/// Serves a call.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    method: &Arc<Method>,
    form: Form,
    request: Request<Body>,
) -> Response<Body> {
    if let Form::Stream(codec) = form {
        return stream::serve(shared, method, codec, request).await;
    }
    unary(shared, method, form, request).await.unwrap_or_else(|problem| shared.scribe.connect(&problem))
}

/// The answer to a request that is not served.
pub(super) fn refuse(shared: &Shared, form: &Form, problem: &Problem) -> Response<Body> {
    match form {
        Form::Get | Form::Post(_) => shared.scribe.connect(problem),
        Form::Stream(codec) => stream::refused(shared, *codec, problem),
    }
}

async fn unary(
    shared: &Arc<Shared>,
    method: &Arc<Method>,
    form: Form,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    let mut call = Call::new(method, request.headers())?;
    let deadline = call.deadline;
    let metadata = shared.forward.inward(request.headers())?;
    let (parts, body) = request.into_parts();
    let (codec, message) = match form {
        Form::Get => get::message(method, parts.uri.query().unwrap_or_default())?,
        Form::Post(codec) | Form::Stream(codec) => {
            version(&parts.headers)?;
            let coding = negotiate::coding(&parts.headers).ok_or_else(bad_coding)?;
            let late = |_| Problem::new(Code::DeadlineExceeded, "the request body took too long");
            let read = timeout_at(deadline, body::read(body, coding, codec.limit(method))).await;
            (codec, read.map_err(late)??)
        }
    };
    let message = codec.read(shared, method, message)?;
    call.message = Some(message.clone());
    let request = call.request(metadata, parts.extensions, one_message(message));
    let begun = shared.begin(request, false, deadline).await.map_err(|failed| refused(shared, failed))?;
    respond(shared, method, codec, &parts.headers, begun)
}

fn respond(
    shared: &Shared,
    method: &Method,
    codec: Codec,
    asked: &HeaderMap,
    begun: Begun,
) -> Result<Response<Body>, Problem> {
    let message = begun.first.unwrap_or_default();
    let mut response = match codec {
        Codec::Proto => {
            let length = HeaderValue::from(message.len());
            let mut response = Response::new(body::full(message));
            response.headers_mut().insert(header::CONTENT_LENGTH, length);
            response
        }
        Codec::Json => {
            let mut text = Vec::with_capacity(message.len() * 2 + 16);
            let written = method.output.wire_to_json(&message, &shared.print, &mut text);
            written.map_err(|error| rest::unreadable(method.output.name(), &error))?;
            rest::full(text, asked)
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(codec.media_type()));
    rest::show(&shared.expose, begun.messages.head(), &shared.status_key, headers);
    trailing(&shared.expose, begun.messages.trailers(), &shared.status_key, headers);
    Ok(response)
}

/// An error of the service behind, with the metadata that is shown.
fn refused(shared: &Shared, failed: Box<Failed>) -> Problem {
    let mut problem = Problem::from(failed.status);
    let mut headers = HeaderMap::new();
    rest::show(&shared.expose, &failed.head, &shared.status_key, &mut headers);
    trailing(&shared.expose, &failed.trailers, &shared.status_key, &mut headers);
    problem.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    problem
}

/// Trailers as the headers that Connect writes them in.
fn trailing(expose: &Passing, trailers: &HeaderMap, but: &HeaderName, headers: &mut HeaderMap) {
    for (name, value) in expose.outward(trailers, but) {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
}

/// A message with its prefix, neither of which is copied.
fn one_message(message: Bytes) -> Body {
    let head = Bytes::copy_from_slice(&body::prefix(0, message.len()));
    let frames = [head, message].into_iter().filter(|bytes| !bytes.is_empty());
    let frames = frames.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)));
    body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
}

fn version(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(VERSION) {
        Some(version) if version != "1" => Err(Problem::field(VERSION.as_str(), "only version 1 is spoken")),
        Some(_) | None => Ok(()),
    }
}

/// 501, as the protocol has it for a compression that is not known.
fn bad_coding() -> Problem {
    Problem::new(Code::Unimplemented, "the compression is neither gzip nor identity")
}

fn coding(name: &str) -> Result<Coding, Problem> {
    match name {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" => Ok(Coding::Gzip),
        _ => Err(bad_coding()),
    }
}

/// 505 for a stream both ways over HTTP/1, whose answers begin when requests have ended.
fn half_duplex() -> Problem {
    Problem::new(Code::Unimplemented, "a stream in both directions needs HTTP/2")
        .with_http(StatusCode::HTTP_VERSION_NOT_SUPPORTED)
}
