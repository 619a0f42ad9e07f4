//! The bus keeps its promises through Kafka.
//!
//! `BUS_TEST_KAFKA=host:port BUS_TEST_CONTROL=host:port cargo test -p bus --features kafka -- --ignored`, or the lane.
#![cfg(feature = "kafka")]

mod kafka_rig;

use std::cell::RefCell;
use std::sync::Arc;

use bus::conformance::brokers::{self, Ground as _};
use bus::{Hub, Relay, source};
use log::Log;
use log::conformance::toy::Event;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kafka"]
async fn the_bus_over_kafka_keeps_the_promises_of_every_bus() {
    let ground = kafka_rig::Kafka::named("suite");
    // One case at a time; its relay ends when the next begins.
    let relays = RefCell::new((0, JoinSet::new()));
    let cases = bus::conformance::run(kafka_rig::open, async |log: Log<Event>, hub: &Hub| {
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
#[ignore = "needs Kafka"]
async fn kafka_carries_what_every_broker_must() {
    let cases = brokers::run(kafka_rig::open, &kafka_rig::Kafka::named("cases")).await;
    println!("    {cases} cases of every broker");
}
