//! The first message of a gRPC request, where it says where the call goes, read without taking it from the body.

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tonic::{Status, body::Body};

/// Bytes before each message: a flag and the length.
const PREFIX: usize = 5;

/// Reads the first message and gives it back together with a body that still has it.
pub(crate) async fn peek(mut body: Body, limit: usize) -> Result<(Bytes, Body), Status> {
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
    use super::*;

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

    #[tokio::test]
    async fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let body = Body::new(Full::new(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])));
        assert_eq!(peek(body, 10).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    }
}
