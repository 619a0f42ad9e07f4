//! The parking lot: messages a consumer could not apply, and those of the same stream behind them.
//!
//! A stream with a parked message is parked as a whole: its later messages join the lot in order,
//! other streams flow. Only addresses are kept, (producer, stream, version); the content is read
//! from the producer's log again at redrive, so nothing personal lies in the lot. The lot is
//! bounded; a consumer whose lot is full stops rather than drops.

use jiff::Timestamp;
use store::{Row, Tx, params};

use crate::Error;

/// One parked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The service that recorded it.
    pub producer: String,
    /// Its stream.
    pub stream: String,
    /// Its version in the stream.
    pub version: u64,
    /// The event's name.
    pub name: String,
    /// Why it could not be applied; "" for one that only waits behind another.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u64,
    /// When it was parked.
    pub park_time: Timestamp,
}

/// True when messages of this stream must queue in the lot.
pub async fn is_parked(tx: &mut Tx, consumer: &str, producer: &str, stream: &str) -> Result<bool, Error> {
    let row = tx
        .query_opt(
            "SELECT version FROM parked
             WHERE consumer = $1 AND producer = $2 AND stream = $3 LIMIT 1",
            params![consumer, producer, stream],
        )
        .await?;
    Ok(row.is_some())
}

/// What is parked, as an address and a reason.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The service that recorded it.
    pub producer: &'a str,
    /// Its stream.
    pub stream: &'a str,
    /// Its version in the stream.
    pub version: u64,
    /// The event's name.
    pub name: &'a str,
    /// Why it could not be applied; "" when it waits behind another.
    pub reason: &'a str,
}

/// Parks a message, or fails with [`Error::LotFull`] when `limit` are parked already.
pub async fn park(tx: &mut Tx, consumer: &str, entry: Entry<'_>, limit: u64) -> Result<(), Error> {
    if count(tx, consumer).await? >= limit {
        return Err(Error::LotFull { consumer: consumer.to_owned(), limit });
    }
    let now = tx.now();
    let attempts = i64::from(!entry.reason.is_empty());
    tx.execute(
        "INSERT INTO parked
             (consumer, producer, stream, version, name, reason, attempts, park_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (consumer, producer, stream, version) DO NOTHING",
        params![consumer, entry.producer, entry.stream, entry.version, entry.name, entry.reason, attempts, now],
    )
    .await?;
    Ok(())
}

/// How many messages the consumer has parked.
pub async fn count(tx: &mut Tx, consumer: &str) -> Result<u64, Error> {
    let row = tx.query_opt("SELECT count(*) AS n FROM parked WHERE consumer = $1", params![consumer]).await?;
    Ok(row.map(|row| row.get::<u64>("n")).transpose()?.unwrap_or(0))
}

/// The first parked message of a stream.
pub async fn first(tx: &mut Tx, consumer: &str, producer: &str, stream: &str) -> Result<Option<Parked>, Error> {
    tx.query_opt(
        "SELECT producer, stream, version, name, reason, attempts, park_time FROM parked
         WHERE consumer = $1 AND producer = $2 AND stream = $3 ORDER BY version LIMIT 1",
        params![consumer, producer, stream],
    )
    .await?
    .map(|row| parked(&row))
    .transpose()
}

/// The parked messages in the order (producer, stream, version), a page at a time: those after
/// `after`, at most `limit`.
pub async fn list(
    tx: &mut Tx,
    consumer: &str,
    after: Option<(&str, &str, u64)>,
    limit: u32,
) -> Result<Vec<Parked>, Error> {
    let (producer, stream, version) = after.unwrap_or(("", "", 0));
    tx.query(
        "SELECT producer, stream, version, name, reason, attempts, park_time FROM parked
         WHERE consumer = $1
           AND (producer, stream, version) > ($2, $3, CAST($4 AS BIGINT))
         ORDER BY producer, stream, version LIMIT $5",
        params![consumer, producer, stream, version, i64::from(limit)],
    )
    .await?
    .iter()
    .map(parked)
    .collect()
}

/// Takes a message out of the lot; false when another redrive took it.
pub async fn take(tx: &mut Tx, consumer: &str, producer: &str, stream: &str, version: u64) -> Result<bool, Error> {
    let taken = tx
        .execute(
            "DELETE FROM parked
             WHERE consumer = $1 AND producer = $2 AND stream = $3 AND version = $4",
            params![consumer, producer, stream, version],
        )
        .await?;
    Ok(taken == 1)
}

/// Notes that a redrive failed again.
pub async fn failed_again(tx: &mut Tx, consumer: &str, parked: &Parked, reason: &str) -> Result<(), Error> {
    tx.execute(
        "UPDATE parked SET reason = $5, attempts = attempts + 1
         WHERE consumer = $1 AND producer = $2 AND stream = $3 AND version = $4",
        params![consumer, parked.producer.as_str(), parked.stream.as_str(), parked.version, reason],
    )
    .await?;
    Ok(())
}

fn parked(row: &Row) -> Result<Parked, Error> {
    Ok(Parked {
        producer: row.get("producer")?,
        stream: row.get("stream")?,
        version: row.get("version")?,
        name: row.get("name")?,
        reason: row.get("reason")?,
        attempts: row.get("attempts")?,
        park_time: row.get("park_time")?,
    })
}
