//! Rebuilding derived tables from the log, and checking them against it.
//!
//! Both fold the log into a scratch store beside the live one, page by page, while the service goes
//! on. A rebuild then swaps in one transaction: the live tables adopt the scratch rows, and the events
//! that came meanwhile are applied; whoever reads sees the old rows or the new ones.
//! A check takes one snapshot of the live store, brings the scratch rows to exactly that snapshot's
//! end, and compares row by row; it changes nothing.
//!
//! The log is folded shard after shard, so rows that streams of several shards make together pass through states that never
//! were. Projections must come to the same rows all the same; constraints (CHECK) are asked only of what comes out, by the
//! live tables that adopt it.
//!
//! Neither holds the log or a table in memory: pages and rows pass through short channels between
//! the engines' threads. While the swap runs, the writer of the live store is busy with it.

use std::sync::Arc;

use contract::EventSet;
use store::{Row, Store, Tx, Value};

use crate::journal::sealed;
use crate::layout::Layout;
use crate::{Entry, Error, Log, Projection};

/// What a rebuild did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Events folded.
    pub events: u64,
    /// Rows the tables have now, as far as they were copied.
    pub rows: u64,
}

/// A row that is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: &'static str,
    /// The row's key, column by column, as text.
    pub key: String,
    /// What is wrong with it.
    pub what: What,
}

/// How a row differs from what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The log says it exists, the table does not have it.
    Missing,
    /// The table has it, the log knows nothing of it.
    Extra,
    /// These columns differ. Values are not shown: they may be personal.
    Differs(Vec<String>),
}

/// Differences reported at most; a table that lost its meaning needs no longer list.
pub const MAX_DIFFERENCES: usize = 1000;

/// Events applied to the scratch store in one transaction.
const PAGE: u32 = 4096;
/// Rows sent from thread to thread at a time.
const CHUNK: usize = 256;
/// Chunks under way at a time.
const UNDER_WAY: usize = 4;

impl<E: EventSet> Log<E> {
    /// Derives the tables of the projection `name` afresh and swaps them in.
    pub async fn rebuild(&self, name: &str) -> Result<Rebuilt, Error> {
        let projection = self.projection(name)?;
        let live = self.store();
        let scratch = live.scratch().await?;
        let (cursors, events) = fold(live, &scratch, &projection).await?;
        let (swapped, source) = (projection.clone(), scratch.clone());
        let swap = live.write(store::site!("log.rebuild"), async move |tx: &mut Tx| {
            let rows = tx.adopt(&source, swapped.tables()).await?;
            let late = catch_up(tx, &swapped, &cursors).await?;
            Ok::<_, Error>((rows, late))
        });
        let (rows, late) = swap.await?;
        scratch.close().await;
        Ok(Rebuilt { events: events + late, rows })
    }

    /// The rows of the projection `name` that are not what the log says; empty when all are.
    pub async fn verify(&self, name: &str) -> Result<Vec<Difference>, Error> {
        let projection = self.projection(name)?;
        let live = self.store();
        let scratch = live.scratch().await?;
        let (cursors, _) = fold(live, &scratch, &projection).await?;
        let layouts = layouts(&scratch, &projection).await?;

        // Two channels: the snapshot's last events go out, the scratch rows come back.
        let (send_events, events) = async_channel::bounded::<Vec<Entry<E>>>(UNDER_WAY);
        let (send, incoming) = async_channel::bounded(UNDER_WAY);
        let mut ends = Some((send_events, Incoming::new(incoming)));
        let (comparing, who) = (layouts.clone(), projection.name());
        let compare = live.read(async move |tx: &mut Tx| {
            let (send_events, mut incoming) = ends.take().ok_or_else(|| interrupted(who))?;
            for (shard, cursor) in (0..).zip(&cursors) {
                let mut after = *cursor;
                loop {
                    let page = page::<E>(tx, shard, after).await?;
                    let Some(last) = page.last() else { break };
                    after = last.position;
                    send_events.send_blocking(page).map_err(|_| interrupted(who))?;
                }
            }
            drop(send_events);
            compare_tables(tx, &comparing, &mut incoming).await
        });
        let feed = async {
            while let Ok(page) = events.recv().await {
                apply(&scratch, &projection, page).await?;
            }
            let layouts = layouts.clone();
            scratch.read(async move |tx: &mut Tx| send_tables(tx, &layouts, &send, who).await).await
        };
        let (differences, feed) = tokio::join!(compare, feed);
        let differences = differences?;
        if differences.len() < MAX_DIFFERENCES {
            feed?;
        }
        scratch.close().await;
        Ok(differences)
    }

    fn projection(&self, name: &str) -> Result<Arc<dyn Projection<E>>, Error> {
        let found = self.projections().iter().find(|projection| projection.name() == name);
        found.cloned().ok_or_else(|| Error::NoSuchProjection(name.to_owned()))
    }
}

/// Folds the live log into the scratch tables until it has seen its end once; says how far it came
/// in each shard and how many events that were.
async fn fold<E: EventSet>(
    live: &Store,
    scratch: &Store,
    projection: &Arc<dyn Projection<E>>,
) -> Result<(Vec<u64>, u64), Error> {
    let shards = live.read(async |tx: &mut Tx| Ok::<_, Error>(tx.heads().await?.len())).await?;
    let mut cursors = vec![0; shards];
    for (shard, cursor) in (0..).zip(&mut cursors) {
        let mut entries = read_page::<E>(live, shard, *cursor).await?;
        while let Some(last) = entries.last() {
            *cursor = last.position;
            // A page that is not full was the end; what comes later belongs to the swap.
            let full = entries.len() == PAGE as usize;
            let next = async { if full { read_page(live, shard, *cursor).await } else { Ok(Vec::new()) } };
            let (next, applied) = tokio::join!(next, apply(scratch, projection, entries));
            applied?;
            entries = next?;
        }
    }
    let events = cursors.iter().sum();
    Ok((cursors, events))
}

async fn read_page<E: EventSet>(live: &Store, shard: u32, after: u64) -> Result<Vec<Entry<E>>, Error> {
    live.read(async move |tx: &mut Tx| page(tx, shard, after).await).await
}

async fn page<E: EventSet>(tx: &mut Tx, shard: u32, after: u64) -> Result<Vec<Entry<E>>, Error> {
    tx.tail(shard, after, PAGE).await?.into_iter().map(sealed).collect()
}

async fn apply<E: EventSet>(
    scratch: &Store,
    projection: &Arc<dyn Projection<E>>,
    entries: Vec<Entry<E>>,
) -> Result<(), Error> {
    let projection = projection.clone();
    scratch
        .write(store::site!("log.scratch"), async move |tx: &mut Tx| {
            // A scratch store is SQLite, whatever the live one is.
            tx.execute("PRAGMA ignore_check_constraints = ON", &[]).await?;
            for entry in &entries {
                projection.apply(tx, &entry.at, &entry.event).await?;
            }
            Ok(())
        })
        .await
}

async fn layouts<E: EventSet>(scratch: &Store, projection: &Arc<dyn Projection<E>>) -> Result<Arc<[Layout]>, Error> {
    let tables = projection.tables();
    scratch
        .read(async move |tx: &mut Tx| {
            let mut layouts = Vec::new();
            for table in tables {
                layouts.push(Layout::of(tx, table).await?);
            }
            Ok(layouts.into())
        })
        .await
}

/// Applies the events that came while the log was folded; says how many those are.
async fn catch_up<E: EventSet>(
    tx: &mut Tx,
    projection: &Arc<dyn Projection<E>>,
    cursors: &[u64],
) -> Result<u64, Error> {
    let mut late = 0;
    for (shard, cursor) in (0..).zip(cursors) {
        let mut after = *cursor;
        loop {
            let page = page::<E>(tx, shard, after).await?;
            let Some(last) = page.last() else { break };
            after = last.position;
            late += page.len() as u64;
            for entry in &page {
                projection.apply(tx, &entry.at, &entry.event).await?;
            }
        }
    }
    Ok(late)
}

/// Rows of the scratch tables, table after table.
enum Chunk {
    Rows(Vec<Row>),
    TableEnd,
}

async fn send_tables(
    tx: &mut Tx,
    layouts: &[Layout],
    send: &async_channel::Sender<Chunk>,
    projection: &'static str,
) -> Result<(), Error> {
    let send = |chunk| send.send_blocking(chunk).map_err(|_| interrupted(projection));
    for layout in layouts {
        let mut rows = Vec::with_capacity(CHUNK);
        let mut sent = Ok(());
        tx.each(&layout.select, &[], |row| {
            rows.push(row);
            if rows.len() == CHUNK && sent.is_ok() {
                let full = std::mem::replace(&mut rows, Vec::with_capacity(CHUNK));
                sent = send(Chunk::Rows(full));
            }
            Ok(())
        })
        .await?;
        sent?;
        send(Chunk::Rows(rows))?;
        send(Chunk::TableEnd)?;
    }
    Ok(())
}

/// The receiving end of [`send_tables`], on the thread of the live store's engine.
struct Incoming {
    chunks: async_channel::Receiver<Chunk>,
    rows: std::vec::IntoIter<Row>,
}

impl Incoming {
    fn new(chunks: async_channel::Receiver<Chunk>) -> Self {
        Self { chunks, rows: Vec::new().into_iter() }
    }

    /// The next row of the present table; nothing at its end, and then the next table begins.
    fn next(&mut self, projection: &'static str) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            match self.chunks.recv_blocking() {
                Ok(Chunk::Rows(rows)) => self.rows = rows.into_iter(),
                Ok(Chunk::TableEnd) => return Ok(None),
                Err(_) => return Err(interrupted(projection)),
            }
        }
    }
}

/// Merges the live rows with the scratch rows, both in the order of their keys.
async fn compare_tables(tx: &mut Tx, layouts: &[Layout], incoming: &mut Incoming) -> Result<Vec<Difference>, Error> {
    let mut differences = Vec::new();
    for layout in layouts {
        let mut derived = incoming.next(layout.table)?;
        let mut failed = None;
        tx.each(&layout.select, &[], |row| {
            if failed.is_some() || differences.len() >= MAX_DIFFERENCES {
                return Ok(());
            }
            let step = compare_row(layout, &row, &mut derived, incoming, &mut differences);
            failed = step.err();
            Ok(())
        })
        .await?;
        if let Some(error) = failed {
            return Err(error);
        }
        while let Some(row) = derived.take() {
            if differences.len() >= MAX_DIFFERENCES {
                return Ok(differences);
            }
            differences.push(layout.difference(&row, What::Missing));
            derived = incoming.next(layout.table)?;
        }
    }
    Ok(differences)
}

fn compare_row(
    layout: &Layout,
    row: &Row,
    derived: &mut Option<Row>,
    incoming: &mut Incoming,
    differences: &mut Vec<Difference>,
) -> Result<(), Error> {
    loop {
        let order = derived.as_ref().map(|derived| layout.order(row, derived));
        match (order, derived.as_ref()) {
            (Some(std::cmp::Ordering::Greater), Some(missing)) => {
                differences.push(layout.difference(missing, What::Missing));
                *derived = incoming.next(layout.table)?;
            }
            (Some(std::cmp::Ordering::Equal), Some(same)) => {
                let columns = layout.differing(row, same);
                if !columns.is_empty() {
                    differences.push(layout.difference(row, What::Differs(columns)));
                }
                *derived = incoming.next(layout.table)?;
                return Ok(());
            }
            (Some(std::cmp::Ordering::Less) | None, _) | (Some(_), None) => {
                differences.push(layout.difference(row, What::Extra));
                return Ok(());
            }
        }
    }
}

impl Layout {
    fn difference(&self, row: &Row, what: What) -> Difference {
        let key = self.key_of(row).map(shown).collect::<Vec<_>>().join("/");
        Difference { table: self.table, key, what }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Value::Bool(flag) => flag.to_string(),
        Value::TooLarge(number) => number.to_string(),
    }
}

fn interrupted(projection: &'static str) -> Error {
    Error::Rebuild { projection, detail: "the other side went away".to_owned() }
}
