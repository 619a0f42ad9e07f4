//! The events of a store's log: what a body appends, what a reader gets back, and the checksum between.

use jiff::Timestamp;

use crate::Error;

/// An event to append; position and time are the store's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The stream, for example `orders/018f...`.
    pub stream: String,
    /// The version this event gets: 1, 2, ... without gaps.
    pub version: u64,
    /// The full name of the message, for example `stoa.ordering.v1.OrderPlaced`.
    pub name: &'static str,
    /// The version of the message's schema.
    pub schema: u32,
    /// The encoded message.
    pub payload: Vec<u8>,
    /// Whose personal data the payload carries, if any.
    pub subject: Option<String>,
    /// The id of the command or event that caused it.
    pub causation: String,
    /// The id of the whole story it belongs to.
    pub correlation: String,
    /// The W3C trace context.
    pub traceparent: String,
}

/// An event as it is stored, its checksum verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The shard of the log.
    pub shard: u32,
    /// The position within the shard: 1, 2, ... without gaps.
    pub position: u64,
    /// The stream.
    pub stream: String,
    /// The version within the stream.
    pub version: u64,
    /// The full name of the message.
    pub name: String,
    /// The version of the message's schema.
    pub schema: u32,
    /// The encoded message, the very bytes that were appended.
    pub payload: Vec<u8>,
    /// Whose personal data the payload carries, if any.
    pub subject: Option<String>,
    /// The time of the transaction that appended it.
    pub occur_time: Timestamp,
    /// The id of the command or event that caused it.
    pub causation: String,
    /// The id of the whole story it belongs to.
    pub correlation: String,
    /// The W3C trace context.
    pub traceparent: String,
}

/// The columns of an event that the checksum covers, borrowed from either form of it.
pub(crate) struct Content<'a> {
    pub(crate) shard: u32,
    pub(crate) stream: &'a str,
    pub(crate) version: u64,
    pub(crate) name: &'a str,
    pub(crate) schema: u32,
    pub(crate) occur_time: i64,
    pub(crate) causation: &'a str,
    pub(crate) correlation: &'a str,
    pub(crate) traceparent: &'a str,
    pub(crate) subject: Option<&'a str>,
    pub(crate) payload: &'a [u8],
}

impl Content<'_> {
    /// CRC-32 over every column but the position, each with its length before it.
    ///
    /// PostgreSQL assigns the position inside the statement that stores the event, so the position is
    /// folded in afterwards (`with_position`), which SQL can do too.
    pub(crate) fn checksum(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.shard.to_le_bytes());
        crc.update(&self.version.to_le_bytes());
        crc.update(&self.schema.to_le_bytes());
        crc.update(&self.occur_time.to_le_bytes());
        for text in [self.stream, self.name, self.causation, self.correlation, self.traceparent] {
            crc.update(&(text.len() as u64).to_le_bytes());
            crc.update(text.as_bytes());
        }
        match self.subject {
            None => crc.update(&u64::MAX.to_le_bytes()),
            Some(subject) => {
                crc.update(&(subject.len() as u64).to_le_bytes());
                crc.update(subject.as_bytes());
            }
        }
        crc.update(self.payload);
        crc.finalize()
    }
}

/// Folds the position into the checksum of the other columns: any single flipped bit changes the result.
pub(crate) fn with_position(checksum: u32, position: u64) -> i64 {
    i64::from(checksum) ^ (position & 0xffff_ffff) as i64 ^ (position >> 32) as i64
}

impl NewEvent {
    pub(crate) fn content(&self, shard: u32, occur_time: Timestamp) -> Content<'_> {
        Content {
            shard,
            stream: &self.stream,
            version: self.version,
            name: self.name,
            schema: self.schema,
            occur_time: occur_time.as_microsecond(),
            causation: &self.causation,
            correlation: &self.correlation,
            traceparent: &self.traceparent,
            subject: self.subject.as_deref(),
            payload: &self.payload,
        }
    }
}

impl Recorded {
    fn content(&self) -> Content<'_> {
        Content {
            shard: self.shard,
            stream: &self.stream,
            version: self.version,
            name: &self.name,
            schema: self.schema,
            occur_time: self.occur_time.as_microsecond(),
            causation: &self.causation,
            correlation: &self.correlation,
            traceparent: &self.traceparent,
            subject: self.subject.as_deref(),
            payload: &self.payload,
        }
    }

    /// The event itself if its checksum fits, an error that names it if not.
    pub(crate) fn verified(self, service: &'static str, stored: i64) -> Result<Self, Error> {
        if with_position(self.content().checksum(), self.position) == stored {
            Ok(self)
        } else {
            Err(self.corrupt(service, "its checksum does not fit".to_owned()))
        }
    }

    /// The error that names this event.
    pub(crate) fn corrupt(&self, service: &'static str, detail: String) -> Error {
        Error::Corrupt {
            service,
            stream: self.stream.clone(),
            version: self.version,
            shard: self.shard,
            position: self.position,
            detail,
        }
    }
}

/// The shard of a stream: FNV-1a, stable for ever, because stored positions depend on it.
#[cfg_attr(not(feature = "fleet"), allow(dead_code, reason = "SQLite has one shard"))]
pub(crate) fn shard_of(stream: &str, shards: u32) -> u32 {
    let hash = stream
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The low bits of FNV-1a are its weakest; fold the high half in before the remainder.
    u32::try_from((hash ^ (hash >> 32)) % u64::from(shards.max(1))).unwrap_or(0)
}
