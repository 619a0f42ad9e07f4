//! A log read over the network keeps the promises of the bus, as one in the same process does.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bus::{Hub, Source};
use client::Channel;
use contracts::operations::v1::ReadLogRequest;
use contracts::operations::v1::operations_service_client::OperationsServiceClient;
use log::Log;
use log::conformance::toy::{self, Event, opened};
use operations::{Desk, Remote};
use server::{Component, Context, Storage};
use store::{Clock, Config, Store};
use tokio::net::TcpListener;

async fn open() -> Store {
    let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS, bus::conformance::MIGRATIONS];
    Store::open(Config::new("toy", store::conformance::engine().await).migrations(sets)).await.unwrap()
}

fn surroundings() -> Context {
    let folder = std::env::temp_dir();
    Context::in_fleet(Storage::Temporary, folder, contracts::METHODS, &[7; 32], Clock::system())
}

/// The toy service behind a port of its own, as another process would be, and the way there.
async fn elsewhere(log: Log<Event>) -> (Context, Channel) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let there = surroundings();
    let serving = there.clone();
    tokio::spawn(async move {
        let component = Component::new("toy", contracts::METHODS, tonic::service::Routes::default());
        server::serve(listener, Desk::new(&log).serve(component), &serving).await.unwrap();
    });
    let here = surroundings();
    here.clients.connect("toy", &address).unwrap();
    (there, here.clients.as_caller("orderview").channel("toy"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_over_the_network_keeps_its_promises() {
    bus::conformance::run(open, async |log: Log<Event>, hub: &Hub| {
        let (_, channel) = elsewhere(log).await;
        let remote = Remote::new("toy", channel);
        tokio::spawn(remote.clone().watch());
        hub.publish("toy", Arc::new(remote));
    })
    .await;
}

#[tokio::test]
async fn a_producer_that_is_away_is_an_error_and_no_loss() {
    let log = toy::log(open().await);
    let (there, channel) = elsewhere(log.clone()).await;
    let remote = Remote::new("toy", channel);
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.unwrap();
    let heads = remote.heads().await.unwrap();
    assert_eq!(heads.iter().sum::<u64>(), 1);
    let shard = heads.iter().position(|head| *head == 1).unwrap();
    let shard = u32::try_from(shard).unwrap();
    let read = remote.read(shard, 0, 10).await.unwrap();
    assert_eq!((read.len(), read[0].stream.as_str(), read[0].version, read[0].position), (1, "accounts/a", 1, 1));
    assert_eq!(remote.read_stream("accounts/a", 1, 10).await.unwrap(), read);
    assert_eq!(remote.read(shard, 1, 10).await.unwrap(), []);
    there.shutdown.cancel();
    let gone = async {
        while remote.heads().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    assert!(matches!(remote.read(shard, 0, 10).await, Err(bus::Error::Away { .. })));
}

#[tokio::test]
async fn a_service_that_ends_does_not_wait_for_who_follows_its_log() {
    let log = toy::log(open().await);
    let (there, channel) = elsewhere(log).await;
    let mut client = OperationsServiceClient::new(channel);
    let parent = "services/toy".to_owned();
    let asked = ReadLogRequest { parent, heads_only: true, follow: true, ..ReadLogRequest::default() };
    let mut answers = client.read_log(asked).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    there.shutdown.cancel();
    // An end, and not the error of a connection that was cut when the time to drain was over.
    assert_eq!(answers.message().await.unwrap(), None);
}
