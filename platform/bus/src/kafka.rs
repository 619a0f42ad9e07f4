//! Kafka as the broker: one topic a producer, one partition a shard, one group a consumer and producer.
//!
//! Which copy of a consumer has which partition is decided by Kafka's own group protocol. The producer is idempotent and
//! waits for all replicas in sync; offsets are committed when the consumer says so, never by themselves. No transactions:
//! effects are in databases, and those have inboxes.

mod subscription;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use crate::{BoxFuture, Broker, Envelope, Error, Subscription, cloud_events};

const KAFKA: &str = "Kafka";

/// How the Kafka binding of CloudEvents begins the header of an attribute.
const PREFIX: &str = "ce_";

/// How long one request about topics may take.
const ASKING: Duration = Duration::from_secs(10);

/// Where Kafka is and how its topics are made.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port,...` of some of its brokers.
    pub servers: String,
    /// What the names of topics and groups begin with.
    pub prefix: String,
    /// Copies of each partition; the cluster's own default if `None`. Checked for topics that are there.
    pub replication: Option<u16>,
    /// How long messages are kept. The truth is in the producers' logs: who was away for longer reads on from those.
    pub retention: Duration,
    /// After how long without a word the group takes a member for dead.
    pub session: Duration,
    /// How long a message may wait for its confirmation.
    pub confirmation: Duration,
}

impl Config {
    /// From `host:port,...` or `host:port,.../PREFIX`, as a fleet's map has it.
    pub fn at(address: &str) -> Self {
        let (servers, prefix) = address.split_once('/').unwrap_or((address, ""));
        let config = Self::new(servers);
        if prefix.is_empty() { config } else { Self { prefix: prefix.to_owned(), ..config } }
    }

    /// With topics called `stoa.NAME`, kept for a week.
    pub fn new(servers: impl Into<String>) -> Self {
        Self {
            servers: servers.into(),
            prefix: "stoa".to_owned(),
            replication: None,
            retention: Duration::from_secs(7 * 24 * 3600),
            session: Duration::from_secs(10),
            confirmation: Duration::from_secs(10),
        }
    }
}

/// A connection to Kafka.
pub struct Kafka {
    config: Config,
    producer: Mutex<Option<FutureProducer>>,
}

impl Kafka {
    /// Connects when something is asked of it.
    pub fn new(config: Config) -> Self {
        Self { config, producer: Mutex::new(None) }
    }

    fn topic(&self, producer: &str) -> String {
        format!("{}.{producer}", self.config.prefix)
    }

    /// What all clients have in common.
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.config.servers)
            .set("client.id", &self.config.prefix)
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false");
        client
    }

    fn producer(&self) -> Result<FutureProducer, Error> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        let made: FutureProducer = self
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.timeout.ms", self.config.confirmation.as_millis().to_string())
            .set("queue.buffering.max.messages", "100000")
            .set("linger.ms", "0")
            .create()
            .map_err(|error| failed("make a producer", error))?;
        *producer = Some(made.clone());
        Ok(made)
    }

    /// A producer that has met a fatal error sends nothing more; the next one begins anew.
    fn forget_if_dead(&self, used: &FutureProducer) {
        if used.client().fatal_error().is_some() {
            *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Makes a topic if it is not there.
    async fn make(&self, admin: &AdminClient<DefaultClientContext>, topic: &str, shards: u32) -> Result<(), Error> {
        let doing = || format!("make the topic {topic}");
        let replication = self.config.replication.map_or(-1, i32::from);
        let retention = self.config.retention.as_millis().to_string();
        let new = NewTopic::new(topic, i32::try_from(shards).unwrap_or(i32::MAX), TopicReplication::Fixed(replication))
            .set("cleanup.policy", "delete")
            .set("unclean.leader.election.enable", "false")
            .set("retention.ms", &retention);
        let made = admin.create_topics([&new], &options()).await.map_err(|error| failed(doing(), error))?;
        match made.into_iter().next() {
            Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(failed(doing(), KafkaError::AdminOp(code))),
            None => Err(failed(doing(), KafkaError::AdminOp(RDKafkaErrorCode::Unknown))),
        }
    }

    /// Whether what the topic is set to keeps what it is given.
    async fn check(&self, admin: &AdminClient<DefaultClientContext>, topic: &str) -> Result<(), Error> {
        let doing = || format!("look at the topic {topic}");
        let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await;
        let described = described.map_err(|error| failed(doing(), error))?.into_iter().next();
        let described = match described {
            Some(Ok(described)) => described,
            Some(Err(code)) => return Err(failed(doing(), KafkaError::AdminOp(code))),
            None => return Err(failed(doing(), KafkaError::AdminOp(RDKafkaErrorCode::Unknown))),
        };
        // Compaction would keep the last event of a stream only; an unclean leader forgets what was confirmed.
        for (setting, wanted) in [("cleanup.policy", "delete"), ("unclean.leader.election.enable", "false")] {
            let found = described.get(setting).and_then(|entry| entry.value.clone()).unwrap_or_default();
            if found != wanted {
                return Err(differs(format!("{setting} of {topic}"), found, wanted));
            }
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASKING)).operation_timeout(Some(ASKING))
}

fn failed(doing: impl Into<String>, source: KafkaError) -> Error {
    Error::Broker { broker: KAFKA, doing: doing.into(), source: source.into() }
}

fn differs(what: String, found: impl ToString, wanted: impl ToString) -> Error {
    Error::BrokerDiffers { broker: KAFKA, what, found: found.to_string(), wanted: wanted.to_string() }
}

/// The number of replicas of each partition of a topic; the client waits for the broker off the runtime's workers.
async fn replicas<T>(topic: &str, client: Arc<T>) -> Result<Vec<usize>, Error>
where
    T: subscription::Asks + Send + Sync + 'static,
{
    let name = topic.to_owned();
    let asked = tokio::task::spawn_blocking(move || client.replicas(&name)).await;
    asked.unwrap_or(Err(KafkaError::Canceled)).map_err(|error| failed(format!("look at the topic {topic}"), error))
}

/// As many partitions as shards, for ever: with another number a stream would go on in another partition.
fn check_count(topic: &str, found: usize, shards: u32) -> Result<(), Error> {
    if found == shards as usize {
        return Ok(());
    }
    Err(differs(format!("the number of partitions of {topic}"), found, shards))
}

impl Broker for Kafka {
    fn prepare<'a>(&'a self, producer: &'a str, shards: u32) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let topic = self.topic(producer);
            let admin: AdminClient<DefaultClientContext> =
                self.client().create().map_err(|error| failed("make an administrator", error))?;
            let admin = Arc::new(admin);
            self.make(&admin, &topic, shards).await?;
            let found = replicas(&topic, admin.clone()).await?;
            check_count(&topic, found.len(), shards)?;
            let wanted = self.config.replication.map_or(1, usize::from);
            if let Some(fewer) = found.iter().find(|replicas| **replicas < wanted) {
                return Err(differs(format!("the number of replicas of {topic}"), fewer, wanted));
            }
            let checked = self.check(&admin, &topic).await;
            // Dropping it waits for its thread.
            tokio::task::spawn_blocking(move || drop(admin));
            checked
        })
    }

    fn publish<'a>(&'a self, envelopes: &'a [Envelope]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let Some(first) = envelopes.first() else { return Ok(()) };
            let topic = self.topic(&first.message.service);
            let producer = self.producer()?;
            let mut confirmations = Vec::with_capacity(envelopes.len());
            let mut outcome = Ok(());
            for envelope in envelopes {
                let headers = headers(envelope);
                let record = FutureRecord::to(&topic)
                    .partition(i32::try_from(envelope.message.shard).unwrap_or(i32::MAX))
                    .key(&envelope.message.stream)
                    .payload(&envelope.message.payload)
                    .headers(headers);
                match producer.send_result(record) {
                    Ok(confirmation) => confirmations.push(confirmation),
                    Err((error, _)) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            // Each is waited for, also after a failure, so that nothing of this batch is on its way when the next begins.
            for confirmation in confirmations {
                let confirmed = match confirmation.await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err((error, _))) => Err(error),
                    Err(_) => Err(KafkaError::Canceled),
                };
                outcome = outcome.and(confirmed);
            }
            outcome.map_err(|error| {
                self.forget_if_dead(&producer);
                failed(format!("publish to {topic}"), error)
            })
        })
    }

    fn subscribe<'a>(
        &'a self,
        consumer: &'a str,
        producer: &'a str,
        shards: u32,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>> {
        Box::pin(async move {
            let topic = self.topic(producer);
            let mut client = self.client();
            client
                .set("group.id", format!("{}.{consumer}.{producer}", self.config.prefix))
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", self.config.session.as_millis().to_string())
                .set("heartbeat.interval.ms", (self.config.session / 4).as_millis().to_string())
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                .set("auto.offset.reset", "earliest")
                .set("queued.max.messages.kbytes", "4096");
            let member = subscription::Member::new(&client, producer, &topic)?;
            check_count(&topic, replicas(&topic, member.consumer()?).await?.len(), shards)?;
            member.join()?;
            Ok(Box::new(member) as Box<dyn Subscription>)
        })
    }
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Kafka").field("config", &self.config).finish_non_exhaustive()
    }
}

fn headers(envelope: &Envelope) -> OwnedHeaders {
    let content_type = Header { key: "content-type", value: Some(cloud_events::CONTENT_TYPE) };
    let headers = OwnedHeaders::new_with_capacity(20).insert(content_type);
    cloud_events::attributes(envelope).iter().fold(headers, |headers, (name, value)| {
        headers.insert(Header { key: &format!("{PREFIX}{name}"), value: Some(value) })
    })
}
