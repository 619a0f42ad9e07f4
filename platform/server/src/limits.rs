//! What a peer can make the listener hold, each bound with its number and its reason.

use std::time::Duration;

/// What a peer can make the listener hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the system's queue. Fewer where the process may open fewer files: see
    /// [`crate::descriptors`].
    pub connections: usize,
    /// HTTP/2 streams at once on one connection.
    pub streams: u32,
    /// Bytes of headers of one request.
    pub header_bytes: u32,
    /// Bytes of request bodies that one connection may have sent and nobody has read.
    pub unread_bytes: u32,
    /// Bytes of one answer that lie ready while its peer does not take them.
    pub unsent_bytes: usize,
    /// How long a connection may take to its first request.
    pub first_request: Duration,
    /// How long an HTTP/1.1 connection may lie idle before each further one.
    pub next_request: Duration,
    /// How long the headers of an HTTP/1.1 request may take from their first byte.
    pub headers: Duration,
    /// How long a request's body may fall silent while somebody reads it.
    pub body: Duration,
    /// How long a peer may take nothing of what is sent.
    pub unread_answer: Duration,
    /// How long requests may go on after shutdown.
    pub drain: Duration,
    /// Handshakes at once; whoever comes then waits within the time of its own.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a connection takes new requests; up to a tenth more, so that those that came together do not come again
    /// together.
    pub age: Duration,
    /// How long its last requests may go on then: longer than the longest deadline of a method with one answer. A stream of
    /// answers that goes on for longer is cut, and its reader goes on over another connection where it broke off.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 16 * 1024,
            streams: 100,
            header_bytes: 16 * 1024,
            unread_bytes: 1 << 20,
            unsent_bytes: 256 << 10,
            first_request: Duration::from_secs(30),
            next_request: Duration::from_secs(75),
            headers: Duration::from_secs(10),
            body: Duration::from_secs(20),
            unread_answer: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            handshakes: 256,
            handshake: Duration::from_secs(4),
            age: Duration::from_secs(10 * 60),
            farewell: Duration::from_secs(11 * 60),
        }
    }
}
