//! Bodies on a listener: how long a request may fall silent, and when it is over.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tonic::Status;

use crate::watched;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request as it comes: it fails once its peer falls silent in the middle of it.
#[derive(Debug)]
pub struct Arriving {
    inner: Incoming,
    idle: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    pub(crate) fn new(inner: Incoming, idle: Duration) -> Self {
        Arriving { inner, idle, silence: None }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let idle = self.idle;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        ready!(silence.as_mut().poll(cx));
        let late = Status::deadline_exceeded(format!("nothing of the request came for {idle:?}"));
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer on its way out; with its end, its request is over.
#[derive(Debug)]
pub(crate) struct Leaving<B> {
    inner: Pin<Box<B>>,
    _open: watched::Held,
}

impl<B> Leaving<B> {
    pub(crate) fn new(inner: B, open: watched::Held) -> Self {
        Leaving { inner: Box::pin(inner), _open: open }
    }
}

impl<B: http_body::Body> http_body::Body for Leaving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.inner.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
