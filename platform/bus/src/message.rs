//! An event as it travels between services.

use contract::EventSet;
use jiff::Timestamp;
use log::{At, Meta};
use store::Recorded;

use crate::Failure;

/// An event of another service, its personal fields opened. Its identity is (service, stream,
/// version); its stream is also its partition key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The short name of the service that recorded it.
    pub service: String,
    /// The shard of its log.
    pub shard: u32,
    /// The position in the shard.
    pub position: u64,
    /// The stream, a resource name.
    pub stream: String,
    /// The version in the stream.
    pub version: u64,
    /// The event's full name.
    pub name: String,
    /// The version of its schema.
    pub schema: u32,
    /// When it happened.
    pub occur_time: Timestamp,
    /// What caused it.
    pub causation: String,
    /// What it belongs to.
    pub correlation: String,
    /// The W3C trace context.
    pub traceparent: String,
    /// Whose personal data it carries.
    pub subject: Option<String>,
    /// The event in protobuf wire format.
    pub payload: Vec<u8>,
}

impl Message {
    /// The event, decoded. One that cannot be decoded cannot be decoded later either, unless by a newer release.
    pub fn decode<E: EventSet>(&self) -> Result<E, Failure> {
        E::decode(&self.name, self.schema, &self.payload).map_err(|error| {
            if error.is_newer() { Failure::newer(&error) } else { Failure::Permanent(error.to_string()) }
        })
    }

    /// What an effect of this message says of its cause.
    pub fn meta(&self) -> Meta {
        Meta {
            causation: format!("{}/{}/{}", self.service, self.stream, self.version),
            correlation: self.correlation.clone(),
            traceparent: self.traceparent.clone(),
        }
    }

    /// The circumstances of the event, as a projection sees them.
    pub fn at(&self) -> At {
        At {
            stream: self.stream.clone(),
            version: self.version,
            subject: self.subject.clone(),
            occur_time: self.occur_time,
            causation: self.causation.clone(),
            correlation: self.correlation.clone(),
            traceparent: self.traceparent.clone(),
        }
    }

    /// A stored event of `service` as a message.
    pub fn from_recorded(service: &str, recorded: Recorded) -> Self {
        Self {
            service: service.to_owned(),
            shard: recorded.shard,
            position: recorded.position,
            stream: recorded.stream,
            version: recorded.version,
            name: recorded.name,
            schema: recorded.schema,
            occur_time: recorded.occur_time,
            causation: recorded.causation,
            correlation: recorded.correlation,
            traceparent: recorded.traceparent,
            subject: recorded.subject,
            payload: recorded.payload,
        }
    }
}
