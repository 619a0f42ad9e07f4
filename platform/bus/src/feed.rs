//! How a consumer follows a producer through a broker.
//!
//! The broker's group decides which copy of the consumer has which shard; what arrives is judged by position against the
//! cursor in the consumer's own store, so nothing depends on the broker's memory: what is not beyond the cursor is a
//! duplicate, what is next is applied, and before what is further on the hole is read from the producer's log. The
//! broker is told only after the commit: it then knows less than the cursor, never more.
//!
//! A tail that a broker lost makes no hole. So a consumer that hears nothing for a while asks the producer how long its
//! log is, and reads what it was not sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use log::backoff;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::delivery::Cursor;
use crate::{Broker, Consumer, Delivery, Envelope, Error, Limits, Receipt, Source, Subscription, WINDOW};

/// Where a consumer's messages came from, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fed {
    /// Messages that a broker delivered.
    pub delivered: u64,
    /// Those of them that were there before.
    pub duplicates: u64,
    /// Messages that did not come and were read from the producer's log.
    pub fetched: u64,
    /// Messages that came sealed and were read from the producer's log, opened.
    pub opened: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    delivered: AtomicU64,
    duplicates: AtomicU64,
    fetched: AtomicU64,
    opened: AtomicU64,
}

/// What the one that listens tells the one that works on a shard.
enum Work {
    Delivered {
        subscription: u64,
        delivery: Delivery,
    },
    /// The producer's log is that long.
    Head(u64),
}

/// What the one that works on a shard tells the one that listens.
struct Settled {
    subscription: u64,
    receipt: Receipt,
}

impl Consumer {
    /// Where its messages came from.
    pub fn fed(&self) -> Fed {
        let Counts { delivered, duplicates, fetched, opened } = &self.inner.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Fed { delivered: read(delivered), duplicates: read(duplicates), fetched: read(fetched), opened: read(opened) }
    }

    /// Follows a producer through the broker until the consumer's store stops.
    pub(crate) async fn feed(&self, producer: &str, source: &Arc<dyn Source>, broker: &Arc<dyn Broker>, shards: u32) {
        let (settled, settlements) = mpsc::channel(shards.max(1) as usize);
        // Room for every delivery a subscription may give before the first of them is acknowledged, and for a head.
        let (works, queues): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel(WINDOW + 1)).unzip();
        let working = join_all((0..).zip(queues).map(|(shard, queue)| {
            Worker {
                consumer: self,
                producer,
                source,
                shard,
                queue,
                settled: settled.clone(),
                cursor: None,
                incoming: VecDeque::new(),
                run: Vec::new(),
                since: None,
                entered: 0,
                receipts: VecDeque::new(),
                heard: false,
                looked_at: None,
                catching_up: None,
            }
            .run()
        }));
        tokio::select! {
            _ = working => {}
            () = self.listen(producer, broker, &works, settlements) => {}
            () = self.compare(source, &works) => {}
        }
    }

    /// Takes what the broker delivers and acknowledges what was settled.
    async fn listen(
        &self,
        producer: &str,
        broker: &Arc<dyn Broker>,
        works: &[mpsc::Sender<Work>],
        mut settlements: mpsc::Receiver<Settled>,
    ) {
        let Limits { retry_first, retry_most, .. } = self.inner.limits;
        let shards = u32::try_from(works.len()).unwrap_or(u32::MAX);
        let mut number = 0;
        let mut attempt = 0;
        loop {
            let subscribed = tokio::select! {
                subscribed = broker.subscribe(self.inner.name, producer, shards) => subscribed,
                () = discard(&mut settlements) => return,
            };
            let lost = match subscribed {
                Ok(mut subscription) => {
                    number += 1;
                    self.hear(&mut *subscription, number, works, &mut settlements, &mut attempt).await
                }
                Err(error) => error,
            };
            attempt += 1;
            let consumer = self.inner.name;
            if attempt < 5 {
                tracing::debug!(consumer, producer, attempt, error = %lost, "a consumer subscribes again");
            } else {
                tracing::warn!(consumer, producer, attempt, error = %lost, "a consumer hears nothing from its broker");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff::jittered(attempt, retry_first, retry_most)) => {}
                () = discard(&mut settlements) => return,
            }
        }
    }

    /// Until the subscription fails; says why.
    async fn hear(
        &self,
        subscription: &mut dyn Subscription,
        number: u64,
        works: &[mpsc::Sender<Work>],
        settlements: &mut mpsc::Receiver<Settled>,
        attempt: &mut u32,
    ) -> Error {
        loop {
            tokio::select! {
                delivery = subscription.next() => {
                    let delivery = match delivery {
                        Ok(delivery) => delivery,
                        Err(error) => return error,
                    };
                    *attempt = 0;
                    #[cfg(feature = "planted-bugs")]
                    if crate::planted::acknowledges_before_effect()
                        && let Err(error) = subscription.acknowledge(&delivery.receipt).await
                    {
                        return error;
                    }
                    let shard = delivery.shard;
                    let work = Work::Delivered { subscription: number, delivery };
                    let taken = works.get(shard as usize).is_some_and(|work_on| work_on.try_send(work).is_ok());
                    if !taken {
                        // It gave more than it may, or of a shard there is not.
                        return Error::Broker {
                            broker: "the broker",
                            doing: format!("deliver from shard {shard}"),
                            source: "there is no room for it".into(),
                        };
                    }
                }
                Some(Settled { subscription: of, receipt }) = settlements.recv() => {
                    if of == number && let Err(error) = subscription.acknowledge(&receipt).await {
                        return error;
                    }
                }
            }
        }
    }

    /// Now and then tells each shard's worker how long the producer's log is.
    async fn compare(&self, source: &Arc<dyn Source>, works: &[mpsc::Sender<Work>]) {
        let mut look = tokio::time::interval(self.inner.limits.doubt);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            // A producer that is away is asked again the next time.
            for (work_on, head) in works.iter().zip(source.heads().await.unwrap_or_default()) {
                // No room means that enough was heard.
                let _ = work_on.try_send(Work::Head(head));
            }
        }
    }
}

/// Works on one shard.
struct Worker<'a> {
    consumer: &'a Consumer,
    producer: &'a str,
    source: &'a Arc<dyn Source>,
    shard: u32,
    queue: mpsc::Receiver<Work>,
    settled: mpsc::Sender<Settled>,
    /// The stored cursor, once it was read.
    cursor: Option<u64>,
    /// Delivered and not looked at.
    incoming: VecDeque<Envelope>,
    /// The messages right behind the cursor, without a hole. They are applied, or, where none of them means anything to
    /// the handler, wait for company: a commit of their own would be a flush for nothing.
    run: Vec<Envelope>,
    since: Option<Instant>,
    /// How many messages have ever been put into `incoming`.
    entered: u64,
    /// What can be acknowledged once so many of them have left it and are dealt with.
    receipts: VecDeque<(u64, Settled)>,
    /// Whether anything was delivered since the last look at the producer's log.
    heard: bool,
    /// Where the cursor stood at that look.
    looked_at: Option<u64>,
    /// Up to where the log is read, because nothing comes.
    catching_up: Option<u64>,
}

impl Worker<'_> {
    async fn run(mut self) {
        let mut paused: watch::Receiver<bool> = self.consumer.inner.paused.subscribe();
        let mut attempt = 0;
        loop {
            if !self.more().await {
                return;
            }
            // The sender lives in the consumer, so waiting cannot fail.
            let _ = paused.wait_for(|paused| !paused).await;
            match self.step().await {
                Ok(()) => {
                    if attempt > 0 {
                        attempt = 0;
                        self.consumer.stalls().remove(&(self.producer.to_owned(), self.shard));
                    }
                }
                Err(error) if error.is_stopped() => return,
                Err(error) => {
                    // Another copy may have moved on, or part of the batch was committed.
                    self.cursor = None;
                    self.since = None;
                    let run = std::mem::take(&mut self.run);
                    run.into_iter().rev().for_each(|envelope| self.incoming.push_front(envelope));
                    attempt += 1;
                    self.consumer.stall(self.producer, self.shard, attempt, &error).await;
                }
            }
        }
    }

    /// Waits until there is something to do; false when nothing can come any more.
    async fn more(&mut self) -> bool {
        let Limits { poll, batch, .. } = self.consumer.inner.limits;
        if self.incoming.is_empty() && self.catching_up.is_none() {
            let work = match self.since {
                None => self.queue.recv().await,
                Some(since) => match tokio::time::timeout_at(since + poll, self.queue.recv()).await {
                    Ok(work) => work,
                    Err(_) => return true,
                },
            };
            let Some(work) = work else { return false };
            self.take(work).await;
        }
        while self.incoming.len() < batch as usize {
            let Ok(work) = self.queue.try_recv() else { break };
            self.take(work).await;
        }
        true
    }

    async fn take(&mut self, work: Work) {
        match work {
            Work::Delivered { subscription, delivery } => {
                self.heard = true;
                let counts = &self.consumer.inner.counts;
                counts.delivered.fetch_add(delivery.envelopes.len() as u64, Ordering::Relaxed);
                self.entered += delivery.envelopes.len() as u64;
                self.receipts.push_back((self.entered, Settled { subscription, receipt: delivery.receipt }));
                self.incoming.extend(delivery.envelopes);
            }
            Work::Head(head) => {
                if let Err(error) = self.catch_up(head).await {
                    tracing::debug!(producer = self.producer, shard = self.shard, %error, "what was not sent is read later");
                }
            }
        }
    }

    /// Reads what was not sent, if nothing was heard and nothing moved since the last look.
    async fn catch_up(&mut self, head: u64) -> Result<(), Error> {
        let heard = std::mem::take(&mut self.heard);
        let stored = self.consumer.position(self.producer, self.shard).await?;
        let stands = self.looked_at.replace(stored) == Some(stored);
        if !heard && stands && self.incoming.is_empty() && stored < head {
            tracing::warn!(
                consumer = self.consumer.inner.name,
                producer = self.producer,
                shard = self.shard,
                after = stored,
                head,
                "messages were not sent for long and are read from the log"
            );
            self.catching_up = Some(head);
        }
        Ok(())
    }

    /// Applies what there is, a batch at most.
    async fn step(&mut self) -> Result<(), Error> {
        let Limits { batch, poll, .. } = self.consumer.inner.limits;
        self.gather().await?;
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => return Ok(()),
        };
        if let Some(last) = self.run.last().map(|envelope| envelope.message.position) {
            let wants = |envelope: &Envelope| self.consumer.inner.concerns(&envelope.message.name);
            let since = *self.since.get_or_insert_with(Instant::now);
            let waits = !self.run.iter().any(wants) && self.run.len() < batch as usize && since.elapsed() < poll;
            if waits {
                // Never applied, so the content need not be held.
                self.run.iter_mut().for_each(|envelope| envelope.message.payload = Vec::new());
            } else {
                self.open().await?;
                let messages = self.run.iter().map(|envelope| envelope.message.clone()).collect();
                let mut at = Cursor { shard: self.shard, position: cursor };
                self.consumer.deliver(self.source, messages, &mut at).await?;
                self.cursor = Some(at.position);
                self.run.clear();
                self.since = None;
            }
            self.consumer.seen().insert((self.producer.to_owned(), self.shard), last);
            self.consumer.inner.steps.send_modify(|steps| *steps += 1);
        }
        self.acknowledge().await;
        Ok(())
    }

    /// Moves what was delivered into the run, as far as it follows without a hole; fills a hole.
    async fn gather(&mut self) -> Result<(), Error> {
        let batch = self.consumer.inner.limits.batch as usize;
        let mut fresh = self.cursor.is_none();
        let mut cursor = match self.cursor {
            Some(cursor) => cursor,
            None => self.consumer.position(self.producer, self.shard).await?,
        };
        self.cursor = Some(cursor);
        while self.run.len() < batch
            && let Some(next) = self.incoming.front().map(|envelope| envelope.message.position)
        {
            let last = self.run.last().map_or(cursor, |envelope| envelope.message.position);
            if next <= last {
                self.incoming.pop_front();
                self.consumer.inner.counts.duplicates.fetch_add(1, Ordering::Relaxed);
            } else if next == last + 1 {
                self.run.extend(self.incoming.pop_front());
            } else if !self.run.is_empty() {
                // What there is goes first.
                break;
            } else if !fresh {
                // Another copy may have had the shard in the meantime.
                fresh = true;
                cursor = self.consumer.position(self.producer, self.shard).await?;
                self.cursor = Some(cursor);
            } else if self.fetch(cursor, next - 1).await? == 0 {
                // Not even the first of the missing messages exists: the log does not go there, whoever says so.
                tracing::error!(
                    consumer = self.consumer.inner.name,
                    producer = self.producer,
                    shard = self.shard,
                    position = next,
                    "a message is dropped that is not in its producer's log"
                );
                self.incoming.pop_front();
            }
        }
        if self.run.is_empty()
            && let Some(head) = self.catching_up
        {
            if cursor < head && self.fetch(cursor, head).await? > 0 {
                return Ok(());
            }
            self.catching_up = None;
        }
        Ok(())
    }

    /// Reads the messages behind `cursor` up to position `last` from the producer's log, a batch at most; says how many.
    async fn fetch(&mut self, cursor: u64, last: u64) -> Result<usize, Error> {
        tracing::warn!(
            consumer = self.consumer.inner.name,
            producer = self.producer,
            shard = self.shard,
            after = cursor,
            last,
            "messages are missing and are read from the log"
        );
        let limit = u32::try_from(last - cursor).unwrap_or(u32::MAX).min(self.consumer.inner.limits.batch);
        let messages = self.source.read(self.shard, cursor, limit).await?;
        for (expected, message) in (cursor + 1..).zip(&messages) {
            if message.position != expected {
                let (service, found) = (self.producer.to_owned(), message.position);
                return Err(Error::Hole { service, shard: self.shard, expected, found });
            }
        }
        let count = messages.len();
        self.consumer.inner.counts.fetched.fetch_add(count as u64, Ordering::Relaxed);
        self.run.extend(messages.into_iter().map(|message| Envelope { message, sealed: false }));
        Ok(count)
    }

    /// Puts the opened messages in the place of those that came sealed and are wanted.
    async fn open(&mut self) -> Result<(), Error> {
        let handler = self.consumer.inner.handler.clone();
        let closed = |envelope: &Envelope| envelope.sealed && handler.wants(&envelope.message.name);
        // The run has no holes, so a stretch of it is as many positions of the log.
        let (Some(first), Some(last)) = (self.run.iter().position(closed), self.run.iter().rposition(closed)) else {
            return Ok(());
        };
        let stretch = self.run.get_mut(first..=last).unwrap_or_default();
        let Some(after) = stretch.first().map(|envelope| envelope.message.position - 1) else { return Ok(()) };
        let messages = self.source.read(self.shard, after, u32::try_from(stretch.len()).unwrap_or(u32::MAX)).await?;
        for (envelope, message) in stretch.iter_mut().zip(messages) {
            if closed(envelope) && envelope.message.position == message.position {
                *envelope = Envelope { message, sealed: false };
                self.consumer.inner.counts.opened.fetch_add(1, Ordering::Relaxed);
            }
        }
        match self.run.iter().find(|envelope| closed(envelope)) {
            None => Ok(()),
            Some(Envelope { message, .. }) => Err(Error::Missing {
                service: self.producer.to_owned(),
                stream: message.stream.clone(),
                version: message.version,
            }),
        }
    }

    /// What has left `incoming` and does not wait in the run is dealt with, and need not come again.
    async fn acknowledge(&mut self) {
        if !self.run.is_empty() {
            return;
        }
        let left = self.entered.saturating_sub(self.incoming.len() as u64);
        let mut newest = None;
        while self.receipts.front().is_some_and(|(end, _)| *end <= left) {
            newest = self.receipts.pop_front();
        }
        if let Some((_, settled)) = newest {
            // The receiver lives as long as the workers.
            let _ = self.settled.send(settled).await;
        }
    }
}

/// While there is no subscription, nothing can be acknowledged; nobody is to wait for it.
async fn discard(settlements: &mut mpsc::Receiver<Settled>) {
    while settlements.recv().await.is_some() {}
    std::future::pending().await
}
