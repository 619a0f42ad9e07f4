//! What can go wrong between a producer's log and a consumer's store.

/// A fault of the bus. None of them loses a message: the consumer stands where it stood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The producer's log could not be read.
    #[error("the log of {service} cannot be read: {source}")]
    Source {
        /// The producer.
        service: String,
        /// Why.
        source: log::Error,
    },
    /// The producer is in another process, and gives no answer.
    #[error("{service} cannot be reached to read its log: {reason}")]
    Away {
        /// The producer.
        service: String,
        /// What came instead.
        reason: String,
    },
    /// The producer is in another process, and did not answer as it should.
    #[error("the log of {service} cannot be read from here: {reason}")]
    Remote {
        /// The producer.
        service: String,
        /// What came instead.
        reason: String,
    },
    /// The consumer's own store failed.
    #[error(transparent)]
    Own(#[from] log::Error),
    /// A message could not be applied for now.
    #[error("{service}/{stream}/{version} cannot be applied yet: {reason}")]
    Transient {
        /// The producer.
        service: String,
        /// The stream.
        stream: String,
        /// The version.
        version: u64,
        /// Why.
        reason: String,
    },
    /// The producer's shard has a hole; nothing is stepped over.
    #[error("shard {shard} of {service} goes on with position {found} where {expected} must be")]
    Hole {
        /// The producer.
        service: String,
        /// The shard.
        shard: u32,
        /// The position that must follow.
        expected: u64,
        /// The position that was read.
        found: u64,
    },
    /// Versions of a stream are missing and the producer does not have them.
    #[error("{service} does not have version {version} of {stream}")]
    Missing {
        /// The producer.
        service: String,
        /// The stream.
        stream: String,
        /// The first missing version.
        version: u64,
    },
    /// Another copy of this consumer moved the cursor.
    #[error("another copy of {consumer} has moved its cursor")]
    Overtaken {
        /// The consumer.
        consumer: String,
    },
    /// The broker did not do what it was asked.
    #[error("{broker} cannot {doing}: {source}")]
    Broker {
        /// Which kind of broker.
        broker: &'static str,
        /// What was asked of it: "publish to stoa.ordering".
        doing: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What the broker has is not what is wanted, and is not changed: an operator must decide.
    #[error("{broker}: {what} is {found}, not {wanted}")]
    BrokerDiffers {
        /// Which kind of broker.
        broker: &'static str,
        /// What differs: "the number of partitions of stoa.ordering".
        what: String,
        /// What is there.
        found: String,
        /// What must be there.
        wanted: String,
    },
    /// No service publishes under that name.
    #[error("{0} publishes nothing here")]
    NoSuchSource(String),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Own(error.into())
    }
}

impl Error {
    /// True when the consumer's own store has stopped and trying again is pointless.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self, Self::Own(log::Error::Store(store::Error::Stopped { .. })))
    }
}
