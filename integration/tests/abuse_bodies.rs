//! Bodies that are meant to hurt: lengths that lie, bombs, depth without end; each is refused and costs no memory

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use integration::attack::watch::Memory;
use integration::shopper::{Shopper, request_id, text};
use integration::{Setup, Stoa, raw};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

const SIGN_IN: &str = "/stoa.identity.v1.IdentityService/SignIn";
const GET_CART: &str = "/stoa.cart.v1.CartService/GetCart";
const LIST_SAGAS: &str = "/stoa.operations.v1.OperationsService/ListSagas";
const IMPORT: &str = "/stoa.catalog.v1.CatalogService/ImportProducts";

/// What all of it together may cost, MiB.
const GROWTH: u64 = 64;

/// How long a server may take to end a connection whose other side has ended.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_message_that_says_it_has_four_gigabytes_is_refused_before_it_comes() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let memory = Memory::of(stoa.pid().context("no process")?)?;
    let operator = Shopper::operator(&stoa).await?.bearer()?;
    for path in [SIGN_IN, GET_CART, LIST_SAGAS, IMPORT] {
        for length in [u32::MAX, 1 << 31, 300 << 10] {
            let body = raw::message(false, length, b"x");
            let status = raw::grpc(stoa.address(), path, &[("authorization", &operator)], body).await?;
            ensure!(status.code() == Code::ResourceExhausted, "{path} {length}: {status:?}");
        }
    }
    ensure!(memory.growth_mib() < GROWTH, "{} MiB", memory.growth_mib());
    Ok(())
}

#[tokio::test]
async fn a_message_larger_than_its_method_takes_is_refused() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let email = [&[0x0a, 0x80, 0x80, 0x20][..], &vec![b'a'; 512 << 10]].concat();
    let body = raw::message(false, u32::try_from(email.len())?, &email);
    let status = raw::grpc(stoa.address(), SIGN_IN, &[], body).await?;
    ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
    let json = format!(r#"{{"email":"{}","password":"x"}}"#, "a".repeat(2 << 20));
    let request = raw::request("POST", "/v1/sessions:signIn", &[("Content-Type", "application/json")], json.as_bytes());
    let answer = raw::exchange(stoa.address(), &request).await?;
    ensure!([413, 429].contains(&answer.status), "{}", answer.describe());
    Ok(())
}

#[tokio::test]
async fn a_packed_message_is_not_unpacked() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let memory = Memory::of(stoa.pid().context("no process")?)?;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 128 << 20])?;
    let bomb = bomb.finish()?;
    let body = raw::message(true, u32::try_from(bomb.len())?, &bomb);
    for path in [SIGN_IN, IMPORT] {
        let status = raw::grpc(stoa.address(), path, &[("grpc-encoding", "gzip")], body.clone()).await?;
        let refused = [Code::Unimplemented, Code::ResourceExhausted, Code::Internal, Code::Unauthenticated];
        ensure!(refused.contains(&status.code()), "{path}: {status:?}");
    }
    for (kind, path) in [("application/json", "/v1/sessions:signIn"), ("application/x-ndjson", "/v1/products:import")] {
        let headers = [("Content-Type", kind), ("Content-Encoding", "gzip")];
        let answer = raw::exchange(stoa.address(), &raw::request("POST", path, &headers, &bomb)).await?;
        ensure!([400, 401, 413, 429].contains(&answer.status), "{path}: {}", answer.describe());
    }
    ensure!(memory.growth_mib() < GROWTH, "{} MiB", memory.growth_mib());
    Ok(())
}

#[tokio::test]
async fn a_message_ten_thousand_deep_is_refused() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    // Groups inside groups, of a field that nobody knows: 15, begun and ended.
    let deep = [vec![0x7b; 10_000], vec![0x7c; 10_000]].concat();
    let operator = Shopper::operator(&stoa).await?.bearer()?;
    for path in [SIGN_IN, LIST_SAGAS] {
        let body = raw::message(false, u32::try_from(deep.len())?, &deep);
        let status = raw::grpc(stoa.address(), path, &[("authorization", &operator)], body).await?;
        let refused = [Code::InvalidArgument, Code::Internal];
        ensure!(refused.contains(&status.code()), "{path}: {status:?}");
    }
    let deep = format!(r#"{{"email":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let headers = [("Content-Type", "application/json")];
    let request = raw::request("POST", "/v1/sessions:signIn", &headers, deep.as_bytes());
    let answer = raw::exchange(stoa.address(), &request).await?;
    ensure!(answer.status == 400, "{}", answer.describe());
    // The process still stands.
    ensure!(stoa.client().get("/readyz").await?.status == 200, "it is gone");
    Ok(())
}

#[tokio::test]
async fn text_that_is_no_utf8_is_refused() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let body = raw::message(false, 4, b"\x0a\x02\xff\xfe");
    let status = raw::grpc(stoa.address(), SIGN_IN, &[], body).await?;
    ensure!([Code::InvalidArgument, Code::Internal].contains(&status.code()), "{status:?}");
    let headers = [("Content-Type", "application/json")];
    let body = b"{\"email\":\"\xff\xfe\",\"password\":\"x\"}";
    let answer = raw::exchange(stoa.address(), &raw::request("POST", "/v1/sessions:signIn", &headers, body)).await?;
    ensure!(answer.status == 400, "{}", answer.describe());
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_has_no_effect() -> Result<()> {
    let stoa = Stoa::start(Setup::new()).await?;
    let mut shopper = Shopper::guest(&stoa).await?;
    let sku = shopper.something().await?;
    let cart = text(&shopper.cart("EUR").await?, "name")?;
    let bearer = shopper.bearer()?;
    let whole = json!({ "sku": sku, "quantity": 1, "requestId": request_id() }).to_string();
    let request = format!(
        "POST /v1/{cart}:addItem HTTP/1.1\r\nHost: stoa\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{whole}",
        whole.len() + 1,
    );
    // Everything but the last byte, and then the end of the connection.
    let mut stream = TcpStream::connect(stoa.address()).await?;
    stream.write_all(request.as_bytes()).await?;
    stream.shutdown().await?;
    let mut heard = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.context("it stays open")?.ok();
    ensure!(!heard.starts_with(b"HTTP/1.1 200"), "half a body was taken");
    let read = shopper.http.get(&format!("/v1/{cart}")).await?.ok()?;
    ensure!(read["items"].as_array().is_none_or(Vec::is_empty), "{read}");
    Ok(())
}
