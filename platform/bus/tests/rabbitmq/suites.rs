//! What every bus and every broker must do, by the functions that the others are judged by.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use bus::conformance::brokers::{self, Ground, World};
use bus::rabbitmq::QUEUES;
use bus::{Broker, Hub, Relay, source};
use lapin::options::QueueDeleteOptions;
use log::Log;
use log::conformance::toy::Event;
use store::Store;
use tokio::task::JoinSet;

use crate::rig::{broker, channel, prefix, told};

/// A place in the broker for a suite.
struct RabbitMq {
    prefix: String,
}

impl Ground for RabbitMq {
    fn connect(&self, name: &str) -> Arc<dyn Broker> {
        Arc::new(broker(&format!("{}.{name}", self.prefix)))
    }

    fn control(&self) -> SocketAddr {
        told("BUS_TEST_CONTROL").parse().expect("host:port")
    }

    fn refuses_batches_whole(&self) -> bool {
        // While it comes back it takes some messages and returns others.
        false
    }
}

async fn open() -> Store {
    let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS, bus::conformance::MIGRATIONS];
    let config = store::Config::new("toy", store::conformance::engine().await).migrations(sets);
    Store::open(config).await.expect("a store")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ"]
async fn the_bus_over_rabbitmq_keeps_the_promises_of_every_bus() {
    let ground = RabbitMq { prefix: prefix() };
    // One case at a time; its relay ends when the next begins.
    let relays = RefCell::new((0, JoinSet::new()));
    let cases = bus::conformance::run(open, async |log: Log<Event>, hub: &Hub| {
        let mut relays = relays.borrow_mut();
        relays.0 += 1;
        let broker = ground.connect(&relays.0.to_string());
        let source = source(log);
        hub.publish("toy", source.clone());
        hub.carry(broker.clone());
        relays.1 = JoinSet::new();
        relays.1.spawn(Relay::new(Arc::clone(&source), broker).run(std::future::pending()));
    })
    .await;
    println!("    {cases} promises of every bus");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ"]
async fn rabbitmq_carries_what_every_broker_must() {
    let cases = brokers::run(open, &RabbitMq { prefix: prefix() }).await;
    println!("    {cases} cases of every broker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ"]
async fn queues_deleted_under_load_lose_nothing() {
    let ground = RabbitMq { prefix: prefix() };
    let world = World::new(&open, &ground, "deleted").await;
    brokers::what_the_broker_forgets_under_load_is_not_lost(world, async || {
        // The queues there are: a log of fewer shards has fewer.
        for queue in 0..QUEUES {
            let name = format!("{}.deleted.toy.recorder.{queue}", ground.prefix);
            let _ = channel().await.queue_delete(name.into(), QueueDeleteOptions::default()).await;
        }
    })
    .await;
}
