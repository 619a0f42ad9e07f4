//! Requests that pretend: read in two ways, forged headers, disguised paths, foreign origins; none gets what its sender may not have

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use integration::http::Answer;
use integration::shopper::Shopper;
use integration::{Setup, Stoa, raw};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends bytes and reads until the server closes.
async fn said(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut heard = Vec::new();
    let read = stream.read_to_end(&mut heard);
    tokio::time::timeout(std::time::Duration::from_secs(20), read).await.context("it stays open")?.ok();
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_answered() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: stoa\r\n\r\n";
    let chunk = format!("0\r\n\r\n{smuggled}");
    let length = chunk.len();
    for bad in [
        // Both lengths, in either order and in other spellings.
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n{chunk}"),
        format!("tRANSFER-eNCODING: chunked\r\ncontent-length: {length}\r\n\r\n{chunk}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length : {length}\r\n\r\n{chunk}"),
        // Two lengths, or one that is none.
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{chunk}"),
        format!("Content-Length: +{length}\r\n\r\n{chunk}"),
        format!("Content-Length: 0, {length}\r\n\r\n{chunk}"),
        format!("Content-Length: 0x0\r\n\r\n{chunk}"),
        // A coding that is none.
        format!("Transfer-Encoding: xchunked\r\n\r\n{chunk}"),
        format!("Transfer-Encoding: chunked, identity\r\n\r\n{chunk}"),
        // Lines that end otherwise, or go on.
        format!("X: y\n\r\n{smuggled}"),
        format!("X: y\r\n Z: w\r\n\r\n{smuggled}"),
        format!("X: y\rZ: w\r\n\r\n{smuggled}"),
        format!("X\0: y\r\n\r\n{smuggled}"),
    ] {
        let request = format!("POST /v1/sessions:guest HTTP/1.1\r\nHost: stoa\r\n{bad}");
        let heard = said(stoa.address(), request.as_bytes()).await?;
        ensure!(heard.starts_with("HTTP/1.1 400 "), "{request:?}: {heard:?}");
        ensure!(heard.matches("HTTP/1.1 ").count() == 1, "something behind it was answered: {heard:?}");
    }
    let bare = said(stoa.address(), b"GET /healthz HTTP/1.1\nHost: stoa\n\n").await?;
    ensure!(bare.starts_with("HTTP/1.1 400 "), "{bare:?}");
    // The second request of a connection as well as its first.
    let second = format!("{smuggled}GET /healthz HTTP/1.1\nHost: stoa\n\n");
    let heard = said(stoa.address(), second.as_bytes()).await?;
    ensure!(heard.contains("HTTP/1.1 200 ") && heard.contains("HTTP/1.1 400 "), "{heard:?}");
    Ok(())
}

/// Headers by which somebody might believe who is calling.
const CLAIMS: [(&str, &str); 14] = [
    ("Stoa-Subject", "users/operator"),
    ("stoa_subject", "users/operator"),
    ("X-Stoa-Role", "operator"),
    ("Stoa-Caller", "gateway"),
    ("X-Forwarded-User", "operator@stoa.local"),
    ("X-Forwarded-Client-Cert", "URI=spiffe://stoa/ordering"),
    ("X-Remote-User", "operator"),
    ("X-User-Id", "1"),
    ("Remote-User", "operator"),
    ("Proxy-Authorization", "Bearer x"),
    ("X-Original-URL", "/v1/payments/x"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("Grpc-Metadata-Stoa-Subject", "users/operator"),
    ("Grpc-Metadata-Authorization", "Bearer x"),
];

#[tokio::test]
async fn a_header_that_claims_an_identity_changes_nothing() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let guest = Shopper::guest(&stoa).await?;
    let token = guest.bearer()?;
    let paths = ["/v1/warehouses/-/stockItems", "/v1/services/ordering/sagas", "/v1/orders", "/v1/products?pageSize=1"];
    for path in paths {
        for bearer in [None, Some(token.as_str())] {
            let mut headers: Vec<(&str, &str)> = bearer.map(|bearer| ("Authorization", bearer)).into_iter().collect();
            let plain = raw::exchange(stoa.address(), &raw::request("GET", path, &headers, b"")).await?;
            for claim in CLAIMS {
                headers.push(claim);
                let claimed = raw::exchange(stoa.address(), &raw::request("GET", path, &headers, b"")).await?;
                headers.pop();
                same(&plain, &claimed).with_context(|| format!("{path} with {claim:?}"))?;
            }
            headers.extend(CLAIMS);
            let all = raw::exchange(stoa.address(), &raw::request("GET", path, &headers, b"")).await?;
            same(&plain, &all).with_context(|| format!("{path} with all of them"))?;
        }
    }
    Ok(())
}

fn same(one: &Answer, other: &Answer) -> Result<()> {
    ensure!(one.status == other.status && one.body == other.body, "{} is not {}", other.describe(), one.describe());
    Ok(())
}

#[tokio::test]
async fn a_disguised_path_is_never_let_in_by_the_policy_of_another() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let guest = Shopper::guest(&stoa).await?;
    let token = guest.bearer()?;
    // What only operators may have, reached over what everybody may.
    for path in [
        "//v1/warehouses/-/stockItems",
        "/v1//warehouses/-/stockItems",
        "/v1/products/../warehouses/-/stockItems",
        "/v1/products/%2e%2e/warehouses/-/stockItems",
        "/v1/products/%2E%2E%2Fwarehouses/-/stockItems",
        "/v1/products/..%2fwarehouses%2f-%2fstockItems",
        "/v1/products;/../warehouses/-/stockItems",
        "/v1/warehouses;x/-/stockItems",
        "/V1/Warehouses/-/StockItems",
        "/v1/warehouses/-/stockItems/",
        "/v1/warehouses/-/stockItems%00",
        "/v1/warehouses/-/stockItems%3Fpublic",
        "/v1\\warehouses\\-\\stockItems",
        "/v1/%77arehouses/-/stockItems",
        "/v1/warehouses/-/%73tockItems",
        "/stoa.inventory.v1.InventoryService/ListStockItems",
    ] {
        for bearer in [None, Some(token.as_str())] {
            let headers: Vec<_> = bearer.map(|bearer| ("Authorization", bearer)).into_iter().collect();
            for verb in ["GET", "POST"] {
                let request = raw::request(verb, path, &headers, b"");
                let answer = raw::exchange(stoa.address(), &request).await.with_context(|| path.to_owned())?;
                ensure!((400..500).contains(&answer.status), "{verb} {path}: {}", answer.describe());
                ensure!(!answer.describe().contains("stockItems\""), "{verb} {path}: {}", answer.describe());
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_origin_is_not_let_in_by_a_browser() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    for origin in ["https://evil.example", "null", "http://localhost", "file://"] {
        for (verb, path) in [("OPTIONS", "/v1/carts:getOrCreate"), ("GET", "/v1/products?pageSize=1"), ("OPTIONS", "*")]
        {
            let headers = [
                ("Origin", origin),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "authorization, content-type"),
            ];
            let answer = raw::exchange(stoa.address(), &raw::request(verb, path, &headers, b"")).await?;
            // Without these a browser gives nothing to the page, and sends no request that needs to be asked for.
            let lets_in = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
            ensure!(lets_in.is_none(), "{verb} {path} for {origin}: {lets_in:?}");
            ensure!(verb == "GET" || (400..500).contains(&answer.status), "{verb} {path}: {}", answer.describe());
        }
    }
    Ok(())
}
