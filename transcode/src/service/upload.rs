//! JSON lines or bytes from a client, as a stream of gRPC messages: bounded a line, unbounded in number.
//!
//! The service behind pulls; nothing is read ahead of it. The first bad line ends the stream with an error, and that error is
//! what the client gets, with the number of the line, whatever the service makes of its broken stream.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::{
    body::{self, Body, BoxError},
    negotiate::Coding,
    problem::Problem,
    rest::Binder,
    status::Status,
};

/// The longest line, in bytes, where the method's own limit is not less.
pub(super) const MAX_LINE: usize = 4 << 20;

/// Where a request body that fails leaves what was wrong with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<Problem>>>);

impl Failure {
    /// What was wrong, if anything was.
    pub(super) fn take(&self) -> Option<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Remembers what was wrong, and gives the error that ends the body.
    pub(super) fn set(&self, problem: Problem) -> Status {
        let status = problem.status.clone();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        status
    }
}

/// Turns a request body into the body of a client-streaming call.
pub(super) fn messages(source: Body, coding: Coding, binder: Binder, max_line: usize) -> (Body, Failure) {
    let failure = Failure::default();
    let inflate = match coding {
        Coding::Identity => None,
        Coding::Gzip => Some(MultiGzDecoder::new(Vec::new())),
    };
    let upload = Upload {
        source,
        inflate,
        packed: Bytes::new(),
        binder,
        max_line,
        buffer: BytesMut::new(),
        searched: 0,
        line: 0,
        ended: false,
    };
    let left = failure.clone();
    let frames = stream::try_unfold((upload, left), |(mut upload, left)| async move {
        match upload.next().await {
            Ok(Some(message)) => Ok(Some((Frame::data(message), (upload, left)))),
            Ok(None) => Ok(None),
            Err(problem) => Err(BoxError::from(left.set(problem))),
        }
    });
    (body::boxed(StreamBody::new(frames)), failure)
}

struct Upload {
    source: Body,
    inflate: Option<MultiGzDecoder<Vec<u8>>>,
    /// Compressed bytes not yet inflated.
    packed: Bytes,
    binder: Binder,
    max_line: usize,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    line: usize,
    ended: bool,
}

impl Upload {
    /// The next message with its prefix.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.binder.takes_bytes() {
            return self.next_bytes().await;
        }
        while let Some(line) = self.next_line().await? {
            self.line += 1;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return self.binder.json(&line).map(Some).map_err(|problem| self.at_line(problem));
            }
        }
        Ok(None)
    }

    /// Bytes as they come, each piece one `google.api.HttpBody`.
    async fn next_bytes(&mut self) -> Result<Option<Bytes>, Problem> {
        while self.buffer.is_empty() && !self.ended {
            self.fill().await?;
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let piece = self.buffer.split_to(self.buffer.len().min(self.max_line));
        self.binder.bytes(&piece).map(Some)
    }

    fn at_line(&self, mut problem: Problem) -> Problem {
        // Inside a line the codec counts from 1; the client wants the line of the upload.
        let text = &problem.status.message;
        let text = text.strip_prefix("line 1, ").unwrap_or(text);
        problem.status.message = format!("line {} of the upload: {text}", self.line);
        problem
    }

    async fn next_line(&mut self) -> Result<Option<BytesMut>, Problem> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                return if line.len() > self.max_line { Err(self.line_too_long()) } else { Ok(Some(line)) };
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.max_line {
                return Err(self.line_too_long());
            }
            if self.ended {
                let line = std::mem::take(&mut self.buffer);
                self.searched = 0;
                return Ok(Some(line).filter(|line| !line.is_empty()));
            }
            self.fill().await?;
        }
    }

    fn line_too_long(&self) -> Problem {
        let mut problem = Problem::too_large(self.max_line);
        problem.status.message = format!("line {} of the upload is longer than {} bytes", self.line + 1, self.max_line);
        problem
    }

    async fn fill(&mut self) -> Result<(), Problem> {
        /// Deflate expands at most about a thousandfold, so a bite inflates to a few MiB at worst.
        const BITE: usize = 4096;
        if let Some(inflate) = &mut self.inflate
            && !self.packed.is_empty()
        {
            let bite = self.packed.len().min(BITE);
            inflate.write_all(&self.packed[..bite]).and_then(|()| inflate.flush()).map_err(|_| body::broken_gzip())?;
            self.packed.advance(bite);
            self.buffer.extend_from_slice(inflate.get_ref());
            inflate.get_mut().clear();
            return Ok(());
        }
        match self.source.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    match self.inflate {
                        Some(_) => self.packed = data,
                        None => self.buffer.extend_from_slice(&data),
                    }
                }
            }
            Some(Err(error)) => return Err(body::failed(&error)),
            None => {
                self.ended = true;
                if let Some(inflate) = &mut self.inflate {
                    inflate.try_finish().map_err(|_| body::broken_gzip())?;
                    self.buffer.extend_from_slice(inflate.get_ref());
                    inflate.get_mut().clear();
                }
            }
        }
        Ok(())
    }
}
