//! Two bounds on bodies (how large a request may be, and what stays taken until a streamed answer ends), and the count of a
//! streamed answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::answering::Answering;
use crate::shedding::Place;

/// A request body that fails once it is larger than allowed, whatever its length prefix promised.
pub(crate) struct Bounded {
    inner: Body,
    left: usize,
    limit: usize,
}

impl Bounded {
    pub(crate) fn new(inner: Body, limit: usize) -> Self {
        Bounded { inner, left: limit, limit }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match self.left.checked_sub(data.len()) {
                Some(left) => self.left = left,
                None => {
                    let refused =
                        Status::resource_exhausted(format!("the request is larger than {} bytes", self.limit));
                    return Poll::Ready(Some(Err(refused)));
                }
            }
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

/// A streamed answer that has its place until it ends.
pub(crate) struct Held {
    inner: Body,
    _place: Place,
}

impl Held {
    pub(crate) fn new(inner: Body, place: Place) -> Self {
        Held { inner, _place: place }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A streamed answer that is counted when it ends, by the status in its trailers.
pub(crate) struct Counted {
    inner: Body,
    answering: Option<Answering>,
}

impl Counted {
    pub(crate) fn new(inner: Body, answering: Answering) -> Self {
        Counted { inner, answering: Some(answering) }
    }

    fn end(&mut self, code: Code) {
        if let Some(answering) = self.answering.take() {
            answering.end(code);
        }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            None => self.end(Code::Ok),
            Some(Err(status)) => self.end(status.code()),
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(|trailers| trailers.get("grpc-status")) {
                    self.end(Code::from_bytes(status.as_bytes()));
                }
            }
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
