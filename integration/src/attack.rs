//! Attackers: HTTP/2 frames and half requests written as bytes, as no library of a client would send them.
//!
//! Each attack is one connection, or a crowd of them. It goes on until the server ends it, or until it has done as much as it
//! set out to do; what came of it is an [`End`]. What a server must do is said by whoever runs it.

pub mod bystander;
pub mod frame;
pub mod http1;
pub mod http2;
pub mod watch;

use std::net::SocketAddr;

use anyhow::Result;

/// What came of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// How often the attacker did what it does before the server ended it.
    pub rounds: usize,
    /// The server closed the connection.
    pub closed: bool,
    /// The server answered what was said last, and so has read all the rest.
    pub read_all: bool,
    /// Why, where it said so: the code of a GOAWAY.
    pub reason: Option<u32>,
    /// Streams that were answered with headers.
    pub answered: usize,
    /// Bytes that the server sent.
    pub heard: usize,
}

/// What one connection does until it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Requests that are taken back at once, as many as fit into a packet.
    RapidReset,
    /// The same twenty by twenty, each once its answer has begun.
    PacedReset,
    /// Headers that never end.
    Continuation,
    /// Headers of one byte each that stand for four thousand, many thousand times.
    HeaderBomb,
    /// PINGs without end.
    Ping,
    /// SETTINGS without end.
    Settings,
    /// A body of frames that hold nothing.
    EmptyData,
    /// A body of frames of one byte.
    TinyData,
    /// Window updates, one byte at a time.
    WindowUpdate,
    /// Requests whose answers are never let through.
    ShutWindow,
}

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 10] = [
        Attack::RapidReset,
        Attack::PacedReset,
        Attack::Continuation,
        Attack::HeaderBomb,
        Attack::Ping,
        Attack::Settings,
        Attack::EmptyData,
        Attack::TinyData,
        Attack::WindowUpdate,
        Attack::ShutWindow,
    ];

    /// As it is called in a table.
    pub fn name(self) -> &'static str {
        match self {
            Attack::RapidReset => "rapid-reset",
            Attack::PacedReset => "paced-reset",
            Attack::Continuation => "continuation",
            Attack::HeaderBomb => "header-bomb",
            Attack::Ping => "ping",
            Attack::Settings => "settings",
            Attack::EmptyData => "empty-data",
            Attack::TinyData => "tiny-data",
            Attack::WindowUpdate => "window-update",
            Attack::ShutWindow => "shut-window",
        }
    }

    /// Opens a connection and attacks over it, for at most that many rounds.
    pub async fn run(self, address: SocketAddr, most: usize) -> Result<End> {
        http2::run(self, address, most).await
    }
}
