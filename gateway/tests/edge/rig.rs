//! A gateway on a port, services that remember and answer what they are told, and a client.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use auth::{Identity, Role, SigningKey, Subject};
use bytes::{BufMut as _, Bytes, BytesMut};
use client::{Answer as CalleeAnswer, Arrival, Callee};
use gateway::{Config, Gateway, storefront};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use prost::Message;
use serde_json::Value;
use server::Context;
use telemetry::Trace;
use tokio::net::{TcpListener, TcpStream};
use tonic::{Status, body::Body};

/// What a service saw.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) service: &'static str,
    pub(crate) path: String,
    pub(crate) identity: Identity,
    pub(crate) trace: Trace,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Bytes,
}

type Answers = Arc<Mutex<HashMap<String, Result<Vec<u8>, Status>>>>;

/// A service that answers what it was told to and `UNIMPLEMENTED` otherwise.
struct Mute {
    name: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Answers,
}

impl Callee for Mute {
    fn call(&self, request: Request<Body>) -> CalleeAnswer {
        let (name, seen, answers) = (self.name, self.seen.clone(), self.answers.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let arrival = parts.extensions.get::<Arrival>().cloned().unwrap();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(status) => return status.into_http(),
            };
            let path = parts.uri.path().to_owned();
            let message = body.get(5..).map(Bytes::copy_from_slice).unwrap_or_default();
            seen.lock().unwrap().push(Seen {
                service: name,
                path: path.clone(),
                identity: arrival.identity,
                trace: arrival.trace,
                headers: parts.headers,
                message,
            });
            let answer = answers.lock().unwrap().get(&path).cloned();
            match answer {
                Some(Ok(message)) => grpc_answer(&message),
                Some(Err(status)) => status.into_http(),
                None => Status::unimplemented("not told what to answer").into_http(),
            }
        })
    }
}

fn grpc_answer(message: &[u8]) -> Response<Body> {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
    let mut response =
        Response::new(Body::new(Full::new(framed.freeze()).with_trailers(async move { Some(Ok(trailers)) })));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

/// Everything a test needs; the port closes with it.
pub(crate) struct Rig {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) context: Context,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    answers: Answers,
    key: SigningKey,
}

/// The services that stand behind the gateway.
const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "orderview", "payment", "shipping", "notification"];

impl Rig {
    pub(crate) async fn new() -> Self {
        let cache = cache::Cache::of_one_process();
        // As identity does it when it begins.
        let marks = cache.marks();
        assert_eq!(marks.vouch(&marks.begin().await.unwrap()).await, Ok(true));
        Self::with(cache).await
    }

    pub(crate) async fn with(cache: cache::Cache) -> Self {
        let mut context = Context::temporary(contracts::METHODS);
        context.cache = cache;
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let answers = Answers::default();
        for name in SERVICES {
            context.clients.serve(name, Arc::new(Mute { name, seen: seen.clone(), answers: answers.clone() }));
        }
        let _ = context.mount(storefront::build(storefront::Deadlines::default(), &context));
        let key = SigningKey::from_seed(&[1; 32]);
        context.keyring().publish(vec![key.public().clone()]);
        let gateway = build(&context);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = server::Limits { drain: Duration::from_millis(50), ..Default::default() };
        tokio::spawn(server::accept::run(
            listener,
            gateway,
            limits,
            server::Gauge::default(),
            context.shutdown.clone(),
        ));
        Rig { address, context, seen, answers, key }
    }

    /// What the service of this path answers from now on.
    pub(crate) fn answer(&self, path: &str, message: &impl Message) {
        self.answers.lock().unwrap().insert(path.to_owned(), Ok(message.encode_to_vec()));
    }

    pub(crate) fn refuse(&self, path: &str, status: Status) {
        self.answers.lock().unwrap().insert(path.to_owned(), Err(status));
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// A token of this person.
    pub(crate) fn token(&self, id: &str, role: Role) -> String {
        self.signed(&self.key, "stoa", id, role)
    }

    pub(crate) fn signed(&self, key: &SigningKey, issuer: &str, id: &str, role: Role) -> String {
        let subject = Subject { id: id.to_owned(), role, session: format!("{id}/sessions/1") };
        let issuer = auth::Issuer::new(key.clone(), issuer, "stoa", Duration::from_secs(300));
        issuer.issue(&subject, self.context.clock.now()).unwrap().token
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "stoa.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

pub(crate) fn build(context: &Context) -> Gateway {
    let config = Config { descriptors: contracts::DESCRIPTOR_SET, methods: contracts::METHODS };
    gateway::build(config, context).unwrap()
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
