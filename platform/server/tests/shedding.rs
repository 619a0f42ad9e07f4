//! More calls than can be served: who is let in, who is refused at once, and what the limit learns from it.

#![allow(clippy::unwrap_used)]

mod echo;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auth::Role;
use client::{Channel, Outgoing};
use echo::{ask, component, handler, outgoing, person};
use server::{Component, Context};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

/// What a service allows before it has learnt anything.
const BEGIN: usize = 256;

struct Shop {
    _context: Context,
    /// The door, for nobody and for a guest; and a saga.
    gateway: Channel,
    ordering: Channel,
    running: JoinSet<Code>,
    entered: Arc<AtomicUsize>,
}

impl Shop {
    fn open(component: Component, entered: Arc<AtomicUsize>) -> Self {
        let context = Context::temporary(echo::TABLE);
        context.mount(component);
        let [gateway, ordering] =
            ["gateway", "ordering"].map(|caller| context.clients.as_caller(caller).channel("echo"));
        Shop { _context: context, gateway, ordering, running: JoinSet::new(), entered }
    }

    /// A service whose calls never end: `wait` is a wait for others.
    fn of_calls_without_end(max_calls: usize, wait: bool) -> Self {
        let entered = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&entered);
        let mut component = component(handler(move |call, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move { if wait { call.aside(std::future::pending()).await } else { std::future::pending().await } }
        }));
        component.max_calls = max_calls;
        Shop::open(component, entered)
    }

    /// So many calls begin, within no time, and have begun when this returns; how many of them were refused.
    async fn begin(&mut self, who: &'static str, method: &'static str, count: usize) -> usize {
        let (channel, outgoing) = match who {
            "nobody" => (&self.gateway, Outgoing::default()),
            "guest" => (&self.gateway, echo::outgoing(person("guests/1", Role::Guest))),
            "operator" => (&self.gateway, echo::outgoing(person("users/op", Role::Operator))),
            _ => (&self.ordering, Outgoing::default()),
        };
        let before = self.entered.load(Ordering::SeqCst);
        let mut refused = 0;
        for number in 0..count {
            let (channel, outgoing) = (channel.clone(), outgoing.clone());
            let (told, hears) = tokio::sync::oneshot::channel();
            self.running.spawn(async move {
                let status = ask(&channel, method, &outgoing).await.unwrap_err();
                let _ = told.send(status.clone());
                status.code()
            });
            let entered = Arc::clone(&self.entered);
            let goes_on = async move {
                while entered.load(Ordering::SeqCst) <= before + number - refused {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                status = hears => {
                    let status = status.unwrap();
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                    assert_eq!(server::status::reason(&status).as_deref(), Some("OVERLOADED"));
                    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "100");
                    refused += 1;
                }
                () = goes_on => {}
            }
        }
        refused
    }
}

#[tokio::test(start_paused = true)]
async fn what_begins_is_refused_first_and_what_finishes_last() {
    let mut shop = Shop::of_calls_without_end(1000, false);
    assert_eq!(shop.begin("nobody", "Public", BEGIN + 10).await, 10);
    // Half as many again for whoever was let in before, and not for whoever comes now.
    assert_eq!(shop.begin("guest", "Guest", BEGIN / 2 + 10).await, 10);
    assert_eq!(shop.begin("nobody", "Public", 10).await, 10);
    // A saga, and whoever runs the shop, until there is no place at all.
    assert_eq!(shop.begin("operator", "Public", 100).await, 0);
    let left = 1000 - BEGIN - BEGIN / 2 - 100;
    assert_eq!(shop.begin("ordering", "Internal", left + 10).await, 10);
    assert_eq!(shop.begin("operator", "Operator", 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_others_keeps_nobody_out() {
    let mut shop = Shop::of_calls_without_end(1000, true);
    // Still there is an end of it, since what waits has memory too; and something is left for what finishes.
    assert_eq!(shop.begin("nobody", "Public", 1000).await, 1000 / 16);
    assert_eq!(shop.begin("ordering", "Internal", 1000).await, 1000 - 1000 / 16);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_again_when_its_caller_is_gone() {
    let mut shop = Shop::of_calls_without_end(1000, false);
    assert_eq!(shop.begin("nobody", "Public", BEGIN).await, 0);
    shop.running.shutdown().await;
    assert_eq!(shop.begin("nobody", "Public", BEGIN + 1).await, 1);
}

/// A service that does a thousand calls a second, one after the other, however many come.
fn one_at_a_time() -> Component {
    let machine = Arc::new(Semaphore::new(1));
    component(handler(move |_, message| {
        let machine = Arc::clone(&machine);
        async move {
            let _mine = machine.acquire().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(message)
        }
    }))
}

/// So many arrive every millisecond for a while; how long those waited who were answered, and how many were refused.
async fn arrive(channel: &Channel, each_ms: usize, span: Duration) -> (Vec<Duration>, usize) {
    let mut arrived = JoinSet::new();
    let end = Instant::now() + span;
    while Instant::now() < end {
        for _ in 0..each_ms {
            let channel = channel.clone();
            arrived.spawn(async move {
                let begun = Instant::now();
                let answer = ask(&channel, "Public", &Outgoing::default()).await;
                answer.map(|_| begun.elapsed()).map_err(|status| status.code())
            });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut answered, mut refused) = (Vec::new(), 0);
    for end in arrived.join_all().await {
        match end {
            Ok(took) => answered.push(took),
            Err(code) => {
                assert_eq!(code, Code::ResourceExhausted);
                refused += 1;
            }
        }
    }
    (answered, refused)
}

#[tokio::test(start_paused = true)]
async fn four_times_too_many_callers_leave_those_let_in_their_answers_in_time_and_all_is_well_afterwards() {
    let shop = Shop::open(one_at_a_time(), Arc::default());
    let span = Duration::from_secs(2);
    let (_, refused) = arrive(&shop.gateway, 1, Duration::from_millis(500)).await;
    assert_eq!(refused, 0, "as many as it can do");

    arrive(&shop.gateway, 4, span).await;
    let (answered, refused) = arrive(&shop.gateway, 4, span).await;
    assert!(answered.len() >= 1_600, "at least eight of ten that it could do: {}", answered.len());
    assert!(refused > 5_000, "{refused}");
    let longest = answered.iter().max().unwrap();
    assert!(*longest < Duration::from_millis(300), "{longest:?}");

    let (_, refused) = arrive(&shop.gateway, 1, span).await;
    assert_eq!(refused, 0, "and all is well when they have gone");
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_does_not_make_a_service_slow() {
    let entered = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&entered);
    let component = component(handler(move |call, message| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match message.strip_prefix("provider ") {
                Some(seconds) => {
                    call.aside(tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap()))).await;
                    Ok(message)
                }
                None => std::future::pending().await,
            }
        }
    }));
    let mut shop = Shop::open(component, entered);
    for seconds in [0, 4] {
        let mut calls = JoinSet::new();
        for _ in 0..2000 {
            let (channel, guest) = (shop.gateway.clone(), outgoing(person("guests/1", Role::Guest)));
            let request = guest.request(format!("provider {seconds}"));
            calls.spawn(async move { echo::call(channel, "Guest", request).await });
        }
        assert!(calls.join_all().await.iter().all(Result::is_ok), "{seconds} s");
    }
    assert!(shop.begin("nobody", "Public", BEGIN).await == 0, "the limit has fallen");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_counted_by_rank_and_reason() {
    let mut shop = Shop::of_calls_without_end(BEGIN, false);
    assert_eq!(shop.begin("nobody", "Public", BEGIN).await, BEGIN / 16);
    assert_eq!(shop.begin("ordering", "Internal", BEGIN / 16 + 2).await, 2);
    let text = telemetry::metrics::text();
    for series in [
        "stoa_calls_shed_total{service=\"echo\",rank=\"browsing\",reason=\"full\"}",
        "stoa_calls_shed_total{service=\"echo\",rank=\"finishing\",reason=\"full\"}",
        "stoa_limit_calls{service=\"echo\"}",
    ] {
        assert!(text.lines().any(|line| line.starts_with(series)), "{series} is not in\n{text}");
    }
}
