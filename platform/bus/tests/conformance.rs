//! The bus within one process keeps its promises.

use bus::{Hub, source};
use log::Log;
use log::conformance::toy::Event;
use store::{Config, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_in_one_process_keeps_its_promises() {
    let open = async || {
        let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS, bus::conformance::MIGRATIONS];
        Store::open(Config::new("toy", store::conformance::engine().await).migrations(sets)).await.expect("a store")
    };
    bus::conformance::run(open, async |log: Log<Event>, hub: &Hub| {
        hub.publish("toy", source(log));
    })
    .await;
}

#[tokio::test]
async fn a_consumer_waits_for_a_producer_that_publishes_later() {
    let hub = Hub::new();
    assert!(hub.source("toy").is_none());
    let store = Store::open(
        Config::new("toy", store::conformance::engine().await)
            .migrations([log::MIGRATIONS, log::conformance::MIGRATIONS]),
    )
    .await
    .expect("a store");
    let log = log::conformance::toy::log(store);
    let waiting = hub.wait_for("toy");
    let publishing = async { hub.publish("toy", source(log)) };
    let (found, ()) = tokio::join!(waiting, publishing);
    assert_eq!(found.service(), "toy");
    assert_eq!(hub.services(), ["toy"]);
}
