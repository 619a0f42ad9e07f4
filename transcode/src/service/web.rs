//! gRPC-Web: the trailers are a last frame of the body, and the body may be base64.
//!
//! Invariant: whatever the frames of the answer behind are, the client finds its trailers in a frame of their own.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;

use super::{
    body::{self, Body, BoxError, PREFIX, prefix},
    problem::Problem,
    status::{BASE64, Code, Status},
    upload::Failure,
};

/// Marks the frame of the trailers.
const TRAILERS: u8 = 0x80;

/// The media type of an answer.
pub(super) fn media_type(text: bool) -> &'static str {
    if text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" }
}

/// Dresses an answer.
pub(super) fn answer(response: Response<Body>, text: bool) -> Response<Body> {
    let (mut parts, inner) = response.into_parts();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(text)));
    parts.headers.remove(header::CONTENT_LENGTH);
    // The status of an answer without messages is in its headers, where the protocol allows it to be.
    let ended = parts.headers.contains_key("grpc-status");
    Response::from_parts(parts, body::boxed(Framed { inner, text, ended }))
}

struct Framed {
    inner: Body,
    text: bool,
    /// The trailers have been written, or stand in the headers.
    ended: bool,
}

impl Framed {
    fn data(&self, data: Bytes) -> Frame<Bytes> {
        // Each piece is padded: the protocol lets padding stand inside a body.
        Frame::data(if self.text { Bytes::from(padded().encode(&data)) } else { data })
    }

    fn trailers(&mut self, trailers: &HeaderMap) -> Frame<Bytes> {
        self.ended = true;
        let mut block = vec![0; PREFIX];
        for (name, value) in trailers {
            block.extend_from_slice(name.as_str().as_bytes());
            block.extend_from_slice(b": ");
            block.extend_from_slice(value.as_bytes());
            block.extend_from_slice(b"\r\n");
        }
        let head = prefix(TRAILERS, block.len() - PREFIX);
        block[..PREFIX].copy_from_slice(&head);
        self.data(Bytes::from(block))
    }
}

fn padded() -> &'static base64::engine::GeneralPurpose {
    &base64::engine::general_purpose::STANDARD
}

impl http_body::Body for Framed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let status = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            _ if self.ended => return Poll::Ready(None),
            Some(Ok(frame)) => {
                return Poll::Ready(Some(Ok(match frame.into_data() {
                    Ok(data) => self.data(data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.trailers(&trailers)
                    }
                })));
            }
            Some(Err(error)) => Status::from_error(&error, "the answer broke off"),
            None => Status::new(Code::Unavailable, "the answer broke off"),
        };
        let mut trailers = HeaderMap::new();
        status.write(&mut trailers);
        let frame = self.trailers(&trailers);
        Poll::Ready(Some(Ok(frame)))
    }
}

/// A request body that is base64, in pieces of any length, each of which may be padded.
pub(super) struct Decoded {
    inner: Body,
    /// Less than four characters.
    rest: BytesMut,
    failure: Failure,
}

impl Decoded {
    pub(super) fn new(inner: Body, failure: Failure) -> Self {
        Decoded { inner, rest: BytesMut::new(), failure }
    }

    fn fail(&self, reason: &str) -> BoxError {
        self.failure.set(Problem::new(Code::InvalidArgument, reason)).into()
    }

    /// The bytes of all groups that are whole.
    fn decode(&mut self, data: &[u8]) -> Result<Bytes, BoxError> {
        self.rest.extend_from_slice(data);
        let whole = self.rest.len() / 4 * 4;
        let groups = self.rest.split_to(whole);
        let mut out = Vec::with_capacity(whole / 4 * 3);
        let mut left = &groups[..];
        while !left.is_empty() {
            // Up to the end of the group with the next padding, where a piece ends.
            let end = memchr::memchr(b'=', left).map_or(left.len(), |at| (at / 4 + 1) * 4);
            let (piece, more) = left.split_at(end);
            BASE64.decode_vec(piece, &mut out).map_err(|_| self.fail("the body is not base64"))?;
            left = more;
        }
        Ok(Bytes::from(out))
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let decoded = self.decode(&data);
                    if decoded.as_ref().is_ok_and(Bytes::is_empty) {
                        continue;
                    }
                    return Poll::Ready(Some(decoded.map(Frame::data)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.rest.is_empty() => return Poll::Ready(None),
                None => {
                    self.rest.clear();
                    return Poll::Ready(Some(Err(self.fail("the body ends inside a group of base64"))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn pieces(text: &[u8], size: usize) -> Body {
        let frames: Vec<_> =
            text.chunks(size).map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        body::boxed(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn base64_is_decoded_however_it_comes() {
        let text = format!("{}{}{}", padded().encode(b"a"), padded().encode(b"bcd"), padded().encode(b"ef"));
        for size in 1..=text.len() {
            let decoded =
                Decoded::new(pieces(text.as_bytes(), size), Failure::default()).collect().await.unwrap().to_bytes();
            assert_eq!(decoded, "abcdef", "pieces of {size}");
        }
        for bad in ["YQ=", "Y", "!!!!", "YQ==YQ=x"] {
            assert!(Decoded::new(pieces(bad.as_bytes(), 3), Failure::default()).collect().await.is_err(), "{bad}");
        }
    }
}
