//! The inbox: what a consumer does with a message it may have seen before.
//!
//! Per (consumer, producer, stream) the last version dealt with is kept, and moves in the
//! transaction that has the effect. There is no time window a late duplicate could outlive.

use store::{Tx, params};

use crate::Error;

/// What a message is to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The next version of its stream: apply it in this transaction.
    New,
    /// Already applied: acknowledge it and do nothing.
    Duplicate,
    /// Versions are missing before it: fetch from `from` on, do not apply it.
    Gap {
        /// The first missing version.
        from: u64,
    },
}

/// Judges a version against the last one dealt with.
pub fn judge(last: u64, version: u64) -> Seen {
    if version <= last {
        Seen::Duplicate
    } else if version == last + 1 {
        Seen::New
    } else {
        Seen::Gap { from: last + 1 }
    }
}

/// Judges a message and, when it is new, marks it as dealt with in this transaction.
pub async fn accept(tx: &mut Tx, consumer: &str, producer: &str, stream: &str, version: u64) -> Result<Seen, Error> {
    let seen = judge(last(tx, consumer, producer, stream).await?, version);
    if seen == Seen::New {
        record(tx, consumer, producer, stream, version).await?;
    }
    Ok(seen)
}

/// The last version of `stream` dealt with; 0 before the first.
pub async fn last(tx: &mut Tx, consumer: &str, producer: &str, stream: &str) -> Result<u64, Error> {
    let row = tx
        .query_opt(
            "SELECT version FROM inbox WHERE consumer = $1 AND producer = $2 AND stream = $3",
            params![consumer, producer, stream],
        )
        .await?;
    Ok(row.map(|row| row.get::<u64>("version")).transpose()?.unwrap_or(0))
}

/// Marks everything up to `version` as dealt with. For those who judge a batch in memory and write
/// each stream once; the caller has read [`last`] in the same transaction.
pub async fn record(tx: &mut Tx, consumer: &str, producer: &str, stream: &str, version: u64) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO inbox (consumer, producer, stream, version) VALUES ($1, $2, $3, $4)
         ON CONFLICT (consumer, producer, stream) DO UPDATE SET version = excluded.version",
        params![consumer, producer, stream, version],
    )
    .await?;
    Ok(())
}

/// How far one consumer is in one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DealtWith {
    /// The consumer.
    pub consumer: String,
    /// The service whose stream it is.
    pub producer: String,
    /// The stream.
    pub stream: String,
    /// The last version it has dealt with.
    pub version: u64,
}

/// Every row of the inbox behind `after` in their order (of consumer, producer and stream), at most `limit`.
pub async fn all(tx: &mut Tx, after: &DealtWith, limit: u32) -> Result<Vec<DealtWith>, Error> {
    let rows = tx
        .query(
            "SELECT consumer, producer, stream, version FROM inbox
             WHERE (consumer, producer, stream) > ($1, $2, $3) ORDER BY consumer, producer, stream LIMIT $4",
            params![after.consumer.as_str(), after.producer.as_str(), after.stream.as_str(), i64::from(limit)],
        )
        .await?;
    rows.into_iter()
        .map(|row| {
            Ok(DealtWith {
                consumer: row.get("consumer")?,
                producer: row.get("producer")?,
                stream: row.get("stream")?,
                version: row.get("version")?,
            })
        })
        .collect()
}
