//! Whether anybody wants the events of a producer.
//!
//! A message that no queue takes may have lost its queue, or nobody ever asked for it. The first must hold its relay, the
//! second must not: a service nobody listens to would stand still for ever, and say so. The groups of a producer therefore
//! leave a sign in the broker before they make their queues: an exchange, which costs nothing and stays.
//!
//! Where there is no sign, publications are refused for a while all the same, because whoever wants them may just be starting;
//! then they count as published to nobody. A group that comes later finds that it begins in the middle, and reads what was
//! before from the producer's log.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;
use super::link::Link;
use super::topology::Names;

/// How often the broker is asked whether a group has come.
const ASKED_AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Wanted {
    patience: Duration,
    unwanted: Mutex<HashMap<String, Unwanted>>,
}

/// A producer that nobody had asked for.
#[derive(Clone, Copy)]
struct Unwanted {
    since: Instant,
    asked: Instant,
}

impl Wanted {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, unwanted: Mutex::default() }
    }

    /// Whether there is no need to publish anything of this producer.
    pub(super) async fn by_nobody(&self, link: &Link, names: &Names, producer: &str) -> Result<bool, Fault> {
        let known = self.lock().get(producer).copied();
        match known {
            Some(known) if known.since.elapsed() < self.patience => Ok(false),
            Some(known) if known.asked.elapsed() < ASKED_AGAIN => Ok(true),
            Some(_) => Ok(!self.ask(link, names, producer).await?),
            None => Ok(false),
        }
    }

    /// What became of messages that no queue took.
    pub(super) async fn untaken(&self, link: &Link, names: &Names, producer: &str) -> Result<(), Fault> {
        if self.ask(link, names, producer).await? {
            return Err(Fault::Unroutable);
        }
        let since = self.lock().get(producer).map_or_else(Instant::now, |unwanted| unwanted.since);
        if since.elapsed() < self.patience {
            return Err(Fault::Unwanted);
        }
        tracing::info!(producer, "nobody listens to these events: they are in the log alone");
        Ok(())
    }

    /// Asks the broker, and remembers when; true if a group has ever asked for the producer.
    async fn ask(&self, link: &Link, names: &Names, producer: &str) -> Result<bool, Fault> {
        let wanted = names.are_wanted(&*link.open().await?, producer).await?;
        let mut unwanted = self.lock();
        if wanted {
            unwanted.remove(producer);
        } else {
            let now = Instant::now();
            unwanted.entry(producer.to_owned()).or_insert(Unwanted { since: now, asked: now }).asked = now;
        }
        Ok(wanted)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Unwanted>> {
        self.unwanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
