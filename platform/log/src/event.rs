//! An event with its circumstances: what the appender says, what the store adds.

use jiff::Timestamp;

/// Why an event happens, as the appender says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The id of the request, message, saga step or timer that caused it. Every event has a cause.
    pub causation: String,
    /// The id shared by everything that follows from one outside request.
    pub correlation: String,
    /// The W3C trace context.
    pub traceparent: String,
}

impl Meta {
    /// What an effect of the event at `at` says: caused by it, same correlation, same trace.
    pub fn caused_by(service: &str, at: &At) -> Self {
        Self {
            causation: format!("{service}/{}/{}", at.stream, at.version),
            correlation: at.correlation.clone(),
            traceparent: at.traceparent.clone(),
        }
    }
}

/// Where and when an event stands, as far as it is known before its transaction commits. All of it
/// is the same when the event is read again, so a projection may write any of it into its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The stream, a resource name.
    pub stream: String,
    /// The event's version in its stream, from 1.
    pub version: u64,
    /// Whose personal fields the event carries.
    pub subject: Option<String>,
    /// When the transaction ran.
    pub occur_time: Timestamp,
    /// See [`Meta::causation`].
    pub causation: String,
    /// See [`Meta::correlation`].
    pub correlation: String,
    /// See [`Meta::traceparent`].
    pub traceparent: String,
}

/// An event as read from the log, its personal fields opened unless the method says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<E> {
    /// The shard of its stream.
    pub shard: u32,
    /// Its position in the shard, dense from 1.
    pub position: u64,
    /// Its circumstances.
    pub at: At,
    /// The event.
    pub event: E,
}
