//! What the broker carries when nothing is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::rabbitmq::{QUEUES, RabbitMq};
use bus::{Broker, Error, WINDOW};
#[cfg(feature = "planted-bugs")]
use futures_util::FutureExt as _;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};

use crate::rig::{broker, channel, envelopes, in_time, next, prefix, publish, receive_until, subscribe, tell};

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn the_messages_of_every_shard_come_whole_and_in_order() {
    let broker = broker(&prefix());
    broker.prepare("toy", 16).await.expect("prepared");
    let mut subscription = subscribe(&broker, "reader", 16).await;
    for batch in 0..3 {
        let publishing = (0..16).map(|shard| {
            let batch = envelopes(shard, batch * 400 + 1, batch * 400 + 400);
            let broker = &broker;
            async move { broker.publish(&batch).await.expect("published") }
        });
        futures_util::future::join_all(publishing).await;
    }
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    while seen.len() < 16 || seen.values().any(|position| *position < 1200) {
        let delivery = next(&mut subscription).await.expect("a delivery");
        let last = seen.entry(delivery.shard).or_default();
        let count = delivery.envelopes.len() as u64;
        assert_eq!(delivery.envelopes, envelopes(delivery.shard, *last + 1, *last + count));
        *last += count;
        subscription.acknowledge(&delivery.receipt).await.expect("acknowledged");
    }
    broker.close().await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn what_no_queue_takes_is_an_error_and_is_taken_once_there_is_one() {
    what_no_queue_takes_is_held(&broker(&prefix())).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn a_producer_nobody_ever_asked_for_is_held_for_a_while_and_then_not_any_more() {
    let prefix = prefix();
    let broker = broker(&prefix).wanted_within(Duration::from_millis(300));
    broker.prepare("toy", 1).await.expect("prepared");
    let refused = broker.publish(&envelopes(0, 1, 5)).await.expect_err("somebody may come");
    assert!(refused.to_string().contains("nobody has asked for them yet"), "{refused}");
    publish(&broker, &envelopes(0, 1, 5)).await;
    broker.publish(&envelopes(0, 6, 9)).await.expect("to nobody");
    // Somebody does, and later ones find a queue; a queue that is missing then holds them.
    let mut subscription = subscribe(&broker, "reader", 1).await;
    let first = async {
        let mut position = 10;
        loop {
            publish(&broker, &envelopes(0, position, position)).await;
            let delivery = tokio::time::timeout(Duration::from_millis(500), subscription.next()).await;
            if let Ok(delivery) = delivery {
                return delivery.expect("a delivery").envelopes;
            }
            position += 1;
        }
    };
    assert_eq!(in_time(first).await.len(), 1);
    let queue = format!("{prefix}.toy.reader.0");
    channel().await.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    let refused = broker.publish(&envelopes(0, 90, 99)).await.expect_err("its queue is gone");
    assert!(refused.to_string().contains("the queue of their consumers is gone"), "{refused}");
}

#[cfg(feature = "planted-bugs")]
#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn that_nothing_is_mandatory_is_found() {
    let broker = broker(&prefix());
    bus::planted::mandatory_off(true);
    let failed = std::panic::AssertUnwindSafe(what_no_queue_takes_is_held(&broker)).catch_unwind().await;
    bus::planted::mandatory_off(false);
    let said = failed.expect_err("the case must fail").downcast::<String>().expect("words");
    assert!(said.contains("nobody takes it"), "{said}");
}

async fn what_no_queue_takes_is_held(broker: &RabbitMq) {
    broker.prepare("toy", 2).await.expect("prepared");
    let refused = broker.publish(&envelopes(1, 1, 5)).await.expect_err("nobody takes it");
    assert!(refused.to_string().contains("no queue takes them"), "{refused}");
    let mut subscription = subscribe(broker, "reader", 2).await;
    broker.publish(&envelopes(1, 1, 5)).await.expect("published");
    receive_until(&mut subscription, 1, 0, 5).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn what_is_there_and_not_as_wanted_is_refused_by_name() {
    let wanted = [
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", AMQPValue::LongLongInt(1_000_000_000)),
        ("x-dead-letter-exchange", text("PREFIX.-dead")),
        ("x-dead-letter-strategy", text("at-most-once")),
    ];
    let others = [
        ("x-queue-type", text("classic")),
        ("x-single-active-consumer", AMQPValue::Boolean(false)),
        ("x-delivery-limit", AMQPValue::LongLongInt(20)),
        ("x-dead-letter-exchange", text("elsewhere")),
        ("x-message-ttl", AMQPValue::LongLongInt(1000)),
        ("x-max-length", AMQPValue::LongLongInt(1000)),
    ];
    let channel = channel().await;
    for (other, value) in others {
        let prefix = prefix();
        let mut arguments = FieldTable::default();
        for (name, value) in &wanted {
            let ours = name.starts_with("x-dead-letter-exchange");
            let value = if ours { text(&format!("{prefix}.-dead")) } else { value.clone() };
            arguments.insert((*name).into(), value);
        }
        if other == "x-queue-type" {
            arguments = FieldTable::default();
        }
        arguments.insert(other.into(), value);
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let name = format!("{prefix}.toy.reader.0");
        channel.queue_declare(name.as_str().into(), options, arguments).await.expect("declared");
        let error = broker(&prefix).subscribe("reader", "toy", 1).await.err().expect("refused");
        assert!(matches!(&error, Error::BrokerDiffers { what, .. } if what.contains(&name)), "{other}: {error}");
    }

    let (prefix, options) = (prefix(), ExchangeDeclareOptions { durable: true, ..Default::default() });
    let name = format!("{prefix}.toy");
    let declaring = channel.exchange_declare(name.as_str().into(), ExchangeKind::Topic, options, FieldTable::default());
    declaring.await.expect("declared");
    let error = broker(&prefix).prepare("toy", 1).await.expect_err("refused");
    assert!(matches!(&error, Error::BrokerDiffers { what, .. } if what.contains(&name)), "{error}");
}

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn what_others_put_into_a_queue_is_left_out_and_holds_nothing_up() {
    let prefix = prefix();
    let broker = broker(&prefix);
    let mut subscription = subscribe(&broker, "reader", 2).await;
    broker.publish(&envelopes(0, 1, 3)).await.expect("published");
    let (channel, exchange) = (channel().await, format!("{prefix}.toy"));
    for key in ["0", "1"] {
        let mut headers = FieldTable::default();
        headers.insert("cloudEvents:specversion".into(), text("1.0"));
        headers.insert("cloudEvents:position".into(), AMQPValue::LongLongInt(4));
        let properties = BasicProperties::default().with_headers(headers);
        let (options, body) = (BasicPublishOptions::default(), b"not a message");
        let publishing = channel.basic_publish(exchange.as_str().into(), key.into(), options, body, properties);
        publishing.await.expect("published");
    }
    // A message of ours in the queue of another shard.
    let queue = format!("{prefix}.toy.reader.1");
    let publishing =
        channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), b"", BasicProperties::default());
    publishing.await.expect("published");
    broker.publish(&envelopes(0, 4, 6)).await.expect("published");
    broker.publish(&envelopes(1, 1, 1)).await.expect("published");
    let mut last = BTreeMap::from([(0, 0), (1, 0)]);
    while last != BTreeMap::from([(0, 6), (1, 1)]) {
        let delivery = next(&mut subscription).await.expect("a delivery");
        for envelope in delivery.envelopes {
            let last = last.get_mut(&delivery.shard).expect("a shard");
            assert_eq!(envelope.message.position, *last + 1);
            *last += 1;
        }
        subscription.acknowledge(&delivery.receipt).await.expect("acknowledged");
    }
    drop(subscription);
    eventually_empty(&prefix).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn what_a_member_had_and_did_not_acknowledge_comes_to_the_next_one_in_order() {
    let broker = broker(&prefix());
    let mut first = subscribe(&broker, "reader", 1).await;
    broker.publish(&envelopes(0, 1, 600)).await.expect("published");
    let acknowledged = next(&mut first).await.expect("a delivery");
    let had = acknowledged.envelopes.len() as u64;
    first.acknowledge(&acknowledged.receipt).await.expect("acknowledged");
    let kept = next(&mut first).await.expect("a delivery");
    assert_eq!(kept.envelopes.first().map(|envelope| envelope.message.position), Some(had + 1));

    // The second waits while the first is there.
    let mut second = subscribe(&broker, "reader", 1).await;
    let early = tokio::time::timeout(Duration::from_millis(200), second.next()).await;
    assert!(early.is_err(), "two members have one shard");
    drop(first);
    let mut seen = had;
    while seen < 600 {
        let delivery = next(&mut second).await.expect("a delivery");
        assert_eq!(delivery.envelopes, envelopes(0, seen + 1, seen + delivery.envelopes.len() as u64));
        seen += delivery.envelopes.len() as u64;
        // The receipt of a member that left means nothing to another.
        second.acknowledge(&kept.receipt).await.expect("ignored");
        second.acknowledge(&delivery.receipt).await.expect("acknowledged");
    }
}

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn a_shard_that_nobody_acknowledges_does_not_stop_one_that_shares_its_queue() {
    let broker = broker(&prefix());
    let shards = QUEUES * 2;
    let mut subscription = subscribe(&broker, "reader", shards).await;
    broker.publish(&envelopes(0, 1, 50)).await.expect("published");
    let last = WINDOW as u64 * 3;
    let publishing = async {
        let mut from = 1;
        while from <= last {
            broker.publish(&envelopes(QUEUES, from, from + 255)).await.expect("published");
            from += 256;
        }
    };
    let receiving = async {
        let mut seen = 0;
        while seen < last {
            let delivery = next(&mut subscription).await.expect("a delivery");
            if delivery.shard == QUEUES {
                seen += delivery.envelopes.len() as u64;
                subscription.acknowledge(&delivery.receipt).await.expect("acknowledged");
            }
        }
    };
    tokio::join!(publishing, in_time(receiving));
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Waits until no queue of this prefix has anything left.
async fn eventually_empty(prefix: &str) {
    let waiting = async {
        loop {
            let listed = tell("ctl list_queues name messages").await;
            let words: Vec<&str> = listed.split_whitespace().collect();
            let left =
                words.chunks(2).any(|pair| pair[0].starts_with(&format!("{prefix}.")) && pair.get(1) != Some(&"0"));
            if !left {
                return;
            }
        }
    };
    in_time(waiting).await;
}
