//! The rows of carts and their lines, and the keys of quotes: every SQL statement of this service. Carts and lines are
//! derived: `Rows` is the inline projection that makes them from events, in the transaction that appends and again in a
//! rebuild. The keys are not.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use contracts::cart::v1::Event as StoredEvent;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use store::{Error, Migration, MigrationSet, Row, Tx, Value, params};

use crate::cart::{Added, Cart, Event, Line, State};
use crate::wire;

/// The tables of this service.
pub const MIGRATIONS: MigrationSet = MigrationSet::new(
    "cart",
    &[
        Migration::new(1, "cart", include_str!("../migrations/0001_cart.sql")),
        Migration::new(2, "lines by their key", include_str!("../migrations/0002_lines_by_key.sql")),
    ],
);

/// Lines written by one statement where there are that many.
const LINES_A_STATEMENT: usize = 50;

/// A cart with what its stream says beside it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) cart: Cart,
    /// The version of its stream.
    pub(crate) version: u64,
    /// The version of the last event that changed its lines: the etag.
    pub(crate) lines_version: u64,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
}

impl Stored {
    /// A cart that does not exist yet.
    pub(crate) fn missing(now: Timestamp) -> Self {
        Self { cart: Cart::default(), version: 0, lines_version: 0, create_time: now, update_time: now }
    }

    /// The cart after its next event.
    pub(crate) fn evolve(self, event: &Event, at: Timestamp) -> Self {
        let version = self.version + 1;
        Self {
            cart: self.cart.evolve(event),
            version,
            lines_version: if changes_lines(event) { version } else { self.lines_version },
            create_time: self.create_time,
            update_time: at,
        }
    }
}

/// Whether the etag moves with an event: a cart that was closed or made nobody's still has the lines that were ordered.
fn changes_lines(event: &Event) -> bool {
    match event {
        Event::Created { .. }
        | Event::Added(_)
        | Event::QuantitySet { .. }
        | Event::Removed { .. }
        | Event::OrderedRemoved { .. } => true,
        Event::Closed { .. } | Event::Erased => false,
    }
}

/// The first id that a new line may have after an event, as far as the event tells.
fn next_line(event: &Event) -> u32 {
    match event {
        Event::Added(added) => added.iter().map(|added| added.line.id).max().unwrap_or(0).saturating_add(1),
        Event::Created { .. }
        | Event::QuantitySet { .. }
        | Event::Removed { .. }
        | Event::Closed { .. }
        | Event::OrderedRemoved { .. }
        | Event::Erased => 1,
    }
}

/// The inline projection of carts and their lines.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<StoredEvent> for Rows {
    fn name(&self) -> &'static str {
        "carts"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["carts", "cart_items"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a StoredEvent,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            // An issued quote has a stream of its own and no rows.
            let Some(event) = wire::from_stored(event) else { return Ok(()) };
            let cart = at.stream.as_str();
            match &event {
                Event::Created { customer, currency, actor } => {
                    tx.execute(
                        "INSERT INTO carts (name, customer, own, currency, state, order_name, next_line, version,
                                            lines_version, create_time, update_time)
                         VALUES ($1, $2, $3, $4, 'OPEN', '', 1, $5, $5, $6, $6)",
                        params![cart, customer.as_str(), actor.is_empty(), currency.code(), at.version, at.occur_time],
                    )
                    .await?;
                    return Ok(());
                }
                Event::Added(added) => put_lines(tx, cart, added).await?,
                Event::QuantitySet { line, quantity } => set_quantity(tx, cart, *line, *quantity).await?,
                Event::Removed { line } => remove(tx, cart, *line).await?,
                Event::Closed { order } => {
                    tx.execute(
                        "UPDATE carts SET state = 'CLOSED', order_name = $1 WHERE name = $2",
                        params![order.as_str(), cart],
                    )
                    .await?;
                }
                Event::OrderedRemoved { remaining, .. } => keep(tx, cart, remaining).await?,
                Event::Erased => {
                    tx.execute("UPDATE carts SET customer = '' WHERE name = $1", params![cart]).await?;
                }
            }
            tx.execute(
                "UPDATE carts SET version = $1, update_time = $2,
                                  lines_version = CASE WHEN CAST($3 AS BIGINT) = 1 THEN $1 ELSE lines_version END,
                                  next_line = CASE WHEN next_line < $4 THEN $4 ELSE next_line END
                 WHERE name = $5",
                params![at.version, at.occur_time, i64::from(changes_lines(&event)), next_line(&event), cart],
            )
            .await?;
            Ok(())
        })
    }
}

/// Many lines a statement, because carts of hundreds of lines are filled by one event.
async fn put_lines(tx: &mut Tx, cart: &str, added: &[Added]) -> Result<(), Error> {
    // One line may be added to twice by an event, and stands once in a statement: as it is after it.
    let lines: BTreeMap<u32, &Line> = added.iter().map(|added| (added.line.id, &added.line)).collect();
    let lines: Vec<&Line> = lines.into_values().collect();
    let mut chunks = lines.chunks_exact(LINES_A_STATEMENT);
    for chunk in chunks.by_ref() {
        put(tx, &MANY_LINES, cart, chunk).await?;
    }
    for line in chunks.remainder() {
        put(tx, &ONE_LINE, cart, &[line]).await?;
    }
    Ok(())
}

static ONE_LINE: LazyLock<String> = LazyLock::new(|| insert_of(1));
static MANY_LINES: LazyLock<String> = LazyLock::new(|| insert_of(LINES_A_STATEMENT));

fn insert_of(lines: usize) -> String {
    let row = |place: usize| {
        let first = 2 + place * 6;
        format!("($1, ${first}, ${}, ${}, ${}, ${}, ${})", first + 1, first + 2, first + 3, first + 4, first + 5)
    };
    let rows: Vec<String> = (0..lines).map(row).collect();
    format!(
        "INSERT INTO cart_items (cart, id, sku, variant, title, stocked, quantity) VALUES {}
         ON CONFLICT (cart, id) DO UPDATE
         SET variant = excluded.variant, title = excluded.title, stocked = excluded.stocked, quantity = excluded.quantity",
        rows.join(", ")
    )
}

async fn put(tx: &mut Tx, sql: &str, cart: &str, lines: &[&Line]) -> Result<(), Error> {
    let mut values: Vec<Value> = Vec::with_capacity(1 + lines.len() * 6);
    values.push(cart.into());
    for line in lines {
        values.extend([
            line.id.into(),
            line.sku.as_str().into(),
            line.variant.as_str().into(),
            line.title.as_str().into(),
            line.stocked.into(),
            line.quantity.into(),
        ]);
    }
    tx.execute(sql, &values).await?;
    Ok(())
}

async fn set_quantity(tx: &mut Tx, cart: &str, line: u32, quantity: i64) -> Result<(), Error> {
    tx.execute("UPDATE cart_items SET quantity = $1 WHERE cart = $2 AND id = $3", params![quantity, cart, line])
        .await?;
    Ok(())
}

async fn remove(tx: &mut Tx, cart: &str, line: u32) -> Result<(), Error> {
    tx.execute("DELETE FROM cart_items WHERE cart = $1 AND id = $2", params![cart, line]).await?;
    Ok(())
}

async fn keep(tx: &mut Tx, cart: &str, remaining: &[(u32, i64)]) -> Result<(), Error> {
    let remaining: BTreeMap<u32, i64> = remaining.iter().copied().collect();
    for line in lines_of(tx, cart).await? {
        match remaining.get(&line.id) {
            Some(&units) if units == line.quantity => {}
            Some(&units) => set_quantity(tx, cart, line.id, units).await?,
            None => remove(tx, cart, line.id).await?,
        }
    }
    Ok(())
}

/// A cart with its lines.
pub(crate) async fn load(tx: &mut Tx, name: &str) -> Result<Option<Stored>, Error> {
    let row = tx
        .query_opt(
            "SELECT customer, currency, state, order_name, next_line, version, lines_version, create_time, update_time
             FROM carts WHERE name = $1",
            params![name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let text: String = row.get("currency")?;
    let currency = text.parse().map_err(|_| mismatch("currency", "a currency", &text))?;
    let text: String = row.get("state")?;
    let state = match text.as_str() {
        "OPEN" => State::Open,
        "CLOSED" => State::Closed,
        _ => return Err(mismatch("state", "a state of a cart", &text)),
    };
    let cart = Cart {
        customer: row.get("customer")?,
        currency: Some(currency),
        state,
        order: row.get("order_name")?,
        lines: lines_of(tx, name).await?,
        next_line: row.get("next_line")?,
        // Only who closes a cart asks for these, and folds its stream.
        ordered: vec![],
    };
    Ok(Some(Stored {
        cart,
        version: row.get("version")?,
        lines_version: row.get("lines_version")?,
        create_time: row.get("create_time")?,
        update_time: row.get("update_time")?,
    }))
}

async fn lines_of(tx: &mut Tx, cart: &str) -> Result<Vec<Line>, Error> {
    let rows = tx
        .query(
            "SELECT id, sku, variant, title, stocked, quantity FROM cart_items WHERE cart = $1 ORDER BY id",
            params![cart],
        )
        .await?;
    rows.iter().map(line).collect()
}

fn line(row: &Row) -> Result<Line, Error> {
    Ok(Line {
        id: row.get("id")?,
        sku: row.get("sku")?,
        variant: row.get("variant")?,
        title: row.get("title")?,
        stocked: row.get("stocked")?,
        quantity: row.get("quantity")?,
    })
}

/// The open cart of a customer in a currency: the newest they opened themselves, else the newest opened for them.
pub(crate) async fn find_open(tx: &mut Tx, customer: &str, currency: &str) -> Result<Option<String>, Error> {
    let row = tx
        .query_opt(
            "SELECT name FROM carts WHERE customer = $1 AND state = 'OPEN' AND currency = $2
             ORDER BY own DESC, create_time DESC, name LIMIT 1",
            params![customer, currency],
        )
        .await?;
    row.map(|row| row.get("name")).transpose()
}

/// How many open carts a customer has.
pub(crate) async fn count_open(tx: &mut Tx, customer: &str) -> Result<i64, Error> {
    let row = tx
        .query_opt("SELECT COUNT(*) AS carts FROM carts WHERE customer = $1 AND state = 'OPEN'", params![customer])
        .await?;
    row.map_or(Ok(0), |row| row.get("carts"))
}

/// Every cart of a customer.
pub(crate) async fn carts_of(tx: &mut Tx, customer: &str) -> Result<Vec<String>, Error> {
    let rows = tx.query("SELECT name FROM carts WHERE customer = $1 ORDER BY name", params![customer]).await?;
    rows.iter().map(|row| row.get("name")).collect()
}

/// The keys of quotes, oldest first; `fresh` becomes the first of them.
pub(crate) async fn quote_keys(tx: &mut Tx, fresh: [u8; 32]) -> Result<Vec<(u32, [u8; 32])>, Error> {
    // One of the copies that start first makes the key.
    tx.take_stream("quoteKeys").await?;
    let rows = tx.query("SELECT id, secret FROM quote_keys ORDER BY id", params![]).await?;
    if rows.is_empty() {
        let now = tx.now();
        tx.execute("INSERT INTO quote_keys (id, secret, create_time) VALUES (1, $1, $2)", params![fresh.to_vec(), now])
            .await?;
        return Ok(vec![(1, fresh)]);
    }
    rows.iter().map(|row| Ok((row.get("id")?, row.get("secret")?))).collect()
}

fn mismatch(column: &str, expected: &'static str, found: &str) -> Error {
    Error::Mismatch { column: column.to_owned(), expected, found: found.to_owned() }
}
