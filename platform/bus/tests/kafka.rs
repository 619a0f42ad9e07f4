//! The bus keeps its promises through Kafka.
//!
//! `BUS_TEST_KAFKA=host:port BUS_TEST_CONTROL=host:port cargo test -p bus --features kafka -- --ignored`, or the lane.
#![cfg(feature = "kafka")]

mod kafka_rig;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bus::conformance::brokers::{self, Ground as _};
use bus::{Envelope, Hub, Message, Relay, source};
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

#[test]
#[ignore = "needs Kafka"]
fn a_broker_that_hangs_does_not_keep_a_process_from_ending() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let ground = kafka_rig::Kafka::named("hangs");
    runtime.block_on(async {
        let broker = ground.connect("1");
        broker.prepare("toy", 1).await.expect("prepare");
        let mut member = broker.subscribe("reader", "toy", 1).await.expect("subscribe");
        broker.publish(&[envelope()]).await.expect("publish");
        let delivery = member.next().await.expect("next");
        assert_eq!(delivery.envelopes, [envelope()]);
        member.acknowledge(&delivery.receipt).await.expect("acknowledge");
        brokers::tell(&ground, "hang").await;
    });
    // As the end of `main` does it.
    let (ended, ending) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        drop(runtime);
        ended.send(())
    });
    let outcome = ending.recv_timeout(Duration::from_secs(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(brokers::tell(&ground, "wake"));
    outcome.expect("it ends while the broker hangs");
}

fn envelope() -> Envelope {
    let message = Message {
        service: "toy".to_owned(),
        shard: 0,
        position: 1,
        stream: "accounts/a".to_owned(),
        version: 1,
        name: "stoa.toy.v1.Moved".to_owned(),
        schema: 1,
        occur_time: jiff::Timestamp::UNIX_EPOCH,
        causation: String::new(),
        correlation: "a story".to_owned(),
        traceparent: String::new(),
        subject: None,
        payload: vec![8, 1],
    };
    Envelope { message, sealed: false }
}
