//! How long an event takes until its effect in another service is committed: in one process, or through a broker.
//!
//! `event_to_effect FOLDER [kafka HOST:PORT/PREFIX | rabbitmq URL]`, built with the features of the brokers that are asked
//! for. Stores are files in `FOLDER`, flushed; where `STORE_TEST_POSTGRES` names a server (and `store/fleet` is built in),
//! databases there. One event at a time: append, then wait for the commit of the effect; then many at once, for the rate.
//! Prints a line a figure, `NAME VALUE UNIT WANTED WORDS...`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Broker, Consumer, Failure, Handler, Hub, LocalBoxFuture, Message, source};
use log::conformance::toy::{self, moved, opened};
use store::{Config, NewEvent, Store, Tx, params};

const ONE_BY_ONE: i64 = 500;
/// Looked at before counting: connections are made and caches filled by the first.
const WARM_UP: i64 = 20;
const AT_ONCE: i64 = 10_000;
const WRITERS: i64 = 8;

/// The effect: a row, and an event of the consumer's own, as a service has that reacts.
struct Effect;

impl Handler for Effect {
    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let turn = (u64::from(message.shard) << 40) + message.position;
            let sql = "INSERT INTO applied (turn, stream, version, content) VALUES ($1, $2, $3, '')";
            tx.execute(sql, params![turn, &message.stream, message.version]).await?;
            tx.append(NewEvent {
                stream: format!("effects/{turn}"),
                version: 1,
                name: "stoa.toy.v1.Applied",
                schema: 1,
                payload: message.payload.clone(),
                subject: None,
                causation: message.meta().causation,
                correlation: message.correlation.clone(),
                traceparent: message.traceparent.clone(),
            });
            Ok(())
        })
    }
}

async fn open(folder: &Path, name: &str) -> Store {
    let sets = [log::MIGRATIONS, log::conformance::MIGRATIONS, bus::conformance::MIGRATIONS];
    let engine = store::conformance::engine_of(folder, name).await;
    Store::open(Config::new("toy", engine).migrations(sets)).await.expect("a store")
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, carrier) = arguments.split_first().expect("FOLDER [BROKER ADDRESS]");
    let folder = Path::new(folder);
    let (log, own) = (toy::log(open(folder, "producer").await), open(folder, "consumer").await);
    let hub = Hub::new();
    let source = source(log.clone());
    hub.publish("toy", source.clone());
    let kind = match carrier {
        [] => "one_process",
        [kind, address] => {
            let broker = broker(kind, address);
            hub.carry(broker.clone());
            tokio::spawn(bus::Relay::new(source, broker).run(std::future::pending()));
            kind
        }
        _ => panic!("FOLDER [BROKER ADDRESS]"),
    };
    let consumer = Consumer::new("counter", own.clone(), hub, &["toy"], Arc::new(Effect));
    tokio::spawn(consumer.clone().run(std::future::pending()));

    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.expect("append");
    consumer.caught_up().await.expect("caught up");
    let mut effects = own.head();
    let mut taken: Vec<Duration> = Vec::new();
    for turn in 0..WARM_UP + ONE_BY_ONE {
        let before = *effects.borrow_and_update();
        toy::append(&log, "accounts/a", None, vec![moved(turn)]).await.expect("append");
        // From the commit of the event to the commit of its effect.
        let appended = Instant::now();
        effects.wait_for(|head| *head > before).await.expect("an effect");
        if turn >= WARM_UP {
            taken.push(appended.elapsed());
        }
    }
    taken.sort_unstable();
    for (share, wanted) in [(50, 10), (99, 50)] {
        let time = taken.get(taken.len() * share / 100).copied().unwrap_or_default();
        println!("{kind}_p{share} {:.2} ms <={wanted} from event to effect, p{share}", time.as_secs_f64() * 1000.0);
    }

    let begun = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                let stream = format!("accounts/of-writer-{writer}");
                toy::append(&log, &stream, Some("users/1"), vec![opened("Ada")]).await.expect("append");
                for turn in 0..AT_ONCE / WRITERS {
                    toy::append(&log, &stream, None, vec![moved(turn)]).await.expect("append");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    consumer.caught_up().await.expect("caught up");
    let rate = AT_ONCE as f64 / begun.elapsed().as_secs_f64();
    println!("{kind}_rate {rate:.0} /s - from the first append of {WRITERS} writers to the last effect");
}

fn broker(kind: &str, address: &str) -> Arc<dyn Broker> {
    match kind {
        #[cfg(feature = "kafka")]
        "kafka" => Arc::new(bus::kafka::Kafka::new(bus::kafka::Config::at(address))),
        #[cfg(feature = "rabbitmq")]
        "rabbitmq" => Arc::new(bus::rabbitmq::RabbitMq::new(address, "example").expect("the broker's address")),
        _ => panic!("built without the feature `{kind}`, which {address} needs"),
    }
}
