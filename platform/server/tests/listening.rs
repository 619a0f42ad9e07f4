//! The listener by itself: both protocols on one port, what it counts, what it bounds, how it ends.

#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
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
        move |_: Request<Incoming>| {
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
