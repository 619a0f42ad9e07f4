//! A connection as bytes, watched: floods of frames, headers that never end or can be read in two ways, answers that nobody
//! takes.
//!
//! What is found ends the connection by an error of reading or writing; the library above knows what to drop.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use contract::Guard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::frames::{Frames, Spoken};
use crate::framing::Framing;

/// The requests of a connection: how many have been begun, and how many of them are over, answered to the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicUsize,
    over: AtomicUsize,
}

impl Open {
    pub(crate) fn begin(&self) -> Held {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.0))
    }

    /// How many were begun, where all of them are over.
    fn all_over(&self) -> Option<usize> {
        let over = self.0.over.load(Ordering::Relaxed);
        (self.0.begun.load(Ordering::Relaxed) == over).then_some(over)
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Held(Arc<Counts>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::Relaxed);
    }
}

/// The end of a head, or of a chunk's length, that no library reads: it answers 400, or breaks off the body.
const UNREADABLE: &[u8] = b"\0\r\n\r\n";

/// The bytes of a connection.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    inner: T,
    frames: Frames,
    framing: Framing,
    /// What is left of what the library reads instead of what can be read in two ways; nothing more is read then.
    instead: Option<&'static [u8]>,
    open: Open,
    /// Set while the headers of an HTTP/1.1 request are on their way: those after so many requests.
    headers: Alarm,
    behind: usize,
    /// Set while the peer takes nothing.
    unread: Alarm,
}

impl<T> Watched<T> {
    pub(crate) fn new(inner: T, open: Open, headers: Duration, unread: Duration) -> Self {
        let frames = Frames::new(Instant::now());
        Watched {
            inner,
            frames,
            framing: Framing::new(),
            instead: None,
            open,
            headers: Alarm::after(headers),
            behind: 0,
            unread: Alarm::after(unread),
        }
    }

    /// Whether there is something to be read instead.
    fn put_instead(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let Some(instead) = &mut self.instead else { return false };
        let (piece, rest) = instead.split_at(instead.len().min(buffer.remaining()));
        buffer.put_slice(piece);
        *instead = rest;
        true
    }

    /// Whether the headers of a request have been on their way for too long.
    fn headers_are_late(&mut self, more: bool, context: &mut Context<'_>) -> bool {
        let Some(begun) = self.open.all_over().filter(|_| self.frames.spoken() != Spoken::Http2) else {
            self.headers.off();
            return false;
        };
        if begun != self.behind {
            self.headers.off();
            self.behind = begun;
        }
        // Before the first byte of a request a connection is idle, which has a bound of its own.
        if more {
            self.headers.on();
        }
        self.headers.rings(context) && Guard::HeaderTime.stands()
    }

    fn sent(&mut self, sent: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &sent {
            Poll::Ready(Ok(bytes)) => {
                self.unread.off();
                self.frames.sent(*bytes);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.unread.on();
                if self.unread.rings(context) {
                    return Poll::Ready(Err(late("the peer takes nothing of what is sent")));
                }
            }
        }
        sent
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.put_instead(buffer) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        let more = read.is_ready() && buffer.filled().len() > before;
        if this.headers_are_late(more, context) {
            return Poll::Ready(Err(late("the headers of a request did not end in time")));
        }
        ready!(read)?;
        let came = buffer.filled().get(before..).unwrap_or_default();
        this.frames.came(came, Instant::now).map_err(|flood| {
            tracing::debug!(%flood, "a connection is cut");
            io::Error::other(flood)
        })?;
        if this.frames.spoken() != Spoken::Http2
            && Guard::Framing.stands()
            && let Some(place) = this.framing.came(came)
        {
            buffer.set_filled(before + place);
            this.instead = Some(UNREADABLE);
            this.put_instead(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.sent(sent, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.sent(sent, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.inner).poll_flush(context).map_ok(|()| 0);
        this.sent(flushed, context).map_ok(drop)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let ended = Pin::new(&mut this.inner).poll_shutdown(context).map_ok(|()| 0);
        this.sent(ended, context).map_ok(drop)
    }
}

/// A time that runs from when it is switched on. Switched off it is kept, since it will be needed again.
#[derive(Debug)]
struct Alarm {
    after: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Alarm {
    fn after(after: Duration) -> Self {
        Alarm { after, sleep: None, running: false }
    }

    fn on(&mut self) {
        if std::mem::replace(&mut self.running, true) {
            return;
        }
        let end = tokio::time::Instant::now() + self.after;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(end),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(end))),
        }
    }

    fn off(&mut self) {
        self.running = false;
    }

    /// Whether it is over; if not, the task is woken then.
    fn rings(&mut self, context: &mut Context<'_>) -> bool {
        let Some(sleep) = self.sleep.as_mut().filter(|_| self.running) else { return false };
        sleep.as_mut().poll(context).is_ready()
    }
}
