//! A provider in this process or in its own, a client, and a shop that receives webhooks.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sandbox::Config;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes; reaching it is a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A client of one provider.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A provider running in this process.
pub(crate) struct Running {
    pub(crate) provider: Provider,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), sandbox::Error>>,
}

/// Starts a provider on a free port.
pub(crate) async fn start(config: Config) -> Running {
    let sandbox = sandbox::build(config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = Provider::at(listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(sandbox.run(listener, shutdown.clone()));
    Running { provider, shutdown, task }
}

/// Starts a provider with the defaults and a ledger that vanishes with the test.
pub(crate) async fn fresh() -> (TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let running = start(quick(folder.path())).await;
    (folder, running)
}

/// The defaults with the delays of a test.
pub(crate) fn quick(data: &Path) -> Config {
    Config { slow: Duration::from_millis(300), late: Duration::from_millis(300), ..Config::new(data) }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Provider {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            base: format!("http://{address}"),
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
        }
    }

    /// Sends a request; nothing when the connection was cut.
    pub(crate) async fn send(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> Option<(u16, String)> {
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let answer = self.client.request(request).await.ok()?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8(bytes.to_vec()).unwrap()))
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: Value) -> (u16, Value) {
        let (status, text) = self.send("POST", path, Some(key), &body.to_string()).await.unwrap();
        (status, serde_json::from_str(&text).unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let (status, text) = self.send("GET", path, None, "").await.unwrap();
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Asks for 10.00 EUR, with the key as reference.
    pub(crate) async fn authorize(&self, key: &str, token: &str) -> (u16, Value) {
        self.post("/v1/authorizations", key, payment(key, token)).await
    }

    /// An authorisation that must succeed; its id.
    pub(crate) async fn authorized(&self, key: &str) -> String {
        let (status, answer) = self.authorize(key, "tok_ok").await;
        assert_eq!((status, &answer["status"]), (200, &json!("authorized")));
        answer["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn ledger(&self) -> Vec<Value> {
        let (status, entries) = self.get("/ledger").await;
        assert_eq!(status, 200);
        entries.as_array().unwrap().clone()
    }
}

pub(crate) fn payment(reference: &str, token: &str) -> Value {
    json!({"amount": 1000, "currency": "EUR", "token": token, "reference": reference, "metadata": {"order": "orders/1"}})
}

pub(crate) fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap()
}

/// A webhook as it came in.
pub(crate) struct Received {
    pub(crate) signature: String,
    pub(crate) body: String,
    pub(crate) event: Value,
}

/// A shop that receives webhooks; it answers 503 as long as `refusals` has permits.
pub(crate) struct Shop {
    pub(crate) url: String,
    pub(crate) refusals: Arc<Semaphore>,
    received: mpsc::Receiver<Received>,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let (sender, received) = mpsc::channel(1024);
        let refusals = Arc::new(Semaphore::new(0));
        let busy = Arc::clone(&refusals);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, busy) = (sender.clone(), Arc::clone(&busy));
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (sender, busy) = (sender.clone(), Arc::clone(&busy));
                    async move {
                        let signature = request.headers()["stoa-signature"].to_str().unwrap().to_owned();
                        let bytes = request.into_body().collect().await?.to_bytes();
                        let mut answer = http::Response::new(Full::new(Bytes::new()));
                        if let Ok(permit) = busy.try_acquire() {
                            permit.forget();
                            *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                            return Ok::<_, hyper::Error>(answer);
                        }
                        let body = String::from_utf8(bytes.to_vec()).unwrap();
                        let event = serde_json::from_str(&body).unwrap();
                        sender.send(Received { signature, body, event }).await.ok();
                        Ok(answer)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, refusals, received }
    }

    pub(crate) async fn next(&mut self) -> Received {
        tokio::time::timeout(DEADLINE, self.received.recv()).await.expect("a webhook arrives").unwrap()
    }

    /// A webhook that has already arrived.
    pub(crate) fn arrived(&mut self) -> Option<Received> {
        self.received.try_recv().ok()
    }
}
