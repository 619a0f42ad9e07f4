//! The listener by itself: both protocols on one port, what it counts, what it bounds, how it ends.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use server::Arriving;
use server::accept::{self, Gauge, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Running {
    address: SocketAddr,
    gauge: Gauge,
    shutdown: CancellationToken,
    loop_: JoinHandle<()>,
    gate: Arc<Semaphore>,
}

/// Answers `done` once the gate gives a permit.
async fn running(limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gauge = Gauge::default();
    let shutdown = CancellationToken::new();
    let gate = Arc::new(Semaphore::new(0));
    let service = tower::service_fn({
        let gate = gate.clone();
        move |_: Request<Arriving>| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
            }
        }
    });
    let loop_ = tokio::spawn(accept::run(listener, service, limits, gauge.clone(), shutdown.clone()));
    Running { address, gauge, shutdown, loop_, gate }
}

/// Waits for a condition that other tasks bring about; fails after ten seconds.
async fn until(mut condition: impl FnMut() -> bool) {
    let patience = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), patience).await.expect("the condition came about");
}

async fn http1(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: stoa\r\nconnection: close\r\n\r\n").await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn http2(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("http://stoa/").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn both_versions_of_http_are_answered_on_one_port() {
    let server = running(Limits::default()).await;
    server.gate.add_permits(2);
    assert!(rest(http1(server.address).await).await.ends_with("done"));
    let mut sender = http2(server.address).await;
    let body = sender.send_request(get()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"done");
    server.shutdown.cancel();
    server.loop_.await.unwrap();
}

#[tokio::test]
async fn requests_in_flight_are_counted_with_their_high_water_mark() {
    let server = running(Limits::default()).await;
    let sender = http2(server.address).await;
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { sender.send_request(get()).await })
        })
        .collect();
    until(|| server.gauge.requests() == 50).await;
    assert_eq!(server.gauge.connections(), 1);
    server.gate.add_permits(50);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(server.gauge.requests(), 0);
    assert_eq!(server.gauge.most_requests(), 50);
    server.shutdown.cancel();
}

#[tokio::test]
async fn what_is_in_flight_at_shutdown_is_answered() {
    let server = running(Limits::default()).await;
    let one = http1(server.address).await;
    let mut sender = http2(server.address).await;
    let two = tokio::spawn(async move { sender.send_request(get()).await });
    until(|| server.gauge.requests() == 2).await;
    server.shutdown.cancel();
    until(|| std::net::TcpStream::connect(server.address).is_err()).await;
    server.gate.add_permits(2);
    assert!(rest(one).await.ends_with("done"));
    assert_eq!(two.await.unwrap().unwrap().status(), 200);
    server.loop_.await.unwrap();
}

#[tokio::test]
async fn the_drain_ends_at_its_limit() {
    let server = running(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let stuck = http1(server.address).await;
    until(|| server.gauge.requests() == 1).await;
    server.shutdown.cancel();
    server.loop_.await.unwrap();
    assert_eq!(server.gauge.requests(), 0);
    assert_eq!(rest(stuck).await, "");
}

#[tokio::test]
async fn a_connection_that_never_asks_is_closed() {
    let server = running(Limits { first_request: Duration::from_millis(50), ..Limits::default() }).await;
    for beginning in ["", "G", "GET / HTTP/1.1\r\nhost: st", "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
        assert!(closed.is_ok(), "{beginning:?}");
    }
    until(|| server.gauge.connections() == 0).await;
    assert_eq!(server.gauge.most_requests(), 0);
    server.shutdown.cancel();
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_one_to_end() {
    let server = running(Limits { connections: 1, ..Limits::default() }).await;
    let first = http1(server.address).await;
    until(|| server.gauge.requests() == 1).await;
    let second = http1(server.address).await;
    assert_eq!(server.gauge.connections(), 1);
    server.gate.add_permits(2);
    assert!(rest(first).await.ends_with("done"));
    assert!(rest(second).await.ends_with("done"));
    assert_eq!(server.gauge.most_requests(), 1);
    server.shutdown.cancel();
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let server = running(Limits::default()).await;
    server.gate.add_permits(8);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: stoa\r\nx: {}\r\n\r\n", "a".repeat(64 * 1024));
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));

    let mut sender = http2(server.address).await;
    let mut request = get();
    request.headers_mut().insert("x", "a".repeat(32 * 1024).parse().unwrap());
    match sender.send_request(request).await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(_refused_by_our_own_end) => {}
    }
    assert_eq!(server.gauge.most_requests(), 0);
    server.shutdown.cancel();
}

/// Reads to the end of the answer.
async fn done(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"done") {
        text.push(stream.read_u8().await.unwrap());
    }
}

/// Reads until the server closes; what it said.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    closed.expect("the server closes").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn headers_that_are_begun_have_to_end_and_an_idle_connection_may_stay() {
    let server = running(Limits { headers: Duration::from_millis(50), ..Limits::default() }).await;
    server.gate.add_permits(4);
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    for stream in [&mut idle, &mut slow] {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: stoa\r\n\r\n").await.unwrap();
        done(stream).await;
    }
    // The second request of one does not end, and the connection does; meanwhile the other stays.
    slow.write_all(b"GET / HT").await.unwrap();
    assert_eq!(until_closed(&mut slow).await, "");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: stoa\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut idle).await.ends_with("done"));
    server.shutdown.cancel();
}

#[tokio::test]
async fn an_answer_that_takes_long_is_waited_for_whatever_else_the_peer_sends() {
    let server = running(Limits { headers: Duration::from_millis(20), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: stoa\r\n\r\n").await.unwrap();
    until(|| server.gauge.requests() == 1).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: st").await.unwrap();
    let mut byte = [0];
    let heard = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
    assert!(heard.is_err(), "{heard:?} before it was answered");
    server.gate.add_permits(1);
    done(&mut stream).await;
    server.shutdown.cancel();
}

#[tokio::test]
async fn a_connection_without_a_certificate_grows_old_too() {
    let server = running(Limits { age: Duration::from_millis(50), ..Limits::default() }).await;
    server.gate.add_permits(1);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: stoa\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut stream).await.contains("done"));
    let sender = http2(server.address).await;
    let ask = || {
        let mut sender = sender.clone();
        tokio::spawn(async move { sender.send_request(get()).await })
    };
    let last = ask();
    // It is asked to go, and its last request is answered.
    let mut refused = ask();
    until(|| {
        if refused.is_finished() {
            return true;
        }
        refused = ask();
        false
    })
    .await;
    assert!(refused.await.unwrap().is_err());
    server.gate.add_permits(10_000);
    assert_eq!(last.await.unwrap().unwrap().status(), 200);
    until(|| server.gauge.connections() == 0).await;
    server.shutdown.cancel();
}

/// A server whose service reads the body and answers what came of it, and then as much as asked for.
async fn reading(limits: Limits, answer: usize) -> (SocketAddr, Gauge, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gauge, shutdown) = (Gauge::default(), CancellationToken::new());
    let service = tower::service_fn(move |request: Request<Arriving>| async move {
        let read = request.into_body().collect().await;
        let text = match read {
            Ok(body) => format!("{} bytes {}", body.to_bytes().len(), "x".repeat(answer)),
            Err(error) => error.to_string(),
        };
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    tokio::spawn(accept::run(listener, service, limits, gauge.clone(), shutdown.clone()));
    (address, gauge, shutdown)
}

#[tokio::test]
async fn a_body_that_falls_silent_breaks_off() {
    let limits = Limits { body: Duration::from_millis(50), ..Limits::default() };
    let (address, gauge, shutdown) = reading(limits, 0).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: stoa\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();
    let said = until_closed(&mut stream).await;
    assert!(said.contains("nothing of the request came for 50ms"), "{said}");
    until(|| gauge.connections() == 0).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_peer_that_takes_nothing_of_its_answer_is_left() {
    let limits = Limits { unread_answer: Duration::from_millis(50), ..Limits::default() };
    // More than the buffers of both systems hold.
    let (address, gauge, shutdown) = reading(limits, 64 << 20).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: stoa\r\n\r\n").await.unwrap();
    until(|| gauge.most_requests() == 1 && gauge.connections() == 0).await;
    shutdown.cancel();
}

#[tokio::test]
async fn a_flood_of_frames_that_ask_for_nothing_ends_its_connection_and_no_other() {
    let server = running(Limits::default()).await;
    server.gate.add_permits(1);
    let mut other = http2(server.address).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat();
    let flood = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], &ping.repeat(100_000)].concat();
    let (mut read, mut write) = stream.split();
    let flooding = async { write.write_all(&flood).await };
    let mut heard = Vec::new();
    let (_, closed) =
        tokio::join!(flooding, tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut heard)));
    assert!(closed.is_ok(), "it goes on");
    assert!(heard.len() < ping.len() * 10_000, "{} bytes of answers", heard.len());
    assert_eq!(other.send_request(get()).await.unwrap().status(), 200);
    server.shutdown.cancel();
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_answered_400_and_reaches_nobody() {
    let server = running(Limits::default()).await;
    server.gate.add_permits(100);
    for bad in [
        "GET / HTTP/1.1\nhost: stoa\n\n",
        "GET / HTTP/1.1\r\nhost: stoa\n\r\n",
        "GET / HTTP/1.1\r\nhost: stoa\r\nx: y\r\n z\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: stoa\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: stoa\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: stoa\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: stoa\r\ncontent-length : 4\r\n\r\nabcd",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bad.as_bytes()).await.unwrap();
        let said = until_closed(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{bad:?}: {said}");
    }
    assert_eq!(server.gauge.most_requests(), 0);
    server.shutdown.cancel();
}
