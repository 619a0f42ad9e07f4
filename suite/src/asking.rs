//! One request over plain HTTP/1.1 to a process nearby: the provider, or a running shop's own control.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const CONNECT: Duration = Duration::from_secs(3);

/// Sends one request to `HOST:PORT` and answers the response's head with its body still coming.
pub(crate) async fn send(
    authority: &str,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Vec<u8>,
) -> anyhow::Result<Response<Incoming>> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(authority))
        .await
        .with_context(|| format!("{authority} does not answer"))?
        .with_context(|| format!("{authority} cannot be reached"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, authority);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    Ok(sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?)
}

/// The whole answer of a GET of an `http://` address.
pub(crate) async fn get(base: &str, path: &str) -> anyhow::Result<Bytes> {
    let Some(authority) = base.strip_prefix("http://") else { bail!("{base} is no http:// address") };
    let response = send(authority.trim_end_matches('/'), Method::GET, path, None, Vec::new()).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{base}{path} answered {status}");
    }
    Ok(body)
}
