//! Several copies of a service: calls are shared, a copy may come, go or die, and no call is done twice for it.

#![allow(clippy::unwrap_used)]

mod echo;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::{Channel, Outgoing};
use echo::{ask, component, handler};
use server::{Context, Storage};
use store::Clock;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tonic::Code;

/// A copy that counts the calls it does.
struct Copy {
    context: Context,
    uri: String,
    calls: Arc<AtomicUsize>,
    process: JoinHandle<()>,
}

fn context() -> Context {
    Context::in_fleet(Storage::Temporary, std::env::temp_dir(), echo::TABLE, &[5; 32], Clock::system())
}

async fn copy() -> Copy {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let component = component(handler(move |_, message| {
        let counted = Arc::clone(&counted);
        async move {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(message)
        }
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let context = context();
    let serving = context.clone();
    let process = tokio::spawn(async move { server::serve(listener, component, &serving).await.unwrap() });
    Copy { context, uri, calls, process }
}

impl Copy {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    async fn leave(self) -> usize {
        self.context.shutdown.cancel();
        self.process.await.unwrap();
        self.calls.load(Ordering::Relaxed)
    }
}

/// A copy that breaks every connection once it has read a request; answers its address and how many it read.
async fn breaker() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            if let Some(Ok(_request)) = connection.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (uri, read)
}

/// A copy that dies when it has begun to answer; answers its address.
async fn stammerer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let Some(Ok((_, mut respond))) = connection.accept().await else { continue };
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            // The first half of what is before every message.
            body.send_data(bytes::Bytes::from_static(&[0, 0, 0]), false).unwrap();
            // The caller has both when it answers what comes behind them.
            let mut ping = connection.ping_pong().unwrap();
            tokio::select! {
                pong = ping.ping(h2::Ping::opaque()) => drop(pong.unwrap()),
                _ = connection.accept() => panic!("the caller left"),
            }
        }
    });
    uri
}

fn caller(uris: &[String]) -> (Context, Channel) {
    let elsewhere = context();
    elsewhere.clients.locate("echo", uris).unwrap();
    let channel = elsewhere.clients.as_caller("ordering").channel("echo");
    (elsewhere, channel)
}

#[tokio::test]
async fn copies_share_the_calls() {
    let copies = [copy().await, copy().await, copy().await];
    let (_here, channel) = caller(&copies.each_ref().map(|copy| copy.uri.clone()));
    let mut calls = JoinSet::new();
    // Thirty at once, so that a call need not wait for all others within its deadline.
    for _ in 0..30 {
        let channel = channel.clone();
        calls.spawn(async move {
            for _ in 0..10 {
                ask(&channel, "Public", &Outgoing::default()).await.unwrap();
            }
        });
    }
    calls.join_all().await;
    let each = copies.each_ref().map(Copy::calls);
    assert_eq!(each.iter().sum::<usize>(), 300);
    assert!(each.iter().all(|calls| *calls >= 60), "{each:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_leaves_or_comes_costs_no_call_and_none_is_done_twice() {
    const CALLERS: usize = 8;
    let (first, second) = (copy().await, copy().await);
    let uris = [first.uri.clone(), second.uri.clone()];
    let (here, channel) = caller(&uris);
    let done = Arc::new(AtomicUsize::new(0));
    let enough = tokio_util::sync::CancellationToken::new();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (channel, done, enough) = (channel.clone(), Arc::clone(&done), enough.clone());
        callers.spawn(async move {
            while !enough.is_cancelled() {
                // The contract does not let it be repeated.
                ask(&channel, "Public", &Outgoing::default()).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let progress = async |calls: usize| {
        let goal = done.load(Ordering::Relaxed) + calls;
        while done.load(Ordering::Relaxed) < goal {
            tokio::task::yield_now().await;
            assert!(!callers.is_empty());
        }
    };
    progress(500).await;
    // Nobody tells the caller: it finds the door closed.
    let mut total = first.leave().await;
    progress(500).await;
    let third = copy().await;
    here.clients.locate("echo", &[second.uri.clone(), third.uri.clone()]).unwrap();
    progress(500).await;
    here.clients.locate("echo", std::slice::from_ref(&third.uri)).unwrap();
    total += second.leave().await;
    progress(500).await;
    enough.cancel();
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    assert!(third.calls() > 0);
    assert_eq!(total + third.leave().await, done.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_call_that_may_have_arrived_is_not_done_twice_unless_it_may_be() {
    let (breaking, read) = breaker().await;
    let well = copy().await;
    let (_here, channel) = caller(&[breaking, well.uri.clone()]);
    let (mut good, mut failed) = (0, 0);
    while read.load(Ordering::Relaxed) == 0 {
        match ask(&channel, "Public", &Outgoing::default()).await {
            Ok(_) => good += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable);
                failed += 1;
            }
        }
    }
    assert_eq!((failed, well.calls()), (1, good), "the broken call went nowhere else");

    let (breaking, read) = breaker().await;
    let (_here, channel) = caller(&[breaking, well.uri.clone()]);
    while read.load(Ordering::Relaxed) == 0 {
        ask(&channel, "Read", &Outgoing::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_that_was_never_there_costs_no_call() {
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", nowhere.local_addr().unwrap());
    drop(nowhere);
    let well = copy().await;
    let (_here, channel) = caller(&[gone, well.uri.clone()]);
    for _ in 0..50 {
        ask(&channel, "Public", &Outgoing::default()).await.unwrap();
    }
    assert_eq!(well.calls(), 50);
}

#[tokio::test]
async fn an_answer_that_breaks_off_says_nothing_about_what_was_done() {
    let (_here, channel) = caller(&[stammerer().await]);
    for method in ["Public", "Read"] {
        let status = ask(&channel, method, &Outgoing::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert_eq!(status.message(), "echo broke off in the middle of its answer");
    }
}
