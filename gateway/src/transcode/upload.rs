//! JSON lines from a client, as a stream of gRPC messages to an upstream: bounded a line, unbounded in number.
//!
//! The upstream pulls; nothing is read ahead of it. The first bad line ends the stream with an error, and that error is what
//! the client gets, with the number of the line, whatever the upstream makes of its broken stream.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures_util::stream;
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::{Status, body::Body};

use super::{bind::Frame, body, codec::Codecs, negotiate::Coding, problem::Problem};

/// Where a failing upload leaves what was wrong with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<Problem>>>);

impl Failure {
    /// What was wrong, if anything was.
    pub(crate) fn take(&self) -> Option<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, problem: Problem) -> Status {
        let status = problem.to_status();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        status
    }
}

/// What the pieces of the body are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// A JSON value a line.
    Lines,
    /// Bytes as they come, each piece one `google.api.HttpBody`.
    Raw,
}

/// Turns a request body into the body of a client-streaming call.
pub(crate) fn messages(
    source: Body,
    pieces: Pieces,
    coding: Coding,
    content_type: String,
    frame: Frame,
    codecs: Codecs,
    line_limit: usize,
) -> (Body, Failure) {
    let failure = Failure::default();
    let inflate = match coding {
        Coding::Identity => None,
        Coding::Gzip => Some(MultiGzDecoder::new(Vec::new())),
    };
    let upload = Upload {
        source,
        pieces,
        inflate,
        packed: Bytes::new(),
        content_type,
        frame,
        codecs,
        line_limit,
        buffer: BytesMut::new(),
        searched: 0,
        line: 0,
        ended: false,
        failure: failure.clone(),
    };
    let frames = stream::try_unfold(upload, |mut upload| async move {
        match upload.next().await {
            Ok(Some(message)) => Ok(Some((BodyFrame::data(body::frame(&message)), upload))),
            Ok(None) => Ok(None),
            Err(problem) => Err(upload.failure.set(problem)),
        }
    });
    (Body::new(StreamBody::new(frames)), failure)
}

struct Upload {
    source: Body,
    pieces: Pieces,
    inflate: Option<MultiGzDecoder<Vec<u8>>>,
    /// Compressed bytes not yet inflated.
    packed: Bytes,
    content_type: String,
    frame: Frame,
    codecs: Codecs,
    line_limit: usize,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    line: usize,
    ended: bool,
    failure: Failure,
}

impl Upload {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        match self.pieces {
            Pieces::Raw => {
                while self.buffer.is_empty() && !self.ended {
                    self.fill().await?;
                }
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let piece = std::mem::take(&mut self.buffer);
                self.frame.raw(&self.content_type, &piece).map(Some)
            }
            Pieces::Lines => loop {
                let Some(line) = self.next_line().await? else {
                    return Ok(None);
                };
                self.line += 1;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return self.frame.json(&self.codecs, &line).map(Some).map_err(|problem| self.at_line(problem));
            },
        }
    }

    fn at_line(&self, mut problem: Problem) -> Problem {
        // Inside a line the codec counts from 1; the client wants the line of the upload.
        let text = problem.message.strip_prefix("line 1, ").unwrap_or(&problem.message);
        problem.message = format!("line {} of the upload: {text}", self.line);
        problem
    }

    async fn next_line(&mut self) -> Result<Option<BytesMut>, Problem> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + end;
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                self.searched = 0;
                return if line.len() > self.line_limit { Err(self.line_too_long()) } else { Ok(Some(line)) };
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.line_limit {
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
        let mut problem = Problem::too_large(self.line_limit);
        problem.message = format!("line {} of the upload is longer than {} bytes", self.line + 1, self.line_limit);
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
            self.buffer.extend_from_slice(&std::mem::take(inflate.get_mut()));
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
            Some(Err(_)) => {
                return Err(Problem::new(tonic::Code::InvalidArgument, "the request body broke off"));
            }
            None => {
                self.ended = true;
                if let Some(inflate) = &mut self.inflate {
                    inflate.try_finish().map_err(|_| body::broken_gzip())?;
                    self.buffer.extend_from_slice(&std::mem::take(inflate.get_mut()));
                }
            }
        }
        Ok(())
    }
}
