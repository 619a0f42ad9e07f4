//! The Kafka that the lane has started, and stores for those who meet there.
#![allow(dead_code, reason = "each test uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::Broker;
use bus::conformance::brokers::Ground;
use bus::kafka::Config;
use store::Store;

pub(crate) struct Kafka {
    name: String,
}

impl Kafka {
    /// With names that no other run and no other test uses.
    pub(crate) fn named(name: &str) -> Self {
        Self { name: format!("t{}.{name}", std::process::id()) }
    }
}

impl Ground for Kafka {
    fn connect(&self, name: &str) -> Arc<dyn Broker> {
        let mut config = Config::new(told("BUS_TEST_KAFKA"));
        config.prefix = format!("{}.{name}", self.name);
        config.replication = Some(1);
        config.session = Duration::from_secs(3);
        Arc::new(bus::kafka::Kafka::new(config))
    }

    fn control(&self) -> SocketAddr {
        told("BUS_TEST_CONTROL").parse().expect("host:port")
    }
}

#[allow(clippy::disallowed_methods, reason = "a test is told where its server is")]
fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} says where it is"))
}

pub(crate) async fn open() -> Store {
    let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS, bus::conformance::MIGRATIONS];
    let config = store::Config::new("toy", store::conformance::engine().await).migrations(sets);
    Store::open(config).await.expect("a store")
}
