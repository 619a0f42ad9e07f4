//! A member of a consumer group.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::time::Instant;

use super::{ASKING, KAFKA, PREFIX, failed};
use crate::{BoxFuture, DELIVERY, Delivery, Envelope, Error, Receipt, Subscription, WINDOW, cloud_events};

/// How long acknowledgements are gathered into one commit of offsets. What was not committed in a crash comes again.
const COMMIT: Duration = Duration::from_millis(100);

/// How long the end of a process waits for its members to leave their groups.
const LEAVE: Duration = Duration::from_secs(2);

/// A client that can be asked about topics.
pub(super) trait Asks {
    /// The number of replicas of each partition of a topic; blocks.
    fn replicas(&self, topic: &str) -> KafkaResult<Vec<usize>>;
}

impl Asks for AdminClient<DefaultClientContext> {
    fn replicas(&self, topic: &str) -> KafkaResult<Vec<usize>> {
        replicas(self.inner(), topic)
    }
}

impl Asks for StreamConsumer<Group> {
    fn replicas(&self, topic: &str) -> KafkaResult<Vec<usize>> {
        replicas(self.client(), topic)
    }
}

fn replicas<C: ClientContext>(client: &Client<C>, topic: &str) -> KafkaResult<Vec<usize>> {
    let metadata = client.fetch_metadata(Some(topic), ASKING)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition))?;
    if let Some(error) = found.error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    Ok(found.partitions().iter().map(|partition| partition.replicas().len()).collect())
}

/// What the group tells this member, while it is polled.
pub(super) struct Group {
    topic: String,
    inner: Mutex<Assigned>,
}

#[derive(Default)]
struct Assigned {
    /// Raised each time a partition comes or goes: what was received before is void.
    sessions: BTreeMap<i32, u64>,
    /// Offsets to commit: the next one wanted of each partition.
    done: BTreeMap<i32, i64>,
}

impl Group {
    fn assigned(&self) -> MutexGuard<'_, Assigned> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, partition: i32) -> u64 {
        self.assigned().sessions.get(&partition).copied().unwrap_or(0)
    }

    /// Commits what is done and not committed.
    fn commit(&self, commit: impl FnOnce(&TopicPartitionList) -> KafkaResult<()>) {
        let done = std::mem::take(&mut self.assigned().done);
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in done {
            let added = offsets.add_partition_offset(&self.topic, partition, Offset::Offset(next));
            if let Err(error) = added {
                tracing::warn!(topic = self.topic, partition, next, %error, "an offset cannot be committed");
            }
        }
        if offsets.count() > 0
            && let Err(error) = commit(&offsets)
        {
            // Then it comes again, and is a duplicate.
            tracing::debug!(topic = self.topic, %error, "offsets are not committed");
        }
    }
}

impl ClientContext for Group {
    fn error(&self, error: KafkaError, reason: &str) {
        // The library tries again by itself; what lasts is told by whoever waits for it.
        tracing::debug!(topic = self.topic, %error, reason, "Kafka reports");
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = match rebalance {
            Rebalance::Assign(partitions) => partitions,
            Rebalance::Revoke(partitions) => {
                // Who gets them next begins there.
                self.commit(|offsets| consumer.commit(offsets, CommitMode::Async));
                partitions
            }
            Rebalance::Error(_) => return,
        };
        let mut assigned = self.assigned();
        for partition in partitions.elements_for_topic(&self.topic) {
            *assigned.sessions.entry(partition.partition()).or_default() += 1;
        }
    }
}

/// One partition, as far as this member has it.
#[derive(Default)]
struct Partition {
    session: u64,
    /// Received and not delivered, each with its offset; nothing where it was no message.
    buffer: VecDeque<(i64, Option<Envelope>)>,
    /// The last offset and the length of each delivery that was not acknowledged.
    unacknowledged: VecDeque<(i64, usize)>,
    paused: bool,
}

impl Partition {
    fn room(&self) -> usize {
        WINDOW.saturating_sub(self.unacknowledged.iter().map(|(_, count)| count).sum())
    }
}

/// A member of a group; leaves it when it is dropped.
pub(super) struct Member {
    producer: String,
    topic: String,
    /// There until it leaves.
    consumer: Option<Arc<StreamConsumer<Group>>>,
    partitions: BTreeMap<i32, Partition>,
    /// Which partition was delivered from last, so that a busy one keeps no other waiting.
    last: i32,
    commit_at: Option<Instant>,
}

impl Member {
    pub(super) fn new(client: &ClientConfig, producer: &str, topic: &str) -> Result<Self, Error> {
        let group = Group { topic: topic.to_owned(), inner: Mutex::default() };
        let consumer = client.create_with_context(group).map_err(|error| failed("make a consumer", error))?;
        Ok(Self {
            producer: producer.to_owned(),
            topic: topic.to_owned(),
            consumer: Some(Arc::new(consumer)),
            partitions: BTreeMap::new(),
            last: 0,
            commit_at: None,
        })
    }

    pub(super) fn consumer(&self) -> Result<Arc<StreamConsumer<Group>>, Error> {
        self.consumer.clone().ok_or_else(|| failed("consume", KafkaError::ClientCreation("it has left".to_owned())))
    }

    pub(super) fn join(&self) -> Result<(), Error> {
        let joined = self.consumer()?.subscribe(&[&self.topic]);
        joined.map_err(|error| failed(format!("subscribe to {}", self.topic), error))
    }

    /// Keeps a received message until it is delivered.
    fn keep(&mut self, consumer: &StreamConsumer<Group>, received: &BorrowedMessage<'_>) {
        let number = received.partition();
        let envelope = self.read(received);
        let partition = self.partition(consumer, number);
        partition.buffer.push_back((received.offset(), envelope));
        if partition.buffer.len() >= WINDOW && !partition.paused {
            partition.paused = true;
            self.set_paused(consumer, number, true);
        }
    }

    fn read(&self, received: &BorrowedMessage<'_>) -> Option<Envelope> {
        let headers = received.headers();
        let attributes = headers.iter().flat_map(|headers| headers.iter()).filter_map(|header| {
            let name = header.key.strip_prefix(PREFIX)?;
            Some((name, header.value.unwrap_or_default()))
        });
        let (shard, offset) = (received.partition(), received.offset());
        let problem = match cloud_events::read(&self.producer, attributes, received.payload().unwrap_or_default()) {
            Ok(envelope) if i32::try_from(envelope.message.shard) == Ok(shard) => return Some(envelope),
            Ok(envelope) => format!("it says that it is of shard {}", envelope.message.shard),
            Err(malformed) => malformed.to_string(),
        };
        tracing::error!(
            topic = self.topic,
            shard,
            offset,
            problem,
            "what came from Kafka is no message and is passed over"
        );
        None
    }

    /// What this member has of a partition; nothing that is from before its last coming or going.
    fn partition(&mut self, consumer: &StreamConsumer<Group>, number: i32) -> &mut Partition {
        let session = consumer.context().session(number);
        let partition = self.partitions.entry(number).or_default();
        if partition.session != session {
            let paused = partition.paused;
            *partition = Partition { session, ..Partition::default() };
            if paused {
                self.set_paused(consumer, number, false);
            }
        }
        self.partitions.entry(number).or_default()
    }

    fn set_paused(&self, consumer: &StreamConsumer<Group>, partition: i32, paused: bool) {
        let mut which = TopicPartitionList::new();
        which.add_partition(&self.topic, partition);
        let set = if paused { consumer.pause(&which) } else { consumer.resume(&which) };
        if let Err(error) = set {
            // Without it more is buffered, or a partition is not this member's any more.
            tracing::debug!(topic = self.topic, partition, paused, %error, "a partition is not paused or resumed");
        }
    }

    /// What can be delivered now, of the partition after the one that was delivered from last.
    fn deliverable(&mut self, consumer: &StreamConsumer<Group>) -> Option<Delivery> {
        let numbers: Vec<i32> = self.partitions.keys().copied().collect();
        let (before, after): (Vec<i32>, Vec<i32>) = numbers.into_iter().partition(|number| *number <= self.last);
        for number in after.into_iter().chain(before) {
            let partition = self.partition(consumer, number);
            let count = partition.buffer.len().min(partition.room()).min(DELIVERY);
            let taken: Vec<_> = partition.buffer.drain(..count).collect();
            let Some(mark) = taken.last().map(|(offset, _)| *offset) else { continue };
            partition.unacknowledged.push_back((mark, count));
            let session = partition.session;
            if partition.paused && partition.buffer.len() <= WINDOW / 2 {
                partition.paused = false;
                self.set_paused(consumer, number, false);
            }
            self.last = number;
            let shard = u32::try_from(number).unwrap_or(u32::MAX);
            let receipt = Receipt { shard, session, mark: mark.unsigned_abs() };
            return Some(Delivery { shard, envelopes: taken.into_iter().filter_map(|(_, it)| it).collect(), receipt });
        }
        None
    }

    fn commit(&mut self, consumer: &StreamConsumer<Group>) {
        self.commit_at = None;
        consumer.context().commit(|offsets| consumer.commit(offsets, CommitMode::Async));
    }

    async fn receive(&mut self) -> Result<Delivery, Error> {
        let consumer = self.consumer()?;
        loop {
            if self.commit_at.is_some_and(|at| at <= Instant::now()) {
                self.commit(&consumer);
            }
            if let Some(delivery) = self.deliverable(&consumer) {
                return Ok(delivery);
            }
            let commit = async {
                match self.commit_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let received = tokio::select! {
                received = consumer.recv() => received,
                () = commit => continue,
            };
            self.received(&consumer, received)?;
            // What is there already goes into one delivery.
            for _ in 1..DELIVERY {
                let Some(received) = consumer.recv().now_or_never() else { break };
                self.received(&consumer, received)?;
            }
        }
    }

    fn received(
        &mut self,
        consumer: &StreamConsumer<Group>,
        received: KafkaResult<BorrowedMessage<'_>>,
    ) -> Result<(), Error> {
        match received {
            Ok(message) => self.keep(consumer, &message),
            Err(error) => {
                if let Some((code, reason)) = consumer.client().fatal_error() {
                    let source = format!("{code}: {reason}").into();
                    return Err(Error::Broker { broker: KAFKA, doing: format!("consume {}", self.topic), source });
                }
                // The library goes on by itself: brokers that are away, a coordinator that moves. But it also goes on where
                // only an operator can help, such as a session the brokers do not allow.
                tracing::warn!(topic = self.topic, %error, "Kafka reports");
            }
        }
        Ok(())
    }
}

impl Subscription for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, Error>> {
        Box::pin(self.receive())
    }

    fn acknowledge<'a>(&'a mut self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let consumer = self.consumer()?;
            let number = i32::try_from(receipt.shard).unwrap_or(i32::MAX);
            let mark = i64::try_from(receipt.mark).unwrap_or(i64::MAX);
            let partition = self.partition(&consumer, number);
            if partition.session != receipt.session {
                return Ok(());
            }
            while partition.unacknowledged.front().is_some_and(|(offset, _)| *offset <= mark) {
                partition.unacknowledged.pop_front();
            }
            consumer.context().assigned().done.insert(number, mark.saturating_add(1));
            self.commit_at.get_or_insert_with(|| Instant::now() + COMMIT);
            Ok(())
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        self.commit(&consumer);
        // Leaving the group waits for the broker, however long that is silent: a thread of its own does it, and what ends
        // with this process waits for it a little, so that another member gets the partitions at once.
        let (left, leaving) = std::sync::mpsc::sync_channel::<()>(1);
        std::thread::spawn(move || {
            drop(consumer);
            drop(left);
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || leaving.recv_timeout(LEAVE));
        }
    }
}
