//! Bodies on both sides: boxed, read within bounds, inflated, cut into the messages of gRPC.
//!
//! Invariant: nothing is read without a limit, and a limit counts the inflated bytes.

use std::io::{Read as _, Write as _};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

use super::{
    negotiate::Coding,
    problem::Problem,
    status::{Code, Status},
};

/// What goes wrong with a body, or with a call.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of requests to the service behind, and of all answers. A [`Status`] among its errors is told as it is.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Bytes before each message: flags and the length.
pub(crate) const PREFIX: usize = 5;

/// A body of any kind as a [`Body`].
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // One that is a `Body` already is not boxed again.
    let mut body = Some(body);
    if let Some(body) = (&mut body as &mut dyn std::any::Any).downcast_mut::<Option<Body>>() {
        return body.take().unwrap_or_else(empty);
    }
    body.map_or_else(empty, |body| body.map_err(Into::into).boxed_unsync())
}

/// No bytes.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a request body of at most `limit` bytes, after inflation too.
pub(crate) async fn read(mut body: Body, coding: Coding, limit: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(body, limit).await);
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| failed(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(too_large(body, limit).await);
        }
        if !rest.is_empty() {
            rest.put(data);
        } else if first.is_empty() {
            first = data;
        } else {
            // The hint is at most the limit: who says more was refused above.
            rest.reserve(first.len() + data.len() + body.size_hint().lower() as usize);
            rest.put(std::mem::take(&mut first));
            rest.put(data);
        }
    }
    let whole = if rest.is_empty() { first } else { rest.freeze() };
    match coding {
        Coding::Gzip if !whole.is_empty() => inflate(&whole, limit),
        Coding::Gzip | Coding::Identity => Ok(whole),
    }
}

/// 400 for a body that ends before it should.
pub(crate) fn broken_off() -> Problem {
    Problem::new(Code::InvalidArgument, "the request body broke off")
}

/// What an error of a request body means: its [`Status`], where it has one, which is 408 if whoever sends was too slow.
pub(crate) fn failed(error: &BoxError) -> Problem {
    match error.downcast_ref::<Status>() {
        Some(status) if status.code == Code::DeadlineExceeded => {
            Problem::from(status.clone()).with_http(StatusCode::REQUEST_TIMEOUT)
        }
        Some(status) => Problem::from(status.clone()),
        None => broken_off(),
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

/// Unpacks gzip, at most to `limit` bytes.
pub(crate) fn inflate(packed: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let mut text = Vec::new();
    let bound = limit as u64 + 1;
    MultiGzDecoder::new(packed).take(bound).read_to_end(&mut text).map_err(|_| broken_gzip())?;
    if text.len() > limit { Err(Problem::too_large(limit)) } else { Ok(Bytes::from(text)) }
}

/// 400 for a gzip body that cannot be inflated.
pub(crate) fn broken_gzip() -> Problem {
    Problem::new(Code::InvalidArgument, "the gzip request body is damaged or truncated")
}

/// Packs an answer: level 1, since the time of whoever packs costs more than the last few percent.
pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 3), Compression::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default()
}

/// A buffer with room for the prefix of one message, which [`framed`] fills in.
pub(crate) fn room(capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + capacity);
    out.resize(PREFIX, 0);
    out
}

/// Fills the prefix in: what stands behind it is one message.
pub(crate) fn framed(mut out: Vec<u8>) -> Bytes {
    let length = u32::try_from(out.len() - PREFIX).unwrap_or(u32::MAX);
    out[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Bytes::from(out)
}

/// The prefix of a message of this length.
pub(crate) fn prefix(flags: u8, length: usize) -> [u8; PREFIX] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [flags, a, b, c, d]
}

/// Cuts bytes, however they come, into messages with their flags. What lies in one piece is not copied.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    whole: Bytes,
    pieces: BytesMut,
}

impl Cutter {
    pub(crate) fn push(&mut self, data: Bytes) {
        if self.is_empty() {
            self.whole = data;
            return;
        }
        if self.pieces.is_empty() {
            let wanted = self.whole.split_first_chunk().map_or(0, |(head, _)| PREFIX + length(head));
            self.pieces.reserve(wanted.min(1 << 20).max(self.whole.len() + data.len()));
            self.pieces.put_slice(&self.whole);
            self.whole = Bytes::new();
        }
        self.pieces.put(data);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.pieces.is_empty()
    }

    /// The next message that is there as a whole, with its flags; an error if its length is over the limit.
    pub(crate) fn next(&mut self, limit: usize) -> Result<Option<(u8, Bytes)>, TooLong> {
        let held: &[u8] = if self.pieces.is_empty() { &self.whole } else { &self.pieces };
        let Some((head, rest)) = held.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let (flags, length) = (head[0], length(head));
        if length > limit {
            return Err(TooLong);
        }
        if rest.len() < length {
            return Ok(None);
        }
        if self.pieces.is_empty() {
            self.whole.advance(PREFIX);
            return Ok(Some((flags, self.whole.split_to(length))));
        }
        self.pieces.advance(PREFIX);
        Ok(Some((flags, self.pieces.split_to(length).freeze())))
    }
}

/// A message that is longer than is allowed.
#[derive(Debug)]
pub(crate) struct TooLong;

fn length(head: &[u8; PREFIX]) -> usize {
    u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize
}

/// The messages of an answer, one by one, and the end behind them.
pub(crate) struct Messages {
    body: Body,
    cutter: Cutter,
    limit: usize,
    head: HeaderMap,
    trailers: HeaderMap,
    ended: bool,
}

impl Messages {
    /// Takes an answer apart; its messages are at most `limit` bytes long.
    pub(crate) fn new(response: http::Response<Body>, limit: usize) -> Result<Self, Status> {
        let (parts, body) = response.into_parts();
        if parts.status != http::StatusCode::OK && !parts.headers.contains_key("grpc-status") {
            return Err(Status::new(Code::Unavailable, "the service did not answer as a gRPC service"));
        }
        let (cutter, trailers) = Default::default();
        Ok(Messages { body, cutter, limit, head: parts.headers, trailers, ended: false })
    }

    /// The metadata in front of the messages.
    pub(crate) fn head(&self) -> &HeaderMap {
        &self.head
    }

    /// The metadata behind the messages; empty before the end, and where there were only headers.
    pub(crate) fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The next message; none behind the last one if all went well. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            match self.cutter.next(self.limit) {
                Ok(Some((0, message))) => return Ok(Some(message)),
                Ok(Some(_)) => {
                    return Err(Status::new(Code::Internal, "the answer is compressed, which nobody asked for"));
                }
                Ok(None) => {}
                Err(TooLong) => return Err(Status::new(Code::Internal, "the answer is too large")),
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                None => {
                    self.ended = true;
                    return self.end(&self.head);
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(Status::from_error(&error, "the answer broke off"));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.cutter.push(data),
                    Err(frame) => {
                        self.ended = true;
                        self.trailers = frame.into_trailers().unwrap_or_default();
                        return self.end(&self.trailers);
                    }
                },
            }
        }
    }

    fn end(&self, trailers: &HeaderMap) -> Result<Option<Bytes>, Status> {
        match Status::read(trailers) {
            Some(status) if status.code != Code::Ok => Err(status),
            Some(_) if self.cutter.is_empty() => Ok(None),
            Some(_) => Err(Status::new(Code::Internal, "the answer broke off inside a message")),
            None => Err(Status::new(Code::Unavailable, "the answer broke off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_same_however_their_bytes_come() {
        let mut whole = Vec::new();
        for message in [&b"abc"[..], b"", &[7; 300]] {
            whole.extend_from_slice(&prefix(0, message.len()));
            whole.extend_from_slice(message);
        }
        for size in [1, 2, 4, 5, 6, 9, 100, whole.len()] {
            let mut cutter = Cutter::default();
            let mut found = Vec::new();
            for piece in whole.chunks(size) {
                cutter.push(Bytes::copy_from_slice(piece));
                while let Some((0, message)) = cutter.next(300).unwrap() {
                    found.push(message.to_vec());
                }
            }
            assert_eq!(found, [b"abc".to_vec(), vec![], vec![7; 300]], "pieces of {size}");
            assert!(cutter.is_empty());
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let mut cutter = Cutter::default();
        cutter.push(Bytes::from_static(&[0, 0, 0, 0, 11]));
        assert!(cutter.next(10).is_err());
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_read_whole_and_never_beyond_its_limit() {
        let pieces = |count: usize| {
            let frames = (0..count).map(|_| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(b"ab"))));
            boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())))
        };
        for count in 0..5 {
            assert_eq!(read(pieces(count), Coding::Identity, 8).await.unwrap(), "ab".repeat(count));
        }
        assert_eq!(read(pieces(5), Coding::Identity, 9).await.unwrap_err().http, 413);
    }

    #[tokio::test]
    async fn a_body_that_fails_says_why_where_it_knows() {
        let failing = |error: BoxError| {
            let frames = [Ok(http_body::Frame::data(Bytes::from_static(b"ab"))), Err(error)];
            boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
        };
        for (error, http, message) in [
            (Status::new(Code::DeadlineExceeded, "nothing came").into(), 408, "nothing came"),
            (Status::new(Code::Unavailable, "no room").into(), 503, "no room"),
            (BoxError::from("a reset of somebody"), 400, "the request body broke off"),
        ] {
            let problem = read(failing(error), Coding::Identity, 100).await.unwrap_err();
            assert_eq!((problem.http.as_u16(), &*problem.status.message), (http, message));
        }
    }
}
