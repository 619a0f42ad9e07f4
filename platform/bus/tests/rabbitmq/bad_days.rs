//! What happens when the broker dies, runs out of room, or loses a queue.

use std::time::Duration;

use bus::Broker;

use crate::rig::{broker, envelopes, in_time, next, prefix, publish, receive_until, subscribe, tell};

#[tokio::test]
#[ignore = "needs RabbitMQ"]
async fn a_broker_that_is_away_is_an_error_at_once_and_is_found_again() {
    let broker = broker(&prefix());
    let mut subscription = subscribe(&broker, "reader", 1).await;
    broker.publish(&envelopes(0, 1, 10)).await.expect("published");
    tell("kill").await;
    in_time(broker.publish(&envelopes(0, 11, 20))).await.expect_err("nobody is there");
    in_time(broker.publish(&envelopes(0, 11, 20))).await.expect_err("nobody is there");
    // What had come is given out before the end is.
    while next(&mut subscription).await.is_ok() {}
    broker.subscribe("reader", "toy", 1).await.err().expect("nobody is there");
    tell("start").await;
    // The consumer comes back as well, and first: a broker that is killed soon after may have forgotten a binding, or a queue
    // with what was in it, and then the relay waits for it.
    let mut subscription = subscribe(&broker, "reader", 1).await;
    publish(&broker, &envelopes(0, 11, 20)).await;
    receive_until(&mut subscription, 0, 10, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ"]
async fn a_queue_that_is_deleted_ends_its_subscription_and_refuses_what_is_published() {
    let prefix = prefix();
    let broker = broker(&prefix);
    let mut subscription = subscribe(&broker, "reader", 1).await;
    broker.publish(&envelopes(0, 1, 10)).await.expect("published");
    tell(&format!("ctl delete_queue {prefix}.toy.reader.0")).await;
    let refused = broker.publish(&envelopes(0, 11, 20)).await.expect_err("no queue");
    assert!(refused.to_string().contains("no queue takes them"), "{refused}");
    let ended = async {
        loop {
            if let Err(error) = next(&mut subscription).await {
                return error;
            }
        }
    };
    let ended = in_time(ended).await;
    assert!(ended.to_string().contains("the queue was deleted"), "{ended}");
    let mut subscription = subscribe(&broker, "reader", 1).await;
    broker.publish(&envelopes(0, 11, 20)).await.expect("published");
    // What lay in the deleted queue is fetched from the log, by whoever finds that 11 does not follow.
    receive_until(&mut subscription, 0, 10, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ"]
async fn queues_take_messages_though_the_broker_died_in_the_moment_they_were_declared() {
    for _ in 0..3 {
        let prefix = prefix();
        let broker = broker(&prefix);
        let joining = broker.subscribe("reader", "toy", 4);
        // At any moment of it: whatever is there afterwards must serve.
        let _ = tokio::time::timeout(Duration::from_millis(150), joining).await;
        tell("kill").await;
        tell("start").await;
        let mut subscription = subscribe(&broker, "reader", 4).await;
        for shard in 0..4 {
            publish(&broker, &envelopes(shard, 1, 5)).await;
        }
        let mut left = 20;
        while left > 0 {
            let delivery = next(&mut subscription).await.expect("a delivery");
            left -= delivery.envelopes.len();
            subscription.acknowledge(&delivery.receipt).await.expect("acknowledged");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ"]
async fn a_broker_without_room_is_a_stall_with_its_reason_and_goes_on_by_itself() {
    let broker = broker(&prefix());
    let mut subscription = subscribe(&broker, "reader", 1).await;
    broker.publish(&envelopes(0, 1, 10)).await.expect("published");
    for (alarm, relief, word) in [
        ("set_vm_memory_high_watermark absolute 1MB", "set_vm_memory_high_watermark absolute 1GB", "memory"),
        ("set_disk_free_limit 100000000000000", "set_disk_free_limit 50000000", "disk"),
    ] {
        tell(&format!("ctl {alarm}")).await;
        let told = async {
            loop {
                match broker.publish(&envelopes(0, 11, 20)).await {
                    // The alarm takes a moment.
                    Ok(()) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => return error.to_string(),
                }
            }
        };
        let told = in_time(told).await;
        assert!(told.contains("takes no messages until it has room") && told.contains(word), "{told}");
        let again = broker.publish(&envelopes(0, 11, 20)).await.expect_err("still").to_string();
        assert_eq!(again, told);
        // What it has is given out and acknowledged all the same.
        let delivery = next(&mut subscription).await.expect("a delivery");
        subscription.acknowledge(&delivery.receipt).await.expect("acknowledged");
        tell(&format!("ctl {relief}")).await;
        publish(&broker, &envelopes(0, 11, 20)).await;
    }
    receive_until(&mut subscription, 0, 20, 20).await;
}
