//! A small gRPC server, a gateway in front of it, and a client of the gateway.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use clap::Parser as _;
use contracts::storefront::v1::{
    CheckoutPage, GetCheckoutPageRequest, GetHomeRequest, GetProductPageRequest, HomePage, ProductPage, ProductPart,
    storefront_service_server::{StorefrontService, StorefrontServiceServer},
};
use gateway::standalone::{self, Settings};
use http::{HeaderMap, Request as HttpRequest};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// The services of the server, of which its descriptors tell more than it has.
pub(crate) const STOREFRONT: &str = "stoa.storefront.v1.StorefrontService";

/// Answers a page about what was asked, with the title it was given; a checkout waits until it is let go.
pub(crate) struct Storefront {
    title: &'static str,
    hold: CancellationToken,
    entered: CancellationToken,
}

#[tonic::async_trait]
impl StorefrontService for Storefront {
    async fn get_home(&self, request: Request<GetHomeRequest>) -> Result<Response<HomePage>, Status> {
        let said = request.metadata().get("x-said").cloned();
        let mut response = Response::new(HomePage::default());
        if let Some(said) = said {
            response.metadata_mut().insert("x-heard", said);
        }
        Ok(response)
    }

    async fn get_product_page(&self, request: Request<GetProductPageRequest>) -> Result<Response<ProductPage>, Status> {
        let name = request.into_inner().product;
        if name == "products/none" {
            return Err(Status::not_found("no such product"));
        }
        let title = self.title.to_owned();
        let product = contracts::catalog::v1::Product { name, title, ..Default::default() };
        Ok(Response::new(ProductPage {
            product: Some(ProductPart { mark: None, product: Some(product) }),
            ..Default::default()
        }))
    }

    async fn get_checkout_page(&self, _: Request<GetCheckoutPageRequest>) -> Result<Response<CheckoutPage>, Status> {
        self.entered.cancel();
        self.hold.cancelled().await;
        Ok(Response::new(CheckoutPage::default()))
    }
}

/// A server that runs until it is dropped, in a runtime of its own, so that it ends as a process does: with all connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) hold: CancellationToken,
    entered: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

/// Which reflection a server has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reflection {
    V1,
    V1Alpha,
    None,
}

impl Server {
    pub(crate) async fn start(title: &'static str, reflection: Reflection) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), title, reflection).await
    }

    pub(crate) async fn start_at(address: SocketAddr, title: &'static str, reflection: Reflection) -> Self {
        // A port that was somebody's a moment ago may be held for another one.
        let bound = async {
            loop {
                match std::net::TcpListener::bind(address) {
                    Ok(listener) => return listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = tokio::time::timeout(Duration::from_secs(10), bound).await.unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (hold, entered) = (CancellationToken::new(), CancellationToken::new());
        let storefront = Storefront { title, hold: hold.clone(), entered: entered.clone() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(serve(listener, storefront, reflection));
        Server { address, hold, entered, runtime: Some(runtime) }
    }

    /// Waits until a checkout has begun.
    pub(crate) async fn entered(&self) {
        self.entered.cancelled().await;
    }

    /// Ends it.
    pub(crate) fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: std::net::TcpListener, storefront: Storefront, reflection: Reflection) {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(contracts::DESCRIPTOR_SET)
            .with_service_name(STOREFRONT)
    };
    let (health, healthy) = tonic_health::server::health_reporter();
    health.set_serving::<StorefrontServiceServer<Storefront>>().await;
    let mut server =
        tonic::transport::Server::builder().add_service(StorefrontServiceServer::new(storefront)).add_service(healthy);
    server = match reflection {
        Reflection::V1 => server.add_service(builder().build_v1().unwrap()),
        Reflection::V1Alpha => server.add_service(builder().build_v1alpha().unwrap()),
        Reflection::None => server,
    };
    let listener = TcpListener::from_std(listener).unwrap();
    server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
}

/// A gateway of this process, until it is dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
}

impl Gateway {
    pub(crate) async fn start(upstream: SocketAddr, flags: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let upstream = upstream.to_string();
        let begin = ["stoa-gateway", "--upstream", &upstream];
        let line = begin.iter().chain(flags);
        let settings = Settings::try_parse_from(line).unwrap();
        let until = shutdown.clone();
        tokio::spawn(async move { standalone::run(settings, listener, until).await.unwrap() });
        Gateway { address, shutdown }
    }

    /// What a path answers as soon as it is not that there is nobody yet.
    pub(crate) async fn until_served(&self, path: &str) -> Answer {
        self.until(path, |answer| answer.status != 503).await
    }

    /// What a path answers as soon as the answer is as is wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            let mut turns = tokio::time::interval(Duration::from_millis(20));
            loop {
                turns.tick().await;
                let answer = send(self.address, "GET", path, &[], "").await;
                if wanted(&answer) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asking).await.expect("never answered so")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn title(&self) -> String {
        self.json()["product"]["product"]["title"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = HttpRequest::builder().method(method).uri(path).header("host", "gateway.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}
