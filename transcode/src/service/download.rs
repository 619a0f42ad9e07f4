//! A stream of answers as a body of HTTP: JSON lines, server-sent events, one JSON array, or bytes.
//!
//! Invariant: a stream that failed never looks complete. An error behind the first message is a last frame of its own,
//! `{"error": {...}}`, in every format; bytes, which have no frames, break off instead.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Shared,
    body::{self, Body, BoxError, Messages},
    call::Begun,
    negotiate::Format,
    rest,
    status::{Code, Status},
    table::Route,
};

/// How often an idle event stream says that it lives; proxies cut after 30 s or more.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The body over the messages.
pub(super) fn frames(shared: Arc<Shared>, route: Arc<Route>, format: Format, begun: Begun, deadline: Instant) -> Body {
    let Begun { first, messages } = begun;
    let state = State { shared, route, format, deadline, step: Step::First(first), messages };
    body::boxed(StreamBody::new(stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(text))), state))
    })))
}

/// The bytes of `google.api.HttpBody` messages, which are the answer or its field `inside`.
pub(super) fn bytes(begun: Begun, inside: Option<u32>, deadline: Instant) -> Body {
    let Begun { first, messages } = begun;
    body::boxed(StreamBody::new(stream::try_unfold((first, messages), move |(first, mut messages)| async move {
        let message = match first {
            Some(message) => Some(message),
            None => timeout_at(deadline, messages.next()).await.unwrap_or_else(|_| Err(late()))?,
        };
        let Some(message) = message else { return Ok::<_, BoxError>(None) };
        let (_, data) = rest::http_body(&message, inside);
        Ok(Some((Frame::data(data), (None, messages))))
    })))
}

fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "the stream took too long")
}

enum Step {
    First(Option<Bytes>),
    Next,
    Done,
}

struct State {
    shared: Arc<Shared>,
    route: Arc<Route>,
    format: Format,
    deadline: Instant,
    step: Step,
    messages: Messages,
}

impl State {
    async fn next(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.step, Step::Next) {
            Step::First(Some(message)) => Some(self.element(&message, true)),
            Step::First(None) => {
                self.step = Step::Done;
                (self.format == Format::Array).then(|| b"[]".to_vec())
            }
            Step::Done => {
                self.step = Step::Done;
                None
            }
            Step::Next => self.following().await,
        }
    }

    async fn following(&mut self) -> Option<Vec<u8>> {
        let wait = async {
            match self.format {
                Format::Events => timeout(HEARTBEAT, self.messages.next()).await.ok(),
                Format::Json | Format::Lines | Format::Array => Some(self.messages.next().await),
            }
        };
        match timeout_at(self.deadline, wait).await {
            Ok(None) => Some(b": alive\n\n".to_vec()),
            Ok(Some(Ok(Some(message)))) => Some(self.element(&message, false)),
            Ok(Some(Ok(None))) => {
                self.step = Step::Done;
                (self.format == Format::Array).then(|| b"]".to_vec())
            }
            Ok(Some(Err(status))) => Some(self.failure(&status, false)),
            Err(_) => Some(self.failure(&late(), false)),
        }
    }

    fn element(&mut self, message: &[u8], first: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() * 2 + 16);
        out.extend_from_slice(self.opening(first));
        match rest::write(&self.shared, &self.route, message, &mut out) {
            Ok(()) => {
                out.extend_from_slice(self.closing());
                out
            }
            Err(problem) => self.failure(&problem.status, first),
        }
    }

    fn opening(&self, first: bool) -> &'static [u8] {
        match self.format {
            Format::Json | Format::Lines => b"",
            Format::Events => b"data: ",
            Format::Array if first => b"[",
            Format::Array => b",",
        }
    }

    fn closing(&self) -> &'static [u8] {
        match self.format {
            Format::Json | Format::Lines => b"\n",
            Format::Events => b"\n\n",
            Format::Array => b"",
        }
    }

    /// The last frame: the call behind is over with it.
    fn failure(&mut self, status: &Status, first: bool) -> Vec<u8> {
        self.step = Step::Done;
        let mut out = if self.format == Format::Events { b"event: error\n".to_vec() } else { Vec::new() };
        out.extend_from_slice(self.opening(first));
        out.extend_from_slice(b"{\"error\":");
        self.shared.scribe.json(status, &mut out);
        out.push(b'}');
        out.extend_from_slice(self.closing());
        if self.format == Format::Array {
            out.push(b']');
        }
        out
    }
}
