//! A wire between two processes that can be cut, fall silent, crawl, or lose what comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a wire does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Carries them.
    Fair,
    /// Carries none: connections break, and new ones break too.
    Cut,
    /// Takes connections and keeps the bytes of both sides until it is fair again.
    Silent,
    /// Carries what the caller sends and throws away the answers; their connections break when that is over.
    AnswersLost,
    /// Carries every piece this much later.
    Slow(Duration),
}

/// A wire to one address; gone when dropped.
pub struct Wire {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    hurt: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Lays a wire to this address.
    pub async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (weather, watched) = watch::channel(Weather::Fair);
        let hurt = Arc::new(AtomicUsize::new(0));
        let end = End { target, weather: watched, hurt: Arc::clone(&hurt) };
        Ok(Self { address, weather, hurt, accepting: tokio::spawn(accept(listener, end)) })
    }

    /// Where callers find the other end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// How many pieces or connections have met bad weather.
    pub fn hurt(&self) -> usize {
        self.hurt.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
struct End {
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    hurt: Arc<AtomicUsize>,
}

impl End {
    fn now(&self) -> Weather {
        *self.weather.borrow()
    }

    fn count(&self) {
        self.hurt.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns once the weather is this way or the wire is gone.
    async fn until(&mut self, wanted: impl Fn(Weather) -> bool) {
        let _ = self.weather.wait_for(|weather| wanted(*weather)).await;
    }
}

async fn accept(listener: TcpListener, end: End) {
    while let Ok((caller, _)) = listener.accept().await {
        tokio::spawn(carry(caller, end.clone()));
    }
}

/// One connection, until a side closes it or it is cut.
async fn carry(caller: TcpStream, mut end: End) {
    if end.now() == Weather::Cut {
        end.count();
        return;
    }
    let Ok(callee) = TcpStream::connect(end.target).await else { return };
    let _ = (caller.set_nodelay(true), callee.set_nodelay(true));
    let ((from_caller, to_caller), (from_callee, to_callee)) = (caller.into_split(), callee.into_split());
    let asking = pump(from_caller, to_callee, end.clone(), false);
    let answering = pump(from_callee, to_caller, end.clone(), true);
    tokio::select! {
        // Both halves are closed with the first: what spoke over it is to notice.
        () = asking => {}
        () = answering => {}
        () = end.until(|weather| weather == Weather::Cut) => end.count(),
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut end: End, answers: bool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        match end.now() {
            Weather::AnswersLost if answers => {
                end.count();
                end.until(|weather| weather != Weather::AnswersLost).await;
                return;
            }
            Weather::Silent => {
                end.count();
                end.until(|weather| weather != Weather::Silent).await;
            }
            Weather::Slow(delay) => {
                end.count();
                tokio::time::sleep(delay).await;
            }
            Weather::Fair | Weather::Cut | Weather::AnswersLost => {}
        }
        if to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}
