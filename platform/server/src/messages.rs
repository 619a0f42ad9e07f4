//! How large each message of a request may be.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use contract::Guard;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Bytes before each gRPC message: a flag and the length.
const PREFIX: usize = 5;

/// A request of one gRPC message or many that fails at the first that says it is larger than allowed, before it comes.
pub(crate) struct Messages {
    inner: Body,
    limit: usize,
    prefix: [u8; PREFIX],
    have: usize,
    skip: usize,
}

impl Messages {
    pub(crate) fn new(inner: Body, limit: usize) -> Self {
        Messages { inner, limit, prefix: [0; PREFIX], have: 0, skip: 0 }
    }

    fn came(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = (PREFIX - self.have).min(bytes.len());
            let (piece, behind) = bytes.split_at(wanted);
            if let Some(place) = self.prefix.get_mut(self.have..self.have + wanted) {
                place.copy_from_slice(piece);
            }
            self.have += wanted;
            bytes = behind;
            if self.have == PREFIX {
                let [_, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length) as usize;
                if length > self.limit && Guard::MessageSize.stands() {
                    let limit = self.limit;
                    return Err(Status::resource_exhausted(format!("a message is larger than {limit} bytes")));
                }
                (self.have, self.skip) = (0, length);
            }
        }
        Ok(())
    }
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(refused) = self.came(data)
        {
            return Poll::Ready(Some(Err(refused)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_a_stream_is_held_to_the_limit_however_its_bytes_come() {
        let message = |length: u32, bytes: usize| [&[0][..], &length.to_be_bytes(), &vec![7; bytes]].concat();
        let good = [message(3, 3), message(0, 0), message(10, 10)].concat();
        for piece in 1..30 {
            let mut messages = Messages::new(Body::empty(), 10);
            assert!(good.chunks(piece).all(|bytes| messages.came(bytes).is_ok()), "in pieces of {piece}");
            let bad = [message(10, 10), message(11, 0)].concat();
            let refused = bad.chunks(piece).find_map(|bytes| messages.came(bytes).err());
            assert_eq!(
                refused.map(|status| status.code()),
                Some(tonic::Code::ResourceExhausted),
                "in pieces of {piece}"
            );
        }
    }
}
