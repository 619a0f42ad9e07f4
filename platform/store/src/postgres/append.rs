//! The end of a write: events with their positions, and COMMIT, in one round trip.

use std::collections::BTreeMap;

use deadpool_postgres::tokio_postgres;
use futures_util::future::{join, join_all};
use jiff::Timestamp;
use tokio_postgres::error::SqlState;

use super::session::{Session, typed};
use crate::{Error, NewEvent, event::shard_of};

/// The name by which a taken version is told from any other unique violation.
pub(super) const VERSION_TAKEN: &str = "events_stream_version";

// One statement a shard. The counter's row is locked by the UPDATE; the position of each event is what
// it was before, plus the event's place in this batch, and is folded into the checksum as in
// `event::with_position`. A version that is neither the first, nor follows the event before it in this
// batch, nor a stored one, makes the position NULL, which no column takes: the pipelined COMMIT then
// finds a failed transaction and rolls it back.
const APPEND: &str = "\
WITH counter AS (UPDATE shards SET head = head + $2 WHERE shard = $1 RETURNING head - $2 AS before),
     placed AS (
         SELECT n.*, CASE WHEN n.version = 1 OR n.follows
                            OR EXISTS (SELECT 1 FROM events p WHERE p.stream = n.stream AND p.version = n.version - 1)
                          THEN counter.before + n.ordinal END AS position
         FROM counter, unnest($3::text[], $4::bigint[], $5::boolean[], $6::text[], $7::bigint[], $8::text[], $9::text[],
                              $10::text[], $11::text[], $12::bytea[], $13::bigint[]) WITH ORDINALITY
              AS n (stream, version, follows, name, schema_version, causation_id, correlation_id, traceparent, subject,
                    payload, checksum, ordinal))
INSERT INTO events (shard, position, stream, version, name, schema_version, occur_time, causation_id, correlation_id,
                    traceparent, subject, payload, checksum)
SELECT $1, position, stream, version, name, schema_version, $14, causation_id, correlation_id, traceparent, subject,
       payload, checksum # (position & 4294967295) # (position >> 32)
FROM placed ORDER BY ordinal";

/// Stores the events and commits. An error before COMMIT has rolled everything back.
pub(super) async fn commit(
    session: &mut Session,
    service: &'static str,
    events: &[NewEvent],
    shards: u32,
    now: Timestamp,
) -> Result<(), Error> {
    if events.is_empty() {
        return match session.client.batch_execute("COMMIT").await {
            Ok(()) => Ok(()),
            Err(error) => Err(in_doubt(service, error)),
        };
    }
    session.begin().await?;
    let statement = session.client.prepare_cached(APPEND).await.map_err(|error| typed(service, error))?;
    let mut batches: BTreeMap<u32, Batch<'_>> = BTreeMap::new();
    for event in events {
        batches.entry(shard_of(&event.stream, shards)).or_default().push(
            event,
            shard_of(&event.stream, shards),
            now,
        )?;
    }
    let client = &session.client;
    let occur_time = now.as_microsecond();
    let shards_and_counts: Vec<(i64, i64)> =
        batches.iter().map(|(shard, batch)| (i64::from(*shard), batch.streams.len() as i64)).collect();
    // Sent in the order of the shards, COMMIT behind them: each future sends when it is first polled.
    let appends = batches.values().zip(&shards_and_counts).map(|(batch, (shard, count))| {
        let statement = &statement;
        let occur_time = &occur_time;
        async move {
            client
                .execute(
                    statement,
                    &[
                        shard,
                        count,
                        &batch.streams,
                        &batch.versions,
                        &batch.follows,
                        &batch.names,
                        &batch.schemas,
                        &batch.causations,
                        &batch.correlations,
                        &batch.traceparents,
                        &batch.subjects,
                        &batch.payloads,
                        &batch.checksums,
                        occur_time,
                    ],
                )
                .await
        }
    });
    let (appended, committed) = join(join_all(appends), client.batch_execute("COMMIT")).await;
    for ((_, batch), result) in batches.iter().zip(appended) {
        match result {
            Ok(stored) if stored == batch.streams.len() as u64 => {}
            Ok(_) => {
                // Nothing was inserted because the shard has no counter: the tables are not ours.
                return Err(Error::Damaged { service, detail: "a shard has no counter".to_owned() });
            }
            Err(error) if error.is_closed() => return Err(in_doubt(service, error)),
            Err(error) => return Err(refused(service, events, error)),
        }
    }
    committed.map_err(|error| in_doubt(service, error))
}

/// The connection went while COMMIT was on its way: nobody here knows what became of it.
fn in_doubt(service: &'static str, error: tokio_postgres::Error) -> Error {
    if error.is_closed() || error.code().is_none() {
        Error::InDoubt { detail: error.to_string() }
    } else {
        typed(service, error)
    }
}

fn refused(service: &'static str, events: &[NewEvent], error: tokio_postgres::Error) -> Error {
    let Some(refusal) = error.as_db_error() else {
        return typed(service, error);
    };
    let taken = *refusal.code() == SqlState::UNIQUE_VIOLATION && refusal.constraint() == Some(VERSION_TAKEN);
    let not_next = *refusal.code() == SqlState::NOT_NULL_VIOLATION && refusal.column() == Some("position");
    // PostgreSQL says which stream only in words; the first event of the body stands for it unless they name another.
    let named = |event: &&NewEvent| {
        refusal.detail().is_some_and(|detail| detail.contains(&format!("({}, {})", event.stream, event.version)))
    };
    match events.iter().find(named).or(events.first()) {
        Some(event) if taken || not_next => Error::Conflict { stream: event.stream.clone(), version: event.version },
        Some(_) | None => typed(service, error),
    }
}

/// The events of one shard, column by column.
#[derive(Default)]
struct Batch<'a> {
    streams: Vec<&'a str>,
    versions: Vec<i64>,
    follows: Vec<bool>,
    names: Vec<&'a str>,
    schemas: Vec<i64>,
    causations: Vec<&'a str>,
    correlations: Vec<&'a str>,
    traceparents: Vec<&'a str>,
    subjects: Vec<Option<&'a str>>,
    payloads: Vec<&'a [u8]>,
    checksums: Vec<i64>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, event: &'a NewEvent, shard: u32, now: Timestamp) -> Result<(), Error> {
        let version = i64::try_from(event.version).map_err(|_| Error::Mismatch {
            column: "version".to_owned(),
            expected: "at most 2^63-1",
            found: "more".to_owned(),
        })?;
        // The statement does not see its own rows, so what this batch holds is looked up here.
        let before = self.streams.iter().zip(&self.versions).rev().find(|(stream, _)| **stream == event.stream);
        self.follows.push(before.is_some_and(|(_, before)| before.checked_add(1) == Some(version)));
        self.streams.push(&event.stream);
        self.versions.push(version);
        self.names.push(event.name);
        self.schemas.push(i64::from(event.schema));
        self.causations.push(&event.causation);
        self.correlations.push(&event.correlation);
        self.traceparents.push(&event.traceparent);
        self.subjects.push(event.subject.as_deref());
        self.payloads.push(&event.payload);
        self.checksums.push(i64::from(event.content(shard, now).checksum()));
        Ok(())
    }
}
