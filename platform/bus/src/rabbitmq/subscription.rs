//! A member of a group: what comes from its queues, by shard, and what is acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use lapin::message::Delivery as Raw;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

use super::fault::{Fault, failed};
use super::link::{Open, within};
use super::wire;
use crate::{BoxFuture, DELIVERY, Delivery, Envelope, Error, Receipt, Subscription, WINDOW};

/// Acknowledgements out of turn, in one queue, before they are sent one by one: as long as one shard of a queue stands still,
/// "everything up to here" is not true of the others.
const OUT_OF_TURN: usize = 256;

/// A queue and the channel that reads it.
pub(super) struct Feed {
    channel: Channel,
    /// There until it is dropped.
    consumer: Option<Consumer>,
    unacknowledged: Unacknowledged,
}

impl Feed {
    pub(super) async fn begin(open: &Open, queue: &str) -> Result<Self, Fault> {
        // Of the queue, since all of it may be one shard's. A shard that stands still for so long holds up the others of its
        // queue, until their worker reads the log, as it does when nothing comes.
        let window = u16::try_from(WINDOW).unwrap_or(u16::MAX);
        let (channel, consumer) = within("consume a queue", async {
            let channel = open.connection().create_channel().await?;
            channel.basic_qos(window, BasicQosOptions::default()).await?;
            let (tag, options) = ("".into(), BasicConsumeOptions::default());
            let consumer = channel.basic_consume(queue.into(), tag, options, FieldTable::default()).await?;
            Ok((channel, consumer))
        })
        .await?;
        Ok(Self { channel, consumer: Some(consumer), unacknowledged: Unacknowledged::default() })
    }
}

impl Drop for Feed {
    /// Leaves the queue by closing the channel, in one step. A consumer that is cancelled first makes way for the next one,
    /// who would be given what follows before what was given here and not acknowledged.
    fn drop(&mut self) {
        let (channel, consumer) = (self.channel.clone(), self.consumer.take());
        // Without a runtime the connection is on its end too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A channel that is closed already, or never answers, is left all the same.
                let _ = within("close a channel", channel.close(200, "bye".into())).await;
                drop(consumer);
            });
        }
    }
}

pub(super) struct Subscribed {
    /// Dropped last: what the feeds say on leaving goes through it.
    feeds: Vec<Feed>,
    session: u64,
    producer: String,
    shards: u32,
    /// What came and was not given out yet; shards in the order in which they came.
    waiting: BTreeMap<u32, VecDeque<(u64, Envelope)>>,
    turns: VecDeque<u32>,
    _open: Arc<Open>,
}

impl Subscribed {
    pub(super) fn new(open: Arc<Open>, producer: &str, shards: u32, feeds: Vec<Feed>) -> Self {
        static SESSIONS: AtomicU64 = AtomicU64::new(0);
        Self {
            feeds,
            session: SESSIONS.fetch_add(1, Ordering::Relaxed),
            producer: producer.to_owned(),
            shards,
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            _open: open,
        }
    }

    /// The feed of a shard: as the queues are bound.
    fn feed_of(&self, shard: u32) -> usize {
        let feeds = u32::try_from(self.feeds.len()).unwrap_or(u32::MAX);
        shard.checked_rem(feeds).unwrap_or(0) as usize
    }

    fn take_waiting(&mut self) -> Option<Delivery> {
        let shard = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&shard)?;
        let taken: Vec<(u64, Envelope)> = waiting.drain(..waiting.len().min(DELIVERY)).collect();
        if waiting.is_empty() {
            self.waiting.remove(&shard);
        } else {
            self.turns.push_back(shard);
        }
        let mark = taken.last()?.0;
        let envelopes = taken.into_iter().map(|(_, envelope)| envelope).collect();
        Some(Delivery { shard, envelopes, receipt: Receipt { shard, session: self.session, mark } })
    }

    /// Everything that has come by now; at least something.
    fn poll_feeds(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut came = false;
        for at in 0..self.feeds.len() {
            while let Some(consumer) = self.feeds.get_mut(at).and_then(|feed| feed.consumer.as_mut()) {
                match Pin::new(consumer).poll_next(context) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(raw))) => self.take_in(at, raw),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                    Poll::Ready(None) => return Poll::Ready(Err(Fault::Cancelled)),
                }
                came = true;
            }
        }
        if came { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn take_in(&mut self, at: usize, raw: Raw) {
        let shard = raw.routing_key.as_str().parse().ok();
        let shard = shard.filter(|shard| *shard < self.shards && self.feed_of(*shard) == at);
        let envelope = match shard {
            Some(shard) => match wire::read(&self.producer, &raw) {
                Ok(envelope) if envelope.message.shard == shard => Ok((shard, envelope)),
                Ok(_) => Err("it is of another shard".to_owned()),
                Err(malformed) => Err(malformed.to_string()),
            },
            None => Err("it is of no shard of this queue".to_owned()),
        };
        let Some(feed) = self.feeds.get_mut(at) else {
            return;
        };
        match envelope {
            Ok((shard, envelope)) => {
                feed.unacknowledged.came(raw.delivery_tag, shard);
                let waiting = self.waiting.entry(shard).or_default();
                if waiting.is_empty() {
                    self.turns.push_back(shard);
                }
                waiting.push_back((raw.delivery_tag, envelope));
            }
            Err(reason) => {
                if !wire::is_mark(&raw) {
                    tracing::warn!(
                        producer = self.producer,
                        reason,
                        "something in a queue is no message and is left out"
                    );
                }
                feed.unacknowledged.left_out(raw.delivery_tag);
            }
        }
    }

    /// Acknowledges what can be; what was left out goes along.
    async fn settle(&mut self, at: usize) -> Result<(), Fault> {
        let Some(Feed { channel, unacknowledged, .. }) = self.feeds.get_mut(at) else {
            return Ok(());
        };
        while let Some((tag, multiple)) = unacknowledged.next() {
            channel.basic_ack(tag, BasicAckOptions { multiple }).await?;
        }
        Ok(())
    }

    async fn next_delivery(&mut self) -> Result<Delivery, Fault> {
        loop {
            if let Some(delivery) = self.take_waiting() {
                return Ok(delivery);
            }
            std::future::poll_fn(|context| self.poll_feeds(context)).await?;
            for at in 0..self.feeds.len() {
                self.settle(at).await?;
            }
        }
    }
}

impl Subscription for Subscribed {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, Error>> {
        Box::pin(async move {
            let next = self.next_delivery().await;
            next.map_err(|fault| failed(format!("deliver the events of {}", self.producer), fault))
        })
    }

    fn acknowledge<'a>(&'a mut self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if receipt.session != self.session {
                return Ok(());
            }
            let at = self.feed_of(receipt.shard);
            if let Some(feed) = self.feeds.get_mut(at) {
                feed.unacknowledged.done(receipt.shard, receipt.mark);
            }
            let settled = self.settle(at).await;
            settled.map_err(|fault| failed(format!("acknowledge events of {}", self.producer), fault))
        })
    }
}

/// What of one channel is not acknowledged, by delivery tag. Several shards share a queue, and each is dealt with at its own
/// pace.
#[derive(Default)]
struct Unacknowledged {
    /// The shard, until it is dealt with.
    tags: BTreeMap<u64, Option<u32>>,
    out_of_turn: usize,
}

impl Unacknowledged {
    fn came(&mut self, tag: u64, shard: u32) {
        self.tags.insert(tag, Some(shard));
    }

    fn left_out(&mut self, tag: u64) {
        self.tags.insert(tag, None);
        self.out_of_turn += 1;
    }

    fn done(&mut self, shard: u32, mark: u64) {
        for (_, of) in self.tags.range_mut(..=mark).filter(|(_, of)| **of == Some(shard)) {
            *of = None;
            self.out_of_turn += 1;
        }
    }

    /// The next tag to acknowledge, and whether everything before it is meant as well.
    fn next(&mut self) -> Option<(u64, bool)> {
        let mut last = None;
        while let Some(entry) = self.tags.first_entry().filter(|entry| entry.get().is_none()) {
            last = Some(entry.remove_entry().0);
            self.out_of_turn -= 1;
        }
        if let Some(last) = last {
            return Some((last, true));
        }
        if self.out_of_turn < OUT_OF_TURN {
            return None;
        }
        let tag = self.tags.iter().find(|(_, of)| of.is_none()).map(|(tag, _)| *tag)?;
        self.tags.remove(&tag);
        self.out_of_turn -= 1;
        Some((tag, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(unacknowledged: &mut Unacknowledged) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| unacknowledged.next()).collect()
    }

    #[test]
    fn everything_up_to_a_tag_is_acknowledged_only_when_all_its_shards_are_dealt_with() {
        let mut unacknowledged = Unacknowledged::default();
        for (tag, shard) in [(1, 0), (2, 4), (3, 0), (4, 4)] {
            unacknowledged.came(tag, shard);
        }
        unacknowledged.left_out(5);
        unacknowledged.done(4, 4);
        assert_eq!(settled(&mut unacknowledged), []);
        unacknowledged.done(0, 1);
        assert_eq!(settled(&mut unacknowledged), [(2, true)]);
        unacknowledged.done(0, 3);
        assert_eq!(settled(&mut unacknowledged), [(5, true)]);
        assert_eq!(unacknowledged.out_of_turn, 0);
    }

    #[test]
    fn a_shard_that_stands_still_does_not_use_up_the_window_of_the_others() {
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.came(1, 0);
        for tag in 2..2 + OUT_OF_TURN as u64 {
            unacknowledged.came(tag, 4);
        }
        unacknowledged.done(4, 100);
        assert_eq!(settled(&mut unacknowledged), []);
        unacknowledged.done(4, u64::MAX);
        assert_eq!(settled(&mut unacknowledged), [(2, false)]);
        unacknowledged.done(0, 1);
        assert_eq!(settled(&mut unacknowledged), [(1 + OUT_OF_TURN as u64, true)]);
    }
}
