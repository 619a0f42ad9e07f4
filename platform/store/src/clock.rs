//! The one source of time. Tests hold a manual clock and move it; nothing else reads the system's.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::watch;

/// Tells the time in whole microseconds, the precision of every stored timestamp.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    source: Source,
}

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: Timestamp) -> Self {
        Self { source: Source::Manual(Arc::new(watch::Sender::new(start))) }
    }

    /// The time, cut to microseconds.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    pub fn now(&self) -> Timestamp {
        let now = match &self.source {
            #[cfg(feature = "planted-bugs")]
            Source::System => crate::planted::shown(Timestamp::now()),
            #[cfg(not(feature = "planted-bugs"))]
            Source::System => Timestamp::now(),
            Source::Manual(time) => *time.borrow(),
        };
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// Moves a manual clock forward; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(time) = &self.source {
            time.send_modify(|now| *now = now.checked_add(by).unwrap_or(Timestamp::MAX));
        }
    }

    /// Sets a manual clock, also backwards; the system's clock is left alone.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(time) = &self.source {
            time.send_replace(to);
        }
    }

    /// Returns once the clock shows `due` or later; a manual clock wakes its sleepers when it is moved.
    pub async fn sleep_until(&self, due: Timestamp) {
        match &self.source {
            Source::System => loop {
                let left = Duration::try_from(due.duration_since(self.now())).unwrap_or(Duration::ZERO);
                if left.is_zero() {
                    return;
                }
                // Capped, so that a clock that jumped forward is noticed.
                tokio::time::sleep(left.min(Duration::from_secs(30))).await;
            },
            Source::Manual(time) => {
                // The sender is held by `self`, so waiting cannot fail.
                let _ = time.subscribe().wait_for(|now| *now >= due).await;
            }
        }
    }
}
