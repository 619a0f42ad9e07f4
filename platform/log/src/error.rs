//! What can go wrong in the log, as faults: a refusal of the domain is never one of these, except
//! where a service uses [`Error`] itself as its error.

/// A fault of the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store below failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The stream is not where the caller thought it was; load it again and decide again.
    #[error("stream {stream} is at version {actual}, not {expected}")]
    Conflict {
        /// The stream.
        stream: String,
        /// The version the caller decided on.
        expected: u64,
        /// The version it has.
        actual: u64,
    },
    /// The same request id came with another body.
    #[error("request id {key} of {method} was used for another request")]
    RequestIdReused {
        /// The full method path.
        method: String,
        /// The key.
        key: String,
    },
    /// A repeat of a refused request, for services that have no error of their own.
    #[error("refused with code {code}: {message}")]
    Refused {
        /// The gRPC status code.
        code: i32,
        /// The status message.
        message: String,
    },
    /// A stored answer is no answer of its method.
    #[error("the stored answer of {method} cannot be decoded: {detail}")]
    StoredReply {
        /// The full method path.
        method: String,
        /// What the decoder found.
        detail: String,
    },
    /// A stored event is no event of this service.
    #[error("event {version} of stream {stream}: {source}")]
    Decode {
        /// The stream.
        stream: String,
        /// The event's version.
        version: u64,
        /// Why.
        source: contract::DecodeEventError,
    },
    /// A stored event means nothing to the aggregate that loads it.
    #[error("event {version} of stream {stream} is not understood: {detail}")]
    NotUnderstood {
        /// The stream.
        stream: String,
        /// The event's version.
        version: u64,
        /// Why.
        detail: String,
    },
    /// An event with personal texts was appended without saying whose they are.
    #[error("{name} carries personal fields but no subject")]
    NoSubject {
        /// The event's name.
        name: &'static str,
    },
    /// A sealed text does not fit its subject's key: the store is damaged or incomplete.
    #[error("a sealed text of {subject} cannot be opened with the key of {subject}")]
    Unreadable {
        /// The subject.
        subject: String,
    },
    /// Positions of a shard are not dense: events are missing.
    #[error("shard {shard} has position {found} where {expected} must be")]
    Hole {
        /// The shard.
        shard: u32,
        /// The position that must follow.
        expected: u64,
        /// The position that was found.
        found: u64,
    },
    /// No projection of this log has that name.
    #[error("there is no projection {0}")]
    NoSuchProjection(String),
    /// A rebuild was overtaken and gave up without changing anything.
    #[error("the rebuild of {projection} was interrupted: {detail}")]
    Rebuild {
        /// The projection.
        projection: &'static str,
        /// Why.
        detail: String,
    },
    /// The parking lot of a consumer is full.
    #[error("{consumer} has parked {limit} messages and takes no more")]
    LotFull {
        /// The consumer.
        consumer: String,
        /// How many fit.
        limit: u64,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

impl Error {
    /// True when another transaction came in between, so that running again may succeed: a stream moved on between load and
    /// commit, or a row was put where the body had seen none.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Conflict { .. } => true,
            Self::Store(error) => matches!(
                error,
                store::Error::Conflict { .. } | store::Error::Constraint { kind: store::ConstraintKind::Unique, .. }
            ),
            Self::RequestIdReused { .. }
            | Self::Refused { .. }
            | Self::StoredReply { .. }
            | Self::Decode { .. }
            | Self::NotUnderstood { .. }
            | Self::NoSubject { .. }
            | Self::Unreadable { .. }
            | Self::Hole { .. }
            | Self::NoSuchProjection(_)
            | Self::Rebuild { .. }
            | Self::LotFull { .. }
            | Self::Random(_) => false,
        }
    }
}
