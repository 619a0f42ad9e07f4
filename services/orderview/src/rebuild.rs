//! The views folded anew from ordering's log, and checked against it.
//!
//! Both fold into a scratch store beside the live one, exactly up to where the consumer's cursor stands, while the service
//! goes on. A rebuild then swaps in one transaction that first makes sure the cursor has not moved; so the rows always are
//! the fold of what the consumer has dealt with, and it goes on from there. A check compares one snapshot row by row and
//! changes nothing. Neither holds a table in memory: what is compared passes through a short channel between the engines'
//! threads.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bus::{BoxFuture, Consumer, Hub, Message, Source};
use contracts::orderview::v1::{Event as StoredEvent, ViewRebuilt};
use log::{Difference, Log, MAX_DIFFERENCES, Meta, Rebuilt, What, cursors};
use operations::Derived;
use store::{Row, Store, Tx, Value, site};
use tokio::sync::oneshot;
use tonic::Status;

use crate::consumers::{happened, is_of_an_order};
use crate::error::Error;
use crate::store::{self as rows, Contact, Happened, Unfolded};

/// The name of the views, for operators.
pub(crate) const NAME: &str = "order_views";

/// The derived tables; the key of each is its first columns.
const TABLES: [Table; 2] = [
    Table {
        name: "order_views",
        keys: 1,
        columns: &[
            "name",
            "customer",
            "state",
            "needs_attention",
            "external_reference",
            "payment",
            "currency",
            "subtotal",
            "tax",
            "shipping",
            "total",
            "version",
            "last_event",
            "placed_time",
            "create_time",
            "update_time",
            "progress",
        ],
    },
    Table { name: "order_view_lines", keys: 2, columns: &["order_name", "version", "kind", "lines"] },
];
const TABLE_NAMES: [&str; 2] = ["order_views", "order_view_lines"];

const PRODUCER: &str = "ordering";
/// Events applied to the scratch store in one transaction.
const PAGE: u32 = 2048;
/// Rows sent from thread to thread at a time.
const CHUNK: usize = 256;
/// Chunks under way at a time.
const UNDER_WAY: usize = 4;
/// Times a swap is tried; with the consumer paused the second finds the cursor where it was.
const ROUNDS: usize = 16;

struct Table {
    name: &'static str,
    keys: usize,
    columns: &'static [&'static str],
}

/// The views of orders, as operators handle them. A cheap handle.
#[derive(Clone)]
pub(crate) struct Views {
    pub(crate) log: Log<StoredEvent>,
    pub(crate) hub: Hub,
    pub(crate) consumer: Consumer,
}

impl Derived for Views {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tables(&self) -> &'static [&'static str] {
        &TABLE_NAMES
    }

    fn rebuild<'a>(&'a self, actor: &'a str) -> BoxFuture<'a, Result<Rebuilt, Status>> {
        Box::pin(async move { Ok(rebuild(self, actor).await?) })
    }

    fn verify(&self) -> BoxFuture<'_, Result<Vec<Difference>, Status>> {
        Box::pin(async move { Ok(verify(self).await?) })
    }
}

/// Folds the views anew beside the live ones, then swaps them in.
pub(crate) async fn rebuild(views: &Views, actor: &str) -> Result<Rebuilt, Error> {
    let mut side = Side::new(views).await?;
    side.fold_to(views.positions(side.at.len()).await?).await?;
    let paused = Paused::new(&views.consumer);
    for _ in 0..ROUNDS {
        side.fold_to(views.positions(side.at.len()).await?).await?;
        if let Some(rebuilt) = swap(views, &side, actor).await? {
            drop(paused);
            side.scratch.close().await;
            return Ok(rebuilt);
        }
    }
    Err(Error::Rebuild("the consumer would not stand still".to_owned()))
}

/// The rows of the live views that are not what ordering's log says.
pub(crate) async fn verify(views: &Views) -> Result<Vec<Difference>, Error> {
    let mut side = Side::new(views).await?;
    let shards = side.at.len();
    side.fold_to(views.positions(shards).await?).await?;
    let (send_targets, targets) = oneshot::channel();
    let (send, incoming) = async_channel::bounded(UNDER_WAY);
    let mut ends = Some((send_targets, Incoming::new(incoming)));
    let consumer = views.consumer.name();
    let compare = views.log.store().read(async move |tx: &mut Tx| {
        let (send_targets, mut incoming) = ends.take().ok_or_else(interrupted)?;
        let targets = positions(tx, consumer, shards).await?;
        send_targets.send(targets).map_err(|_| interrupted())?;
        compare(tx, &mut incoming).await
    });
    let feed = async {
        side.fold_to(targets.await.map_err(|_| interrupted())?).await?;
        side.scratch.read(async move |tx: &mut Tx| send_all(tx, &send).await).await
    };
    let (differences, feed) = tokio::join!(compare, feed);
    let differences = differences?;
    if differences.len() < MAX_DIFFERENCES {
        feed?;
    }
    side.scratch.close().await;
    Ok(differences)
}

impl Views {
    async fn positions(&self, shards: usize) -> Result<Vec<u64>, Error> {
        let consumer = self.consumer.name();
        self.log.store().read(async move |tx: &mut Tx| positions(tx, consumer, shards).await).await
    }
}

/// How far the consumer has dealt with each shard.
async fn positions(tx: &mut Tx, consumer: &'static str, shards: usize) -> Result<Vec<u64>, Error> {
    let mut all = vec![];
    for (shard, _) in (0..).zip(0..shards) {
        all.push(cursors::get(tx, consumer, PRODUCER, shard).await?);
    }
    Ok(all)
}

/// Stops the consumer until dropped, unless somebody else has stopped it before.
struct Paused<'a>(Option<&'a Consumer>);

impl<'a> Paused<'a> {
    fn new(consumer: &'a Consumer) -> Self {
        if consumer.is_paused() {
            return Self(None);
        }
        consumer.pause();
        Self(Some(consumer))
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if let Some(consumer) = self.0 {
            consumer.resume();
        }
    }
}

/// The fold beside the live views.
struct Side {
    source: Arc<dyn Source>,
    scratch: Store,
    /// How far it has come in each shard.
    at: Vec<u64>,
    events: u64,
    /// Orders with an event that cannot be folded: the consumer parks them there, and so they end here.
    broken: HashSet<String>,
}

impl Side {
    async fn new(views: &Views) -> Result<Self, Error> {
        let source =
            views.hub.source(PRODUCER).ok_or_else(|| Error::Rebuild("ordering does not publish".to_owned()))?;
        let at = vec![0; source.heads().await?.len()];
        let scratch = views.log.store().scratch().await?;
        Ok(Self { source, scratch, at, events: 0, broken: HashSet::new() })
    }

    /// Folds up to and with these positions.
    async fn fold_to(&mut self, targets: Vec<u64>) -> Result<(), Error> {
        for (shard, (index, target)) in (0..).zip(targets.into_iter().enumerate()) {
            let source = self.source.clone();
            let read = async |after: u64| {
                let limit = u32::try_from(target.saturating_sub(after)).unwrap_or(PAGE).min(PAGE);
                if limit == 0 { Ok(vec![]) } else { source.read(shard, after, limit).await }
            };
            let mut at = self.at.get(index).copied().unwrap_or(target);
            let mut page = read(at).await?;
            while at < target {
                let Some(last) = page.last().map(|last| last.position) else {
                    return Err(Error::Rebuild(format!("ordering's log ends at {at} and {target} was seen")));
                };
                // The next page is read while this one is applied.
                let (applied, next) = tokio::join!(self.apply(page), read(last));
                applied?;
                page = next?;
                at = last;
                if let Some(reached) = self.at.get_mut(index) {
                    *reached = at;
                }
            }
        }
        Ok(())
    }

    /// Applies a page, order by order: between orders the views know no sequence.
    async fn apply(&mut self, page: Vec<Message>) -> Result<(), Error> {
        self.events += page.len() as u64;
        let mut orders: Vec<(String, Vec<Happened>)> = vec![];
        let mut places: HashMap<String, usize> = HashMap::new();
        for message in page.into_iter().filter(|message| is_of_an_order(&message.name)) {
            if self.broken.contains(&message.stream) {
                continue;
            }
            let Ok(happened) = happened(&message) else {
                self.broken.insert(message.stream);
                continue;
            };
            let place = *places.entry(message.stream).or_insert_with_key(|order| {
                orders.push((order.clone(), vec![]));
                orders.len() - 1
            });
            if let Some((_, events)) = orders.get_mut(place) {
                events.push(happened);
            }
        }
        let applied = self.scratch.write(site!("orderview.scratch"), async move |tx: &mut Tx| {
            for (order, events) in &orders {
                rows::fold(tx, order, events).await?;
            }
            Ok(())
        });
        applied.await.map_err(|error: Unfolded| Error::Rebuild(error.to_string()))
    }
}

/// Puts the scratch rows in the place of the live ones; nothing if the consumer has moved on meanwhile.
async fn swap(views: &Views, side: &Side, actor: &str) -> Result<Option<Rebuilt>, Error> {
    let (send, incoming) = async_channel::bounded(UNDER_WAY);
    let mut incoming = Some(Incoming::new(incoming));
    let (log, consumer, at) = (views.log.clone(), views.consumer.name(), side.at.clone());
    let (scratch, events, actor) = (side.scratch.clone(), side.events, actor.to_owned());
    let swap = views.log.store().write_alone(site!("orderview.rebuild"), async move |tx: &mut Tx| {
        // The contacts stream through once; a second run of the body has nothing to swap in.
        let mut incoming = incoming.take().ok_or_else(interrupted)?;
        if positions(tx, consumer, at.len()).await? != at {
            return Ok(None);
        }
        let row_count = tx.adopt(&scratch, &TABLE_NAMES).await?;
        while let Some(contacts) = incoming.contacts()? {
            for contact in contacts {
                rows::keep_contact(tx, &contact.order, &contact.customer, &contact.email).await?;
            }
        }
        let rebuilt = ViewRebuilt { view: NAME.to_owned(), event_count: events, row_count, actor: actor.clone() };
        let meta = Meta { causation: "orderview.rebuild".to_owned(), ..Meta::default() };
        log.append_next(tx, "views/order_views", &meta, None, vec![StoredEvent::ViewRebuilt(rebuilt)]).await?;
        Ok::<_, Error>(Some(Rebuilt { events, rows: row_count }))
    });
    let feed = side.scratch.read(async move |tx: &mut Tx| send_contacts(tx, &send).await);
    let (swapped, feed) = tokio::join!(swap, feed);
    let swapped = swapped?;
    if swapped.is_some() {
        feed?;
    }
    Ok(swapped)
}

impl Table {
    fn select(&self) -> String {
        let keys = self.columns.get(..self.keys).unwrap_or_default();
        format!("SELECT {} FROM {} ORDER BY {}", self.columns.join(", "), self.name, keys.join(", "))
    }

    fn order(&self, left: &Row, right: &Row) -> Ordering {
        let pairs = left.values().iter().zip(right.values()).take(self.keys);
        pairs.map(|(left, right)| order(left, right)).find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
    }

    fn difference(&self, row: &Row, what: What) -> Difference {
        let key = row.values().iter().take(self.keys).map(|value| match value {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        });
        Difference { table: self.name, key: key.collect::<Vec<_>>().join("@"), what }
    }
}

/// Keys are texts and numbers, each column of one kind.
fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        _ => format!("{left:?}").cmp(&format!("{right:?}")),
    }
}

/// Rows of the scratch tables, table after table, then contacts.
enum Chunk {
    Rows(Vec<Row>),
    TableEnd,
    Contacts(Vec<Contact>),
    End,
}

async fn send_all(tx: &mut Tx, send: &async_channel::Sender<Chunk>) -> Result<(), Error> {
    let pass = |chunk| send.send_blocking(chunk).map_err(|_| interrupted());
    for table in &TABLES {
        let mut rows = Vec::with_capacity(CHUNK);
        let mut passed = Ok(());
        tx.each(&table.select(), &[], |row| {
            rows.push(row);
            if rows.len() == CHUNK && passed.is_ok() {
                passed = pass(Chunk::Rows(std::mem::take(&mut rows)));
            }
            Ok(())
        })
        .await?;
        passed?;
        pass(Chunk::Rows(rows))?;
        pass(Chunk::TableEnd)?;
    }
    send_contacts(tx, send).await
}

/// Contacts are sealed with keys of their store, so they cannot be adopted as they are.
async fn send_contacts(tx: &mut Tx, send: &async_channel::Sender<Chunk>) -> Result<(), Error> {
    let pass = |chunk| send.send_blocking(chunk).map_err(|_| interrupted());
    let mut after = String::new();
    loop {
        let contacts = rows::contacts(tx, &after, PAGE).await?;
        let Some(last) = contacts.last() else { break };
        after.clone_from(&last.order);
        pass(Chunk::Contacts(contacts))?;
    }
    pass(Chunk::End)
}

/// The receiving end of [`send_all`], on the thread of the live store's engine.
struct Incoming {
    chunks: async_channel::Receiver<Chunk>,
    rows: std::vec::IntoIter<Row>,
}

impl Incoming {
    fn new(chunks: async_channel::Receiver<Chunk>) -> Self {
        Self { chunks, rows: Vec::new().into_iter() }
    }

    /// The next row of the present table; nothing at its end, and then the next table begins.
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            match self.chunks.recv_blocking() {
                Ok(Chunk::Rows(rows)) => self.rows = rows.into_iter(),
                Ok(Chunk::TableEnd) => return Ok(None),
                Ok(Chunk::Contacts(_) | Chunk::End) | Err(_) => return Err(interrupted()),
            }
        }
    }

    /// More contacts, after all tables; nothing at their end.
    fn contacts(&mut self) -> Result<Option<Vec<Contact>>, Error> {
        match self.chunks.recv_blocking() {
            Ok(Chunk::Contacts(contacts)) => Ok(Some(contacts)),
            Ok(Chunk::End) => Ok(None),
            Ok(Chunk::Rows(_) | Chunk::TableEnd) | Err(_) => Err(interrupted()),
        }
    }
}

/// Merges the live rows with the scratch rows, both in the order of their keys.
async fn compare(tx: &mut Tx, incoming: &mut Incoming) -> Result<Vec<Difference>, Error> {
    let mut differences = vec![];
    for table in &TABLES {
        let mut derived = incoming.next_row()?;
        let mut failed = None;
        tx.each(&table.select(), &[], |row| {
            if failed.is_none() && differences.len() < MAX_DIFFERENCES {
                failed = compare_row(table, &row, &mut derived, incoming, &mut differences).err();
            }
            Ok(())
        })
        .await?;
        failed.map_or(Ok(()), Err)?;
        while let Some(row) = derived.take() {
            if differences.len() >= MAX_DIFFERENCES {
                return Ok(differences);
            }
            differences.push(table.difference(&row, What::Missing));
            derived = incoming.next_row()?;
        }
        if differences.len() >= MAX_DIFFERENCES {
            return Ok(differences);
        }
    }
    while let Some(contacts) = incoming.contacts()? {
        for expected in contacts {
            differences.extend(compare_contact(tx, &expected).await?);
        }
    }
    differences.truncate(MAX_DIFFERENCES);
    Ok(differences)
}

fn compare_row(
    table: &Table,
    row: &Row,
    derived: &mut Option<Row>,
    incoming: &mut Incoming,
    differences: &mut Vec<Difference>,
) -> Result<(), Error> {
    loop {
        let Some(other) = derived.as_ref() else {
            differences.push(table.difference(row, What::Extra));
            return Ok(());
        };
        match table.order(row, other) {
            Ordering::Less => {
                differences.push(table.difference(row, What::Extra));
                return Ok(());
            }
            Ordering::Greater => {
                differences.push(table.difference(other, What::Missing));
                *derived = incoming.next_row()?;
            }
            Ordering::Equal => {
                let values = row.values().iter().zip(other.values());
                let columns = table.columns.iter().zip(values).filter(|(_, (left, right))| left != right);
                let columns: Vec<String> = columns.map(|(column, _)| (*column).to_owned()).collect();
                if !columns.is_empty() {
                    differences.push(table.difference(row, What::Differs(columns)));
                }
                *derived = incoming.next_row()?;
                return Ok(());
            }
        }
    }
}

/// A contact that should be kept. One that opens as nothing belongs to somebody who is forgotten here, and is right.
async fn compare_contact(tx: &mut Tx, expected: &Contact) -> Result<Option<Difference>, Error> {
    let differs = |what| Some(Difference { table: "order_contacts", key: expected.order.clone(), what });
    if !rows::has_contact(tx, &expected.order).await? {
        return Ok(differs(What::Missing));
    }
    match rows::contact(tx, &expected.order).await {
        Ok(email) if email.is_empty() || expected.email.is_empty() || email == expected.email => Ok(None),
        Ok(_) | Err(log::Error::Unreadable { .. }) => Ok(differs(What::Differs(vec!["email".to_owned()]))),
        Err(error) => Err(error.into()),
    }
}

fn interrupted() -> Error {
    Error::Rebuild("the other side went away".to_owned())
}
