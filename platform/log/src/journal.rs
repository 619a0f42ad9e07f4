//! The log of one service: append, load, read, tail.
//!
//! Positions are dense per shard and assigned under a lock by the appending transaction, so whoever
//! has seen position p of a shard has seen everything up to p: a reader that remembers the last
//! position it dealt with cannot skip a late commit. Reading the same position twice gives the same
//! bytes; only personal fields fall silent once their subject is forgotten.

use std::sync::Arc;

use contract::EventSet;
use store::{NewEvent, Recorded, Site, Store, Tx};
use tokio::sync::watch;

use crate::once::{Refusable, Request};
use crate::opening;
use crate::personal::{self, Keys};
use crate::{At, Entry, Error, Meta, Projection};

/// The log of one service, and the rows that are kept with it. Cheap to clone.
pub struct Log<E> {
    inner: Arc<Inner<E>>,
}

struct Inner<E> {
    store: Store,
    projections: Vec<Arc<dyn Projection<E>>>,
}

impl<E> Clone for Log<E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<E> std::fmt::Debug for Log<E> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Log").finish_non_exhaustive()
    }
}

impl<E: EventSet> Log<E> {
    /// A log over `store`, whose migrations must begin with [`crate::MIGRATIONS`]; `projections` are
    /// applied to every event in this order.
    pub fn new(store: Store, projections: Vec<Arc<dyn Projection<E>>>) -> Self {
        Self { inner: Arc::new(Inner { store, projections }) }
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The inline projections, in order.
    pub fn projections(&self) -> &[Arc<dyn Projection<E>>] {
        &self.inner.projections
    }

    /// Wakes its holder after each commit that appended; the value is a hint, the log the truth.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.store.head()
    }

    /// Appends `events` to `stream`, which must be at version `expected` (0: it does not exist), and
    /// applies the inline projections, all in `tx`; returns the new version.
    ///
    /// Personal fields are sealed with the key of `subject` first; an event that has some without a
    /// subject is refused.
    pub async fn append(
        &self,
        tx: &mut Tx,
        stream: &str,
        expected: u64,
        meta: &Meta,
        subject: Option<&str>,
        events: Vec<E>,
    ) -> Result<u64, Error> {
        let actual = taken(tx, stream).await?;
        if actual != expected {
            return Err(Error::Conflict { stream: stream.to_owned(), expected, actual });
        }
        self.append_after(tx, stream, expected, meta, subject, events).await
    }

    /// `expected` is the version of the stream, which nobody else appends to before this transaction ends.
    async fn append_after(
        &self,
        tx: &mut Tx,
        stream: &str,
        expected: u64,
        meta: &Meta,
        subject: Option<&str>,
        events: Vec<E>,
    ) -> Result<u64, Error> {
        let mut at = At {
            stream: stream.to_owned(),
            version: expected,
            subject: subject.map(str::to_owned),
            occur_time: tx.now(),
            causation: meta.causation.clone(),
            correlation: meta.correlation.clone(),
            traceparent: meta.traceparent.clone(),
        };
        for mut event in events {
            at.version += 1;
            seal(tx, subject, &mut event).await?;
            tx.append(NewEvent {
                stream: at.stream.clone(),
                version: at.version,
                name: event.name(),
                schema: event.schema(),
                payload: event.encode(),
                subject: at.subject.clone(),
                causation: at.causation.clone(),
                correlation: at.correlation.clone(),
                traceparent: at.traceparent.clone(),
            });
            for projection in &self.inner.projections {
                projection.apply(tx, &at, &event).await?;
            }
        }
        Ok(at.version)
    }

    /// Appends at whatever version the stream has: for rows whose guard is not the stream's version
    /// but a guarded update in the same transaction.
    pub async fn append_next(
        &self,
        tx: &mut Tx,
        stream: &str,
        meta: &Meta,
        subject: Option<&str>,
        events: Vec<E>,
    ) -> Result<u64, Error> {
        let expected = taken(tx, stream).await?;
        self.append_after(tx, stream, expected, meta, subject, events).await
    }

    /// The version of a stream, with what this transaction has appended; 0 when it does not exist.
    pub async fn version(&self, tx: &mut Tx, stream: &str) -> Result<u64, Error> {
        version(tx, stream).await
    }

    /// Every event of a stream in order, with what this transaction has appended (at position 0).
    pub async fn load(&self, tx: &mut Tx, stream: &str) -> Result<Vec<Entry<E>>, Error> {
        self.load_after(tx, stream, 0).await
    }

    /// As [`Log::load`], without the events up to version `after`: for one who has folded those already.
    pub async fn load_after(&self, tx: &mut Tx, stream: &str, after: u64) -> Result<Vec<Entry<E>>, Error> {
        let mut keys = Keys::default();
        let mut entries = Vec::new();
        loop {
            let from = after + entries.len() as u64 + 1;
            let page = tx.events(stream, from, PAGE).await?;
            let full = page.len() == PAGE as usize;
            for recorded in page {
                entries.push(opened(tx, &mut keys, recorded).await?);
            }
            if !full {
                break;
            }
        }
        let now = tx.now();
        let pending: Vec<NewEvent> = {
            let new = |event: &&NewEvent| event.stream == stream && event.version > after;
            tx.appended().iter().filter(new).cloned().collect()
        };
        for event in pending {
            entries.push(opened(tx, &mut keys, pending_as_recorded(event, now)).await?);
        }
        Ok(entries)
    }

    /// The stored events of a stream from version `from` on, at most `limit`.
    pub async fn read(&self, tx: &mut Tx, stream: &str, from: u64, limit: u32) -> Result<Vec<Entry<E>>, Error> {
        let page = tx.events(stream, from, limit).await?;
        all_opened(tx, page).await
    }

    /// The events of a shard after position `after`, at most `limit`. One statement on one snapshot.
    pub async fn tail(&self, tx: &mut Tx, shard: u32, after: u64, limit: u32) -> Result<Vec<Entry<E>>, Error> {
        let page = tx.tail(shard, after, limit).await?;
        all_opened(tx, page).await
    }

    /// As [`Log::tail`], but encoded, for those who pass events on. The bytes are the stored ones but for the sealed texts in
    /// them, which are opened: also events and fields of a newer release, which this one does not know, pass unharmed.
    pub async fn tail_recorded(&self, tx: &mut Tx, shard: u32, after: u64, limit: u32) -> Result<Vec<Recorded>, Error> {
        let page = tx.tail(shard, after, limit).await?;
        all_open_recorded::<E>(tx, page).await
    }

    /// As [`Log::tail`], but as stored, and whether there may be personal fields sealed in it.
    pub async fn tail_sealed(
        &self,
        tx: &mut Tx,
        shard: u32,
        after: u64,
        limit: u32,
    ) -> Result<Vec<(Recorded, bool)>, Error> {
        let page = tx.tail(shard, after, limit).await?.into_iter();
        // Only an event with a subject can have sealed fields. It may be one of a newer release, so it is not decoded.
        let marked = page.map(|recorded| {
            let sealed = recorded.subject.is_some() && opening::may_be_sealed(&recorded.payload);
            (recorded, sealed)
        });
        Ok(marked.collect())
    }

    /// As [`Log::read`], but encoded; see [`Log::tail_recorded`].
    pub async fn read_recorded(
        &self,
        tx: &mut Tx,
        stream: &str,
        from: u64,
        limit: u32,
    ) -> Result<Vec<Recorded>, Error> {
        let page = tx.events(stream, from, limit).await?;
        all_open_recorded::<E>(tx, page).await
    }

    /// Runs `body` in one transaction with its request id; see [`crate::once`]. Without a request it
    /// is a plain transaction. A body that loses a race for a stream's version runs again.
    pub async fn once<Reply, X, F>(&self, site: &'static Site, request: Option<Request>, body: F) -> Result<Reply, X>
    where
        Reply: prost::Message + Default + 'static,
        X: From<Error> + From<store::Error> + Refusable + Send + 'static,
        F: AsyncFnMut(&mut Tx) -> Result<Reply, X> + Send + 'static,
    {
        crate::once::once(&self.inner.store, site, request, body).await
    }
}

/// How many events are read by one statement.
pub(crate) const PAGE: u32 = 1024;

/// See [`Log::version`].
/// The version of a stream that stays its version, but for what this transaction appends. The projections write rows before
/// the event itself is stored; of two transactions that append the same version one must be told so before it writes any.
async fn taken(tx: &mut Tx, stream: &str) -> Result<u64, Error> {
    if !tx.appended().iter().any(|event| event.stream == stream) {
        tx.take_stream(stream).await?;
    }
    version(tx, stream).await
}

pub(crate) async fn version(tx: &mut Tx, stream: &str) -> Result<u64, Error> {
    let pending = tx.appended().iter().rev().find(|event| event.stream == stream);
    match pending.map(|event| event.version) {
        Some(version) => Ok(version),
        None => Ok(tx.version(stream).await?),
    }
}

/// The event as it is stored, personal fields left sealed.
pub(crate) fn sealed<E: EventSet>(recorded: Recorded) -> Result<Entry<E>, Error> {
    let event = decoded(&recorded)?;
    Ok(entry(recorded, event))
}

fn decoded<E: EventSet>(recorded: &Recorded) -> Result<E, Error> {
    E::decode(&recorded.name, recorded.schema, &recorded.payload).map_err(|source| Error::Decode {
        stream: recorded.stream.clone(),
        version: recorded.version,
        source,
    })
}

fn entry<E>(recorded: Recorded, event: E) -> Entry<E> {
    Entry {
        shard: recorded.shard,
        position: recorded.position,
        at: At {
            stream: recorded.stream,
            version: recorded.version,
            subject: recorded.subject,
            occur_time: recorded.occur_time,
            causation: recorded.causation,
            correlation: recorded.correlation,
            traceparent: recorded.traceparent,
        },
        event,
    }
}

fn pending_as_recorded(event: NewEvent, now: jiff::Timestamp) -> Recorded {
    Recorded {
        shard: 0,
        position: 0,
        stream: event.stream,
        version: event.version,
        name: event.name.to_owned(),
        schema: event.schema,
        payload: event.payload,
        subject: event.subject,
        occur_time: now,
        causation: event.causation,
        correlation: event.correlation,
        traceparent: event.traceparent,
    }
}

async fn all_opened<E: EventSet>(tx: &mut Tx, page: Vec<Recorded>) -> Result<Vec<Entry<E>>, Error> {
    let mut keys = Keys::default();
    let mut entries = Vec::with_capacity(page.len());
    for recorded in page {
        entries.push(opened(tx, &mut keys, recorded).await?);
    }
    Ok(entries)
}

async fn opened<E: EventSet>(tx: &mut Tx, keys: &mut Keys, recorded: Recorded) -> Result<Entry<E>, Error> {
    let mut event = decoded(&recorded)?;
    if let Some(subject) = &recorded.subject {
        open(tx, keys, subject, &mut event).await?;
    }
    Ok(entry(recorded, event))
}

async fn all_open_recorded<E: EventSet>(tx: &mut Tx, mut page: Vec<Recorded>) -> Result<Vec<Recorded>, Error> {
    let mut keys = Keys::default();
    for recorded in &mut page {
        // Only an event with a subject can have sealed fields; all others pass untouched.
        if let Some(subject) = recorded.subject.clone()
            && opening::may_be_sealed(&recorded.payload)
        {
            open_where_it_lies::<E>(tx, &mut keys, &subject, recorded).await?;
        }
    }
    Ok(page)
}

/// Opens the sealed texts of a stored event. Those of its personal fields must open; what else looks like one may be anything.
async fn open_where_it_lies<E: EventSet>(
    tx: &mut Tx,
    keys: &mut Keys,
    subject: &str,
    recorded: &mut Recorded,
) -> Result<(), Error> {
    let must = sealed_texts::<E>(recorded)?;
    let key = match keys.get(tx, subject).await {
        Ok(key) => key,
        Err(Error::Unreadable { .. }) if must.is_empty() => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut open = |text: &str| match key.open(subject, text) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if must.iter().any(|sealed| sealed == text) => Err(error),
        Err(_) => Ok(None),
    };
    if let Some(payload) = opening::opened(&recorded.payload, &mut open)? {
        recorded.payload = payload;
    }
    Ok(())
}

/// The sealed texts in the personal fields of a stored event, as far as this release knows it.
fn sealed_texts<E: EventSet>(recorded: &Recorded) -> Result<Vec<String>, Error> {
    let mut texts = Vec::new();
    match decoded::<E>(recorded) {
        Ok(mut event) => event.visit_personal(&mut |text| {
            if personal::is_sealed(text) {
                texts.push(text.clone());
            }
        }),
        Err(Error::Decode { source, .. }) if source.is_newer() => {}
        Err(error) => return Err(error),
    }
    Ok(texts)
}

/// Seals the personal fields of an event about to be stored.
async fn seal<E: EventSet>(tx: &mut Tx, subject: Option<&str>, event: &mut E) -> Result<(), Error> {
    let mut personal = false;
    event.visit_personal(&mut |text| personal |= !text.is_empty());
    if !personal {
        return Ok(());
    }
    let name = event.name();
    let subject = subject.ok_or(Error::NoSubject { name })?;
    let key = personal::key_for_sealing(tx, subject).await?;
    replace(event, |text| key.seal(subject, text))
}

/// Opens the sealed fields of a stored event.
async fn open<E: EventSet>(tx: &mut Tx, keys: &mut Keys, subject: &str, event: &mut E) -> Result<(), Error> {
    let mut sealed = false;
    event.visit_personal(&mut |text| sealed |= personal::is_sealed(text));
    if sealed {
        let key = keys.get(tx, subject).await?;
        replace(event, |text| key.open(subject, text))?;
    }
    Ok(())
}

fn replace<E: EventSet>(event: &mut E, with: impl Fn(&str) -> Result<String, Error>) -> Result<(), Error> {
    let mut failed = None;
    event.visit_personal(&mut |text| match with(text) {
        Ok(replaced) => *text = replaced,
        Err(error) => failed = Some(error),
    });
    failed.map_or(Ok(()), Err)
}
