//! The log of a service as streams: by shard for who follows it, by stream for who looks for one thing.
//!
//! Positions are dense and a reader goes on from the last position it was given, so nothing is skipped, and what is read
//! twice is the same.

use std::pin::Pin;
use std::sync::Arc;

use bus::{Message, Source};
use contracts::operations::v1::{ReadLogRequest, ReadLogResponse, ReadStreamRequest, ReadStreamResponse};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use server::status;
use tonic::{Code, Status};

use crate::wire;

/// Answers as they come.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Events in one answer.
const BATCH: u32 = 256;

struct Following {
    source: Arc<dyn Source>,
    shard: u32,
    after: u64,
    left: u64,
    follow: bool,
    told: bool,
}

/// The events of a shard, to its head or for ever.
pub(crate) fn log(source: Arc<dyn Source>, asked: &ReadLogRequest) -> Answers<ReadLogResponse> {
    if asked.heads_only {
        return heads(source, asked.shard, asked.follow);
    }
    let following = Following {
        source,
        shard: asked.shard,
        after: u64::try_from(asked.after).unwrap_or(0),
        left: u64::try_from(asked.limit).ok().filter(|limit| *limit > 0).unwrap_or(u64::MAX),
        follow: asked.follow,
        told: false,
    };
    Box::pin(try_unfold(following, |mut at| async move {
        let mut changed = at.source.changed();
        loop {
            changed.borrow_and_update();
            let batch = u32::try_from(at.left.min(u64::from(BATCH))).unwrap_or(BATCH);
            let messages = if batch == 0 { Vec::new() } else { read(&at, batch).await? };
            let ended = batch == 0 || (messages.is_empty() && !at.follow);
            if ended && at.told {
                return Ok(None);
            }
            if ended || !messages.is_empty() {
                at.told = true;
                at.after = messages.last().map_or(at.after, |last| last.position);
                at.left -= messages.len() as u64;
                let mut answer = told(at.source.as_ref(), at.shard).await?;
                answer.records = messages.into_iter().map(wire::record).collect();
                return Ok(Some((answer, at)));
            }
            if changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }))
}

/// How long the shards are: at once, and then after each change. Changes that come faster than they are read are one.
fn heads(source: Arc<dyn Source>, shard: u32, follow: bool) -> Answers<ReadLogResponse> {
    let mut changed = source.changed();
    changed.mark_changed();
    Box::pin(try_unfold((source, changed), move |(source, mut changed)| async move {
        let first = changed.has_changed().is_ok_and(|more| more);
        if (!follow && !first) || changed.changed().await.is_err() {
            return Ok(None);
        }
        let answer = told(source.as_ref(), shard).await?;
        Ok(Some((answer, (source, changed))))
    }))
}

async fn told(source: &dyn Source, shard: u32) -> Result<ReadLogResponse, Status> {
    let heads = source.heads().await.map_err(|error| unread(&error))?;
    Ok(ReadLogResponse {
        records: Vec::new(),
        head: heads.get(shard as usize).map_or(0, |head| wire::signed(*head)),
        shard_count: u32::try_from(heads.len()).unwrap_or(u32::MAX),
        heads: heads.into_iter().map(wire::signed).collect(),
    })
}

async fn read(at: &Following, batch: u32) -> Result<Vec<Message>, Status> {
    let read = at.source.read(at.shard, at.after, batch).await;
    read.map_err(|error| unread(&error))
}

/// Who reads a log is told which event of it is damaged: it may read the event, and cannot go on without it.
fn unread(error: &bus::Error) -> Status {
    let bus::Error::Source { source, .. } = error else { return status::fault("operations.read_log", error) };
    let told = status::of_log(source);
    let unfit = matches!(source, log::Error::Decode { .. } | log::Error::Unreadable { .. } | log::Error::Hole { .. });
    let damaged = unfit || told.code() == Code::DataLoss;
    if damaged { status::rejected(Code::DataLoss, "DATA_DAMAGED", source.to_string(), []) } else { told }
}

struct Paging {
    source: Arc<dyn Source>,
    stream: String,
    next: u64,
    last: u64,
}

/// The events of a stream between two versions.
pub(crate) fn stream(source: Arc<dyn Source>, asked: ReadStreamRequest) -> Answers<ReadStreamResponse> {
    let paging = Paging {
        source,
        stream: asked.stream,
        next: u64::try_from(asked.from_version).unwrap_or(0).max(1),
        last: u64::try_from(asked.to_version).ok().filter(|last| *last > 0).unwrap_or(u64::MAX),
    };
    Box::pin(try_unfold(paging, |mut at| async move {
        if at.next > at.last {
            return Ok(None);
        }
        let read = at.source.read_stream(&at.stream, at.next, BATCH).await;
        let mut messages = read.map_err(|error| unread(&error))?;
        messages.retain(|message| message.version <= at.last);
        let Some(last) = messages.last() else { return Ok(None) };
        at.next = last.version + 1;
        Ok(Some((ReadStreamResponse { records: messages.into_iter().map(wire::record).collect() }, at)))
    }))
}
