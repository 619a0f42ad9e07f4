//! Calls between services of one process, through every layer but the network.

#![allow(clippy::unwrap_used)]

mod echo;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use auth::{Principal, Role};
use client::{Channel, Outgoing};
use echo::{ask, component, handler, outgoing, person, who};
use server::{Component, Context};
use telemetry::Trace;
use tokio::sync::{Notify, oneshot};
use tonic::{Code, Status};

fn mounted(component: Component) -> (Context, Channel) {
    let context = Context::temporary(echo::TABLE);
    context.mount(component);
    let channel = context.clients.as_caller("ordering").channel("echo");
    (context, channel)
}

#[tokio::test]
async fn a_handler_knows_its_caller_their_person_the_trace_and_the_deadline() {
    let (context, _) = mounted(component(handler(|call, message| async move {
        let left = call.deadline.saturating_duration_since(tokio::time::Instant::now());
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4));
        let subject = call.require_subject()?.id.clone();
        Ok(format!("{} {subject} {message} {} {}", call.caller(), call.trace.id(), call.principal()))
    })));
    let channel = context.clients.as_caller("gateway").channel("echo");
    let trace = Trace::new_root();
    let outgoing = Outgoing { trace, ..outgoing(person("users/1", Role::Customer)) };
    let answer = ask(&channel, "Customer", &outgoing).await.unwrap();
    assert_eq!(answer, format!("gateway users/1 hello {} users/1", trace.id()));
}

#[tokio::test]
async fn the_policy_of_the_contract_is_enforced_for_every_caller_and_person() {
    let context = Context::temporary(echo::TABLE);
    context.mount(component(who()));
    let people = [
        Principal::Anonymous,
        person("guests/1", Role::Guest),
        person("users/1", Role::Customer),
        person("users/2", Role::Operator),
    ];
    use Code::{Ok, PermissionDenied as No, Unauthenticated as Who};
    let matrix = [
        // caller, method, then: nobody, guest, customer, operator
        ("gateway", "Public", [Ok, Ok, Ok, Ok]),
        ("gateway", "Guest", [Who, Ok, Ok, Ok]),
        ("gateway", "Customer", [Who, No, Ok, Ok]),
        ("gateway", "Operator", [Who, No, No, Ok]),
        ("gateway", "Internal", [No, No, No, No]),
        ("ordering", "Public", [Ok, Ok, Ok, Ok]),
        ("ordering", "Customer", [Ok, No, Ok, Ok]),
        ("ordering", "Operator", [Ok, No, No, Ok]),
        ("ordering", "Internal", [Ok, Ok, Ok, Ok]),
        ("shipping", "Public", [No, No, No, No]),
        ("shipping", "Internal", [No, No, No, No]),
        ("", "Public", [Who, Who, Who, Who]),
    ];
    for (caller, method, codes) in matrix {
        let channel = context.clients.as_caller(caller).channel("echo");
        for (principal, expected) in people.iter().zip(codes) {
            let answer = ask(&channel, method, &outgoing(principal.clone())).await;
            let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
            assert_eq!(code, expected, "{caller} {method} {principal:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_has_a_reason_and_no_trace_of_our_insides() {
    let (context, _) = mounted(component(who()));
    let channel = context.clients.as_caller("gateway").channel("echo");
    let status = ask(&channel, "Operator", &Outgoing::default()).await.unwrap_err();
    assert_eq!(server::status::reason(&status).as_deref(), Some("UNAUTHENTICATED"));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_the_contracts_deadline() {
    let (_context, channel) = mounted(component(handler(|_, _| std::future::pending())));
    let start = tokio::time::Instant::now();
    let status = ask(&channel, "Public", &Outgoing::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(start.elapsed() <= Duration::from_millis(5250), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_the_callers_time_bounds_the_call() {
    let (_context, channel) = mounted(component(handler(|_, _| std::future::pending())));
    let start = tokio::time::Instant::now();
    let outgoing = Outgoing::default().within(Duration::from_millis(100));
    let status = ask(&channel, "Public", &outgoing).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(start.elapsed() < Duration::from_millis(150), "{:?}", start.elapsed());
    let status = ask(&channel, "Public", &outgoing).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "its time is over before it begins");
}

#[tokio::test]
async fn a_write_that_has_begun_ends_though_its_caller_vanishes() {
    let begun = Arc::new(Notify::new());
    let go_on = Arc::new(Notify::new());
    let (done, ended) = oneshot::channel();
    let done = Arc::new(std::sync::Mutex::new(Some(done)));
    let (context, channel) = mounted(component({
        let (begun, go_on) = (begun.clone(), go_on.clone());
        handler(move |call, _| {
            let (begun, go_on, done) = (begun.clone(), go_on.clone(), done.clone());
            async move {
                call.detached(async move {
                    begun.notify_one();
                    go_on.notified().await;
                    done.lock().unwrap().take().unwrap().send("committed").unwrap();
                    Ok("committed".to_owned())
                })
                .await
            }
        })
    }));

    let caller = tokio::spawn(async move { ask(&channel, "Public", &Outgoing::default()).await });
    begun.notified().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    go_on.notify_one();

    assert_eq!(ended.await, Ok("committed"));
    context.finish_writes().await;
}

#[tokio::test]
async fn a_panic_in_a_handler_or_its_write_is_an_internal_error() {
    let (_context, channel) = mounted(component(handler(|call, message| async move {
        if message == "hello" {
            return call.detached(async { panic!("in the write") }).await;
        }
        panic!("in the handler")
    })));
    for message in ["hello", "other"] {
        let request = Outgoing::default().request(message.to_owned());
        let status = echo::call(channel.clone(), "Public", request).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("in the"), "{status:?}");
    }
}

/// A handler that is unavailable for its first calls, and counts them.
fn flaky(unavailable: u32) -> (Arc<AtomicU32>, echo::Handler) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let handler = handler(move |_, message| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move { if call < unavailable { Err(Status::unavailable("not now")) } else { Ok(message) } }
    });
    (calls, handler)
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_method_is_tried_again_when_unavailable() {
    let (calls, handler) = flaky(2);
    let (_context, channel) = mounted(component(handler));
    assert_eq!(ask(&channel, "Read", &Outgoing::default()).await.unwrap(), "hello");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_method_with_effects_is_never_tried_again() {
    let (calls, handler) = flaky(1);
    let (_context, channel) = mounted(component(handler));
    let status = ask(&channel, "Public", &Outgoing::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_stay_within_the_budget_when_the_callee_often_fails() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    // Two of five: too few to be left alone, and each worth a retry if there were no budget.
    let handler = handler(move |_, message| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move { if call % 5 < 2 { Err(Status::unavailable("not now")) } else { Ok(message) } }
    });
    let (_context, channel) = mounted(component(handler));
    for _ in 0..1000 {
        match ask(&channel, "Read", &Outgoing::default()).await {
            Ok(answer) => assert_eq!(answer, "hello"),
            Err(status) => assert_eq!(status.message(), "not now"),
        }
    }
    let retries = calls.load(Ordering::SeqCst) - 1000;
    // A fifth of the calls, and ten a second over the budget's window of ten seconds.
    assert!((100..=330).contains(&retries), "{retries}");
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_is_down_is_left_alone_until_it_is_back() {
    let (calls, handler) = flaky(100);
    let (_context, channel) = mounted(component(handler));
    let mut last = None;
    for _ in 0..1000 {
        last = ask(&channel, "Public", &Outgoing::default()).await.err();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 20, "as many as tell that it is down, and none for nothing");
    let last = last.unwrap();
    assert_eq!((last.code(), server::status::reason(&last).as_deref()), (Code::Unavailable, Some("CIRCUIT_OPEN")));
    // One call at a time looks, ever more seldom, until the callee is back and some have been answered.
    let mut waited = Duration::ZERO;
    while ask(&channel, "Public", &Outgoing::default()).await.is_err() {
        waited += Duration::from_millis(250);
        tokio::time::advance(Duration::from_millis(250)).await;
    }
    assert!(waited > Duration::from_secs(60), "{waited:?}: eighty looks at most four seconds apart");
    for _ in 0..100 {
        ask(&channel, "Public", &Outgoing::default()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_unavailable_until_it_is_served() {
    let context = Context::temporary(echo::TABLE);
    let channel = context.clients.as_caller("ordering").channel("echo");
    let status = ask(&channel, "Public", &Outgoing::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    context.mount(component(who()));
    assert_eq!(ask(&channel, "Public", &Outgoing::default()).await.unwrap(), "ordering - hello");
}

#[tokio::test]
async fn load_above_the_limit_is_shed_with_a_pause_to_keep() {
    let entered = Arc::new(Notify::new());
    let inside = entered.clone();
    let mut component = component(handler(move |_, _| {
        inside.notify_one();
        std::future::pending()
    }));
    component.max_calls = 1;
    let (_context, channel) = mounted(component);
    let first = channel.clone();
    let first = tokio::spawn(async move { ask(&first, "Public", &Outgoing::default()).await });
    entered.notified().await;

    let status = ask(&channel, "Public", &Outgoing::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
    first.abort();
}

#[tokio::test]
async fn a_method_no_contract_has_is_unimplemented() {
    let (_context, channel) = mounted(component(who()));
    let status = ask(&channel, "Secret", &Outgoing::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn every_call_the_contract_allows_is_a_crash_point() {
    let (_context, _channel) = mounted(component(who()));
    assert!(store::crash::sites().contains(&"ordering->/stoa.echo.v1.EchoService/Internal"));
}

#[tokio::test]
async fn page_tokens_request_ids_and_ownership_belong_to_one_principal() {
    let (context, ordering) = mounted(component(handler(|call, message| async move {
        if let Some(token) = message.strip_prefix("page ") {
            return Ok(call.cursor("state = PAID", token)?.unwrap_or_default());
        }
        let token = call.page_token("state = PAID", Some("42"));
        assert_eq!(call.page_token("", None), "");
        assert_eq!(call.cursor("", "")?, None);
        let request = call.request(&message, "key").unwrap();
        assert_eq!(request.principal, call.principal());
        assert!(call.request(&message, "").is_none());
        assert_eq!(call.meta().correlation, call.trace.id());
        assert_eq!(call.owns("users/1"), call.principal() != "users/2");
        Ok(token)
    })));
    let gateway = context.clients.as_caller("gateway").channel("echo");
    let one = outgoing(person("users/1", Role::Customer));
    let two = outgoing(person("users/2", Role::Customer));

    let token = ask(&gateway, "Customer", &one).await.unwrap();
    ask(&gateway, "Customer", &two).await.unwrap();
    ask(&ordering, "Customer", &Outgoing::default()).await.unwrap();

    let again = |outgoing: &Outgoing| outgoing.request(format!("page {token}"));
    assert_eq!(echo::call(gateway.clone(), "Customer", again(&one)).await.unwrap(), "42");
    let status = echo::call(gateway.clone(), "Customer", again(&two)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = echo::call(gateway.clone(), "Guest", again(&one)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// Keeps the message of every audit record.
#[derive(Clone, Default)]
struct Audit(Arc<std::sync::Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Audit {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        if event.metadata().target() == "audit" {
            let mut message = Message(String::new());
            event.record(&mut message);
            self.0.lock().unwrap().push(message.0);
        }
    }
}

#[tokio::test]
async fn a_denied_call_and_a_privileged_one_leave_one_audit_record_each() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let audit = Audit::default();
    let _installed = tracing::subscriber::set_default(tracing_subscriber::registry().with(audit.clone()));
    let context = Context::temporary(echo::TABLE);
    context.mount(component(who()));
    let gateway = context.clients.as_caller("gateway").channel("echo");
    let customer = outgoing(person("users/1", Role::Customer));
    let operator = outgoing(person("users/2", Role::Operator));

    ask(&gateway, "Customer", &customer).await.unwrap();
    ask(&gateway, "Operator", &customer).await.unwrap_err();
    ask(&gateway, "Operator", &operator).await.unwrap();

    assert_eq!(*audit.0.lock().unwrap(), ["denied", "privileged call"]);
}
