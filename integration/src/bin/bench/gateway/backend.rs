//! The service behind the gateways: a process that holds each request against what was to come and gives back bytes that
//! were encoded before.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpListener;

use super::messages::{self, Book};

/// The first word of the command line that makes this program the service.
pub(crate) const WORD: &str = "gateway-backend";

/// Serves until it is killed; the first line of the output is the address.
pub(crate) fn main() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let held = Arc::new(Held::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let held = Arc::clone(&held);
        let answer = service_fn(move |request| {
            let held = Arc::clone(&held);
            async move { Ok::<_, Infallible>(held.answer(request).await) }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // Room enough that no gateway waits for it.
        builder.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), answer));
    }
}

/// What is answered, and what has to be asked for it.
struct Held {
    book: Book,
    cover: Bytes,
    one: Bytes,
    list: Bytes,
    covered: Bytes,
    /// The stream in frames, a message each, as servers of gRPC write them.
    pages: Arc<[Bytes]>,
}

impl Held {
    fn new() -> Self {
        Self {
            book: messages::book(4711),
            cover: messages::cover(),
            one: messages::framed(&messages::one()),
            list: messages::framed(&messages::list()),
            covered: messages::framed(&messages::covered()),
            pages: messages::pages().iter().map(|page| messages::framed(page)).collect(),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let answer = match body.collect().await {
            Ok(body) => self.look(parts.uri.path(), &body.to_bytes()),
            Err(error) => Err(error.into()),
        };
        let answer = answer.unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", parts.uri.path());
            Answer { frames: Frames::One(None), status: "3" }
        });
        let mut response = Response::new(answer);
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }

    /// The answer to a call, if it is what was to come, byte for byte.
    fn look(&self, path: &str, body: &[u8]) -> Result<Answer> {
        let (head, message) = body.split_at_checked(5).unwrap_or_default();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        ensure!(head.split_first() == Some((&0, &length[..])), "a request that is no message");
        let is = |right: bool| -> Result<()> {
            ensure!(right, "not what was sent");
            Ok(())
        };
        let frames = match path.rsplit_once('/').map(|(_, method)| method) {
            Some("GetBook") => {
                is(messages::GetBookRequest::decode(message)?.name == messages::NAME)?;
                Frames::One(Some(self.one.clone()))
            }
            Some("ListBooks") => {
                is(messages::ListBooksRequest::decode(message)?.page_size == 180)?;
                Frames::One(Some(self.list.clone()))
            }
            Some("CreateBook") => {
                is(messages::CreateBookRequest::decode(message)?.book.as_ref() == Some(&self.book))?;
                Frames::One(Some(self.one.clone()))
            }
            Some("UploadCover") => {
                let upload = messages::UploadCoverRequest::decode(message)?;
                is(upload.name == messages::NAME && upload.content == self.cover)?;
                Frames::One(Some(self.covered.clone()))
            }
            Some("ReadPages") => {
                is(messages::GetBookRequest::decode(message)?.name == messages::NAME)?;
                Frames::Many(Arc::clone(&self.pages), 0)
            }
            Some(_) | None => anyhow::bail!("there is no such method"),
        };
        Ok(Answer { frames, status: "0" })
    }
}

/// A body that is there already.
struct Answer {
    frames: Frames,
    status: &'static str,
}

enum Frames {
    One(Option<Bytes>),
    Many(Arc<[Bytes]>, usize),
    End,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Waker<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut self.frames {
            Frames::One(data) => data.take(),
            Frames::Many(all, next) => {
                *next += 1;
                all.get(*next - 1).cloned()
            }
            Frames::End => return Poll::Ready(None),
        };
        let frame = data.map(Frame::data).unwrap_or_else(|| {
            self.frames = Frames::End;
            let status = HeaderValue::from_static(self.status);
            Frame::trailers(HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status)]))
        });
        Poll::Ready(Some(Ok(frame)))
    }
}
