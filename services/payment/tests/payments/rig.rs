//! A provider, the service, and the door its messages come in by.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use auth::{Principal, Role, Subject};
use bytes::Bytes;
use client::{Channel, Outgoing};
use contracts::google::api::HttpBody;
use contracts::google::r#type::Money;
use contracts::payment::v1 as proto;
use contracts::payment::v1::payment_service_client::PaymentServiceClient;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use server::{Context, Storage, Windows};
use store::Clock;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Longer than anything here takes; reaching it is a failure.
const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const SECRET: &str = "whsec_test";
pub(crate) const CUSTOMER: &str = "users/u1";

/// What a test may want otherwise.
pub(crate) struct Setup {
    pub(crate) config: payment::Config,
    pub(crate) windows: Windows,
    pub(crate) slow: Duration,
    /// Whether the provider knows where to send its messages.
    pub(crate) told: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: payment::Config {
                webhook_secret: SECRET.to_owned(),
                call_timeout: Duration::from_secs(1),
                late_window: Duration::from_millis(300),
                ..payment::Config::default()
            },
            windows: Windows {
                retry_base: Duration::from_millis(50),
                retry_cap: Duration::from_millis(400),
                sweep: Duration::from_millis(100),
                ..Windows::default()
            },
            slow: Duration::from_millis(300),
            told: true,
        }
    }
}

/// A provider in this process.
pub(crate) struct Provider {
    pub(crate) url: String,
    client: Client<HttpConnector, Full<Bytes>>,
    _folder: TempDir,
}

/// The service with a provider and a door.
pub(crate) struct Shop {
    pub(crate) provider: Provider,
    pub(crate) context: Context,
    _folder: TempDir,
}

pub(crate) async fn shop() -> Shop {
    Shop::start(Setup::default()).await
}

impl Provider {
    pub(crate) async fn start(slow: Duration, webhook_url: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = sandbox::Config {
            webhook_url,
            webhook_secret: SECRET.to_owned(),
            slow,
            late: Duration::from_millis(300),
            ..sandbox::Config::new(folder.path())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sandbox = sandbox::build(config).await.unwrap();
        tokio::spawn(sandbox.run(listener, CancellationToken::new()));
        Self { url, client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()), _folder: folder }
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Value {
        let request = http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("idempotency-key", "by hand");
        let answer = self.client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// Entries of a kind in the ledger.
    pub(crate) async fn entries(&self, kind: &str) -> Vec<Value> {
        let Value::Array(entries) = self.send("GET", "/ledger", String::new()).await else { panic!("no ledger") };
        entries.into_iter().filter(|entry| entry["kind"] == kind).collect()
    }

    /// What the provider has of an authorization now.
    pub(crate) async fn find(&self, payment: &str) -> Value {
        let path = format!("/v1/authorizations?reference={payment}");
        self.send("GET", &path, String::new()).await["authorizations"][0].clone()
    }

    pub(crate) async fn complete(&self, challenge: &str, outcome: &str) {
        let body = format!("{{\"outcome\":\"{outcome}\"}}");
        self.send("POST", &format!("/challenges/{challenge}:complete"), body).await;
    }

    /// Approves an authorization that the service did not ask for; its id.
    pub(crate) async fn authorize_by_hand(&self, reference: &str) -> String {
        let body =
            format!("{{\"amount\":10000,\"currency\":\"EUR\",\"token\":\"tok_ok\",\"reference\":\"{reference}\"}}");
        self.send("POST", "/v1/authorizations", body).await["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn webhooks_pending(&self) -> i64 {
        self.send("GET", "/ledger/summary", String::new()).await["webhooks_pending"].as_i64().unwrap()
    }
}

impl Shop {
    pub(crate) async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhooks = format!("http://{}/v1/webhooks/sandbox", door.local_addr().unwrap());
        let provider = Provider::start(setup.slow, setup.told.then_some(webhooks)).await;
        let context = serve(folder.path(), &provider.url, setup.config, setup.windows).await;
        tokio::spawn(open_door(door, context.clients.as_caller("gateway").channel("payment")));
        Self { provider, context, _folder: folder }
    }

    pub(crate) fn ordering(&self) -> PaymentServiceClient<Channel> {
        ordering(&self.context)
    }

    pub(crate) fn outside(&self) -> PaymentServiceClient<Channel> {
        outside(&self.context)
    }

    pub(crate) async fn authorize(&self, name: &str, token: &str) -> proto::Payment {
        let reply = self.ordering().authorize_payment(authorize(name, token, &id(name))).await.unwrap();
        reply.into_inner().payment.unwrap()
    }

    pub(crate) async fn capture(
        &self,
        name: &str,
        shipment: &str,
        minor: i64,
        request: &str,
    ) -> Result<proto::CapturePaymentResponse, Status> {
        let ask = proto::CapturePaymentRequest {
            name: name.to_owned(),
            amount: money(minor),
            shipment: format!("shipments/{shipment}"),
            request_id: id(request),
        };
        Ok(self.ordering().capture_payment(ask).await?.into_inner())
    }

    pub(crate) async fn refund(
        &self,
        name: &str,
        return_id: &str,
        minor: i64,
    ) -> Result<proto::RefundPaymentResponse, Status> {
        let ask = proto::RefundPaymentRequest {
            name: name.to_owned(),
            amount: money(minor),
            return_id: return_id.to_owned(),
            reason: "test".to_owned(),
            request_id: id(&format!("{name} refund {return_id}")),
        };
        Ok(self.ordering().refund_payment(ask).await?.into_inner())
    }

    pub(crate) async fn cancel(&self, name: &str) -> proto::Payment {
        let ask = proto::CancelPaymentRequest {
            name: name.to_owned(),
            order: order(name),
            reason: "test".to_owned(),
            request_id: id(&format!("{name} cancel")),
        };
        self.ordering().cancel_payment(ask).await.unwrap().into_inner().payment.unwrap()
    }

    pub(crate) async fn get(&self, name: &str) -> proto::Payment {
        let ask = proto::GetPaymentRequest { name: name.to_owned() };
        self.outside().get_payment(operator().request(ask)).await.unwrap().into_inner()
    }

    pub(crate) async fn attempts(&self, name: &str) -> Vec<proto::Attempt> {
        let ask = proto::ListAttemptsRequest { parent: name.to_owned(), ..proto::ListAttemptsRequest::default() };
        self.outside().list_attempts(operator().request(ask)).await.unwrap().into_inner().attempts
    }

    /// Waits until a payment is in a state and out of doubt.
    pub(crate) async fn settled(&self, name: &str, state: proto::PaymentState) -> proto::Payment {
        let mut last = self.get(name).await;
        let reached = async {
            while last.state() != state || last.in_doubt || last.cancel_requested {
                tokio::time::sleep(Duration::from_millis(20)).await;
                last = self.get(name).await;
            }
        };
        let late = tokio::time::timeout(DEADLINE, reached).await.is_err();
        assert!(!late, "never {state:?}: {last:?}");
        last
    }

    pub(crate) async fn ingest(&self, body: &[u8], signature: Option<&str>) -> Result<bool, Status> {
        let channel = self.context.clients.as_caller("gateway").channel("payment");
        ingest(channel, body, signature).await
    }
}

/// Waits for a condition.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let reached = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, reached).await.is_ok(), "never: {what}");
}

/// The service over a folder, its tasks running.
pub(crate) async fn serve(folder: &Path, provider: &str, config: payment::Config, windows: Windows) -> Context {
    let mut context = Context::new(Storage::of_test_in(folder), folder, contracts::METHODS, &[7; 32]);
    context.windows = windows;
    let config = payment::Config { provider_url: provider.to_owned(), ..config };
    let component = loop {
        match payment::build(config.clone(), &context).await {
            // A process that was thrown away may need a moment to let go of its files.
            Err(store::Error::Locked { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            built => break built.unwrap(),
        }
    };
    let (_, tasks) = context.mount(component);
    let supervised = context.clone();
    tokio::spawn(async move { server::supervise(tasks, &supervised).await });
    context
}

pub(crate) fn ordering(context: &Context) -> PaymentServiceClient<Channel> {
    PaymentServiceClient::new(context.clients.as_caller("ordering").channel("payment"))
}

pub(crate) fn outside(context: &Context) -> PaymentServiceClient<Channel> {
    PaymentServiceClient::new(context.clients.as_caller("gateway").channel("payment"))
}

pub(crate) fn authorize(name: &str, token: &str, request_id: &str) -> proto::AuthorizePaymentRequest {
    proto::AuthorizePaymentRequest {
        name: name.to_owned(),
        order: order(name),
        customer: CUSTOMER.to_owned(),
        amount: money(10_000),
        payment_token: token.to_owned(),
        request_id: request_id.to_owned(),
    }
}

pub(crate) fn order(name: &str) -> String {
    name.replace("payments/", "orders/")
}

pub(crate) fn money(minor: i64) -> Option<Money> {
    Some(Money { currency_code: "EUR".to_owned(), units: minor / 100, nanos: (minor % 100) as i32 * 10_000_000 })
}

pub(crate) fn minor(money: &Option<Money>) -> i64 {
    money.as_ref().map_or(0, |money| money.units * 100 + i64::from(money.nanos) / 10_000_000)
}

/// A request id that follows from a text.
pub(crate) fn id(text: &str) -> String {
    let mut hash = [0_u8; 16];
    for (at, byte) in text.bytes().enumerate() {
        hash[at % 16] = hash[at % 16].wrapping_mul(31).wrapping_add(byte);
    }
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

pub(crate) fn person(id: &str, role: Role) -> Outgoing {
    let subject = Subject { id: id.to_owned(), role, session: String::new() };
    Outgoing { principal: Principal::User(subject), ..Outgoing::default() }
}

pub(crate) fn operator() -> Outgoing {
    person("users/op", Role::Operator)
}

pub(crate) fn signed(body: &[u8]) -> String {
    sandbox::signature(SECRET, Clock::system().now().as_second(), body)
}

async fn ingest(channel: Channel, body: &[u8], signature: Option<&str>) -> Result<bool, Status> {
    let body = HttpBody { content_type: "application/json".to_owned(), data: body.to_vec(), extensions: vec![] };
    let ask = proto::IngestWebhookRequest { provider: "sandbox".to_owned(), body: Some(body) };
    let mut request = Outgoing::default().request(ask);
    if let Some(signature) = signature {
        request.metadata_mut().insert("stoa-signature", signature.parse().unwrap());
    }
    Ok(PaymentServiceClient::new(channel).ingest_webhook(request).await?.into_inner().duplicate)
}

/// What the gateway does with webhooks: raw bytes in, the signature beside them, a status out.
async fn open_door(listener: TcpListener, channel: Channel) {
    let channel = Arc::new(channel);
    while let Ok((stream, _)) = listener.accept().await {
        let channel = Arc::clone(&channel);
        tokio::spawn(async move {
            let service = service_fn(move |request: http::Request<Incoming>| {
                let channel = Arc::clone(&channel);
                async move {
                    let signature =
                        request.headers().get("stoa-signature").map(|value| value.to_str().unwrap().to_owned());
                    let body = request.into_body().collect().await?.to_bytes();
                    let status = match ingest((*channel).clone(), &body, signature.as_deref()).await {
                        Ok(_) => 200,
                        Err(_) => 500,
                    };
                    let answer = http::Response::builder().status(status).body(Full::new(Bytes::new()));
                    Ok::<_, hyper::Error>(answer.unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}
