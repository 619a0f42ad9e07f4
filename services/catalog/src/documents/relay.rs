//! Moves what documents have not told others yet into the log: events in their order, answers to where they are kept.
//!
//! At least once, with one effect: an event whose version the log has is passed over, an answer that is kept stays, and a
//! document is marked only as it was read. So any number of processes may do this at the same time, or die in between: there
//! is no lease to lose. In the log they queue behind one lock, which also keeps the order of an import.

use std::time::Duration;

use contracts::catalog::v1::Event;
use log::{Log, once};
use store::{Error, Tx, site};
use tokio::time::Instant;

use super::database::{Database, SWEPT};
use super::shape::{Document, time};

/// What every transaction of a relay takes first.
const LOCK: &str = "catalog.unsent";

/// How often what has outlived its time is looked for, if sweeps come more often.
const CLEANED: Duration = Duration::from_secs(60);

/// The way from the documents to the log. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    pub(super) database: Database,
    pub(super) log: Log<Event>,
}

impl Relay {
    /// Moves what these documents carry, and marks them.
    pub(super) async fn send(&self, documents: &[Document]) -> Result<(), log::Error> {
        let mut times = Vec::new();
        for document in documents {
            times.extend(document.events.iter().map(|event| event.time));
            times.extend(document.answers.iter().map(|answer| answer.time));
        }
        times.sort_unstable();
        times.dedup();
        for time in times {
            self.send_of(time, documents).await?;
        }
        for document in documents {
            self.database.mark_sent(document).await?;
        }
        Ok(())
    }

    /// Moves what is of one time: in the log, the events of a transaction have one. Times in a document never go back.
    async fn send_of(&self, of: i64, documents: &[Document]) -> Result<(), log::Error> {
        let (log, documents) = (self.log.clone(), documents.to_vec());
        self.log
            .store()
            .write(site!("catalog.send"), async move |tx: &mut Tx| {
                tx.take_stream(LOCK).await?;
                tx.set_now(time(of)?);
                for document in &documents {
                    for event in document.events.iter().filter(|event| event.time == of) {
                        let (version, there) = (event.version.unsigned_abs(), log.version(tx, &document.name).await?);
                        if version > there {
                            let stored = event.event(&document.name)?;
                            log.append(tx, &document.name, version - 1, &event.meta(), None, vec![stored]).await?;
                        }
                    }
                    for answer in document.answers.iter().filter(|answer| answer.time == of) {
                        once::keep(tx, &answer.request()?, time(of)?, &answer.answer()).await?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// Looks again and again for what was left: by who died, and by who could not reach the log.
    pub(super) async fn sweep(&self, every: Duration) {
        let mut cleaned = None;
        loop {
            let clean = cleaned.is_none_or(|at: Instant| at.elapsed() >= CLEANED);
            let swept = if clean { self.sweep_once().await } else { self.send_all().await };
            if clean {
                cleaned = Some(Instant::now());
            }
            if let Err(error) = swept {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "events of the catalogue wait in their documents"
                );
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Moves everything that is unsent, and drops what has outlived its time.
    pub(super) async fn sweep_once(&self) -> Result<(), log::Error> {
        self.send_all().await?;
        self.clean().await
    }

    /// Moves everything that is unsent.
    async fn send_all(&self) -> Result<(), log::Error> {
        loop {
            let left = self.database.unsent().await?;
            match self.send(&left).await {
                // What this binary cannot read keeps nothing else from its way.
                Err(error @ (log::Error::Decode { .. } | log::Error::Store(Error::Mismatch { .. }))) => {
                    let mut last = Err(error);
                    for document in &left {
                        let sent = self.send(std::slice::from_ref(document)).await;
                        if sent.is_err() {
                            last = sent;
                        }
                    }
                    return last;
                }
                outcome => outcome?,
            }
            if (left.len() as i64) < SWEPT {
                return Ok(());
            }
        }
    }

    /// Drops what has outlived its time.
    async fn clean(&self) -> Result<(), log::Error> {
        let retention = jiff::SignedDuration::try_from(once::RETENTION).unwrap_or(jiff::SignedDuration::MAX);
        let end = self.log.store().clock().now().checked_sub(retention).unwrap_or(jiff::Timestamp::MIN);
        self.database.drop_old(end).await?;
        let purge = async |tx: &mut Tx| once::purge(tx, SWEPT as u32).await;
        self.log.store().write(site!("catalog.purge"), purge).await?;
        Ok(())
    }
}
