//! A producer, a consumer, and a handler that can be told to fail.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::conformance::toy::{self, Event, moved, opened};
use log::{LocalBoxFuture, Log};
use store::{Site, Store, Tx, Value, params};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Consumer, DeadLetter, Failure, Handler, Hub, Limits, Message};

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(240);

pub(super) struct Rig {
    pub(super) log: Log<Event>,
    pub(super) hub: Hub,
    pub(super) own: Store,
    pub(super) handler: Arc<Recorder>,
    pub(super) consumer: Consumer,
}

impl Rig {
    pub(super) async fn new(producer: Store, own: Store, connect: &impl AsyncFn(Log<Event>, &Hub)) -> Self {
        let (log, hub) = (toy::log(producer), Hub::new());
        connect(log.clone(), &hub).await;
        let handler = Arc::new(Recorder::default());
        let consumer = consumer(&own, &hub, &handler, 10_000);
        Self { log, hub, own, handler, consumer }
    }

    /// Opens `accounts` accounts and moves money `moves` times in each, turn by turn.
    pub(super) async fn produce(&self, accounts: u32, moves: u32) {
        for account in 0..accounts {
            let (name, subject) = (stream(account), format!("users/{account}"));
            let opening = vec![opened("Ada")];
            toy::append(&self.log, &name, Some(&subject), opening).await.expect("append");
        }
        for turn in 0..moves {
            for account in 0..accounts {
                let events = vec![moved(i64::from(turn))];
                toy::append(&self.log, &stream(account), None, events).await.expect("append");
            }
        }
    }

    /// Another copy of the consumer, as another process would have it.
    pub(super) fn copy(&self, lot: u64) -> Consumer {
        consumer(&self.own, &self.hub, &self.handler, lot)
    }

    pub(super) fn start(&self) -> Running {
        Running::start(&self.consumer)
    }

    /// Runs the consumer until it has dealt with everything there is now.
    pub(super) async fn drain(&self) {
        let running = self.start();
        caught_up(&self.consumer).await;
        running.stop().await;
    }

    /// What was applied, in the order it was applied.
    pub(super) async fn applied(&self) -> Vec<(String, u64)> {
        let rows = self
            .own
            .read(async |tx: &mut Tx| tx.query("SELECT stream, version FROM applied ORDER BY turn", params![]).await);
        let rows: Result<_, store::Error> = rows.await;
        let rows = rows.expect("applied").into_iter();
        let applied = rows.map(|row| Ok((row.get("stream")?, row.get("version")?)));
        applied.collect::<Result<_, store::Error>>().expect("applied")
    }

    /// The versions of one stream, in the order they were applied.
    pub(super) async fn applied_of(&self, stream: &str) -> Vec<u64> {
        let applied = self.applied().await.into_iter();
        applied.filter(|(name, _)| name == stream).map(|(_, version)| version).collect()
    }

    /// Every stream was applied from its first to its last version, in order and once.
    pub(super) async fn expect_all(&self, accounts: u32, versions: u64) {
        let expected: Vec<u64> = (1..=versions).collect();
        for account in 0..accounts {
            assert_eq!(self.applied_of(&stream(account)).await, expected, "account {account}");
        }
        assert_eq!(self.applied().await.len() as u64, u64::from(accounts) * versions);
    }

    pub(super) async fn letters(&self) -> Vec<DeadLetter> {
        self.consumer.dead_letters(None, 100).await.expect("dead letters")
    }

    /// Changes what the consumer keeps, behind its back.
    pub(super) async fn tamper(&self, sql: &'static str, values: Vec<Value>) {
        let tampered: Result<u64, store::Error> =
            self.own.write(Site::named("toy.tamper"), async move |tx: &mut Tx| tx.execute(sql, &values).await).await;
        tampered.expect("tamper");
    }
}

pub(super) fn stream(account: u32) -> String {
    format!("accounts/{account}")
}

pub(super) async fn caught_up(consumer: &Consumer) {
    let waiting = tokio::time::timeout(DEADLINE, consumer.caught_up()).await;
    waiting.expect("caught up in time").expect("caught up");
}

/// Waits until `condition` holds, looking again after every turn of the others.
pub(super) async fn eventually(condition: impl AsyncFn() -> bool) {
    let waiting = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !condition().await {
            looks.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("in time");
}

pub(super) fn consumer(own: &Store, hub: &Hub, handler: &Arc<Recorder>, lot: u64) -> Consumer {
    let quick = Duration::from_millis(2);
    // Long enough for a broker to deliver first, short enough not to be waited for.
    let doubt = Duration::from_secs(5);
    let relook = quick * 10;
    let limits = Limits { lot, doubt, relook, retry_first: quick, retry_most: quick * 4, ..Limits::default() };
    let handler = handler.clone();
    Consumer::with_limits("recorder", own.clone(), hub.clone(), &["toy"], handler, limits)
}

/// A consumer that runs until it is told to stop.
pub(super) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) fn start(consumer: &Consumer) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(consumer.clone().run(async move {
            // A dropped sender stops it too.
            let _ = stopped.await;
        }));
        Self { stop, task }
    }

    pub(super) async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("the consumer ends when told");
    }
}

/// Writes down what it is given.
#[derive(Default)]
pub(super) struct Recorder {
    /// Counted here, since shards are applied side by side and rows of one would wait for rows of the other.
    turns: AtomicI64,
    /// Messages that cannot be applied.
    pub(super) poison: Mutex<BTreeSet<(String, u64)>>,
    /// Whether poison panics rather than fails.
    pub(super) panics: AtomicBool,
    /// How many more messages fail for a moment.
    pub(super) hiccups: AtomicU32,
    /// Whether only openings mean anything.
    pub(super) openings_only: AtomicBool,
    /// Whether this is the release that knows [`toy::RENAMED`].
    pub(super) newer: AtomicBool,
}

impl Recorder {
    pub(super) fn poison(&self, stream: &str, version: u64) {
        let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.insert((stream.to_owned(), version));
    }

    pub(super) fn heal(&self) {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Its rows are numbered from here: two recorders of one consumer write to one table.
    pub(super) fn count_from(&self, turn: i64) {
        self.turns.store(turn, Ordering::Relaxed);
    }

    fn is_poison(&self, message: &Message) -> bool {
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.contains(&(message.stream.clone(), message.version))
    }
}

impl Handler for Recorder {
    fn wants(&self, name: &str) -> bool {
        !self.openings_only.load(Ordering::Relaxed) || name == "stoa.toy.v1.Opened"
    }

    fn knows(&self, name: &str) -> bool {
        name != toy::RENAMED || self.newer.load(Ordering::Relaxed)
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, message: &'a Message) -> LocalBoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let content = if message.name == toy::RENAMED {
                String::from_utf8_lossy(&message.payload).into_owned()
            } else {
                match message.decode::<Event>()? {
                    Event::Opened(opened) => opened.owner,
                    Event::Moved(moved) => moved.amount.to_string(),
                }
            };
            // Written first, so that a failure has something to undo.
            tx.execute(
                "INSERT INTO applied (turn, stream, version, content) VALUES ($1, $2, $3, $4)",
                params![self.turns.fetch_add(1, Ordering::Relaxed), &message.stream, message.version, content],
            )
            .await?;
            if self.is_poison(message) {
                assert!(!self.panics.load(Ordering::Relaxed), "told to panic");
                return Err(Failure::Permanent("told to fail".to_owned()));
            }
            let one_less = |left: u32| left.checked_sub(1);
            if self.hiccups.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
                return Err(Failure::Transient("told to wait".to_owned()));
            }
            Ok(())
        })
    }
}
