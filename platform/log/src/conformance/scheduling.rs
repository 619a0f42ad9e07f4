//! Timers: reminders that look before they act.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use store::{Site, Store, Tx};

use super::toy::{self, Event, moved, opened};
use crate::timers::{self, Handler, Runner, Timer};
use crate::{Error, LocalBoxFuture, Log};

/// Puts one into the account whose timer fires; fails when told to.
struct Interest {
    log: Log<Event>,
    fails: Arc<AtomicBool>,
}

impl Handler for Interest {
    fn kind(&self) -> &'static str {
        "interest"
    }

    fn fire<'a>(&'a self, tx: &'a mut Tx, timer: &'a Timer) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.log.append_next(tx, &timer.key, &toy::meta(), None, vec![moved(1)]).await?;
            if self.fails.load(Ordering::Relaxed) {
                return Err(Error::Random("told to fail".to_owned()));
            }
            Ok(())
        })
    }
}

struct Rig {
    log: Log<Event>,
    runner: Runner,
    fails: Arc<AtomicBool>,
}

async fn rig(store: Store) -> Rig {
    let log = toy::log(store.clone());
    toy::append(&log, "accounts/a", Some("users/1"), vec![opened("Ada")]).await.expect("append");
    let fails = Arc::new(AtomicBool::new(false));
    let handler = Interest { log: log.clone(), fails: fails.clone() };
    let runner = Runner::new(store, Site::named("toy.timers"), vec![Box::new(handler)]);
    Rig { log, runner, fails }
}

impl Rig {
    async fn schedule(&self, in_micros: i64, expected_version: u64) {
        let now = self.log.store().clock().now();
        let due = Timestamp::from_microsecond(now.as_microsecond() + in_micros).expect("a time");
        let set: Result<(), Error> = self
            .log
            .store()
            .write(Site::named("toy.schedule"), async move |tx: &mut Tx| {
                timers::schedule(tx, "interest", "accounts/a", due, expected_version, Vec::new()).await
            })
            .await;
        set.expect("schedule");
    }

    async fn version(&self) -> u64 {
        let log = self.log.clone();
        let version: Result<u64, Error> =
            self.log.store().read(async move |tx: &mut Tx| log.version(tx, "accounts/a").await).await;
        version.expect("version")
    }

    async fn waiting(&self) -> Vec<Timer> {
        let timers: Result<Vec<Timer>, Error> =
            self.log.store().read(async |tx: &mut Tx| timers::due(tx, Timestamp::MAX, 10).await).await;
        timers.expect("timers")
    }
}

pub(super) async fn a_due_timer_fires_once_with_its_effect(store: Store) {
    let rig = rig(store).await;
    rig.schedule(-1, 1).await;
    rig.runner.run_due().await.expect("run");
    rig.runner.run_due().await.expect("run again");
    assert_eq!(rig.version().await, 2);
    assert_eq!(rig.waiting().await, []);

    rig.schedule(3_600_000_000, 2).await;
    let next = rig.runner.run_due().await.expect("run");
    assert!(next.is_some(), "the next timer is known");
    assert_eq!(rig.version().await, 2, "and does not fire early");
}

pub(super) async fn a_timer_for_an_older_version_does_nothing(store: Store) {
    let rig = rig(store).await;
    rig.schedule(-1, 1).await;
    toy::append(&rig.log, "accounts/a", None, vec![moved(5)]).await.expect("append");
    rig.runner.run_due().await.expect("run");
    assert_eq!(rig.version().await, 2);
    assert_eq!(rig.waiting().await, [], "it is gone all the same");

    rig.schedule(3_600_000_000, 2).await;
    rig.schedule(-1, 1).await;
    let kept = rig.waiting().await;
    assert_eq!(kept.first().map(|timer| timer.expected_version), Some(2), "newer ones stay");
}

pub(super) async fn a_failed_firing_leaves_nothing_and_is_tried_again(store: Store) {
    let rig = rig(store).await;
    rig.fails.store(true, Ordering::Relaxed);
    rig.schedule(-1, 1).await;
    rig.runner.run_due().await.expect("run");
    assert_eq!(rig.version().await, 1);
    let waiting = rig.waiting().await;
    assert_eq!(waiting.first().map(|timer| timer.attempts), Some(1));

    rig.fails.store(false, Ordering::Relaxed);
    let due = waiting.first().map(|timer| timer.due).expect("a timer");
    rig.log.store().clock().sleep_until(due).await;
    rig.runner.run_due().await.expect("run");
    assert_eq!(rig.version().await, 2);
}

pub(super) async fn a_cancelled_timer_does_not_fire(store: Store) {
    let rig = rig(store).await;
    rig.schedule(-1, 1).await;
    let cancelled: Result<(), Error> = rig
        .log
        .store()
        .write(Site::named("toy.schedule"), async |tx: &mut Tx| timers::cancel(tx, "interest", "accounts/a").await)
        .await;
    cancelled.expect("cancel");
    rig.runner.run_due().await.expect("run");
    assert_eq!(rig.version().await, 1);
}

pub(super) async fn a_running_runner_is_woken_by_the_commit_that_schedules(store: Store) {
    let rig = rig(store).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(rig.runner.clone().run(async move {
        let _ = stopped.await;
    }));
    rig.schedule(20_000, 1).await;
    let mut changed = rig.log.changed();
    let fired = async {
        while rig.version().await < 2 {
            changed.changed().await.expect("still open");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), fired).await.expect("fired in time");
    drop(stop);
    running.await.expect("the runner ends when told");
}
