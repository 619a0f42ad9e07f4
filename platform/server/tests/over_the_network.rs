//! Calls over TCP: what is believed of them, what is refused, what is bounded.

#![allow(clippy::unwrap_used)]

mod echo;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth::{Identity, Role};
use client::{Channel, Outgoing};
use contract::Table;
use echo::{ask, component, handler, outgoing, person, who};
use server::{Component, Context, Failed, Storage};
use store::Clock;
use telemetry::Trace;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const SECRET: [u8; 32] = [5; 32];

struct Running {
    context: Context,
    uri: String,
    process: JoinHandle<Result<(), Failed>>,
}

fn context() -> Context {
    Context::in_fleet(Storage::Temporary, std::env::temp_dir(), echo::TABLE, &SECRET, Clock::system())
}

async fn running(component: Component) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let context = context();
    let process = tokio::spawn({
        let context = context.clone();
        async move { server::serve(listener, component, &context).await }
    });
    Running { context, uri, process }
}

impl Running {
    /// A channel of another process of the fleet.
    fn channel(&self, caller: &'static str) -> Channel {
        let elsewhere = context();
        elsewhere.clients.connect("echo", &self.uri).unwrap();
        elsewhere.clients.as_caller(caller).channel("echo")
    }

    /// The connection of somebody outside.
    fn outside(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(self.uri.clone()).unwrap().connect_lazy()
    }

    async fn stop(self) {
        self.context.shutdown.cancel();
        self.process.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn caller_person_and_trace_arrive_over_the_network() {
    let server = running(component(handler(|call, message| async move {
        let subject = call.require_subject()?.id.clone();
        Ok(format!("{} {subject} {message} {}", call.caller(), call.trace.id()))
    })))
    .await;
    let trace = Trace::new_root();
    let outgoing = Outgoing { trace, ..outgoing(person("users/1", Role::Customer)) };
    let answer = ask(&server.channel("ordering"), "Customer", &outgoing).await.unwrap();
    assert_eq!(answer, format!("ordering users/1 hello {}", trace.id()));
    server.stop().await;
}

#[tokio::test]
async fn the_policy_holds_over_the_network_as_well() {
    let server = running(component(who())).await;
    let customer = outgoing(person("users/1", Role::Customer));
    let nobody = Outgoing::default();
    for (caller, method, outgoing, expected) in [
        ("ordering", "Internal", &nobody, Code::Ok),
        ("gateway", "Internal", &customer, Code::PermissionDenied),
        ("gateway", "Customer", &customer, Code::Ok),
        ("gateway", "Customer", &nobody, Code::Unauthenticated),
        ("gateway", "Operator", &customer, Code::PermissionDenied),
        ("shipping", "Public", &nobody, Code::PermissionDenied),
    ] {
        let answer = ask(&server.channel(caller), method, outgoing).await;
        assert_eq!(answer.map_or_else(|status| status.code(), |_| Code::Ok), expected, "{caller} {method}");
    }
    server.stop().await;
}

#[tokio::test]
async fn forged_identity_headers_are_ignored() {
    let server = running(component(who())).await;
    let now = Clock::system().now();
    let fleet = auth::Fleet::from_seed(&SECRET);
    let identity = Identity { caller: "ordering".into(), principal: person("users/1", Role::Operator) };
    let good = format!("Bearer {}", fleet.sign(&identity, "echo", now).unwrap());
    let other_callee = format!("Bearer {}", fleet.sign(&identity, "payment", now).unwrap());
    let other_fleet = format!("Bearer {}", auth::Fleet::from_seed(&[6; 32]).sign(&identity, "echo", now).unwrap());
    let forged: [&[(&'static str, &str)]; 9] = [
        &[],
        &[("x-stoa-caller", "ordering"), ("x-stoa-subject", "users/1"), ("x-stoa-role", "operator")],
        &[
            ("caller", "gateway"),
            ("x-forwarded-user", "users/1"),
            ("x-user-id", "users/1"),
            ("x_stoa_caller", "gateway"),
        ],
        &[("authorization", "Basic b3JkZXJpbmc6")],
        &[("authorization", "Bearer ")],
        &[("authorization", &other_callee)],
        &[("authorization", &other_fleet)],
        &[("authorization", &good), ("authorization", &good)],
        &[("authorization", good.trim_start_matches("Bearer "))],
    ];
    for headers in forged {
        let mut request = Request::new("hello".to_owned());
        for (name, value) in headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        for method in ["Public", "Internal", "Operator"] {
            let mut again = Request::new("hello".to_owned());
            *again.metadata_mut() = request.metadata().clone();
            let status = echo::call(server.outside(), method, again).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{method} {headers:?}");
        }
    }
    let mut request = Request::new("hello".to_owned());
    request.metadata_mut().insert("authorization", good.parse().unwrap());
    assert_eq!(echo::call(server.outside(), "Internal", request).await.unwrap(), "ordering users/1 hello");
    server.stop().await;
}

#[tokio::test]
async fn a_caller_whose_clock_is_far_off_is_told_so_and_not_that_it_is_nobody() {
    let server = running(component(who())).await;
    let now = Clock::system().now().as_second();
    let identity = Identity { caller: "ordering".into(), principal: person("users/1", Role::Operator) };
    let calls = async |off: i64| {
        let signed_at = jiff::Timestamp::from_second(now + off).unwrap();
        let token = auth::Fleet::from_seed(&SECRET).sign(&identity, "echo", signed_at).unwrap();
        let mut request = Request::new("hello".to_owned());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        echo::call(server.outside(), "Internal", request).await
    };
    for off in [-30, 30] {
        assert_eq!(calls(off).await.unwrap(), "ordering users/1 hello", "{off}");
    }
    for off in [-600, 600] {
        let status = calls(off).await.unwrap_err();
        let reason = server::status::reason(&status);
        assert_eq!((status.code(), reason.as_deref()), (Code::Unavailable, Some("CLOCKS_APART")), "{off}");
    }
    server.stop().await;
}

/// A request with this fleet's token, so that what is refused is refused for another reason.
fn trusted(message: String) -> Request<String> {
    let identity = Identity { caller: "ordering".into(), ..Identity::default() };
    let token = auth::Fleet::from_seed(&SECRET).sign(&identity, "echo", Clock::system().now()).unwrap();
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_malformed_timeout_is_refused() {
    let server = running(component(who())).await;
    for timeout in ["soon", "1", "-1S", "123456789S", "1x"] {
        let mut request = trusted("hello".to_owned());
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        // tonic's own channel reads the header as well, and lets a malformed one pass.
        let status = echo::call(server.outside(), "Public", request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{timeout}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_callee_itself_ends_a_call_at_its_deadline() {
    let (dropped, mut seen) = mpsc::channel(8);
    struct Dropped(mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let server = running(component(handler(move |_, _| {
        let guard = Dropped(dropped.clone());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    })))
    .await;
    let outgoing = Outgoing::default().within(Duration::from_millis(100));
    let status = ask(&server.channel("ordering"), "Public", &outgoing).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    seen.recv().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_write_over_the_network_ends_though_its_client_vanishes() {
    let begun = Arc::new(Notify::new());
    let go_on = Arc::new(Notify::new());
    let (done, mut ended) = mpsc::channel(8);
    let server = running(component({
        let (begun, go_on) = (begun.clone(), go_on.clone());
        handler(move |call, _| {
            let (begun, go_on, done) = (begun.clone(), go_on.clone(), done.clone());
            async move {
                call.detached(async move {
                    begun.notify_one();
                    go_on.notified().await;
                    done.try_send("committed").unwrap();
                    Ok("committed".to_owned())
                })
                .await
            }
        })
    }))
    .await;
    let channel = server.outside();
    let caller = tokio::spawn(echo::call(channel, "Public", trusted("hello".to_owned())));
    begun.notified().await;
    caller.abort();
    let _ = caller.await;
    go_on.notify_one();
    assert_eq!(ended.recv().await, Some("committed"));
    server.stop().await;
}

#[tokio::test]
async fn a_request_larger_than_its_method_allows_is_refused() {
    let server = running(component(who())).await;
    assert!(echo::call(server.outside(), "Public", trusted("x".repeat(1000))).await.is_ok());
    let status = echo::call(server.outside(), "Public", trusted("x".repeat(100_000))).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    server.stop().await;
}

#[tokio::test]
async fn health_is_open_to_everybody_and_nothing_else_is() {
    let well = Arc::new(AtomicBool::new(true));
    let probed = Arc::clone(&well);
    let component = component(who()).ready(Arc::new(move || Box::pin(ready(probed.load(Ordering::Relaxed)))));
    let server = running(component).await;

    let mut client = HealthClient::new(server.outside());
    let mut check = async |service: &str| {
        let asked = HealthCheckRequest { service: service.to_owned() };
        Ok::<_, tonic::Status>(client.check(asked).await?.into_inner().status())
    };
    for name in ["", "live", "startup", "echo", "stoa.echo.v1.EchoService"] {
        assert_eq!(check(name).await.unwrap(), ServingStatus::Serving, "{name}");
    }
    assert_eq!(check("ordering").await.unwrap_err().code(), Code::NotFound);
    well.store(false, Ordering::Relaxed);
    assert_eq!(check("echo").await.unwrap(), ServingStatus::NotServing, "what it stands on is away");
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    well.store(true, Ordering::Relaxed);

    let mut watching = HealthClient::new(server.outside());
    let asked = HealthCheckRequest { service: "echo".to_owned() };
    let mut told = watching.watch(asked).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // It says so before it stops to answer.
    server.context.draining.cancel();
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(check("echo").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check("live").await.unwrap(), ServingStatus::Serving);

    let status = echo::call(server.outside(), "Secret", trusted("hello".to_owned())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    server.stop().await;
}

#[tokio::test]
async fn a_callee_that_is_not_there_is_unavailable() {
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", nowhere.local_addr().unwrap());
    drop(nowhere);
    let elsewhere = context();
    elsewhere.clients.connect("echo", &uri).unwrap();
    let channel = elsewhere.clients.as_caller("ordering").channel("echo");
    for method in ["Public", "Read"] {
        let status = ask(&channel, method, &Outgoing::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{method}");
    }
}

#[tokio::test]
async fn a_process_without_a_fleet_key_calls_nobody_over_the_network() {
    let alone = Context::temporary(Table(&[]));
    assert!(alone.clients.connect("echo", "http://127.0.0.1:1").is_err());
    assert!(context().clients.connect("echo", "not a uri").is_err());
}
