//! Bytes no decent client sends: each ends in an error or a closed connection, and never in a call.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::rig::Rig;

/// Sends bytes and gives back what comes until the peer closes, or until nothing comes any more.
async fn exchange(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    let rig = Rig::new().await;
    for (name, request) in [
        (
            "a folded header",
            "POST /v1/sessions:guest HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n folded\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /v1/sessions:guest HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        ),
        ("a space before the colon", "POST /v1/sessions:guest HTTP/1.1\r\nhost : x\r\n\r\n"),
        ("a signed length", "POST /v1/sessions:guest HTTP/1.1\r\nhost: x\r\ncontent-length: +2\r\n\r\n{}"),
        ("an unknown coding", "POST /v1/sessions:guest HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n"),
    ] {
        let answer = exchange(&rig, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{name}: {answer}");
    }
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn a_length_beside_chunks_never_smuggles_a_second_request() {
    let rig = Rig::new().await;
    let request = "POST /v1/sessions:guest HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/products/1 HTTP/1.1\r\nhost: x\r\n\r\n";
    exchange(&rig, request.as_bytes()).await;
    let paths: Vec<String> = rig.seen.lock().unwrap().iter().map(|seen| seen.path.clone()).collect();
    assert!(!paths.iter().any(|path| path.ends_with("GetProduct")), "{paths:?}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_call() {
    let rig = Rig::new().await;
    let request = "POST /v1/carts/1:addItem HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"sku\":\"A-1\"}";
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn long_targets_and_headers_are_refused() {
    let rig = Rig::new().await;
    let answer = exchange(
        &rig,
        format!("GET /v1/products/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "a".repeat(9000)).as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 414"), "{answer}");
    let answer = exchange(
        &rig,
        format!("GET /v1/products/1 HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(100_000)).as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    assert_eq!(rig.calls(), 0);
}

#[tokio::test]
async fn grpc_over_http_1_is_refused() {
    let rig = Rig::new().await;
    let request = "POST /stoa.catalog.v1.CatalogService/GetProduct HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\ncontent-length: 5\r\nconnection: close\r\n\r\n\0\0\0\0\0";
    assert!(exchange(&rig, request.as_bytes()).await.starts_with("HTTP/1.1 505"));
    assert_eq!(rig.calls(), 0);
}
