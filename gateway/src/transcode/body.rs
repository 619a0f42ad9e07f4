//! Bodies on both sides: bounded reading, inflating, gRPC framing, and one message after the other from an answer.
//!
//! Invariant: nothing is read without a limit, and a limit counts the inflated bytes.

use std::io::{Read as _, Write as _};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tonic::{Code, Status, body::Body};

use super::{negotiate::Coding, problem::Problem};

/// The largest message accepted from an upstream; contracts page long before that.
const MAX_ANSWER: usize = 64 << 20;

/// Bytes before each gRPC message: a flag and the length.
const PREFIX: usize = 5;

/// Reads a request body of at most `limit` bytes, after inflation too.
pub(crate) async fn read(mut body: Body, coding: Coding, limit: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(body, limit).await);
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|status| broke_off(&status))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large(body, limit).await);
        }
        if first.is_empty() {
            first = data;
        } else {
            rest.put(data);
        }
    }
    let whole = if rest.is_empty() { first } else { [first.as_ref(), rest.as_ref()].concat().into() };
    match coding {
        Coding::Identity => Ok(whole),
        Coding::Gzip if whole.is_empty() => Ok(whole),
        Coding::Gzip => inflate(&whole, limit),
    }
}

/// A body that ended before its time, or fell silent.
fn broke_off(status: &Status) -> Problem {
    let problem = Problem::new(Code::InvalidArgument, "the request body broke off");
    match status.code() {
        Code::DeadlineExceeded => problem.with_status(StatusCode::REQUEST_TIMEOUT),
        _ => problem,
    }
}

/// A client that is still sending when the connection closes may never see the answer, so a moderate rest is read and dropped.
async fn too_large(mut body: Body, limit: usize) -> Problem {
    const MODERATE: usize = 16 << 20;
    let mut dropped = 0;
    while dropped < MODERATE {
        match body.frame().await {
            Some(Ok(frame)) => dropped += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => break,
        }
    }
    Problem::too_large(limit)
}

fn inflate(packed: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let mut text = Vec::new();
    let bound = limit as u64 + 1;
    MultiGzDecoder::new(packed).take(bound).read_to_end(&mut text).map_err(|_| broken_gzip())?;
    if text.len() > limit { Err(Problem::too_large(limit)) } else { Ok(Bytes::from(text)) }
}

/// 400 for a gzip body that cannot be inflated.
pub(crate) fn broken_gzip() -> Problem {
    Problem::new(Code::InvalidArgument, "the gzip request body is damaged or truncated")
}

/// Packs an answer: level 1, since the gateway's time costs more than the last few percent.
pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 3), Compression::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default()
}

/// A message with its gRPC prefix.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// The messages of an upstream's answer, one by one, and the status behind them.
#[derive(Debug)]
pub(crate) struct Answers {
    head: HeaderMap,
    body: Body,
    buffer: Bytes,
    ended: bool,
}

impl Answers {
    /// Takes an upstream's answer apart.
    pub(crate) fn new(response: http::Response<Body>) -> Result<Self, Status> {
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK && !parts.headers.contains_key("grpc-status") {
            return Err(Status::unavailable("the service did not answer as a gRPC service"));
        }
        Ok(Answers { head: parts.headers, body, buffer: Bytes::new(), ended: false })
    }

    /// The metadata in front of the messages.
    pub(crate) fn head(&self) -> &HeaderMap {
        &self.head
    }

    /// The next message; `None` behind the last one if all went well. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                None => {
                    self.ended = true;
                    return self.end(&self.head);
                }
                Some(Err(status)) => {
                    self.ended = true;
                    return Err(status);
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.buffer.is_empty() => self.buffer = data,
                    Ok(data) => self.buffer = [self.buffer.as_ref(), data.as_ref()].concat().into(),
                    Err(frame) => {
                        self.ended = true;
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return self.end(&trailers);
                    }
                },
            }
        }
    }

    fn end(&self, trailers: &HeaderMap) -> Result<Option<Bytes>, Status> {
        if !self.buffer.is_empty() {
            return Err(Status::internal("the answer broke off inside a message"));
        }
        match Status::from_header_map(trailers) {
            Some(status) if status.code() == Code::Ok => Ok(None),
            Some(status) => Err(status),
            None => Err(Status::unavailable("the answer broke off")),
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((prefix, _)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [flag, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if flag != 0 || length > MAX_ANSWER {
            return Err(Status::internal("the answer is compressed or too large"));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length)))
    }
}
