//! The load: connections that ask again as soon as they are answered, and hold every answer against what has to come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::messages;

/// Before a load counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long it counts then.
const COUNTED: Duration = Duration::from_millis(1500);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One kind of request, with what it has to be answered.
pub(super) struct Work {
    pub(super) name: &'static str,
    /// Connections at once.
    connections: usize,
    method: Method,
    path: &'static str,
    kind: Option<&'static str>,
    body: Bytes,
    wanted: Wanted,
}

/// What an answer says; how its JSON is spaced is for each gateway to choose.
enum Wanted {
    Json(Value),
    /// One array, or lines, bare or each in an envelope `result`.
    Stream(Vec<Value>),
    /// A message of gRPC-Web with the trailers of a call that went well behind it.
    Web(Bytes),
}

impl Work {
    /// All kinds.
    pub(super) fn all(pool: &DescriptorPool) -> Result<Vec<Self>> {
        let meaning = |message: &str, wire: &[u8]| -> Result<Value> {
            let descriptor = pool.get_message_by_name(&format!("library.v1.{message}")).context("no such message")?;
            Ok(serde_json::to_value(DynamicMessage::decode(descriptor, wire)?)?)
        };
        let get = |name, connections, path, wanted| Work {
            name,
            connections,
            method: Method::GET,
            path,
            kind: None,
            body: Bytes::new(),
            wanted,
        };
        let post = |name, connections, path, kind, body, wanted| Work {
            name,
            connections,
            method: Method::POST,
            path,
            kind: Some(kind),
            body,
            wanted,
        };
        let book = meaning("Book", &messages::one())?;
        let list = meaning("ListBooksResponse", &messages::list())?;
        let covered = meaning("UploadCoverResponse", &messages::covered())?;
        let pages: Result<_> = messages::pages().iter().map(|page| meaning("Page", page)).collect();
        let (made, cover) = (book.to_string(), json!({ "content": STANDARD.encode(messages::cover()) }).to_string());
        let asked = messages::GetBookRequest { name: messages::NAME.to_owned() }.encode_to_vec();
        const JSON: &str = "application/json";
        Ok(vec![
            get("get", 16, "/v1/books/4711", Wanted::Json(book.clone())),
            get("list", 8, "/v1/books?page_size=180", Wanted::Json(list)),
            post("create", 16, "/v1/books", JSON, made.into(), Wanted::Json(book)),
            post("upload", 4, "/v1/books/4711:upload", JSON, cover.into(), Wanted::Json(covered)),
            get("stream", 4, "/v1/books/4711/pages", Wanted::Stream(pages?)),
            post(
                "grpc_web",
                16,
                "/library.v1.LibraryService/GetBook",
                "application/grpc-web+proto",
                messages::framed(&asked),
                Wanted::Web(messages::framed(&messages::one())),
            ),
        ])
    }

    fn request(&self) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(self.method.clone()).uri(self.path).header(header::HOST, "library");
        if let Some(kind) = self.kind {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let accepted =
            if matches!(self.wanted, Wanted::Web(_)) { "application/grpc-web+proto" } else { "application/json" };
        Ok(request.header(header::ACCEPT, accepted).body(Full::new(self.body.clone()))?)
    }

    /// The bytes of a right answer: the first one, once what it means has been looked at.
    pub(super) async fn learn(&self, door: SocketAddr) -> Result<Bytes> {
        let mut sender = connect(door).await?;
        let answer = sender.send_request(self.request()?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let told = || String::from_utf8_lossy(&body[..body.len().min(400)]).into_owned();
        ensure!(status == 200, "{} was answered {status}: {}", self.name, told());
        self.wanted.is(&body).with_context(|| format!("{}: {}", self.name, told()))?;
        Ok(body)
    }

    /// Whether there are bytes of this kind to be sent by whoever has no gRPC-Web.
    pub(super) fn is_web(&self) -> bool {
        matches!(self.wanted, Wanted::Web(_))
    }

    /// Keeps the load up and counts: how many answers there were, how long each took, and how far the clocks went that
    /// are read at the begin and at the end.
    pub(super) async fn run(
        self: &Arc<Self>,
        door: SocketAddr,
        right: &Bytes,
        clocks: impl Fn() -> Result<Vec<Duration>>,
    ) -> Result<(Vec<Duration>, Vec<Duration>)> {
        let begin = Instant::now() + WARM_UP;
        let end = begin + COUNTED;
        let mut tasks = JoinSet::new();
        for _ in 0..self.connections {
            tasks.spawn(Arc::clone(self).ask(door, right.clone(), begin, end));
        }
        tokio::time::sleep_until(begin.into()).await;
        let before = clocks()?;
        tokio::time::sleep_until(end.into()).await;
        let after = clocks()?;
        let used = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before)).collect();
        let mut times = Vec::new();
        for answered in tasks.join_all().await {
            times.extend(answered?);
        }
        Ok((times, used))
    }

    async fn ask(
        self: Arc<Self>,
        door: SocketAddr,
        right: Bytes,
        begin: Instant,
        end: Instant,
    ) -> Result<Vec<Duration>> {
        let mut sender = connect(door).await?;
        let mut times = Vec::new();
        loop {
            let begun = Instant::now();
            if begun >= end {
                return Ok(times);
            }
            let request = self.request()?;
            tokio::time::timeout(PATIENCE, check(&mut sender, request, &right)).await.context("no answer")??;
            let now = Instant::now();
            if (begin..=end).contains(&now) {
                times.push(now - begun);
            }
        }
    }
}

impl Wanted {
    fn is(&self, body: &[u8]) -> Result<()> {
        let right = match self {
            Wanted::Json(value) => serde_json::from_slice::<Value>(body)? == *value,
            Wanted::Stream(values) => streamed(body)? == *values,
            Wanted::Web(message) => body.strip_prefix(&message[..]).is_some_and(|trailers| {
                let text = String::from_utf8_lossy(trailers.get(5..).unwrap_or_default()).replace(' ', "");
                trailers.first() == Some(&0x80) && text.lines().any(|line| line == "grpc-status:0")
            }),
        };
        ensure!(right, "an answer that means something else");
        Ok(())
    }
}

/// The messages of a stream, however they are written one behind the other.
fn streamed(body: &[u8]) -> Result<Vec<Value>> {
    let values: Vec<Value> =
        serde_json::Deserializer::from_slice(body).into_iter().collect::<Result<_, serde_json::Error>>()?;
    Ok(match values.as_slice() {
        [Value::Array(values)] => values.clone(),
        _ => values.into_iter().map(|mut value| value.get_mut("result").map(Value::take).unwrap_or(value)).collect(),
    })
}

/// Opens a connection.
pub(super) async fn connect(door: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(door).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a request and holds each byte of its answer against the right one.
async fn check(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>, right: &[u8]) -> Result<()> {
    sender.ready().await?;
    let mut answer = sender.send_request(request).await?;
    ensure!(answer.status() == 200, "answered {}", answer.status());
    let mut left = right;
    while let Some(frame) = answer.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        left = match left.strip_prefix(&data[..]) {
            Some(left) => left,
            None => bail!("an answer differs from the right one at byte {} or behind it", right.len() - left.len()),
        };
    }
    ensure!(left.is_empty(), "an answer ends {} bytes too early", left.len());
    Ok(())
}

/// Connections that have been answered once and say nothing more.
pub(super) async fn idle(
    work: &Work,
    door: SocketAddr,
    right: &Bytes,
    count: usize,
) -> Result<Vec<SendRequest<Full<Bytes>>>> {
    let mut senders = Vec::with_capacity(count);
    for _ in 0..count {
        let mut sender = connect(door).await?;
        check(&mut sender, work.request()?, right).await?;
        senders.push(sender);
    }
    Ok(senders)
}

/// The first right answer of a process that has just been started, or nothing yet.
pub(super) async fn first(work: &Work, door: SocketAddr) -> Option<()> {
    let mut sender = connect(door).await.ok()?;
    let answer = sender.send_request(work.request().ok()?).await.ok()?;
    (answer.status() == 200).then_some(())?;
    work.wanted.is(&answer.into_body().collect().await.ok()?.to_bytes()).ok()
}
