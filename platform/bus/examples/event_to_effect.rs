//! How long an event takes until its effect in another service is committed, in one process and through Kafka.
//!
//! `cargo run -p bus --features kafka --example event_to_effect -- FOLDER [HOST:PORT]`: stores are files in `FOLDER`, and
//! flushed; with an address the events travel through the Kafka there. One event at a time: append, then wait for the
//! commit of the effect; then many at once, for the rate.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Consumer, Failure, Handler, Hub, LocalBoxFuture, Message, source};
use log::conformance::toy::{self, moved, opened};
use store::{Config, Engine, Store, Tx, params};

const ONE_BY_ONE: i64 = 500;
const AT_ONCE: i64 = 10_000;

struct Count;

impl Handler for Count {
    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let sql = "INSERT INTO applied (turn, stream, version, content) VALUES ($1, $2, $3, '')";
            let values = params![message.position, &message.stream, message.version];
            tx.execute(sql, values).await?;
            Ok(())
        })
    }
}

async fn open(folder: &Path, name: &str) -> Store {
    let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS, bus::conformance::MIGRATIONS];
    let engine = Engine::Sqlite { path: folder.join(format!("{name}-{}.db", std::process::id())) };
    Store::open(Config::new("toy", engine).migrations(sets)).await.expect("a store")
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("FOLDER");
    let broker = arguments.next();
    let (log, own) = (toy::log(open(Path::new(&folder), "producer").await), open(Path::new(&folder), "consumer").await);
    let hub = Hub::new();
    let source = source(log.clone());
    hub.publish("toy", source.clone());
    through(&hub, source, broker.as_deref());
    let consumer = Consumer::new("counter", own, hub, &["toy"], Arc::new(Count));
    tokio::spawn(consumer.clone().run(std::future::pending()));

    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.expect("append");
    consumer.caught_up().await.expect("caught up");
    let mut taken: Vec<Duration> = Vec::new();
    for turn in 0..ONE_BY_ONE {
        toy::append(&log, "accounts/a", None, vec![moved(turn)]).await.expect("append");
        // From the commit of the event to the commit of its effect.
        let appended = Instant::now();
        consumer.caught_up().await.expect("caught up");
        taken.push(appended.elapsed());
    }
    taken.sort_unstable();
    let at = |share: usize| taken.get(taken.len() * share / 100).copied().unwrap_or_default();
    println!("{}: p50 {:?}, p99 {:?}", broker.as_deref().unwrap_or("in one process"), at(50), at(99));

    let begun = Instant::now();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                let stream = format!("accounts/{:?}", tokio::task::id());
                toy::append(&log, &stream, Some("users/1"), vec![opened("Ada")]).await.expect("append");
                for turn in 0..AT_ONCE / 8 {
                    toy::append(&log, &stream, None, vec![moved(turn)]).await.expect("append");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let appended = begun.elapsed();
    consumer.caught_up().await.expect("caught up");
    let all = begun.elapsed();
    println!("    {AT_ONCE} by eight writers: appended in {appended:?}, applied in {all:?}, {:?}", consumer.fed());
}

#[cfg(feature = "kafka")]
fn through(hub: &Hub, source: Arc<dyn bus::Source>, address: Option<&str>) {
    let Some(address) = address else { return };
    let mut config = bus::kafka::Config::at(address);
    config.prefix = format!("example{}", std::process::id());
    let kafka = Arc::new(bus::kafka::Kafka::new(config));
    hub.carry(kafka.clone());
    tokio::spawn(bus::Relay::new(source, kafka).run(std::future::pending()));
}

#[cfg(not(feature = "kafka"))]
fn through(_: &Hub, _: Arc<dyn bus::Source>, address: Option<&str>) {
    assert!(address.is_none(), "built without the feature `kafka`");
}
