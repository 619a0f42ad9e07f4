//! A message broker, as the relay of a producer and the feed of a consumer see it.
//!
//! A broker carries messages, it does not keep the truth: what it loses, delays or repeats is found by position and read
//! from the producer's log. So an adapter promises little, and each promise is one that brokers make themselves:
//! per-shard order, at least once, and members of a group that divide the shards among them.

use crate::{BoxFuture, Error, Message};

/// Messages of one shard that may lie with a consumer unacknowledged; no more of the shard are delivered until it
/// acknowledges some. Larger than any batch, so that a consumer can always fill one.
pub const WINDOW: usize = 1024;

/// Messages in one delivery at most.
pub const DELIVERY: usize = 256;

/// A message on its way through a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The message; its payload is what the producer's log stores.
    pub message: Message,
    /// Whether the payload has personal fields that are still sealed. A broker keeps what it is given, out of reach of
    /// an erasure; so they stay sealed there, and who wants such an event reads it, opened, from the producer.
    pub sealed: bool,
}

/// A connection to a broker.
pub trait Broker: Send + Sync + 'static {
    /// Makes what a producer's shards need, or checks that what is there is as wanted (counts, durability): the number of
    /// shards never changes. Idempotent; several copies may do it at once.
    fn prepare<'a>(&'a self, producer: &'a str, shards: u32) -> BoxFuture<'a, Result<(), Error>>;

    /// Publishes messages of one shard of one producer, in order. Ok only when the broker holds all of them durably and
    /// some queue or partition has taken each; after an error, and when the future is dropped, any of them may have been
    /// published. A broker that does not answer is an error within a bound.
    fn publish<'a>(&'a self, envelopes: &'a [Envelope]) -> BoxFuture<'a, Result<(), Error>>;

    /// Joins the group of `consumer` for the shards of `producer`. A group that is new begins with the oldest message
    /// the broker has, or with the next one; either is right.
    fn subscribe<'a>(
        &'a self,
        consumer: &'a str,
        producer: &'a str,
        shards: u32,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>>;
}

/// Membership in a group; dropping it leaves.
///
/// Which member has which shard is the broker's decision and may change at any time; a shard that comes (back) to a
/// member begins with the first unacknowledged message.
pub trait Subscription: Send {
    /// The next messages, waiting for the first. Cancel-safe. After an error the subscription is used no more.
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, Error>>;

    /// The effects of everything up to and with this delivery of its shard are committed: none of it need come again.
    /// A receipt from before a rebalance is taken and ignored.
    fn acknowledge<'a>(&'a mut self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), Error>>;
}

/// Messages of one shard in the order of publication, perhaps again.
#[derive(Debug)]
pub struct Delivery {
    /// The shard.
    pub shard: u32,
    /// At most [`DELIVERY`]. What came in and was no message of this shard is left out (see
    /// [`crate::cloud_events::read`]), so this may be empty; the hole is filled from the producer's log.
    pub envelopes: Vec<Envelope>,
    /// To acknowledge it with, and everything before it.
    pub receipt: Receipt,
}

/// What acknowledges a delivery; meaningful to the subscription that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The shard.
    pub shard: u32,
    /// Which connection or assignment `mark` belongs to.
    pub session: u64,
    /// The broker's own number of the last message: an offset, a delivery tag.
    pub mark: u64,
}
