//! Crowds of connections over HTTP/1.1 that ask slowly or not at all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::End;

/// How a slow one is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// Headers, a byte at a time.
    Headers,
    /// A body, a byte at a time.
    Body,
    /// A body that stops after its first byte.
    Silence,
}

/// Between two bytes of a slow one.
const PAUSE: Duration = Duration::from_millis(500);

/// Opens so many connections that send a byte now and then, until the server has ended all of them or the time is over; one
/// end for each.
pub async fn crawl(address: SocketAddr, slow: Slow, count: usize, limit: Duration) -> Result<Vec<End>> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        crowd.spawn(one(address, slow, Instant::now() + limit));
    }
    crowd.join_all().await.into_iter().collect()
}

async fn one(address: SocketAddr, slow: Slow, deadline: Instant) -> Result<End> {
    let mut stream = TcpStream::connect(address).await?;
    let begin: &[u8] = match slow {
        Slow::Headers => b"GET /v1/products HTTP/1.1\r\nhost: stoa\r\nx: ",
        Slow::Body | Slow::Silence => {
            b"POST /v1/sessions:signIn HTTP/1.1\r\nhost: stoa\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n "
        }
    };
    stream.write_all(begin).await?;
    let mut end = End::default();
    let mut chunk = [0; 4096];
    while Instant::now() < deadline {
        match tokio::time::timeout(PAUSE, stream.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => {
                end.closed = true;
                return Ok(end);
            }
            Ok(Ok(bytes)) => end.heard += bytes,
            Err(_) if slow == Slow::Silence => {}
            Err(_) => {
                end.rounds += 1;
                // Whether it is still taken is told by reading.
                let _ = stream.write_all(b" ").await;
            }
        }
    }
    Ok(end)
}

/// Connections on which nothing is said.
pub struct Idle {
    streams: Vec<TcpStream>,
}

impl Idle {
    /// Opens so many; the process must be allowed as many files.
    pub async fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let mut streams = Vec::with_capacity(count);
        while streams.len() < count {
            let some = (count - streams.len()).min(100);
            let opened: JoinSet<_> = (0..some).map(|_| TcpStream::connect(address)).collect();
            streams.extend(opened.join_all().await.into_iter().collect::<std::io::Result<Vec<_>>>()?);
        }
        Ok(Self { streams })
    }

    /// Waits until the server has ended all of them; how many it had when the time was over is an error.
    pub async fn ended(self, limit: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut open = 0;
        for mut stream in self.streams {
            let mut byte = [0];
            match tokio::time::timeout_at(deadline, stream.read(&mut byte)).await {
                Ok(Ok(0) | Err(_)) => {}
                Ok(Ok(_)) | Err(_) => open += 1,
            }
        }
        ensure!(open == 0, "{open} connections on which nothing was said were open after {limit:?}");
        Ok(())
    }
}
