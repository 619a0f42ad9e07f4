//! Bytes on a socket: requests that no well-behaved client can send, over HTTP/1.1, and gRPC calls whose body is any bytes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::http::Answer;

/// How long to wait for the peer to finish.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends the bytes, reads until the peer closes or has sent a whole answer, and parses what came.
///
/// The request should say `Connection: close`. A peer that closes without an answer is an error.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    // The peer may refuse before it has read everything: then writing fails and reading tells why.
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(request)).await;
    let mut bytes = Vec::new();
    let read = async {
        let mut chunk = vec![0; 16 * 1024];
        while !complete(&bytes) {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, read).await;
    parse(&bytes)
}

/// An HTTP/1.1 request with a body of the given length header.
pub fn request(verb: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{verb} {path} HTTP/1.1\r\nHost: stoa\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A gRPC call to `/package.Service/Method` with these bytes as its body, right or wrong; the status it ends with.
pub async fn grpc(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Status> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let call = async {
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let (parts, body) = answer.into_parts();
        let trailers = body.collect().await?.trailers().cloned().unwrap_or_else(HeaderMap::new);
        let status = Status::from_header_map(&parts.headers).or_else(|| Status::from_header_map(&trailers));
        anyhow::Ok(status.unwrap_or_else(|| Status::new(Code::Unknown, format!("no status, HTTP {}", parts.status))))
    };
    tokio::time::timeout(PATIENCE, call).await.with_context(|| format!("no answer from {path}"))?
}

/// A message as gRPC frames it: whether it is packed, how long it says it is, and its bytes.
pub fn message(packed: bool, length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[u8::from(packed)][..], &length.to_be_bytes(), bytes].concat()
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|position| position + 4)
}

fn complete(bytes: &[u8]) -> bool {
    let Some(head) = head_end(bytes) else {
        return false;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok());
    length.is_some_and(|length| bytes.len() >= head + length)
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let head = head_end(bytes).with_context(|| format!("no answer, only {:?}", String::from_utf8_lossy(bytes)))?;
    let text = String::from_utf8_lossy(&bytes[..head]);
    let mut lines = text.lines();
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).context("no status")?;
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: http::HeaderName = name.trim().parse()?;
        headers.append(name, value.trim().parse()?);
    }
    let chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let body = if chunked { unchunk(&bytes[head..]) } else { bytes[head..].to_vec() };
    Ok(Answer { status, headers, body: body.into() })
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = String::from_utf8_lossy(&bytes[..line]).into_owned();
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else {
            break;
        };
        let start = line + 2;
        if size == 0 || bytes.len() < start + size {
            break;
        }
        body.extend_from_slice(&bytes[start..start + size]);
        bytes = &bytes[(start + size + 2).min(bytes.len())..];
    }
    body
}
