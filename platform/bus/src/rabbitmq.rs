//! RabbitMQ between the services.
//!
//! A producer has a direct exchange, `PREFIX.PRODUCER`; the routing key is the number of the shard. A group of consumers has
//! at most [`QUEUES`] quorum queues a producer, `PREFIX.PRODUCER.CONSUMER.N`; each shard is bound to one of them, always the
//! same, and each queue has a single active consumer, so the messages of a shard come to one member at a time, in order.
//!
//! A message is published when a quorum queue has it on disk (publisher confirms) and there was such a queue at all
//! (`mandatory`: what no queue takes is returned, and is an error). So a shard whose queue is missing holds its relay,
//! and nothing is lost: the log keeps what is not published. Only a producer that no group has ever asked for publishes to
//! nobody.
//!
//! Connections are made when they are first needed and again when they broke, after a pause that doubles. There are two: the
//! broker stops reading from who publishes while it is short of memory or disk, and acknowledgements must still arrive then.

mod fault;
mod link;
mod subscription;
mod topology;
mod wanted;
mod wire;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::uri::AMQPUri;
use lapin::{Channel, Confirmation};

use self::fault::{Fault, KIND};
use self::link::{Link, Open, within};
use self::subscription::Subscribed;
use self::topology::Names;
use self::wanted::Wanted;
use crate::{BoxFuture, Broker, Envelope, Error, Subscription};

/// Queues of one group of consumers for one producer, at most. More queues are more flushes a second; fewer are fewer
/// members that can work at the same time.
pub const QUEUES: u32 = 4;

/// From the last message of a batch sent until the broker has confirmed all.
const CONFIRMED: Duration = Duration::from_secs(10);
/// How long a publication waits for a broker that takes nothing before it says so.
const UNBLOCKED: Duration = Duration::from_secs(2);

/// How long a producer is held that no group has asked for.
const WANTED: Duration = Duration::from_secs(30);

/// A broker, or several that are one cluster. Nothing is connected until something is asked of it.
pub struct RabbitMq {
    names: Names,
    publishing: Link,
    consuming: Link,
    wanted: Wanted,
    /// The channels that wait for the next batch of their shard: one whose batch did not end well is not among them, so what
    /// is left of that batch cannot be taken for an answer to the next.
    idle: Mutex<HashMap<(String, u32), Channel>>,
}

impl RabbitMq {
    /// The broker at `amqp://user:password@host:port/vhost`. Everything in it that is ours has a name that begins with
    /// `prefix`.
    pub fn new(url: &str, prefix: &str) -> Result<Self, Error> {
        let mut uri: AMQPUri = url.parse().map_err(|reason: String| {
            // The address may have a password in it: it is not repeated.
            fault::failed("read the broker's address", Fault::Address(reason))
        })?;
        // A broker that is cut off without a word is noticed after two of them.
        uri.query.heartbeat.get_or_insert(10);
        Ok(Self {
            names: Names::new(prefix),
            publishing: Link::new("publishing", uri.clone()),
            consuming: Link::new("consuming", uri),
            wanted: Wanted::new(WANTED),
            idle: Mutex::new(HashMap::new()),
        })
    }

    /// With another time for which a producer is held that no group has asked for, rather than half a minute.
    #[must_use]
    pub fn wanted_within(self, patience: Duration) -> Self {
        Self { wanted: Wanted::new(patience), ..self }
    }

    /// Closes its connections, so that the broker need not find out.
    pub async fn close(&self) {
        self.idle().clear();
        self.publishing.close().await;
        self.consuming.close().await;
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u32), Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn channel(&self, open: &Open, producer: &str, shard: u32) -> Result<Channel, Fault> {
        let idle = self.idle().remove(&(producer.to_owned(), shard));
        if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        within("open a channel", async {
            let channel = open.connection().create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        })
        .await
    }

    async fn publish_all(&self, producer: &str, shard: u32, envelopes: &[Envelope]) -> Result<(), Fault> {
        // Asked on the connection that is never blocked.
        if self.wanted.by_nobody(&self.consuming, &self.names, producer).await? {
            return Ok(());
        }
        match self.send_all(producer, shard, envelopes).await {
            Err(Fault::Unroutable) => self.wanted.untaken(&self.consuming, &self.names, producer).await,
            outcome => outcome,
        }
    }

    async fn send_all(&self, producer: &str, shard: u32, envelopes: &[Envelope]) -> Result<(), Fault> {
        let open = self.publishing.open().await?;
        open.unblocked(UNBLOCKED).await?;
        let channel = self.channel(&open, producer, shard).await?;
        let exchange = self.names.exchange(producer);
        let outcome = tokio::select! {
            sent = send(&channel, &exchange, shard, envelopes) => sent,
            reason = open.blocked() => Err(Fault::Blocked(reason)),
            () = tokio::time::sleep(CONFIRMED) => Err(Fault::Silent("confirm messages")),
        };
        match &outcome {
            Ok(()) => drop(self.idle().insert((producer.to_owned(), shard), channel)),
            // Whoever does not answer is asked again on a new connection.
            Err(Fault::Silent(_)) => self.publishing.discard(&open).await,
            Err(_) => {}
        }
        outcome
    }

    async fn join(&self, consumer: &str, producer: &str, shards: u32) -> Result<Subscribed, Fault> {
        let open = self.consuming.open().await?;
        let queues = shards.clamp(1, QUEUES);
        // Before the queues: a message that finds none of them is held for their sake.
        self.names.want(&open, producer).await?;
        self.names.declare(&open, producer).await?;
        let feeds = (0..queues).map(async |queue| {
            let name = self.names.queue(producer, consumer, queue);
            let bound: Vec<u32> = (0..shards).filter(|shard| shard % queues == queue).collect();
            let wanted = topology::Queue { name: &name, exchange: &self.names.exchange(producer), shards: &bound };
            wanted.declare(&open, &self.names).await?;
            if let Err(Fault::Silent(_)) = self.prove(&name).await {
                tracing::warn!(queue = name, "a queue takes nothing: it is made anew, what was in it is fetched");
                wanted.replace(&open, &self.names).await?;
                self.prove(&name).await?;
            }
            subscription::Feed::begin(&open, &name).await
        });
        let feeds = try_join_all(feeds).await?;
        Ok(Subscribed::new(open, producer, shards, feeds))
    }

    /// Puts a mark into a queue, which its consumer passes over. A quorum queue that was declared in the moment in which a
    /// broker died may come back without a leader: it takes nothing, confirms nothing, and holds up whoever publishes to its
    /// exchange. A broker that is short of memory or disk takes nothing either; that passes.
    async fn prove(&self, queue: &str) -> Result<(), Fault> {
        let open = self.publishing.open().await?;
        if open.is_blocked().is_some() {
            return Ok(());
        }
        let channel = within("open a channel", async {
            let channel = open.connection().create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        })
        .await?;
        let confirmed = async {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let sent = channel.basic_publish("".into(), queue.into(), options, &[], wire::mark()).await?;
            settle(sent.await?)
        };
        tokio::select! {
            confirmed = confirmed => confirmed,
            _ = open.blocked() => Ok(()),
            () = tokio::time::sleep(CONFIRMED) => Err(Fault::Silent("confirm messages")),
        }
    }
}

/// Publishes a batch and waits until the broker has answered for every message of it.
async fn send(channel: &Channel, exchange: &str, shard: u32, envelopes: &[Envelope]) -> Result<(), Fault> {
    #[cfg(feature = "planted-bugs")]
    let mandatory = !crate::planted::mandatory_is_off();
    #[cfg(not(feature = "planted-bugs"))]
    let mandatory = true;
    let options = BasicPublishOptions { mandatory, ..Default::default() };
    let key = shard.to_string();
    let mut sent = Vec::with_capacity(envelopes.len());
    for envelope in envelopes {
        let (properties, data) = (wire::properties(envelope), &envelope.message.payload);
        sent.push(channel.basic_publish(exchange.into(), key.as_str().into(), options, data, properties).await?);
    }
    for confirm in sent {
        settle(confirm.await?)?;
    }
    Ok(())
}

fn settle(confirmation: Confirmation) -> Result<(), Fault> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        // The broker confirms what it returned as well: it has dealt with it.
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Err(Fault::Unroutable),
        Confirmation::Nack(None) | Confirmation::NotRequested => Err(Fault::Refused),
    }
}

impl Broker for RabbitMq {
    fn prepare<'a>(&'a self, producer: &'a str, _shards: u32) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let declared = async {
                // Not on the connection that publishes, which may be blocked.
                let open = self.consuming.open().await?;
                self.names.declare(&open, producer).await
            };
            declared.await.map_err(|fault| fault::failed(format!("declare the exchange of {producer}"), fault))
        })
    }

    fn publish<'a>(&'a self, envelopes: &'a [Envelope]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Some(first) = envelopes.first() else {
                return Ok(());
            };
            let (producer, shard) = (&first.message.service, first.message.shard);
            let published = self.publish_all(producer, shard, envelopes).await;
            published.map_err(|fault| fault::failed(format!("publish shard {shard} of {producer}"), fault))
        })
    }

    fn subscribe<'a>(
        &'a self,
        consumer: &'a str,
        producer: &'a str,
        shards: u32,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>> {
        Box::pin(async move {
            let joined = self.join(consumer, producer, shards).await;
            let joined =
                joined.map_err(|fault| fault::failed(format!("give {consumer} the events of {producer}"), fault))?;
            Ok(Box::new(joined) as Box<dyn Subscription>)
        })
    }
}

impl std::fmt::Debug for RabbitMq {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{KIND}({:?})", self.names)
    }
}
