//! The broker of the lane, and messages for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bus::rabbitmq::RabbitMq;
use bus::{Broker, Delivery, Envelope, Error, Message, Subscription};
use jiff::Timestamp;

/// Longer than anything here takes, a restart of the broker on a busy machine included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

#[allow(clippy::disallowed_methods, reason = "a test is told where its server is")]
pub(crate) fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: `cargo xtask test --lane rabbitmq`"))
}

/// A place of its own in the broker for every test.
pub(crate) fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn broker(prefix: &str) -> RabbitMq {
    RabbitMq::new(&told("BUS_TEST_RABBITMQ"), prefix).expect("an address")
}

/// A connection of someone else's.
pub(crate) async fn channel() -> lapin::Channel {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&told("BUS_TEST_RABBITMQ"), properties).await.expect("connected");
    connection.create_channel().await.expect("a channel")
}

/// Tells the broker's keeper something; what it answers.
pub(crate) async fn tell(order: &str) -> String {
    let order = format!("{order}\n");
    let telling = tokio::task::spawn_blocking(move || {
        let mut keeper = TcpStream::connect(told("BUS_TEST_CONTROL")).expect("the broker's keeper");
        keeper.write_all(order.as_bytes()).expect("told");
        let mut answer = String::new();
        keeper.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let answer = telling.await.expect("telling");
    answer.strip_prefix("done").unwrap_or_else(|| panic!("{answer}")).trim().to_owned()
}

pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

/// The messages of one shard of the producer `toy` from position `from` to `until`.
pub(crate) fn envelopes(shard: u32, from: u64, until: u64) -> Vec<Envelope> {
    (from..=until).map(|position| envelope(shard, position)).collect()
}

fn envelope(shard: u32, position: u64) -> Envelope {
    let message = Message {
        service: "toy".to_owned(),
        shard,
        position,
        stream: format!("accounts/{shard}"),
        version: position,
        name: "stoa.toy.v1.Moved".to_owned(),
        schema: 1,
        occur_time: Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
        causation: "a/b/1".to_owned(),
        correlation: "requests/1".to_owned(),
        traceparent: String::new(),
        subject: position.is_multiple_of(2).then(|| "users/Zoë".to_owned()),
        payload: position.to_le_bytes().to_vec(),
    };
    Envelope { message, sealed: position.is_multiple_of(2) }
}

/// As a relay does: again until it works; how often it failed.
pub(crate) async fn publish(broker: &RabbitMq, envelopes: &[Envelope]) -> u32 {
    let publishing = async {
        let mut failures = 0;
        while let Err(error) = broker.publish(envelopes).await {
            // Shown when the test fails.
            eprintln!("{error}");
            failures += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        failures
    };
    in_time(publishing).await
}

/// As a consumer does: again until it works.
pub(crate) async fn subscribe(broker: &RabbitMq, consumer: &str, shards: u32) -> Box<dyn Subscription> {
    let subscribing = async {
        loop {
            match broker.subscribe(consumer, "toy", shards).await {
                Ok(subscription) => return subscription,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    in_time(subscribing).await
}

pub(crate) async fn next(subscription: &mut Box<dyn Subscription>) -> Result<Delivery, Error> {
    in_time(subscription.next()).await
}

/// The positions that come in one shard until `last`, each first time it comes; fails where one is left out or is not as it was sent.
pub(crate) async fn receive_until(subscription: &mut Box<dyn Subscription>, shard: u32, after: u64, last: u64) {
    let mut seen = after;
    while seen < last {
        let delivery = next(subscription).await.expect("a delivery");
        assert_eq!(delivery.shard, shard);
        for found in delivery.envelopes {
            let position = found.message.position;
            assert!(position <= seen + 1, "{position} comes after {seen}");
            assert_eq!(found, envelope(shard, position));
            seen = seen.max(position);
        }
        subscription.acknowledge(&delivery.receipt).await.expect("acknowledged");
    }
}
