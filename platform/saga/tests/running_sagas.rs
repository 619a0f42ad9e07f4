//! A saga of three steps over a table of its own, on a real store: both laws, deadlines, restarts, waits.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use saga::properties::{Injection, World, settle};
use saga::{Attempt, Definition, Effect, Kind, OnDeadline, Outcome, Phase, Refusal, Runner, Start, Step, Stop};
use store::{Clock, Config, Migration, MigrationSet, Store, Tx, params};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const TABLES: MigrationSet = MigrationSet {
    name: "test",
    migrations: &[Migration {
        version: 1,
        name: "things",
        sql: "CREATE TABLE things (id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL);",
    }],
};

struct Context {
    store: Store,
    sent: AtomicU32,
    /// Who pays first waits for this, where the data say so.
    gate: Semaphore,
    held: AtomicBool,
}

impl Context {
    async fn set(&self, id: &str, state: &'static str) -> Outcome {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let id = id.to_owned();
        let written =
            self.store.write(store::site!("test.set"), async move |tx: &mut Tx| put(tx, &id, state).await).await;
        match written {
            Ok(()) => Outcome::done(),
            Err(error) => Outcome::Retry(error.to_string()),
        }
    }
}

async fn put(tx: &mut Tx, id: &str, state: &str) -> Result<(), store::Error> {
    tx.execute(
        "INSERT INTO things (id, state) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
        params![id, state],
    )
    .await?;
    Ok(())
}

fn reserve<'a>(context: &'a Context, _: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(context.set("seat", "RESERVED"))
}

fn release<'a>(context: &'a Context, _: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(context.set("seat", "FREE"))
}

fn pay<'a>(context: &'a Context, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(async move {
        match attempt.data.as_slice() {
            b"declined" => Outcome::refused("DECLINED", "the card was declined"),
            b"panics" if attempt.number == 1 => panic!("a planned panic"),
            b"waits" if attempt.number == 1 => {
                Outcome::Wait { until: jiff::Timestamp::MIN, why: "the bank asks".to_owned(), effect: None }
            }
            b"paused" if !context.held.swap(true, Ordering::SeqCst) => {
                let _ = context.gate.acquire().await;
                context.set("money", "PAID").await
            }
            _ => context.set("money", "PAID").await,
        }
    })
}

fn pay_back<'a>(context: &'a Context, _: &'a Attempt) -> BoxFuture<'a, Outcome> {
    Box::pin(context.set("money", "BACK"))
}

fn issue<'a>(context: &'a Context, _: &'a Attempt) -> BoxFuture<'a, Outcome> {
    context.sent.fetch_add(1, Ordering::Relaxed);
    Box::pin(async { Outcome::done_with(async |tx: &mut Tx| put(tx, "ticket", "ISSUED").await.map_err(Stop::from)) })
}

fn unwound(_: &Context, _: &Attempt, refusal: &Refusal) -> Effect {
    let reason = refusal.reason.clone();
    Box::new(async move |tx: &mut Tx| put(tx, "ticket", &reason).await.map_err(Stop::from))
}

const fn step(
    name: &'static str,
    kind: Kind,
    action: saga::Action<Context>,
    undo: Option<saga::Action<Context>>,
) -> Step<Context> {
    Step {
        name,
        kind,
        action,
        compensation: undo,
        try_timeout: Duration::from_secs(5),
        deadline: Duration::from_secs(3),
        on_deadline: OnDeadline::Compensate,
        milestone: false,
    }
}

static TICKET: Definition<Context> = Definition {
    name: "ticket",
    version: 1,
    steps: &[
        step("reserve", Kind::Compensatable, reserve, Some(release)),
        step("pay", Kind::Compensatable, pay, Some(pay_back)),
        step("issue", Kind::Pivot, issue, None),
    ],
    unwound,
    stuck: unwound,
};

async fn world(folder: &tempfile::TempDir, data: &[u8]) -> World<Context> {
    world_at(folder, data, Clock::system()).await
}

async fn world_at(folder: &tempfile::TempDir, data: &[u8], clock: Clock) -> World<Context> {
    let config = Config::new("test", store::conformance::engine_of(folder.path(), "test").await)
        .migrations([saga::MIGRATIONS, TABLES])
        .clock(clock);
    let store = Store::open(config).await.unwrap();
    let start = Start { id: "s".into(), data: data.to_vec(), correlation: String::new(), traceparent: String::new() };
    store
        .write(store::site!("test.start"), async move |tx: &mut Tx| saga::enqueue(tx, &TICKET, &start).await)
        .await
        .unwrap();
    let context = Arc::new(Context {
        store: store.clone(),
        sent: AtomicU32::new(0),
        gate: Semaphore::new(0),
        held: AtomicBool::new(false),
    });
    World { store, context, definition: &TICKET, saga: "s".into() }
}

async fn things(store: &Store) -> Vec<String> {
    store
        .read(async |tx: &mut Tx| {
            let rows = tx.query("SELECT id, state FROM things ORDER BY id", params![]).await?;
            rows.iter()
                .map(|row| {
                    Ok::<_, store::Error>(format!("{}={}", row.get::<String>("id")?, row.get::<String>("state")?))
                })
                .collect()
        })
        .await
        .unwrap()
}

async fn run(data: &[u8], injection: Injection) -> (Phase, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, data).await;
    let phase = settle(&world, injection, Duration::from_secs(20)).await.unwrap();
    (phase, things(&world.store).await)
}

#[tokio::test]
async fn a_saga_runs_its_steps_in_order() {
    let (phase, things) = run(b"", Injection::None).await;
    assert_eq!(
        (phase, things),
        (Phase::Done, vec!["money=PAID".into(), "seat=RESERVED".into(), "ticket=ISSUED".into()])
    );
}

#[tokio::test]
async fn each_step_may_run_twice() {
    assert_eq!(run(b"", Injection::Twice).await, run(b"", Injection::None).await);
    assert_eq!(run(b"declined", Injection::Twice).await, run(b"declined", Injection::None).await);
}

#[tokio::test]
async fn a_failure_at_any_step_unwinds_clean() {
    let clean = |reason: &str, money: Option<&str>, seat: Option<&str>| {
        let money = money.map(|state| format!("money={state}"));
        let seat = seat.map(|state| format!("seat={state}"));
        let things = money.into_iter().chain(seat).chain([format!("ticket={reason}")]).collect::<Vec<_>>();
        (Phase::Unwound, things)
    };
    assert_eq!(run(b"", Injection::RefusedBefore(0)).await, clean("INJECTED", None, None));
    assert_eq!(run(b"", Injection::RefusedBefore(1)).await, clean("INJECTED", None, Some("FREE")));
    assert_eq!(run(b"", Injection::RefusedBefore(2)).await, clean("INJECTED", Some("BACK"), Some("FREE")));
    let late = "DEADLINE_EXCEEDED";
    assert_eq!(run(b"", Injection::AnswerLost(0)).await, clean(late, None, Some("FREE")));
    assert_eq!(run(b"", Injection::AnswerLost(1)).await, clean(late, Some("BACK"), Some("FREE")));
}

#[tokio::test]
async fn a_refusal_undoes_what_was_done_and_nothing_else() {
    let (phase, things) = run(b"declined", Injection::None).await;
    assert_eq!((phase, things), (Phase::Unwound, vec!["seat=FREE".into(), "ticket=DECLINED".into()]));
}

#[tokio::test]
async fn a_step_that_panics_or_waits_is_tried_again() {
    for data in [b"panics".as_slice(), b"waits"] {
        assert_eq!(run(data, Injection::None).await.0, Phase::Done);
    }
}

#[tokio::test]
async fn starting_a_saga_twice_is_one_saga() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, b"").await;
    let start =
        Start { id: "s".into(), data: b"declined".to_vec(), correlation: String::new(), traceparent: String::new() };
    let again = world
        .store
        .write(store::site!("test.again"), async move |tx: &mut Tx| saga::enqueue(tx, &TICKET, &start).await)
        .await
        .unwrap();
    assert!(!again);
    assert_eq!(settle(&world, Injection::None, Duration::from_secs(20)).await.unwrap(), Phase::Done);
    let history = world.store.read(async |tx: &mut Tx| saga::history(tx, "s").await).await.unwrap();
    let steps: Vec<_> = history.iter().map(|entry| (entry.name.as_str(), entry.outcome.as_str())).collect();
    assert_eq!(steps, [("reserve", "DONE"), ("pay", "DONE"), ("issue", "DONE")]);
}

#[tokio::test]
async fn a_runner_that_was_paused_past_its_lease_is_replaced_and_changes_nothing_when_it_wakes() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(jiff::Timestamp::from_second(1_800_000_000).unwrap());
    let world = world_at(&folder, b"paused", clock.clone()).await;
    let runner = |beat| {
        let (poll, lease) = (Duration::from_millis(20), Duration::from_secs(100 * 3600));
        let config = saga::Config { exclusive: false, beat, lease, poll, ..saga::Config::default() };
        Runner::new(world.store.clone(), Arc::clone(&world.context), vec![world.definition], config)
    };
    let shutdown = CancellationToken::new();
    // The first says once that it lives, and then no more.
    let first = runner(Duration::from_secs(3600));
    let running = tokio::spawn(first.clone().run(shutdown.clone()));
    until(async || world.context.held.load(Ordering::SeqCst)).await;

    clock.advance(Duration::from_secs(7 * 3600));
    let second = runner(Duration::from_millis(20));
    let replacing = tokio::spawn(second.clone().run(shutdown.clone()));
    let phase = async || {
        let row = world.store.read(async |tx: &mut Tx| saga::get(tx, "s").await).await.unwrap();
        row.unwrap().phase
    };
    until(async || phase().await == Phase::Done).await;

    world.context.gate.add_permits(1);
    until(async || first.running() == 0).await;
    assert_eq!(phase().await, Phase::Done);
    // One reserved, both paid under one key, and only who holds the saga went on to issue.
    assert_eq!(world.context.sent.load(Ordering::Relaxed), 4);
    let history = world.store.read(async |tx: &mut Tx| saga::history(tx, "s").await).await.unwrap();
    assert!(history.iter().all(|entry| entry.outcome == "DONE" && entry.attempts == 1), "{history:?}");
    shutdown.cancel();
    running.await.unwrap().unwrap();
    replacing.await.unwrap().unwrap();
}

/// Returns once it holds.
async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test]
async fn a_saga_of_a_newer_release_is_left_to_it_and_others_go_on() {
    static NEWER: Definition<Context> = Definition { version: 2, ..TICKET };
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, b"").await;
    let start =
        |id: &str| Start { id: id.into(), data: vec![], correlation: String::new(), traceparent: String::new() };
    for (id, definition) in [("n", &NEWER), ("o", &TICKET)] {
        let start = start(id);
        world
            .store
            .write(store::site!("test.start"), async move |tx: &mut Tx| saga::enqueue(tx, definition, &start).await)
            .await
            .unwrap();
    }
    let runner = |definitions| {
        let config = saga::Config { exclusive: false, poll: Duration::from_millis(20), ..saga::Config::default() };
        Runner::new(world.store.clone(), Arc::clone(&world.context), definitions, config)
    };
    let phase = async |id: &'static str| {
        let row = world.store.read(async move |tx: &mut Tx| saga::get(tx, id).await).await.unwrap().unwrap();
        (row.phase, row.active)
    };
    let shutdown = CancellationToken::new();
    let older = tokio::spawn(runner(vec![&TICKET]).run(shutdown.clone()));
    until(async || phase("s").await.0 == Phase::Done && phase("o").await.0 == Phase::Done).await;
    assert_eq!(phase("n").await, (Phase::Running, false));

    // Whoever knows it need not wait for a claim of the older one to run out.
    let newer = tokio::spawn(runner(vec![&TICKET, &NEWER]).run(shutdown.clone()));
    until(async || phase("n").await.0 == Phase::Done).await;
    shutdown.cancel();
    older.await.unwrap().unwrap();
    newer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_saga_that_is_started_while_its_runner_ends_is_run_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(&folder, b"").await;
    let config = saga::Config { exclusive: false, ..saga::Config::default() };
    let runner = Runner::new(world.store.clone(), Arc::clone(&world.context), vec![&TICKET], config);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    runner.clone().run(shutdown).await.unwrap();

    // A call that came in at the last moment waits for its saga, and nobody else can have it yet.
    let (starting, start) = (
        runner.clone(),
        Start { id: "late".into(), data: vec![], correlation: String::new(), traceparent: String::new() },
    );
    world
        .store
        .write(store::site!("test.start"), async move |tx: &mut Tx| starting.start(tx, &TICKET, &start).await)
        .await
        .unwrap();
    runner.wake("late");
    until(async || {
        let row = world.store.read(async |tx: &mut Tx| saga::get(tx, "late").await).await.unwrap();
        row.unwrap().phase == Phase::Done
    })
    .await;
}
