//! How a run of messages becomes effects: inbox, effect and cursor in one transaction.
//!
//! A batch is tried whole. When a message in it fails, nothing of the batch stays; the messages
//! before it are applied again without it, and then it is dealt with alone: parked, or left for a
//! later try with everything behind it waiting.

use std::collections::HashMap;
use std::sync::Arc;

use log::inbox::{self, Seen};
use log::{cursors, parked};
use store::Tx;
use telemetry::Trace;
use telemetry::spans::{self, Kind, Name, Running};

use crate::consumer::Inner;
use crate::{Consumer, Error, Failure, Message, Source};

/// Where the consumer stands in a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) shard: u32,
    pub(crate) position: u64,
}

/// Messages under way; shared with the body of the transaction, which may run again.
type Run = Arc<[Message]>;

/// Where in a run a transaction stopped, and why.
struct Stopped {
    /// The message it was at, when it was at one.
    at: Option<usize>,
    why: Why,
}

enum Why {
    Failure(Failure),
    Overtaken,
}

impl From<store::Error> for Stopped {
    fn from(error: store::Error) -> Self {
        Self { at: None, why: Why::Failure(error.into()) }
    }
}

impl From<log::Error> for Stopped {
    fn from(error: log::Error) -> Self {
        Self { at: None, why: Why::Failure(error.into()) }
    }
}

/// How far a transaction came.
#[derive(Clone, Copy)]
enum Done {
    All,
    /// Up to this message, whose stream lacks the versions from `from` on.
    UpToGap {
        at: usize,
        from: u64,
    },
}

impl Consumer {
    /// Deals with every message of a batch, in order; `cursor` is where it stands afterwards, also
    /// after an error.
    pub(crate) async fn deliver(
        &self,
        source: &Arc<dyn Source>,
        messages: Vec<Message>,
        cursor: &mut Cursor,
    ) -> Result<(), Error> {
        let mut rest: Vec<Message> = messages;
        while !rest.is_empty() {
            let run: Run = rest.into();
            let dealt_with = match self.apply(&run, 0..run.len(), Some(*cursor)).await {
                Ok(Done::All) => run.len(),
                Ok(Done::UpToGap { at, from }) => {
                    self.fill_gap(source, &run, at, from).await?;
                    at
                }
                Err(stopped) => self.around(&run, stopped, cursor).await?,
            };
            if let Some(last) = dealt_with.checked_sub(1).and_then(|last| run.get(last)) {
                cursor.position = cursor.position.max(last.position);
            }
            rest = run.get(dealt_with..).unwrap_or_default().to_vec();
        }
        Ok(())
    }

    /// After a failed batch: what stood before the failing message, then that one alone. Says how
    /// many messages are dealt with.
    async fn around(&self, run: &Run, stopped: Stopped, cursor: &mut Cursor) -> Result<usize, Error> {
        let Some(at) = stopped.at else {
            // Not one message's fault as far as one can see: find it one by one.
            return match run.get(1) {
                Some(_) => self.one_by_one(run, cursor).await,
                None => self.settle(run, 0, stopped, *cursor).await.map(|()| 1),
            };
        };
        if at > 0 {
            // Whatever goes wrong now, the next look begins with a shorter run.
            return match self.apply(run, 0..at, Some(*cursor)).await {
                Ok(Done::All) => Ok(at),
                Ok(Done::UpToGap { at, .. }) => Ok(at),
                Err(_) => self.one_by_one(run, cursor).await,
            };
        }
        self.settle(run, at, stopped, *cursor).await.map(|()| 1)
    }

    /// The first message in a transaction of its own.
    async fn one_by_one(&self, run: &Run, cursor: &mut Cursor) -> Result<usize, Error> {
        match self.apply(run, 0..1, Some(*cursor)).await {
            Ok(Done::All) => Ok(1),
            // Found again, and filled, by the next round.
            Ok(Done::UpToGap { .. }) => Ok(0),
            Err(stopped) => self.settle(run, 0, stopped, *cursor).await.map(|()| 1),
        }
    }

    /// A message that failed alone: parked with its reason, or reported for a later try.
    async fn settle(&self, run: &Run, at: usize, stopped: Stopped, cursor: Cursor) -> Result<(), Error> {
        let Some(message) = run.get(at) else {
            return Ok(());
        };
        let transient = |reason| Error::Transient {
            service: message.service.clone(),
            stream: message.stream.clone(),
            version: message.version,
            reason,
        };
        match stopped.why {
            Why::Overtaken => Err(Error::Overtaken { consumer: self.inner.name.to_owned() }),
            Why::Failure(Failure::Transient(reason)) => Err(transient(reason)),
            Why::Failure(Failure::Permanent(reason)) => {
                tracing::error!(
                    consumer = self.inner.name,
                    producer = message.service,
                    stream = message.stream,
                    version = message.version,
                    reason,
                    "a message is parked, and its stream with it"
                );
                self.park(message.clone(), reason, cursor).await
            }
        }
    }

    async fn park(&self, message: Message, reason: String, cursor: Cursor) -> Result<(), Error> {
        let inner = self.inner.clone();
        let parked: Result<bool, log::Error> = self
            .inner
            .store
            .write(self.inner.site, async move |tx: &mut Tx| {
                let Message { service, stream, version, name, .. } = &message;
                if inbox::accept(tx, inner.name, service, stream, *version).await? == Seen::New {
                    let entry = parked::Entry { producer: service, stream, version: *version, name, reason: &reason };
                    parked::park(tx, inner.name, entry, inner.limits.lot).await?;
                }
                let Cursor { shard, position } = cursor;
                // A message fetched into a gap lies behind the cursor, which stays.
                if message.position <= position {
                    return Ok(true);
                }
                cursors::advance(tx, inner.name, service, shard, position, message.position).await
            })
            .await;
        match parked {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Overtaken { consumer: self.inner.name.to_owned() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches the versions of a stream from `from` up to the message at `at` and applies them.
    async fn fill_gap(&self, source: &Arc<dyn Source>, run: &Run, at: usize, from: u64) -> Result<(), Error> {
        let Some(message) = run.get(at) else {
            return Ok(());
        };
        tracing::warn!(
            consumer = self.inner.name,
            producer = message.service,
            stream = message.stream,
            from,
            until = message.version,
            "versions are missing and are fetched"
        );
        let mut next = from;
        while next < message.version {
            let limit = u32::try_from(message.version - next).unwrap_or(u32::MAX);
            let limit = limit.min(self.inner.limits.batch);
            let page = source.read_stream(&message.stream, next, limit).await?;
            if page.first().is_none_or(|first| first.version != next) {
                return Err(Error::Missing {
                    service: message.service.clone(),
                    stream: message.stream.clone(),
                    version: next,
                });
            }
            for fetched in page {
                next = fetched.version + 1;
                let behind = Cursor { shard: fetched.shard, position: u64::MAX };
                let alone: Run = vec![fetched].into();
                if let Err(stopped) = self.apply(&alone, 0..1, None).await {
                    self.settle(&alone, 0, stopped, behind).await?;
                }
            }
        }
        Ok(())
    }

    /// One transaction: the effects of `range` of the run, the inbox, and the cursor if given.
    async fn apply(&self, run: &Run, range: std::ops::Range<usize>, cursor: Option<Cursor>) -> Result<Done, Stopped> {
        #[cfg(feature = "planted-bugs")]
        if crate::planted::moves_cursor_before_effect() {
            return self.apply_late(run, range, cursor).await;
        }
        self.transact(run, range, cursor, Parts::ALL).await
    }

    /// The planted bug: the cursor and inbox are committed, and then the effect.
    #[cfg(feature = "planted-bugs")]
    async fn apply_late(
        &self,
        run: &Run,
        range: std::ops::Range<usize>,
        cursor: Option<Cursor>,
    ) -> Result<Done, Stopped> {
        let done = self.transact(run, range.clone(), cursor, Parts { effect: false, ..Parts::ALL });
        let done = done.await?;
        let end = match done {
            Done::All => range.end,
            Done::UpToGap { at, .. } => at,
        };
        self.transact(run, range.start..end, None, Parts { effect: true, inbox: false }).await?;
        Ok(done)
    }

    async fn transact(
        &self,
        run: &Run,
        range: std::ops::Range<usize>,
        cursor: Option<Cursor>,
        parts: Parts,
    ) -> Result<Done, Stopped> {
        let (inner, run) = (self.inner.clone(), run.clone());
        self.inner
            .store
            .write(self.inner.site, async move |tx: &mut Tx| {
                transaction(tx, &inner, &run, range.clone(), cursor, parts).await
            })
            .await
    }
}

/// What a transaction does; all of it, except where a bug is planted.
#[derive(Clone, Copy)]
struct Parts {
    effect: bool,
    inbox: bool,
}

impl Parts {
    const ALL: Self = Self { effect: true, inbox: true };
}

/// What is known of a stream within one transaction.
struct Stream {
    last: u64,
    parked: bool,
    moved: bool,
}

async fn transaction(
    tx: &mut Tx,
    inner: &Inner,
    run: &[Message],
    range: std::ops::Range<usize>,
    cursor: Option<Cursor>,
    parts: Parts,
) -> Result<Done, Stopped> {
    let mut streams: HashMap<&str, Stream> = HashMap::new();
    let lot_in_use = parked::count(tx, inner.name).await? > 0;
    let mut done = Done::All;
    let mut producer = "";
    let mut position = None;
    for (at, message) in run.iter().enumerate().take(range.end).skip(range.start) {
        producer = &message.service;
        let stream = match streams.get_mut(message.stream.as_str()) {
            Some(stream) => stream,
            None => {
                let known = look_up(tx, inner, message, lot_in_use, parts).await?;
                streams.entry(&message.stream).or_insert(known)
            }
        };
        match inbox::judge(stream.last, message.version) {
            Seen::Duplicate => {}
            Seen::Gap { from } => {
                done = Done::UpToGap { at, from };
                break;
            }
            Seen::New => {
                let known = inner.handler.knows(&message.name);
                let effect = if known && !inner.handler.wants(&message.name) {
                    Ok(())
                } else if stream.parked {
                    queue_behind(tx, inner, message).await
                } else if !known {
                    Err(Failure::newer(&message.name))
                } else if parts.effect {
                    apply(tx, inner, message).await
                } else {
                    Ok(())
                };
                effect.map_err(|failure| Stopped { at: Some(at), why: Why::Failure(failure) })?;
                stream.last = message.version;
                stream.moved = true;
            }
        }
        position = Some(message.position);
    }
    if parts.inbox {
        for (name, stream) in streams.iter().filter(|(_, stream)| stream.moved) {
            inbox::record(tx, inner.name, producer, name, stream.last).await?;
        }
    }
    if let (Some(cursor), Some(new)) = (cursor, position)
        && !cursors::advance(tx, inner.name, producer, cursor.shard, cursor.position, new).await?
    {
        return Err(Stopped { at: None, why: Why::Overtaken });
    }
    Ok(done)
}

/// The effect of one message, as a part of the story that the message belongs to.
pub(crate) async fn apply(tx: &mut Tx, inner: &Inner, message: &Message) -> Result<(), Failure> {
    let Ok(story) = Trace::parse(&message.traceparent) else {
        return inner.handler.apply(tx, message).await;
    };
    let name = Name::of("process", message.service.clone());
    let mut span = Running::begin(inner.store.name(), Kind::Consumer, name, &story);
    if !span.is_recorded() {
        return inner.handler.apply(tx, message).await;
    }
    span.set("messaging.operation.type", "process");
    span.set("messaging.destination.name", message.service.clone());
    span.set("messaging.consumer.group.name", inner.name);
    span.set("stoa.event", message.name.clone());
    let message = Message { traceparent: span.trace().traceparent(), ..message.clone() };
    let applied = spans::within(span.trace(), inner.handler.apply(tx, &message)).await;
    if applied.is_err() {
        span.fail(true);
    }
    span.end();
    applied
}

async fn look_up(
    tx: &mut Tx,
    inner: &Inner,
    message: &Message,
    lot_in_use: bool,
    parts: Parts,
) -> Result<Stream, log::Error> {
    let Message { service, stream, version, .. } = message;
    let last = if parts.inbox { inbox::last(tx, inner.name, service, stream).await? } else { version - 1 };
    let parked = lot_in_use && parked::is_parked(tx, inner.name, service, stream).await?;
    Ok(Stream { last, parked, moved: false })
}

async fn queue_behind(tx: &mut Tx, inner: &Inner, message: &Message) -> Result<(), Failure> {
    let entry = parked::Entry {
        producer: &message.service,
        stream: &message.stream,
        version: message.version,
        name: &message.name,
        reason: "",
    };
    parked::park(tx, inner.name, entry, inner.limits.lot).await?;
    Ok(())
}
