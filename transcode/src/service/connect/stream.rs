//! Streams in envelopes: a flag and a length before each message, as gRPC has them, and a last envelope that tells the end.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::{Instant, timeout_at};

use super::{Codec, coding, half_duplex, version};
use crate::{
    service::{
        Shared,
        body::{self, Body, BoxError, Cutter, Messages, PREFIX, TooLong, prefix},
        call::Call,
        negotiate::Coding,
        problem::Problem,
        rest,
        status::{Code, Status},
        table::Method,
        upload::Failure,
    },
    text::quote,
};

const CODING: HeaderName = HeaderName::from_static("connect-content-encoding");

/// The flags of an envelope.
const COMPRESSED: u8 = 1;
const END: u8 = 2;

/// Serves a stream.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    method: &Arc<Method>,
    codec: Codec,
    request: Request<Body>,
) -> Response<Body> {
    match open(shared, method, codec, request).await {
        Ok(response) => response,
        Err(problem) => refused(shared, codec, &problem),
    }
}

/// The answer to a request that is not served: a stream of its end alone, but for what HTTP itself has a status for.
pub(super) fn refused(shared: &Shared, codec: Codec, problem: &Problem) -> Response<Body> {
    if problem.http == StatusCode::HTTP_VERSION_NOT_SUPPORTED {
        return shared.scribe.connect(problem);
    }
    let end = end(shared, Some(&problem.status), &HeaderMap::new());
    answer(codec, &problem.headers.iter().cloned().collect(), body::full(end))
}

async fn open(
    shared: &Arc<Shared>,
    method: &Arc<Method>,
    codec: Codec,
    request: Request<Body>,
) -> Result<Response<Body>, Problem> {
    if method.client_streaming && method.server_streaming && request.version() < Version::HTTP_2 {
        return Err(half_duplex());
    }
    version(request.headers())?;
    let packing = request.headers().get(CODING).map(|value| value.to_str().unwrap_or("?")).unwrap_or_default();
    let packing = coding(packing)?;
    let call = Call::new(method, request.headers())?;
    let deadline = call.deadline;
    let metadata = shared.forward.inward(request.headers())?;
    let (parts, source) = request.into_parts();
    let failure = Failure::default();
    let upload = Upload {
        shared: shared.clone(),
        method: method.clone(),
        codec,
        packing,
        source,
        cutter: Cutter::default(),
        count: 0,
    };
    let request = call.request(metadata, parts.extensions, upload.body(failure.clone()));
    let answered = shared.call(request, deadline).await;
    if let Some(problem) = failure.take() {
        return Err(problem);
    }
    let messages = answered.and_then(|answer| Messages::new(answer, shared.max_response_bytes));
    let messages = messages.map_err(Problem::from)?;
    let mut headers = HeaderMap::new();
    rest::show(&shared.expose, messages.head(), &shared.status_key, &mut headers);
    let download =
        Download { shared: shared.clone(), method: method.clone(), codec, messages, failure, deadline, ended: false };
    Ok(answer(codec, &headers, download.body()))
}

fn answer(codec: Codec, headers: &HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.headers_mut() = headers.clone();
    let media = match codec {
        Codec::Json => "application/connect+json",
        Codec::Proto => "application/connect+proto",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// The last envelope.
fn end(shared: &Shared, error: Option<&Status>, trailers: &HeaderMap) -> Vec<u8> {
    let mut out = body::room(64);
    out.push(b'{');
    if let Some(status) = error {
        out.extend_from_slice(b"\"error\":");
        shared.scribe.connect_json(status, &mut out);
    }
    let mut names: Vec<&HeaderName> =
        shared.expose.outward(trailers, &shared.status_key).map(|(name, _)| name).collect();
    names.dedup();
    for (at, name) in names.iter().enumerate() {
        out.extend_from_slice(match (at, error) {
            (0, None) => b"\"metadata\":{",
            (0, Some(_)) => b",\"metadata\":{",
            _ => b",",
        });
        quote(name.as_str(), &mut out);
        out.push(b':');
        for (at, value) in trailers.get_all(*name).iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            quote(&String::from_utf8_lossy(value.as_bytes()), &mut out);
        }
        out.push(b']');
    }
    if !names.is_empty() {
        out.push(b'}');
    }
    out.push(b'}');
    let head = prefix(END, out.len() - PREFIX);
    out[..PREFIX].copy_from_slice(&head);
    out
}

/// The messages of a request.
struct Upload {
    shared: Arc<Shared>,
    method: Arc<Method>,
    codec: Codec,
    packing: Coding,
    source: Body,
    cutter: Cutter,
    count: usize,
}

impl Upload {
    fn body(self, failure: Failure) -> Body {
        let frames = stream::try_unfold((self, failure), |(mut upload, failure)| async move {
            match upload.next().await {
                Ok(Some(message)) => Ok(Some((message, (upload, failure)))),
                Ok(None) => Ok(None),
                Err(problem) => Err(BoxError::from(failure.set(problem))),
            }
        });
        // A prefix and its message are two frames, so that neither is copied.
        let frames = futures_util::StreamExt::flat_map(frames, |frame: Result<Bytes, BoxError>| {
            let (head, message) = match frame {
                Ok(message) => {
                    let head = Bytes::copy_from_slice(&prefix(0, message.len()));
                    (Ok(Frame::data(head)), Some(message).filter(|message| !message.is_empty()))
                }
                Err(error) => (Err(error), None),
            };
            stream::iter(std::iter::once(head).chain(message.map(|message| Ok(Frame::data(message)))))
        });
        body::boxed(StreamBody::new(frames))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let limit = self.codec.limit(&self.method);
        loop {
            match self.cutter.next(limit) {
                Ok(Some((flags, message))) => return self.message(flags, message).map(Some),
                Ok(None) => {}
                Err(TooLong) => return Err(Problem::too_large(limit)),
            }
            match self.source.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.cutter.push(data);
                    }
                }
                Some(Err(error)) => return Err(body::failed(&error)),
                None if self.cutter.is_empty() => {
                    let single = !self.method.client_streaming;
                    return if single && self.count == 0 { Err(no_message()) } else { Ok(None) };
                }
                None => return Err(body::broken_off()),
            }
        }
    }

    fn message(&mut self, flags: u8, message: Bytes) -> Result<Bytes, Problem> {
        self.count += 1;
        if self.count > 1 && !self.method.client_streaming {
            return Err(Problem::new(Code::Unimplemented, "the method takes one message"));
        }
        let message = match (flags, self.packing) {
            (0, _) => message,
            (COMPRESSED, Coding::Gzip) => body::inflate(&message, self.codec.limit(&self.method))?,
            (COMPRESSED, Coding::Identity) => {
                return Err(Problem::new(Code::Internal, "a message is compressed, and nothing says how"));
            }
            _ => return Err(Problem::new(Code::InvalidArgument, "an envelope has flags that are not known")),
        };
        self.codec.read(&self.shared, &self.method, message).map_err(|mut problem| {
            if self.method.client_streaming {
                problem.status.message = format!("message {}: {}", self.count, problem.status.message);
            }
            problem
        })
    }
}

fn no_message() -> Problem {
    Problem::new(Code::Unimplemented, "the request holds no message")
}

/// The messages of an answer.
struct Download {
    shared: Arc<Shared>,
    method: Arc<Method>,
    codec: Codec,
    messages: Messages,
    /// What was wrong with the request, which ends the answer.
    failure: Failure,
    deadline: Instant,
    ended: bool,
}

impl Download {
    fn body(self) -> Body {
        body::boxed(StreamBody::new(stream::unfold(self, |mut download| async move {
            let envelope = download.next().await?;
            Some((Ok::<_, BoxError>(Frame::data(envelope)), download))
        })))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let next = timeout_at(self.deadline, self.messages.next()).await;
        let envelope = match next {
            Ok(Ok(Some(message))) => self.envelope(&message),
            Ok(Ok(None)) => Err(None),
            Ok(Err(status)) => Err(Some(self.failure.take().map_or(status, |problem| problem.status))),
            Err(_) => Err(Some(Status::new(Code::DeadlineExceeded, "the stream took too long"))),
        };
        Some(envelope.unwrap_or_else(|error| {
            self.ended = true;
            // A call without messages has its metadata in front.
            let trailers = self.messages.trailers();
            Bytes::from(end(&self.shared, error.as_ref(), trailers))
        }))
    }

    fn envelope(&self, message: &[u8]) -> Result<Bytes, Option<Status>> {
        let mut out = body::room(message.len().saturating_mul(if self.codec == Codec::Json { 2 } else { 1 }));
        match self.codec {
            Codec::Proto => out.extend_from_slice(message),
            Codec::Json => {
                let written = self.method.output.wire_to_json(message, &self.shared.print, &mut out);
                written.map_err(|error| Some(rest::unreadable(self.method.output.name(), &error).status))?;
            }
        }
        Ok(body::framed(out))
    }
}
