//! A small JSON client: one HTTP/1.1 connection, kept alive, opened again when it broke.
//!
//! A call is sent once and only once unless the client was told to insist: whether a request may be
//! repeated is exactly what many tests are about.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::calls::Calls;

/// The longest a single call may take before the client gives it up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause of a client that insists, where the server asks for none; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// The header of an answer that stands in for one that a service cannot give.
pub const STALE: &str = "stoa-stale-since";

/// A connection, and the token sent with every call.
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
    connection: Option<SendRequest<Full<Bytes>>>,
    insists: Option<Duration>,
    calls: Calls,
}

/// A call that was answered, well or badly.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whatever it is.
    pub body: Bytes,
}

impl Client {
    /// A client without a token; the connection is opened by the first call.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, token: None, connection: None, insists: None, calls: Calls::default() }
    }

    /// Sends this token from now on.
    pub fn set_token(&mut self, token: impl Into<String>) {
        self.token = Some(token.into());
    }

    /// The token that is sent.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A new connection to the same place with the same token.
    pub fn again(&self) -> Self {
        let (token, calls) = (self.token.clone(), self.calls.clone());
        Self { address: self.address, token, connection: None, insists: self.insists, calls }
    }

    /// The same connection without the token.
    pub fn anonymous(self) -> Self {
        Self { token: None, ..self }
    }

    /// From now on repeats each call, for at most that long, until it is answered with something else
    /// than "not now": over a server that is killed and comes back.
    pub fn insisting(mut self, limit: Duration) -> Self {
        self.insists = Some(limit);
        self
    }

    /// From now on its calls are counted here.
    pub fn counted_by(mut self, calls: &Calls) -> Self {
        self.calls = calls.clone();
        self
    }

    /// Opens the connection without sending anything.
    pub async fn connect(&mut self) -> Result<()> {
        if self.connection.as_ref().is_some_and(|connection| !connection.is_closed()) {
            return Ok(());
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        self.connection = Some(sender);
        Ok(())
    }

    /// `GET`.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&mut self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::PATCH, path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&mut self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, None).await
    }

    /// Any method, JSON or no body.
    pub async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let bytes = match body {
            Some(body) => Bytes::from(serde_json::to_vec(body)?),
            None => Bytes::new(),
        };
        let kind = body.is_some().then_some("application/json");
        self.send_bytes(method, path, kind, &[], bytes).await
    }

    /// Any method, any body, any headers.
    pub async fn send_bytes(
        &mut self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let deadline = self.insists.map(|limit| Instant::now() + limit);
        let mut pause = FIRST_PAUSE;
        loop {
            let call = self.send_once(method.clone(), path, content_type, headers, body.clone());
            let outcome = match tokio::time::timeout(PATIENCE, call).await {
                Ok(outcome) => outcome,
                Err(_) => Err(anyhow!("nothing came for {PATIENCE:?}")),
            };
            let outcome = outcome.with_context(|| format!("no answer from {path}"));
            if outcome.is_err() {
                self.connection = None;
            }
            let answered = outcome.as_ref().is_ok_and(|answer| !answer.is_transient());
            if answered || deadline.is_none_or(|deadline| Instant::now() > deadline) {
                return outcome;
            }
            // A server that says how long it wants to be left alone is listened to; thousands who were turned
            // away or cut off at one moment do not come back at one moment.
            let asked = outcome.ok().and_then(|answer| answer.retry_after());
            tokio::time::sleep(asked.unwrap_or(pause).mul_f64(0.5 + chance() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn send_once(
        &mut self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        self.connect().await?;
        let connection = self.connection.as_mut().context("no connection")?;
        connection.ready().await?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.address.to_string());
        if let Some(kind) = content_type {
            request = request.header(CONTENT_TYPE, kind);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let _open = self.calls.begin();
        let answer = connection.send_request(request.body(Full::new(body))?).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The JSON of a good answer; anything else is an error that shows the answer.
    pub fn ok(self) -> Result<Value> {
        if self.status == 200 {
            return serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.describe()));
        }
        bail!("{}", self.describe())
    }

    /// The reason of the first `ErrorInfo` in the details, or nothing.
    pub fn reason(&self) -> String {
        self.detail("google.rpc.ErrorInfo")
            .and_then(|info| info["reason"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// The fields named by the `BadRequest` in the details.
    pub fn violations(&self) -> Vec<String> {
        let violations = self.detail("google.rpc.BadRequest").unwrap_or_default();
        let list = violations["fieldViolations"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|item| item["field"].as_str().map(str::to_owned)).collect()
    }

    /// The first detail of a type, by its full name.
    pub fn detail(&self, name: &str) -> Option<Value> {
        let json = self.json();
        let details = json["details"].as_array()?;
        details
            .iter()
            .find(|detail| detail["@type"].as_str().is_some_and(|kind| kind.rsplit('/').next() == Some(name)))
            .cloned()
    }

    /// True for answers that say "not now": the same request may be sent again.
    pub fn is_transient(&self) -> bool {
        matches!(self.status, 429 | 502 | 503 | 504)
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// The answer in one line, cut where it gets long.
    pub fn describe(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let cut = text.char_indices().nth(1500).map_or(text.len(), |(end, _)| end);
        format!("{} {}", self.status, &text[..cut])
    }
}

/// Some number from 0 to 1.
fn chance() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_u128() as u32) / f64::from(u32::MAX)
}
