//! A process that is stopped in the middle and goes on later, as SIGSTOP does it: whatever it asks for waits.

use std::sync::Arc;
use std::time::Duration;

use log::relays::Lease;
use tokio::sync::watch;

use crate::{BoxFuture, Broker, Envelope, Error, Message, Outbox, Source, Subscription};

/// Whether the process stands still.
#[derive(Clone)]
pub(super) struct Ice(Arc<watch::Sender<bool>>);

impl Ice {
    pub(super) fn none() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(super) fn set(&self, frozen: bool) {
        self.0.send_replace(frozen);
    }

    async fn thawed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|frozen| !frozen).await;
    }
}

/// The log of a process that can be frozen.
pub(super) struct FrozenSource(pub(super) Arc<dyn Source>, pub(super) Ice);

impl FrozenSource {
    fn outbox_of(&self) -> &dyn Outbox {
        self.0.outbox().expect("a log in this process")
    }
}

impl Source for FrozenSource {
    fn service(&self) -> &str {
        self.0.service()
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<u64>, Error>> {
        self.0.heads()
    }

    fn read(&self, shard: u32, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<Message>, Error>> {
        self.0.read(shard, after, limit)
    }

    fn read_stream<'a>(&'a self, stream: &'a str, from: u64, limit: u32) -> BoxFuture<'a, Result<Vec<Message>, Error>> {
        self.0.read_stream(stream, from, limit)
    }

    fn outbox(&self) -> Option<&dyn Outbox> {
        Some(self)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed()
    }
}

impl Outbox for FrozenSource {
    fn hold<'a>(&'a self, holder: &'a str, length: Duration) -> BoxFuture<'a, Result<Vec<Lease>, Error>> {
        Box::pin(async move {
            self.1.thawed().await;
            self.outbox_of().hold(holder, length).await
        })
    }

    fn read(&self, shard: u32, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<Envelope>, Error>> {
        Box::pin(async move {
            self.1.thawed().await;
            self.outbox_of().read(shard, after, limit).await
        })
    }

    fn advance(&self, lease: Lease, position: u64) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move {
            self.1.thawed().await;
            self.outbox_of().advance(lease, position).await
        })
    }

    fn release<'a>(&'a self, holder: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        self.outbox_of().release(holder)
    }
}

/// The broker as such a process sees it.
pub(super) struct FrozenBroker {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) ice: Ice,
    /// Set when it is about to publish something.
    pub(super) publishes: watch::Sender<bool>,
}

impl Broker for FrozenBroker {
    fn prepare<'a>(&'a self, producer: &'a str, shards: u32) -> BoxFuture<'a, Result<(), Error>> {
        self.broker.prepare(producer, shards)
    }

    fn publish<'a>(&'a self, envelopes: &'a [Envelope]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.publishes.send_replace(true);
            self.ice.thawed().await;
            self.broker.publish(envelopes).await
        })
    }

    fn subscribe<'a>(
        &'a self,
        consumer: &'a str,
        producer: &'a str,
        shards: u32,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>> {
        self.broker.subscribe(consumer, producer, shards)
    }
}
