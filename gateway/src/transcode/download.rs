//! A stream of answers as an HTTP body: JSON lines, server-sent events, one JSON array, or raw bytes.
//!
//! Invariant: a stream that failed never looks complete. An error behind the first message is a last frame of its own,
//! `{"error": {...}}`, in every format; raw bytes, which have no frames, break off instead.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame as BodyFrame;
use http_body_util::StreamBody;
use prost_reflect::{FieldDescriptor, MessageDescriptor};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Status, body::Body};

use super::{
    answer,
    body::Answers,
    codec::Codecs,
    negotiate::Format,
    problem::Problem,
    wire::{self, Raw},
};

/// How often an idle event stream says that it lives; proxies cut after 30 s or more.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What it takes to write the messages of one stream.
pub(crate) struct Writer {
    /// The codec.
    pub(crate) codecs: Codecs,
    /// The answer message.
    pub(crate) output: MessageDescriptor,
    /// The field that becomes the element, if not the whole message.
    pub(crate) field: Option<FieldDescriptor>,
    /// The format of the body.
    pub(crate) format: Format,
    /// When the stream must end.
    pub(crate) deadline: Instant,
}

/// The body over the messages, of which the first has been read (`None`: there was none).
pub(crate) fn frames(writer: Writer, first: Option<Bytes>, answers: Answers) -> Body {
    let state = State { writer, step: Step::First(first), answers };
    Body::new(StreamBody::new(stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((Ok::<_, Status>(BodyFrame::data(Bytes::from(text))), state))
    })))
}

/// The raw body over `google.api.HttpBody` messages.
pub(crate) fn raw(first: Option<Bytes>, answers: Answers, deadline: Instant) -> Body {
    let state = (first, answers);
    Body::new(StreamBody::new(stream::try_unfold(state, move |(first, mut answers)| async move {
        let message = match first {
            Some(message) => Some(message),
            None => timeout_at(deadline, answers.next())
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("the stream took too long")))?,
        };
        let Some(message) = message else {
            return Ok::<_, Status>(None);
        };
        Ok(Some((BodyFrame::data(raw_data(&message)), (None, answers))))
    })))
}

/// The bytes of a `google.api.HttpBody`.
pub(crate) fn raw_data(message: &[u8]) -> Bytes {
    match wire::find(message, &[2]) {
        Some(Raw::Len(data)) => Bytes::copy_from_slice(data),
        Some(Raw::Varint(_) | Raw::Fixed64(_) | Raw::Fixed32(_)) | None => Bytes::new(),
    }
}

enum Step {
    First(Option<Bytes>),
    Next,
    Done,
}

struct State {
    writer: Writer,
    step: Step,
    answers: Answers,
}

impl State {
    async fn next(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.step, Step::Next) {
            Step::First(Some(message)) => Some(self.element(&message, true)),
            Step::First(None) => {
                self.step = Step::Done;
                (self.writer.format == Format::Array).then(|| b"[]".to_vec())
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
            match self.writer.format {
                Format::Events => timeout(HEARTBEAT, self.answers.next()).await.ok(),
                Format::Json | Format::Lines | Format::Array => Some(self.answers.next().await),
            }
        };
        match timeout_at(self.writer.deadline, wait).await {
            Ok(None) => Some(b": alive\n\n".to_vec()),
            Ok(Some(Ok(Some(message)))) => Some(self.element(&message, false)),
            Ok(Some(Ok(None))) => {
                self.step = Step::Done;
                (self.writer.format == Format::Array).then(|| b"]".to_vec())
            }
            Ok(Some(Err(status))) => Some(self.failure(&Problem::from_status(&status), false)),
            Err(_) => Some(self.failure(&Problem::new(Code::DeadlineExceeded, "the stream took too long"), false)),
        }
    }

    fn element(&mut self, message: &[u8], first: bool) -> Vec<u8> {
        match answer::json(&self.writer.codecs, &self.writer.output, self.writer.field.as_ref(), message) {
            Ok(text) => self.wrap(&text, first),
            Err(problem) => self.failure(&problem, first),
        }
    }

    fn wrap(&self, text: &[u8], first: bool) -> Vec<u8> {
        match self.writer.format {
            Format::Json | Format::Lines => [text, b"\n"].concat(),
            Format::Events => [b"data: ", text, b"\n\n"].concat(),
            Format::Array if first => [b"[", text].concat(),
            Format::Array => [b",", text].concat(),
        }
    }

    fn failure(&mut self, problem: &Problem, first: bool) -> Vec<u8> {
        self.step = Step::Done;
        let error = [b"{\"error\":".as_slice(), &problem.json_body(&self.writer.codecs), b"}"].concat();
        let frame = self.wrap(&error, first);
        match self.writer.format {
            Format::Events => [b"event: error\n".as_slice(), &frame].concat(),
            Format::Array => [frame.as_slice(), b"]"].concat(),
            Format::Json | Format::Lines => frame,
        }
    }
}
