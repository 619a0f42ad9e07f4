//! The rows of order views: every SQL statement of this service.
//!
//! `order_views` and `order_view_lines` follow from ordering's log alone, so they come out of every fold the same to the
//! byte. An event that is folded already is recognised by the version of the row and changes nothing.

use contracts::ordering::v1 as ordering;
use jiff::Timestamp;
use log::personal;
use store::{Error, Migration, MigrationSet, Row, Tx, Value, params};

use crate::view::Progress;
use crate::wire::{self, Folded, LineKind, Placed};

/// The tables of this service.
pub const MIGRATIONS: MigrationSet =
    MigrationSet::new("orderview", &[Migration::new(1, "orderview", include_str!("../migrations/0001_orderview.sql"))]);

/// An order as stored, its lines and contact apart.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) customer: String,
    pub(crate) external_reference: String,
    pub(crate) payment: String,
    pub(crate) currency: String,
    pub(crate) subtotal: i64,
    pub(crate) tax: i64,
    pub(crate) shipping: i64,
    pub(crate) total: i64,
    pub(crate) version: u64,
    pub(crate) last_event: String,
    pub(crate) placed_time: Timestamp,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
    pub(crate) progress: String,
}

/// What one event did to lines.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) kind: LineKind,
    pub(crate) lines: Vec<u8>,
}

/// An event of an order with its circumstances.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) version: u64,
    pub(crate) event_type: String,
    pub(crate) occur_time: Timestamp,
    pub(crate) event: ordering::Event,
}

/// Why an event could not be folded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfolded {
    /// The stored progress cannot be read.
    #[error("the stored progress of {0} cannot be read: {1}")]
    Progress(String, serde_json::Error),
    /// The log or the store failed.
    #[error(transparent)]
    Log(#[from] log::Error),
}

impl From<Error> for Unfolded {
    fn from(error: Error) -> Self {
        Self::Log(error.into())
    }
}

/// Folds successive events of one order into its rows: the row is read and written once, however many they are.
pub(crate) async fn fold(tx: &mut Tx, order: &str, events: &[Happened]) -> Result<(), Unfolded> {
    let mut folding = Folding::default();
    for happened in events {
        let (change, lines) = match wire::folded(&happened.event) {
            Folded::Placed(placed) => {
                folding.lines.push((happened.version, LineKind::Placed, placed.lines()));
                folding.progress = Some(Progress::placed());
                folding.placed = Some((placed, happened));
                folding.last = Some(happened);
                continue;
            }
            Folded::Nothing => {
                if happened.version > folding.stored_version {
                    folding.last = Some(happened);
                }
                continue;
            }
            Folded::Changed { change, lines } => (change, lines),
        };
        let progress = match folding.progress.take() {
            Some(progress) => progress,
            None => {
                // A row that somebody deleted is not made up from the middle of its story.
                let Some((version, progress)) = load(tx, order).await? else { return Ok(()) };
                folding.stored_version = version;
                folding.last = folding.last.filter(|last| last.version > version);
                progress
            }
        };
        if happened.version <= folding.stored_version {
            folding.progress = Some(progress);
            continue;
        }
        folding.progress = Some(progress.evolve(change));
        folding.lines.extend(lines.map(|(kind, lines)| (happened.version, kind, lines)));
        folding.last = Some(happened);
    }
    let Some(last) = folding.last else { return Ok(()) };
    let Some(progress) = folding.progress else { return touch(tx, order, last).await };
    if let Some((placed, first)) = &folding.placed {
        if !insert(tx, order, placed, first, last, &progress).await? {
            // It was placed before this; what came after may still be new.
            return match events.get(1..) {
                Some(rest) if !rest.is_empty() => Box::pin(fold(tx, order, rest)).await,
                Some(_) | None => Ok(()),
            };
        }
        keep_contact(tx, order, &placed.fields.customer, &placed.fields.contact_email).await?;
    } else {
        update(tx, order, last, &progress).await?;
    }
    for (version, kind, lines) in folding.lines {
        tx.execute(
            "INSERT INTO order_view_lines (order_name, version, kind, lines) VALUES ($1, $2, $3, $4)
             ON CONFLICT (order_name, version) DO NOTHING",
            params![order, version, wire::kind_text(kind), lines],
        )
        .await?;
    }
    Ok(())
}

/// The events of one order on their way into its rows.
#[derive(Default)]
struct Folding<'a> {
    /// How the order began, if that is among the events.
    placed: Option<(Placed<'a>, &'a Happened)>,
    /// The version that is stored; 0 while that is not known.
    stored_version: u64,
    /// The progress, once it was needed.
    progress: Option<Progress>,
    /// What is new of lines: version, kind, lines.
    lines: Vec<(u64, LineKind, Vec<u8>)>,
    /// The last event that is new.
    last: Option<&'a Happened>,
}

async fn load(tx: &mut Tx, order: &str) -> Result<Option<(u64, Progress)>, Unfolded> {
    let row = tx.query_opt("SELECT version, progress FROM order_views WHERE name = $1", params![order]).await?;
    let Some(row) = row else { return Ok(None) };
    let progress = serde_json::from_str(&row.get::<String>("progress")?);
    let progress = progress.map_err(|error| Unfolded::Progress(order.to_owned(), error))?;
    Ok(Some((row.get("version")?, progress)))
}

/// Inserts an order's row; false if it was there.
async fn insert(
    tx: &mut Tx,
    order: &str,
    placed: &Placed<'_>,
    first: &Happened,
    last: &Happened,
    progress: &Progress,
) -> Result<bool, Unfolded> {
    let fields = placed.fields;
    let new = tx
        .execute(
            "INSERT INTO order_views (name, customer, state, needs_attention, external_reference, payment, currency,
                                      subtotal, tax, shipping, total, version, last_event, placed_time, create_time,
                                      update_time, progress)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
             ON CONFLICT (name) DO NOTHING",
            params![
                order,
                fields.customer.as_str(),
                wire::state_text(progress.state),
                i64::from(!progress.attention.is_empty()),
                fields.external_reference.as_str(),
                fields.payment.as_str(),
                fields.currency_code.as_str(),
                fields.subtotal_minor,
                fields.tax_minor,
                fields.shipping_minor,
                fields.total_minor,
                last.version,
                last.event_type.as_str(),
                placed.placed_time.unwrap_or(first.occur_time),
                first.occur_time,
                last.occur_time,
                text_of(order, progress)?
            ],
        )
        .await?;
    Ok(new > 0)
}

async fn update(tx: &mut Tx, order: &str, last: &Happened, progress: &Progress) -> Result<(), Unfolded> {
    tx.execute(
        "UPDATE order_views SET state = $1, needs_attention = $2, version = $3, last_event = $4, update_time = $5,
                                progress = $6
         WHERE name = $7",
        params![
            wire::state_text(progress.state),
            i64::from(!progress.attention.is_empty()),
            last.version,
            last.event_type.as_str(),
            last.occur_time,
            text_of(order, progress)?,
            order
        ],
    )
    .await?;
    Ok(())
}

async fn touch(tx: &mut Tx, order: &str, last: &Happened) -> Result<(), Unfolded> {
    tx.execute(
        "UPDATE order_views SET version = $1, last_event = $2, update_time = $3 WHERE name = $4 AND version < $1",
        params![last.version, last.event_type.as_str(), last.occur_time, order],
    )
    .await?;
    Ok(())
}

fn text_of(order: &str, progress: &Progress) -> Result<String, Unfolded> {
    serde_json::to_string(progress).map_err(|error| Unfolded::Progress(order.to_owned(), error))
}

/// Keeps where to write to, sealed, unless something is kept already.
pub(crate) async fn keep_contact(tx: &mut Tx, order: &str, customer: &str, email: &str) -> Result<(), log::Error> {
    if email.is_empty() {
        return Ok(());
    }
    if has_contact(tx, order).await? {
        return Ok(());
    }
    let sealed = personal::seal_text(tx, customer, email).await?;
    tx.execute(
        "INSERT INTO order_contacts (order_name, customer, email) VALUES ($1, $2, $3)",
        params![order, customer, sealed],
    )
    .await?;
    Ok(())
}

/// Whether somewhere to write to is kept.
pub(crate) async fn has_contact(tx: &mut Tx, order: &str) -> Result<bool, Error> {
    let known = tx.query_opt("SELECT 1 AS known FROM order_contacts WHERE order_name = $1", params![order]).await?;
    Ok(known.is_some())
}

/// Where to write to about an order; empty for nowhere, or once its reader is forgotten.
pub(crate) async fn contact(tx: &mut Tx, order: &str) -> Result<String, log::Error> {
    let row = tx.query_opt("SELECT customer, email FROM order_contacts WHERE order_name = $1", params![order]).await?;
    let Some(row) = row else { return Ok(String::new()) };
    personal::open_text(tx, &row.get::<String>("customer")?, &row.get::<String>("email")?).await
}

/// A contact with its order and customer, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    pub(crate) order: String,
    pub(crate) customer: String,
    pub(crate) email: String,
}

/// Contacts after an order's name, in the order of names.
pub(crate) async fn contacts(tx: &mut Tx, after: &str, limit: u32) -> Result<Vec<Contact>, log::Error> {
    let rows = tx
        .query(
            "SELECT order_name, customer, email FROM order_contacts WHERE order_name > $1
             ORDER BY order_name LIMIT CAST($2 AS BIGINT)",
            params![after, limit],
        )
        .await?;
    let mut contacts = vec![];
    for row in rows {
        let customer: String = row.get("customer")?;
        let email = personal::open_text(tx, &customer, &row.get::<String>("email")?).await?;
        contacts.push(Contact { order: row.get("order_name")?, customer, email });
    }
    Ok(contacts)
}

/// One order's row.
pub(crate) async fn get(tx: &mut Tx, name: &str) -> Result<Option<Stored>, Error> {
    let row = tx.query_opt(&format!("{SELECT} WHERE name = $1"), params![name]).await?;
    row.as_ref().map(stored).transpose()
}

/// What happened to the lines of an order, in its order.
pub(crate) async fn lines(tx: &mut Tx, name: &str) -> Result<Vec<Lines>, Error> {
    let rows = tx
        .query("SELECT kind, lines FROM order_view_lines WHERE order_name = $1 ORDER BY version", params![name])
        .await?;
    let mut lines = vec![];
    for row in &rows {
        let text: String = row.get("kind")?;
        let kind = wire::kind(&text).ok_or_else(|| Error::Mismatch {
            column: "kind".to_owned(),
            expected: "a kind of lines",
            found: text.clone(),
        })?;
        lines.push(Lines { kind, lines: row.get("lines")? });
    }
    Ok(lines)
}

/// The version of an order's view; 0 when there is none.
pub(crate) async fn version(tx: &mut Tx, name: &str) -> Result<u64, Error> {
    let row = tx.query_opt("SELECT version FROM order_views WHERE name = $1", params![name]).await?;
    row.map_or(Ok(0), |row| row.get("version"))
}

/// Which orders a list is of; what is not said holds for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) customer: Option<String>,
    pub(crate) state: Option<&'static str>,
    pub(crate) needs_attention: Option<bool>,
    pub(crate) external_reference: Option<String>,
}

/// Orders, newest first, after (time, name).
pub(crate) async fn list(
    tx: &mut Tx,
    wanted: &Wanted,
    after: Option<(Timestamp, &str)>,
    limit: u32,
) -> Result<Vec<Stored>, Error> {
    // Only the conditions that are asked for are in the text, so that each finds its index.
    let (time, name) = after.unwrap_or((Timestamp::MAX, ""));
    let mut values: Vec<Value> = vec![time.into(), name.into(), limit.into()];
    let mut sql =
        format!("{SELECT} WHERE create_time <= CAST($1 AS BIGINT) AND (create_time < CAST($1 AS BIGINT) OR name > $2)");
    let mut condition = |column: &str, value: Value| {
        values.push(value);
        sql.push_str(&format!(" AND {column} = ${}", values.len()));
    };
    if let Some(customer) = &wanted.customer {
        condition("customer", customer.into());
    }
    if let Some(state) = wanted.state {
        condition("state", state.into());
    }
    if let Some(reference) = &wanted.external_reference {
        condition("external_reference", reference.into());
    }
    match wanted.needs_attention {
        // Literal, because a partial index is found by its own words.
        Some(true) => sql.push_str(" AND needs_attention <> 0"),
        Some(false) => sql.push_str(" AND needs_attention = 0"),
        None => {}
    }
    sql.push_str(" ORDER BY create_time DESC, name LIMIT CAST($3 AS BIGINT)");
    let rows = tx.query(&sql, &values).await?;
    rows.iter().map(stored).collect()
}

const SELECT: &str =
    "SELECT name, customer, external_reference, payment, currency, subtotal, tax, shipping, total, version,
    last_event, placed_time, create_time, update_time, progress FROM order_views";

fn stored(row: &Row) -> Result<Stored, Error> {
    Ok(Stored {
        name: row.get("name")?,
        customer: row.get("customer")?,
        external_reference: row.get("external_reference")?,
        payment: row.get("payment")?,
        currency: row.get("currency")?,
        subtotal: row.get("subtotal")?,
        tax: row.get("tax")?,
        shipping: row.get("shipping")?,
        total: row.get("total")?,
        version: row.get("version")?,
        last_event: row.get("last_event")?,
        placed_time: row.get("placed_time")?,
        create_time: row.get("create_time")?,
        update_time: row.get("update_time")?,
        progress: row.get("progress")?,
    })
}
