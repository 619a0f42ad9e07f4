//! What every broker must carry through: each case one function, on stores and under names of its own.
//!
//! While the broker is well, messages come through it and nothing is read from the producer's log; that is asserted, for
//! otherwise the log would quietly make good for every mistake on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::Log;
use log::conformance::toy::{self, Event, moved};
use store::{Site, Store, Tx, params};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::frozen::{FrozenBroker, FrozenSource, Ice};
use super::rig::{Rig, Running, caught_up, consumer, eventually, stream};
use crate::{Broker, Consumer, Hub, Limits, Relay, RelayLimits, Source, source};

/// A broker under test.
pub trait Ground {
    /// A connection to it; what is made through connections with different names does not meet.
    fn connect(&self, name: &str) -> Arc<dyn Broker>;

    /// Where the one listens who kills and starts it: a line `kill` or `start`, answered by `done`.
    fn control(&self) -> SocketAddr;

    /// Whether nothing arrives of a batch whose publication failed. Where some of it may, what came before that in the batch
    /// is a hole to who gets the rest, and is read from the log.
    fn refuses_batches_whole(&self) -> bool {
        true
    }
}

/// Runs every case; says how many there are.
pub async fn run(open: impl AsyncFn() -> Store, ground: &impl Ground) -> u32 {
    let mut cases = 0;
    let mut world = async |name: &str| {
        cases += 1;
        World::new(&open, ground, name).await
    };
    while_the_broker_is_well_nothing_is_fetched(world("well").await).await;
    copies_come_and_go_under_load_without_loss_or_doubled_effect(world("rebalance").await).await;
    what_had_no_effect_is_delivered_again(world("redelivery").await).await;
    two_relays_share_the_shards_and_one_takes_over(world("relays").await).await;
    a_relay_that_slept_past_its_lease_cannot_move_on(world("fence").await).await;
    what_is_no_message_and_what_is_not_in_the_log_is_passed_over(world("poison").await).await;
    a_tail_that_the_broker_never_got_is_found(world("tail").await).await;
    personal_fields_lie_sealed_in_the_broker_and_arrive_open(world("sealed").await).await;
    an_outbox_that_grew_while_the_broker_was_down_drains_in_order(world("down").await, ground).await;
    a_broker_killed_under_load_loses_nothing(world("killed").await, ground).await;
    cases
}

/// A producer and a consumer with a broker between them.
pub struct World {
    rig: Rig,
    broker: Arc<dyn Broker>,
    source: Arc<dyn Source>,
}

/// Longer than any case: nothing is made good by looking at the log.
const NEVER: Duration = Duration::from_secs(3600);

impl World {
    /// An empty one.
    pub async fn new(open: &impl AsyncFn() -> Store, ground: &impl Ground, name: &str) -> Self {
        println!("    {name}");
        let broker = ground.connect(name);
        let connect = async |log: Log<Event>, hub: &Hub| {
            hub.publish("toy", source(log));
            hub.carry(broker.clone());
        };
        let rig = Rig::new(open().await, open().await, &connect).await;
        let source = source(rig.log.clone());
        Self { broker, source, rig }
    }

    fn relay(&self) -> Relaying {
        Relaying::start(Relay::new(self.source.clone(), self.broker.clone()))
    }

    /// A copy of the consumer that asks the log for nothing but what is missing.
    fn copy(&self) -> Consumer {
        self.copy_in_doubt_after(NEVER)
    }

    fn copy_in_doubt_after(&self, doubt: Duration) -> Consumer {
        let Rig { own, hub, handler, .. } = &self.rig;
        let limits = Limits { doubt, ..consumer(own, hub, handler, 10_000).inner.limits };
        Consumer::with_limits("recorder", own.clone(), hub.clone(), &["toy"], handler.clone(), limits)
    }

    /// Opens accounts and waits until a consumer has applied that, so that everything between them is made.
    async fn warm_up(&self, running: &Consumer, accounts: u32) -> u64 {
        self.rig.produce(accounts, 0).await;
        caught_up(running).await;
        running.fed().fetched
    }

    /// Moves money in every account at once, `moves` times.
    fn write(&self, accounts: u32, moves: u64) -> Vec<JoinHandle<()>> {
        let write = |account| {
            let log = self.rig.log.clone();
            tokio::spawn(async move {
                for turn in 0..moves {
                    let events = vec![moved(turn.cast_signed())];
                    toy::append(&log, &stream(account), None, events).await.expect("append");
                }
            })
        };
        (0..accounts).map(write).collect()
    }

    async fn shards(&self) -> u32 {
        u32::try_from(self.source.heads().await.expect("heads").len()).expect("few shards")
    }
}

async fn all(writers: Vec<JoinHandle<()>>) {
    for writer in writers {
        writer.await.expect("a writer");
    }
}

/// A relay that runs until it is told to stop.
struct Relaying {
    relay: Relay,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Relaying {
    fn start(relay: Relay) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(relay.clone().run(async move {
            // A dropped sender stops it too.
            let _ = stopped.await;
        }));
        Self { relay, stop, task }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("the relay ends when told");
    }
}

/// Says a word to whoever controls the broker.
pub async fn tell(ground: &impl Ground, word: &str) {
    let mut connection = TcpStream::connect(ground.control()).await.expect("the broker's control");
    connection.write_all(format!("{word}\n").as_bytes()).await.expect("told");
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer).await.expect("an answer");
    assert_eq!(answer.trim(), "done", "{word}");
}

/// While many write, and the broker is well, every message comes through it.
pub async fn while_the_broker_is_well_nothing_is_fetched(world: World) {
    // In doubt after long enough: a tail that is missing is to be told apart from a broker that is slow.
    let (relay, copy) = (world.relay(), world.copy_in_doubt_after(Duration::from_secs(10)));
    let running = Running::start(&copy);
    let fetched = world.warm_up(&copy, 8).await;
    all(world.write(8, 100)).await;
    caught_up(&copy).await;
    running.stop().await;
    relay.stop().await;
    world.rig.expect_all(8, 101).await;
    let fed = copy.fed();
    assert_eq!(fed.fetched, fetched, "messages were missing: {fed:?}");
    assert!(fed.delivered >= 800, "{fed:?}");
}

/// A second copy joins, the first leaves, and comes back, while messages flow.
pub async fn copies_come_and_go_under_load_without_loss_or_doubled_effect(world: World) {
    let relay = world.relay();
    let (one, two) = (world.copy(), world.copy());
    let running = Running::start(&one);
    let fetched = world.warm_up(&one, 8).await;
    let writers = world.write(8, 150);
    let applied = async || world.rig.applied().await.len();
    eventually(async || applied().await > 200).await;
    let second = Running::start(&two);
    eventually(async || applied().await > 500).await;
    running.stop().await;
    eventually(async || applied().await > 800).await;
    let again = Running::start(&one);
    all(writers).await;
    caught_up(&one).await;
    again.stop().await;
    second.stop().await;
    relay.stop().await;
    world.rig.expect_all(8, 151).await;
    assert_eq!(world.rig.letters().await, []);
    assert!(two.fed().delivered > 0, "the second copy got nothing");
    assert_eq!(one.fed().fetched + two.fed().fetched, fetched, "messages were missing");
}

/// A consumer that was given messages and ended before their effects does not have them acknowledged.
pub async fn what_had_no_effect_is_delivered_again(world: World) {
    let (relay, first) = (world.relay(), world.copy());
    let running = Running::start(&first);
    let fetched = world.warm_up(&first, 3).await;
    let hiccups = &world.rig.handler.hiccups;
    hiccups.store(u32::MAX, std::sync::atomic::Ordering::Relaxed);
    all(world.write(3, 20)).await;
    let given = first.fed().delivered;
    eventually(async || first.fed().delivered >= given.max(60)).await;
    running.stop().await;
    assert_eq!(world.rig.applied().await.len(), 3, "nothing was applied");

    hiccups.store(0, std::sync::atomic::Ordering::Relaxed);
    // What comes behind it shows whether something is missing.
    all(world.write(3, 1)).await;
    let second = world.copy();
    let running = Running::start(&second);
    caught_up(&second).await;
    running.stop().await;
    relay.stop().await;
    world.rig.expect_all(3, 22).await;
    assert_eq!(first.fed().fetched + second.fed().fetched, fetched, "it was not delivered again");
}

/// Of two relays each shard is with one; when one leaves, the other goes on.
pub async fn two_relays_share_the_shards_and_one_takes_over(world: World) {
    let (one, two) = (world.relay(), world.relay());
    let copy = world.copy();
    let running = Running::start(&copy);
    world.warm_up(&copy, 6).await;
    all(world.write(6, 40)).await;
    caught_up(&copy).await;
    let (one_did, two_did) = (one.relay.clone(), two.relay.clone());
    let published = || one_did.relayed().published + two_did.relayed().published;
    // A consumer may have a message before the relay has the broker's word for it.
    eventually(async || published() >= 6 * 41).await;
    assert_eq!(published(), 6 * 41, "each message is relayed once");
    one.stop().await;
    all(world.write(6, 40)).await;
    caught_up(&copy).await;
    eventually(async || published() >= 6 * 81).await;
    two.stop().await;
    assert_eq!(published(), 6 * 81, "each message is relayed once");
    running.stop().await;
    world.rig.expect_all(6, 81).await;
}

/// A relay is stopped in the middle of publishing, another takes over, the first wakes: it repeats its batch, and that is
/// all it can do.
pub async fn a_relay_that_slept_past_its_lease_cannot_move_on(world: World) {
    let lease = RelayLimits { lease: Duration::from_millis(300), ..RelayLimits::default() };
    let copy = world.copy();
    let running = Running::start(&copy);
    let (on_the_wire, asleep) = (Ice::none(), Ice::none());
    let broker = Arc::new(FrozenBroker {
        broker: world.broker.clone(),
        ice: on_the_wire.clone(),
        publishes: watch::Sender::new(false),
    });
    let source = Arc::new(FrozenSource(world.source.clone(), asleep.clone()));
    let sleeper = Relaying::start(Relay::with_limits(source, broker.clone(), lease));
    world.warm_up(&copy, 4).await;

    broker.publishes.send_replace(false);
    on_the_wire.set(true);
    all(world.write(4, 5)).await;
    broker.publishes.subscribe().wait_for(|publishes| *publishes).await.expect("it publishes");
    asleep.set(true);
    let other = Relaying::start(Relay::with_limits(world.source.clone(), world.broker.clone(), lease));
    all(world.write(4, 20)).await;
    caught_up(&copy).await;
    world.rig.expect_all(4, 26).await;
    eventually(async || positions(&world).await == world.source.heads().await.expect("heads")).await;
    let before = positions(&world).await;

    // Its batch is published once more, out of its time, and then it wants to note that.
    asleep.set(false);
    on_the_wire.set(false);
    eventually(async || sleeper.relay.relayed().fenced > 0 || positions(&world).await != before).await;
    assert_eq!(positions(&world).await, before, "it moved the shard back");
    all(world.write(4, 20)).await;
    caught_up(&copy).await;
    other.stop().await;
    sleeper.stop().await;
    running.stop().await;
    world.rig.expect_all(4, 46).await;
}

async fn positions(world: &World) -> Vec<u64> {
    let rows = async |tx: &mut Tx| tx.query("SELECT position FROM relays ORDER BY shard", params![]).await;
    let rows: Result<_, store::Error> = world.rig.log.store().read(rows).await;
    rows.expect("relays").iter().map(|row| row.get("position").expect("position")).collect()
}

/// Anyone may write to a broker.
pub async fn what_is_no_message_and_what_is_not_in_the_log_is_passed_over(world: World) {
    let (relay, copy) = (world.relay(), world.copy());
    let running = Running::start(&copy);
    world.warm_up(&copy, 2).await;
    let shards = world.shards().await;
    for shard in 0..shards {
        let outbox = world.source.outbox().expect("a log in this process");
        let Some(real) = outbox.read(shard, 0, 1).await.expect("read").pop() else { continue };
        let mut bad = real.clone();
        bad.message.name = "no\u{7}event".to_owned();
        let mut elsewhere = real.clone();
        elsewhere.message.position = i64::MAX.unsigned_abs();
        world.broker.publish(&[bad, elsewhere]).await.expect("publish");
    }
    all(world.write(2, 10)).await;
    caught_up(&copy).await;
    running.stop().await;
    // Nor does it come again for ever.
    let again = world.copy();
    let running = Running::start(&again);
    all(world.write(2, 10)).await;
    caught_up(&again).await;
    running.stop().await;
    relay.stop().await;
    world.rig.expect_all(2, 21).await;
}

/// The relay believes that messages are with the broker which it does not have, and none follows.
pub async fn a_tail_that_the_broker_never_got_is_found(world: World) {
    let relay = world.relay();
    let copy = world.copy_in_doubt_after(Duration::from_millis(200));
    let running = Running::start(&copy);
    world.warm_up(&copy, 3).await;
    relay.stop().await;
    all(world.write(3, 10)).await;
    let heads = world.source.heads().await.expect("heads");
    for (shard, head) in (0_i64..).zip(heads) {
        let sql = "UPDATE relays SET position = $2 WHERE shard = $1";
        let lie = async move |tx: &mut Tx| tx.execute(sql, params![shard, head]).await;
        let told: Result<u64, store::Error> = world.rig.log.store().write(Site::named("toy.tamper"), lie).await;
        told.expect("tamper");
    }
    let relay = world.relay();
    caught_up(&copy).await;
    running.stop().await;
    relay.stop().await;
    world.rig.expect_all(3, 11).await;
    assert!(copy.fed().fetched >= 30);
}

/// An erasure does not reach a broker.
pub async fn personal_fields_lie_sealed_in_the_broker_and_arrive_open(world: World) {
    let (relay, copy) = (world.relay(), world.copy());
    let running = Running::start(&copy);
    world.warm_up(&copy, 3).await;
    // Only now, for a group may begin with what comes next.
    let shards = world.shards().await;
    let mut reader = world.broker.subscribe("reader", "toy", shards).await.expect("subscribe");
    let mut seen = 0;
    let more = stream(9);
    let reading = async {
        while seen == 0 {
            let delivery = reader.next().await.expect("next");
            for envelope in &delivery.envelopes {
                let personal = envelope.message.subject.is_some();
                assert_eq!(envelope.sealed, personal, "{envelope:?}");
                let open = envelope.message.payload.windows(3).any(|bytes| bytes == b"Ada");
                assert!(!open, "a name lies open in the broker");
                seen += u32::from(personal);
            }
            reader.acknowledge(&delivery.receipt).await.expect("acknowledge");
        }
    };
    let writing = async {
        let opening = vec![toy::opened("Ada")];
        toy::append(&world.rig.log, &more, Some("users/9"), opening).await.expect("append");
    };
    let both = async { tokio::join!(reading, writing) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
    caught_up(&copy).await;
    running.stop().await;
    relay.stop().await;
    let contents = async |tx: &mut Tx| tx.query("SELECT content FROM applied", params![]).await;
    let contents: Result<_, store::Error> = world.rig.own.read(contents).await;
    let contents = contents.expect("applied");
    assert_eq!(contents.len(), 4);
    assert!(contents.iter().all(|row| row.get::<String>("content").expect("content") == "Ada"));
    assert!(copy.fed().opened > 0);
}

/// Appends go on without a broker; what gathered arrives when it is back, through it.
pub async fn an_outbox_that_grew_while_the_broker_was_down_drains_in_order(world: World, ground: &impl Ground) {
    let (relay, copy) = (world.relay(), world.copy());
    let running = Running::start(&copy);
    let fetched = world.warm_up(&copy, 4).await;
    tell(ground, "kill").await;
    all(world.write(4, 200)).await;
    assert!(world.rig.applied().await.len() < 800, "nothing can have passed");
    tell(ground, "start").await;
    caught_up(&copy).await;
    running.stop().await;
    relay.stop().await;
    world.rig.expect_all(4, 201).await;
    let fed = copy.fed();
    assert!(fed.delivered >= 800, "{fed:?}");
    if ground.refuses_batches_whole() {
        assert_eq!(fed.fetched, fetched, "it did not come in order: {fed:?}");
    }
}

/// Killed twice while messages flow.
pub async fn a_broker_killed_under_load_loses_nothing(world: World, ground: &impl Ground) {
    let (relay, copy) = (world.relay(), world.copy_in_doubt_after(Duration::from_secs(20)));
    let running = Running::start(&copy);
    world.warm_up(&copy, 4).await;
    let writers = world.write(4, 400);
    for kill in 1..=2 {
        eventually(async || world.rig.applied().await.len() > kill * 200).await;
        tell(ground, "kill").await;
        tell(ground, "start").await;
    }
    all(writers).await;
    caught_up(&copy).await;
    running.stop().await;
    relay.stop().await;
    world.rig.expect_all(4, 401).await;
    assert_eq!(world.rig.letters().await, []);
    println!("        killed twice: {:?}", copy.fed());
}

/// What the broker has for the consumer is deleted, twice, while messages flow. For brokers where that can be done to one
/// consumer; `delete` does it.
pub async fn what_the_broker_forgets_under_load_is_not_lost(world: World, delete: impl AsyncFn()) {
    let (relay, copy) = (world.relay(), world.copy_in_doubt_after(Duration::from_secs(5)));
    let running = Running::start(&copy);
    world.warm_up(&copy, 4).await;
    let writers = world.write(4, 200);
    for time in 1..=2 {
        eventually(async || world.rig.applied().await.len() > time * 100).await;
        delete().await;
    }
    all(writers).await;
    caught_up(&copy).await;
    running.stop().await;
    relay.stop().await;
    world.rig.expect_all(4, 201).await;
    assert_eq!(world.rig.letters().await, []);
    println!("        deleted twice: {:?}", copy.fed());
}
