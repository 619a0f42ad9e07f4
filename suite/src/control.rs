//! How a command reaches a shop that runs: a second listener on the loopback interface, known by a file in the data folder.
//!
//! Who can read that file may read every store beside it, so its token is proof enough to do an operator's work. The work is
//! done inside the shop, and what it says comes back line by line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, BodyStream, Limited, StreamBody};
use hyper::body::Frame;
use server::{Arriving, Gauge, Limits, accept};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::body::Body;

use crate::folder::{self, Folder, Running};
use crate::shop::Shop;
use crate::work::{self, Said, Voice, Work};

const LARGEST_REQUEST: usize = 64 * 1024;

/// Listens for commands until the shop shuts down, and says in the folder where.
pub(crate) async fn start(shop: Arc<Shop>, folder: &Folder, address: SocketAddr) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("commands cannot be taken")?;
    let token = blake3::Hash::from_bytes(folder::random()?).to_hex().to_string();
    folder.running(&Running { address, control: listener.local_addr()?, token: token.clone() })?;
    let token = Arc::new(blake3::hash(format!("Bearer {token}").as_bytes()));
    let shutdown = shop.context.shutdown.clone();
    let limits = Limits { drain: shop.context.windows.drain, ..Limits::default() };
    let service = tower::service_fn(move |request: Request<Arriving>| {
        let (shop, token) = (Arc::clone(&shop), Arc::clone(&token));
        async move { Ok::<_, Infallible>(take(shop, &token, request).await) }
    });
    Ok(tokio::spawn(accept::run(listener, service, limits, Gauge::default(), shutdown)))
}

async fn take(shop: Arc<Shop>, token: &blake3::Hash, request: Request<Arriving>) -> Response<Body> {
    let shown = request.headers().get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    // Comparing hashes takes the same time wherever they differ.
    if blake3::hash(shown) != *token {
        return refused(StatusCode::UNAUTHORIZED);
    }
    let Ok(body) = Limited::new(request.into_body(), LARGEST_REQUEST).collect().await else {
        return refused(StatusCode::BAD_REQUEST);
    };
    let Ok(work) = serde_json::from_slice::<Work>(&body.to_bytes()) else {
        return refused(StatusCode::BAD_REQUEST);
    };
    let (voice, ear) = Voice::new();
    let shutdown = shop.context.shutdown.clone();
    tokio::spawn(async move { shutdown.run_until_cancelled(work::perform(work, &shop, voice)).await });
    let lines = futures_util::stream::unfold(ear, |mut ear| async move {
        let said = ear.recv().await?;
        let mut line = serde_json::to_vec(&said).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), ear))
    });
    Response::new(Body::new(StreamBody::new(lines)))
}

fn refused(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Asks the running shop to do the work; what it says is heard from the receiver.
pub(crate) async fn ask(running: &Running, work: &Work) -> anyhow::Result<mpsc::Receiver<Said>> {
    let body = serde_json::to_vec(work)?;
    let authority = running.control.to_string();
    let response = crate::asking::send(&authority, Method::POST, "/", Some(&running.token), body)
        .await
        .context("the running shop cannot be asked")?;
    if response.status() != StatusCode::OK {
        bail!("the running shop refused: {}", response.status());
    }
    let (heard, ear) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut body = BodyStream::new(response.into_body());
        let mut rest = Vec::new();
        while let Some(Ok(frame)) = body.next().await {
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let Ok(said) = serde_json::from_slice(&line) else { return };
                if heard.send(said).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(ear)
}
