//! Tells the doors which sessions were ended, so that they refuse access tokens that have not expired yet.
//!
//! The truth is the log and its rows; what the doors look at is a cache. Each copy of identity keeps it: it reads which sessions
//! ended whose tokens somebody could still show, puts a mark for each, and only then vouches that none is missing. It does so
//! after each commit that ended a session, before that is answered, and again and again besides: so a crash between commit and
//! mark is healed by the next look of any copy, and a cache that was emptied is filled again before anybody vouches for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::store::Tx;
use cache::{Filling, Mark, Marks, Unavailable};
use contracts::identity::v1::Event;
use log::Log;
use server::{Context, Task};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, timeout};

use crate::store as rows;

/// A token may be signed this much later than its session was started or refreshed, and a door's clock may be off: by
/// [`auth::SKEW_S`], and half of it more for what is late besides.
const SLACK: Duration = Duration::from_secs(auth::SKEW_S as u64 * 3 / 2);

/// Keeps the marks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Revocations {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log<Event>,
    marks: Arc<dyn Marks>,
    /// How long after it was refreshed last somebody could show an access token of a session.
    shown: Duration,
    kept: Mutex<Option<Kept>>,
    /// Turns that were asked for, and the last one that is over.
    asked: watch::Sender<u64>,
    over: watch::Sender<u64>,
}

/// A filling, and the sessions whose marks were put into it.
#[derive(Debug)]
struct Kept {
    filling: Filling,
    sessions: HashSet<String>,
}

/// Why the doors were not told.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Store(#[from] ::store::Error),
    #[error(transparent)]
    Cache(#[from] Unavailable),
    #[error("the cache is emptied again and again")]
    Emptied,
}

impl Revocations {
    /// `lifetime` is that of access tokens, `replay` the time in which a refresh is answered again.
    pub(crate) fn new(log: Log<Event>, context: &Context, lifetime: Duration, replay: Duration) -> Self {
        let inner = Inner {
            log,
            marks: Arc::clone(context.cache.marks()),
            shown: lifetime + replay + SLACK,
            kept: Mutex::default(),
            asked: watch::Sender::new(0),
            over: watch::Sender::new(0),
        };
        Revocations { inner: Arc::new(inner) }
    }

    /// Waits until the doors refuse every session that was ended before: they were told, or no vouching counts any more that
    /// was made before.
    pub(crate) async fn told(&self) {
        let inner = &self.inner;
        let mut turn = 0;
        inner.asked.send_modify(|asked| {
            *asked += 1;
            turn = *asked;
        });
        if self.round(Some(turn)).await.is_ok() {
            return;
        }
        // The task goes on trying; whoever succeeds has told of this one as well.
        let Some(pace) = inner.marks.pace() else { return };
        let mut over = inner.over.subscribe();
        let _ = timeout(pace.grace, over.wait_for(|over| *over >= turn)).await;
    }

    /// Tells of everything for the first time. A cache that is away is no reason not to begin: doors ask until it is back.
    pub(crate) async fn begin(&self) {
        if let Err(error) = self.round(None).await {
            tracing::warn!(%error, "doors ask for each session until they can be told which ones ended");
        }
    }

    /// The task that goes on vouching, where once is not enough.
    pub(crate) fn task(&self, context: &Context) -> Option<Task> {
        let pace = self.inner.marks.pace()?;
        let (this, shutdown) = (self.clone(), context.shutdown.clone());
        Some(Task::endless("identity.revocations", async move {
            let mut turns = tokio::time::interval(pace.vouch);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failing = false;
            loop {
                tokio::select! {
                    _ = turns.tick() => {}
                    () = shutdown.cancelled() => return,
                }
                let told = this.round(None).await;
                if let Err(error) = &told
                    && !failing
                {
                    tracing::warn!(%error, "doors ask for each session until they can be told which ones ended");
                }
                failing = told.is_err();
            }
        }))
    }

    /// Tells what ended and vouches. A turn that was asked for may be over with a round that began while it waited.
    async fn round(&self, turn: Option<u64>) -> Result<(), Untold> {
        let inner = &self.inner;
        let mut kept = inner.kept.lock().await;
        if turn.is_some_and(|turn| turn <= *inner.over.borrow()) {
            return Ok(());
        }
        // Whatever was asked for by now is committed, and read below.
        let asked = *inner.asked.borrow();
        // A second time where the first finds out that the marks were lost.
        for _ in 0..2 {
            let mut filled = match kept.take() {
                Some(filled) => filled,
                None => Kept { filling: inner.marks.begin().await?, sessions: HashSet::new() },
            };
            if self.tell(&mut filled).await? {
                *kept = Some(filled);
                inner.over.send_modify(|over| *over = asked.max(*over));
                return Ok(());
            }
        }
        Err(Untold::Emptied)
    }

    /// False if what was told before has been lost.
    async fn tell(&self, kept: &mut Kept) -> Result<bool, Untold> {
        let inner = &self.inner;
        let (now, shown) = (inner.log.store().clock().now(), inner.shown);
        let since = now.checked_sub(shown).unwrap_or(jiff::Timestamp::MIN);
        let ended = inner.log.store().read(async move |tx: &mut Tx| rows::ended_sessions(tx, since).await).await?;
        let news = ended.iter().filter(|(session, _)| !kept.sessions.contains(session));
        let marks: Vec<Mark> = news
            .map(|(session, refresh_time)| {
                let passed = Duration::try_from(now.duration_since(*refresh_time)).unwrap_or_default();
                Mark { id: session.clone(), remaining: shown.saturating_sub(passed) }
            })
            .collect();
        if !marks.is_empty() {
            inner.marks.put(&marks).await?;
        }
        kept.sessions = ended.into_iter().map(|(session, _)| session).collect();
        Ok(inner.marks.vouch(&kept.filling).await?)
    }
}
