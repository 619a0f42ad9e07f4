//! The sender: hands over what is requested, and records what came of it.
//!
//! *At least once*: a mail is handed over first and marked as sent after, so a crash between the two hands it over again, with
//! the same Message-ID and the same bytes. Marks are committed for a whole batch, so that a rush of mail costs few commits.

use std::time::Duration;

use contracts::notification::v1 as proto;
use jiff::Timestamp;
use lettre::message::Mailbox;
use log::{At, Log, Meta, backoff};
use server::Context;
use store::{Tx, site};
use telemetry::Trace;
use telemetry::spans::{Kind, Name, Running};
use tokio::time::Instant;

use crate::config::Config;
use crate::error::Error;
use crate::store as rows;
use crate::transport::{Failure, Mail, Transport};

/// Sends mail until shutdown.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) log: Log<proto::Event>,
    pub(crate) transport: Transport,
    pub(crate) from: Mailbox,
    pub(crate) config: Config,
}

/// What one round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Mails tried.
    pub(crate) tried: usize,
    /// Mails that did not leave but may later.
    pub(crate) delayed: usize,
}

impl Sender {
    /// Sends until shutdown. Stopping at any moment is safe: what is not marked is sent again.
    pub(crate) async fn run(self, context: Context) {
        tokio::select! {
            () = context.shutdown.cancelled() => {}
            () = self.work(&context) => {}
        }
    }

    async fn work(&self, context: &Context) {
        let mut changed = self.log.changed();
        let mut failures = 0;
        loop {
            // Marked as seen before looking: what is committed after that wakes again.
            changed.borrow_and_update();
            // While nothing leaves, one mail is enough to find out whether it does again.
            let limit = if failures > 0 { 1 } else { self.config.batch };
            match self.round(limit).await {
                Ok(round) if round.tried > 0 && round.delayed == round.tried => {
                    failures += 1;
                    tracing::warn!(mails = round.tried, "no mail leaves");
                    self.pause(failures).await;
                }
                Ok(round) if round.tried > 0 => failures = 0,
                Ok(_) => self.wait(context, &mut changed).await,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "mail is not looked after; tried again");
                    self.pause(failures).await;
                }
            }
        }
    }

    /// One round: mails that are due are handed over and marked.
    pub(crate) async fn round(&self, limit: u32) -> Result<Round, Error> {
        let due = self.due(limit).await?;
        if due.is_empty() {
            return Ok(Round { tried: 0, delayed: 0 });
        }
        let outcomes = self.hand_over(due).await;
        let delayed = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Err(Failure::Transient(_)))).count();
        let tried = outcomes.len();
        self.mark(outcomes).await?;
        Ok(Round { tried, delayed })
    }

    /// The mails that are due.
    async fn due(&self, limit: u32) -> Result<Vec<Mail>, Error> {
        let log = self.log.clone();
        let now = log.store().clock().now();
        self.log
            .store()
            .read(async move |tx: &mut Tx| {
                let mut mails = vec![];
                for stored in rows::due(tx, now, limit).await? {
                    for entry in log.read(tx, &stored.name, 1, 1).await? {
                        if let proto::Event::NotificationRequested(requested) = entry.event {
                            mails.push(mail(requested, entry.at));
                        }
                    }
                }
                Ok(mails)
            })
            .await
    }

    async fn hand_over(&self, mails: Vec<Mail>) -> Vec<(String, Result<(), Failure>)> {
        let names: Vec<String> = mails.iter().map(|mail| format!("notifications/{}", mail.id)).collect();
        let stories: Vec<_> = mails.iter().map(|mail| Trace::parse(&mail.traceparent)).collect();
        let begun = Instant::now();
        let outcomes = self.transport.deliver(&self.from, mails, self.config.concurrency).await;
        let took = begun.elapsed();
        for (story, outcome) in stories.iter().zip(&outcomes) {
            if let Ok(story) = story {
                told(story, took, outcome);
            }
        }
        names.into_iter().zip(outcomes).collect()
    }

    async fn mark(&self, outcomes: Vec<(String, Result<(), Failure>)>) -> Result<(), Error> {
        let this = self.clone();
        self.log
            .store()
            .write(site!("notification.mark"), async move |tx: &mut Tx| {
                for (name, outcome) in &outcomes {
                    this.mark_one(tx, name, outcome).await?;
                }
                Ok(())
            })
            .await
    }

    async fn mark_one(&self, tx: &mut Tx, name: &str, outcome: &Result<(), Failure>) -> Result<(), Error> {
        // Erased since it was read: that it left all the same changes nothing any more.
        let Some(stored) = rows::get_notification(tx, name).await?.filter(rows::Stored::is_pending) else {
            return Ok(());
        };
        let (notification, attempt) = (name.to_owned(), stored.attempt_count.saturating_add(1));
        let last = u32::try_from(attempt).unwrap_or(u32::MAX) >= self.config.max_attempts;
        let event = match outcome {
            Ok(()) => proto::Event::NotificationSent(proto::NotificationSent { notification, attempt }),
            Err(Failure::Transient(error)) if !last => {
                let pause = self.backoff(u32::try_from(attempt).unwrap_or(1));
                let retry_time = tx.now().checked_add(pause).unwrap_or(Timestamp::MAX);
                proto::Event::NotificationAttemptFailed(proto::NotificationAttemptFailed {
                    notification,
                    attempt,
                    error: error.clone(),
                    retry_time: Some(retry_time.into()),
                })
            }
            Err(Failure::Transient(error) | Failure::Permanent(error)) => {
                tracing::error!(name, attempt, error, "a mail is given up; an operator must look");
                let error = error.clone();
                proto::Event::NotificationFailed(proto::NotificationFailed { notification, attempt, error })
            }
        };
        let meta = Meta {
            causation: format!("notification/{name}/{}", stored.version),
            correlation: stored.trace_id.clone(),
            traceparent: String::new(),
        };
        self.log.append(tx, name, stored.version, &meta, None, vec![event]).await?;
        Ok(())
    }

    /// Waits until something may be due, then a moment more for company.
    async fn wait(&self, context: &Context, changed: &mut tokio::sync::watch::Receiver<u64>) {
        let next = self.log.store().read(async |tx: &mut Tx| rows::next_due(tx).await).await;
        let due = async {
            match next {
                Ok(Some(due)) => context.clock.sleep_until(due).await,
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            // The sender of commits lives in the store, which lives in `self`.
            _ = changed.changed() => tokio::time::sleep_until(Instant::now() + self.config.gather).await,
        }
    }

    async fn pause(&self, failures: u32) {
        tokio::time::sleep(self.backoff(failures)).await;
    }

    fn backoff(&self, attempt: u32) -> Duration {
        backoff::jittered(attempt, self.config.retry_first, self.config.retry_most)
    }
}

/// A mail is a span of the story that wanted it, as long as the round it left in.
fn told(story: &Trace, took: Duration, outcome: &Result<(), Failure>) {
    let mut span = Running::since("notification", Kind::Client, Name::of("send", "mail"), story, took);
    if let Err(failure) = outcome {
        span.set("error.type", if matches!(failure, Failure::Transient(_)) { "delayed" } else { "given up" });
        span.fail(true);
    }
    span.end();
}

fn mail(requested: proto::NotificationRequested, at: At) -> Mail {
    Mail {
        id: requested.notification.strip_prefix("notifications/").unwrap_or_default().to_owned(),
        message_id: requested.message_id,
        recipient: requested.recipient,
        subject_line: requested.subject_line,
        body: requested.body,
        time: at.occur_time,
        traceparent: at.traceparent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bus::{Handler as _, Message};
    use contract::EventSet as _;
    use contracts::ordering::v1 as ordering;
    use store::{Clock, Store};

    use crate::consumers::Events;
    use crate::intent::House;

    async fn log() -> Log<proto::Event> {
        let config = store::Config::temporary("notification").migrations([log::MIGRATIONS, rows::MIGRATIONS]);
        let config = config.clock(Clock::manual(Timestamp::from_second(1_800_000_000).unwrap()));
        Log::new(Store::open(config).await.unwrap(), vec![Arc::new(rows::Rows)])
    }

    fn sender(log: &Log<proto::Event>, folder: &std::path::Path) -> Sender {
        Sender {
            log: log.clone(),
            transport: Transport::Folder(folder.to_owned()),
            from: "shop@stoa.local".parse().unwrap(),
            config: Config::default(),
        }
    }

    fn message(version: u64, event: &ordering::Event) -> Message {
        Message {
            service: "ordering".to_owned(),
            shard: 0,
            position: version,
            stream: "orders/1".to_owned(),
            version,
            name: event.name().to_owned(),
            schema: event.schema(),
            occur_time: Timestamp::UNIX_EPOCH,
            causation: String::new(),
            correlation: String::new(),
            traceparent: String::new(),
            subject: Some("guests/1".to_owned()),
            payload: event.encode(),
        }
    }

    async fn deliver(log: &Log<proto::Event>, version: u64, event: ordering::Event) {
        let house = House { domain: "stoa.local".to_owned(), sends: true };
        let events = Events { log: log.clone(), house };
        let message = message(version, &event);
        log.store()
            .write(site!("test.deliver"), async move |tx: &mut Tx| {
                events.apply(tx, &message).await.unwrap();
                Ok::<_, store::Error>(())
            })
            .await
            .unwrap();
    }

    async fn confirm(log: &Log<proto::Event>) {
        let placed = ordering::OrderPlaced {
            order: "orders/1".to_owned(),
            customer: "guests/1".to_owned(),
            contact_email: "ada@example.com".to_owned(),
            ..Default::default()
        };
        deliver(log, 1, ordering::Event::OrderPlaced(placed)).await;
        let confirmed = ordering::OrderConfirmed { order: "orders/1".to_owned() };
        deliver(log, 2, ordering::Event::OrderConfirmed(confirmed)).await;
    }

    fn files(folder: &std::path::Path) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let read = entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read_to_string(e.path()).unwrap()));
        read.collect()
    }

    #[tokio::test]
    async fn a_redelivered_event_makes_one_mail() {
        let (log, folder) = (log().await, tempfile::TempDir::new().unwrap());
        let sender = sender(&log, folder.path());
        confirm(&log).await;
        confirm(&log).await;
        assert_eq!(sender.round(10).await.unwrap(), Round { tried: 1, delayed: 0 });
        confirm(&log).await;
        assert_eq!(sender.round(10).await.unwrap(), Round { tried: 0, delayed: 0 });
        assert_eq!(files(folder.path()).len(), 1);
    }

    #[tokio::test]
    async fn a_crash_between_sending_and_marking_sends_at_least_once_with_the_same_message_id() {
        let (log, folder) = (log().await, tempfile::TempDir::new().unwrap());
        let sender = sender(&log, folder.path());
        confirm(&log).await;
        let due = sender.due(10).await.unwrap();
        let outcomes = sender.hand_over(due).await;
        assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
        let first = files(folder.path());
        // The process dies here: nothing is marked.
        drop(outcomes);
        assert_eq!(sender.round(10).await.unwrap(), Round { tried: 1, delayed: 0 });
        assert_eq!(files(folder.path()), first);
        assert_eq!(first.len(), 1);
        assert!(first[0].1.contains("\r\nMessage-ID: <"));
        assert_eq!(sender.round(10).await.unwrap().tried, 0);
    }

    #[tokio::test]
    async fn derived_rows_are_rebuilt_byte_equal() {
        let (log, folder) = (log().await, tempfile::TempDir::new().unwrap());
        confirm(&log).await;
        sender(&log, folder.path()).round(10).await.unwrap();
        assert_eq!(log.verify("messages").await.unwrap(), vec![]);
    }
}
