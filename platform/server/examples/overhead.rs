//! What a call between two services over TCP costs: `overhead SWITCHED` prints `cpu US`, `p50 US` and `p99 US` of one call, with
//! as much switched on as SWITCHED says: `nothing`, `tokens`, `certificates` (and tokens), `telemetry` (and both). Caller and
//! callee are in this process, so the CPU time is that of both. `cargo xtask bench -- overhead` runs it in turns and tells the
//! differences.
//!
//! With nothing on, the caller signs nothing and the callee is told who calls; the layers around both are those of every
//! call. Telemetry is the log as a process writes it, and spans of which one story of a hundred is kept; counting cannot be
//! switched off, and `counted` prints what it costs alone.

#![allow(clippy::unwrap_used, reason = "a program that measures has nothing to do after a failure")]

#[path = "../tests/echo/mod.rs"]
mod echo;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use auth::{Identity, Role};
use client::{Answer, Arrival, Callee, Channel, Outgoing};
use rustix::time::{ClockId, clock_gettime};
use server::{Arriving, Context, Gauge, Limits, Service, Storage, accept};
use store::Clock;
use telemetry::metrics::{Calling, Serving};
use telemetry::{Format, Trace, spans};
use tls::authority::Authority;
use tls::{Files, Trust};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::body::Body;
use tower::ServiceExt as _;

const SECRET: [u8; 32] = [5; 32];
const DOMAIN: &str = "stoa.test";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Calls that warm up; calls one after the other, for how long each takes; calls by several at once, for what each costs.
const WARM_UP: usize = 2_000;
const ALONE: usize = 5_000;
const TOGETHER: usize = 40_000;
const CALLERS: usize = 16;
/// People calls are made for, in turns: a shop has more than one customer.
const PEOPLE: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Switched {
    Nothing,
    Tokens,
    Certificates,
    Telemetry,
}

fn main() {
    let switched = match std::env::args().nth(1).as_deref() {
        Some("nothing") => Switched::Nothing,
        Some("tokens") => Switched::Tokens,
        Some("certificates") => Switched::Certificates,
        Some("telemetry") => Switched::Telemetry,
        Some("counted") => return counted(),
        _ => panic!("overhead nothing|tokens|certificates|telemetry|counted"),
    };
    let held = if switched >= Switched::Telemetry { spans::Limits::default().bytes } else { 0 };
    spans::configure(spans::Limits { ratio: 0.01, bytes: held, ..spans::Limits::default() });
    if switched >= Switched::Telemetry {
        telemetry::init(Format::Json, "info").unwrap();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { measure(&open(switched).await).await });
}

/// What every call pays for being counted, on both sides.
fn counted() {
    let begun = cpu();
    let calls = 200_000;
    for _ in 0..calls {
        let calling = Calling::begin("ordering", "echo");
        Serving::begin("echo", "stoa.echo.v1.EchoService/Customer").end(0);
        calling.end(0);
    }
    println!("cpu {:.2}", micros(cpu() - begun) / f64::from(calls));
}

async fn measure(channel: &Channel) {
    let people: Arc<Vec<Outgoing>> = Arc::new(
        (0..PEOPLE).map(|number| echo::outgoing(echo::person(&format!("users/{number}"), Role::Customer))).collect(),
    );
    for number in 0..WARM_UP {
        call(channel, &people, number).await;
    }
    let mut times = Vec::with_capacity(ALONE);
    for number in 0..ALONE {
        let begun = Instant::now();
        call(channel, &people, number).await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let begun = cpu();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (channel, people) = (channel.clone(), Arc::clone(&people));
        callers.spawn(async move {
            for number in 0..TOGETHER / CALLERS {
                call(&channel, &people, caller + number).await;
            }
        });
    }
    callers.join_all().await;
    println!("cpu {:.2}", micros(cpu() - begun) / TOGETHER as f64);
    println!("p50 {:.1}", micros(times[ALONE / 2]));
    println!("p99 {:.1}", micros(times[ALONE * 99 / 100]));
}

/// Each call is a story of its own, for one of the people.
async fn call(channel: &Channel, people: &[Outgoing], number: usize) {
    let outgoing = Outgoing { trace: Trace::new_root(), ..people[number % PEOPLE].clone() };
    echo::ask(channel, "Customer", &outgoing).await.unwrap();
}

async fn open(switched: Switched) -> Channel {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", tcp.local_addr().unwrap());
    let (serving, elsewhere) = match switched {
        Switched::Nothing | Switched::Tokens => (context(), context()),
        Switched::Certificates | Switched::Telemetry => {
            let trust = trust();
            (context().trusting(trust.clone()), context().trusting(trust))
        }
    };
    let listener = serving.listener(tcp, "echo").unwrap();
    let (service, _) = serving.mount(echo::component(echo::who()));
    let shutdown = serving.shutdown.clone();
    if switched == Switched::Nothing {
        tokio::spawn(accept::run(listener, Told(service), Limits::default(), Gauge::default(), shutdown));
        let wire = tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
        elsewhere.clients.serve("echo", Arc::new(Unsigned(wire)));
    } else {
        tokio::spawn(accept::run(listener, service, Limits::default(), Gauge::default(), shutdown));
        elsewhere.clients.connect("echo", &uri).unwrap();
    }
    elsewhere.clients.as_caller("ordering").channel("echo")
}

fn context() -> Context {
    Context::in_fleet(Storage::Temporary, std::env::temp_dir(), echo::TABLE, &SECRET, Clock::system())
}

fn trust() -> Trust {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::init(&folder.path().join("ca"), DOMAIN, DAY).unwrap();
    for name in ["ordering", "echo"] {
        authority.issue(name, DAY).unwrap();
    }
    let ca = folder.path().join("ca");
    let files = Files {
        authority: ca.join("authority.pem"),
        certificate: ca.join("{service}.pem"),
        key: ca.join("{service}.key"),
        domain: DOMAIN.to_owned(),
    };
    let trust = Trust::new(files).unwrap();
    // They are read again when they change.
    std::mem::forget(folder);
    trust
}

/// A callee over the network to which nothing is proven.
struct Unsigned(tonic::transport::Channel);

impl Callee for Unsigned {
    fn call(&self, mut request: http::Request<Body>) -> Answer {
        let mut wire = self.0.clone();
        Box::pin(async move {
            let arrival = request.extensions_mut().remove::<Arrival>().unwrap();
            let headers = request.headers_mut();
            headers.insert("traceparent", arrival.trace.traceparent().parse().unwrap());
            headers.insert("grpc-timeout", "5S".parse().unwrap());
            let answer = tower::Service::call(wire.ready().await.unwrap(), request).await;
            answer.unwrap()
        })
    }
}

/// A service that is told who calls.
#[derive(Clone)]
struct Told(Service);

impl tower::Service<http::Request<Arriving>> for Told {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Arriving>) -> Self::Future {
        let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let trace = trace.and_then(|text| Trace::parse(text).ok()).unwrap();
        let identity = Identity { caller: "ordering".into(), principal: echo::person("users/0", Role::Customer) };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        request.extensions_mut().insert(Arrival { identity, trace, deadline });
        tower::Service::call(&mut self.0, request)
    }
}

/// What this process has used of the CPU.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
