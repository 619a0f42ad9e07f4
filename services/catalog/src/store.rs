//! The rows of products: every SQL statement of this service but those of words and searches. All of them are derived:
//! `Rows` is the inline projection that makes them from events, in the transaction that appends and again in a rebuild.

use std::collections::BTreeMap;

use contracts::catalog::v1::Event as StoredEvent;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use prost::Message as _;
use store::{Error, Migration, MigrationSet, Row, Tx, params};

use crate::product::{Product, State};
use crate::signature::Key;
use crate::{wire, words};

/// The tables of this service that both engines have.
pub(crate) const MIGRATIONS: MigrationSet = MigrationSet::new(
    "catalog",
    &[
        Migration::new(1, "catalog", include_str!("../migrations/0001_catalog.sql")),
        Migration::new(2, "keys", include_str!("../migrations/0002_keys.sql")),
    ],
);

/// The one of them that is not derived, for a log without rows.
#[cfg(feature = "fleet")]
pub(crate) const KEYS: MigrationSet =
    MigrationSet::new("catalog.keys", &[Migration::new(1, "keys", include_str!("../migrations/0002_keys.sql"))]);

/// A product's row.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) create_time: Timestamp,
    pub(crate) update_time: Timestamp,
    pub(crate) product: Product,
}

/// The inline projection of products.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<StoredEvent> for Rows {
    fn name(&self) -> &'static str {
        "products"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["products", "variants", "facets", "prices", words::TABLE]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a StoredEvent,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let unsound = || Error::Mismatch {
                column: "payload".to_owned(),
                expected: "an event with a product",
                found: format!("none in version {} of {}", at.version, at.stream),
            };
            let (record, product) = wire::from_stored(event).ok_or_else(unsound)?;
            let (number, is_new) = match event {
                StoredEvent::ProductCreated(_) => (next_number(tx).await?, true),
                StoredEvent::ProductUpdated(_) => (number_of(tx, &at.stream).await?, false),
            };
            put_product(tx, at, number, product.state, record.encode_to_vec()).await?;
            if is_new {
                words::add(tx, number, &product).await?;
            } else {
                words::change(tx, number, &product).await?;
                clear(tx, number).await?;
            }
            put_parts(tx, number, &product).await
        })
    }
}

async fn next_number(tx: &mut Tx) -> Result<i64, Error> {
    let row = tx.query_opt("SELECT COALESCE(MAX(number), 0) + 1 AS number FROM products", params![]).await?;
    row.map_or(Ok(1), |row| row.get("number"))
}

async fn number_of(tx: &mut Tx, name: &str) -> Result<i64, Error> {
    let row = tx.query_opt("SELECT number FROM products WHERE name = $1", params![name]).await?;
    row.map_or(Ok(0), |row| row.get("number"))
}

async fn put_product(tx: &mut Tx, at: &At, number: i64, state: State, record: Vec<u8>) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO products (name, number, state, version, create_time, update_time, record)
         VALUES ($1, $2, $3, $4, $5, $5, $6)
         ON CONFLICT (name) DO UPDATE SET state = excluded.state, version = excluded.version,
             update_time = excluded.update_time, record = excluded.record",
        params![at.stream.as_str(), number, wire::state_text(state), at.version, at.occur_time, record],
    )
    .await?;
    Ok(())
}

async fn clear(tx: &mut Tx, number: i64) -> Result<(), Error> {
    tx.execute("DELETE FROM variants WHERE number = $1", params![number]).await?;
    tx.execute("DELETE FROM facets WHERE number = $1", params![number]).await?;
    tx.execute("DELETE FROM prices WHERE number = $1", params![number]).await?;
    Ok(())
}

async fn put_parts(tx: &mut Tx, number: i64, product: &Product) -> Result<(), Error> {
    for variant in &product.variants {
        tx.execute("INSERT INTO variants (sku, number) VALUES ($1, $2)", params![variant.sku.as_str(), number]).await?;
    }
    for (field, value) in product.facets() {
        tx.execute("INSERT INTO facets (number, field, value) VALUES ($1, $2, $3)", params![number, field, value])
            .await?;
    }
    for (currency, amount) in product.prices() {
        tx.execute(
            "INSERT INTO prices (number, currency, amount) VALUES ($1, $2, $3)",
            params![number, currency.code(), amount],
        )
        .await?;
    }
    Ok(())
}

/// One product.
pub(crate) async fn get(tx: &mut Tx, name: &str) -> Result<Option<Stored>, Error> {
    let row = tx
        .query_opt(
            "SELECT name, version, create_time, update_time, record FROM products WHERE name = $1",
            params![name],
        )
        .await?;
    row.as_ref().map(stored).transpose()
}

/// The product that has a SKU, for sale or not.
pub(crate) async fn get_by_sku(tx: &mut Tx, sku: &str) -> Result<Option<Stored>, Error> {
    let row = tx
        .query_opt(
            "SELECT p.name, p.version, p.create_time, p.update_time, p.record
             FROM variants v JOIN products p ON p.number = v.number WHERE v.sku = $1",
            params![sku],
        )
        .await?;
    row.as_ref().map(stored).transpose()
}

/// The name of the product that has a SKU.
pub(crate) async fn owner_of(tx: &mut Tx, sku: &str) -> Result<Option<String>, Error> {
    let row = tx
        .query_opt(
            "SELECT p.name FROM variants v JOIN products p ON p.number = v.number WHERE v.sku = $1",
            params![sku],
        )
        .await?;
    row.map(|row| row.get("name")).transpose()
}

/// Which of these SKUs are another product's than `name`, and whose.
pub(crate) async fn taken(
    tx: &mut Tx,
    name: &str,
    skus: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut taken = BTreeMap::new();
    for sku in skus {
        if let Some(owner) = owner_of(tx, sku).await?.filter(|owner| owner != name) {
            taken.insert(sku.to_owned(), owner);
        }
    }
    Ok(taken)
}

/// Products in a state that have all of some facets, by name, after a name.
pub(crate) async fn list(
    tx: &mut Tx,
    state: State,
    facets: &[(String, String)],
    after: &str,
    limit: u32,
) -> Result<Vec<Stored>, Error> {
    let mut sql = "SELECT p.name, p.version, p.create_time, p.update_time, p.record FROM products p
         WHERE p.state = $1 AND p.name > $2"
        .to_owned();
    let mut values = params![wire::state_text(state), after].to_vec();
    for (field, value) in facets {
        has_facet(&mut sql, &mut values, field, value);
    }
    sql.push_str(&format!(" ORDER BY p.name LIMIT CAST(${} AS BIGINT)", values.len() + 1));
    values.push(limit.into());
    tx.query(&sql, &values).await?.iter().map(stored).collect()
}

/// Adds the condition that `p` has a facet.
pub(crate) fn has_facet(sql: &mut String, values: &mut Vec<store::Value>, field: &str, value: &str) {
    let at = values.len() + 1;
    sql.push_str(&format!(
        " AND p.number IN (SELECT f.number FROM facets f WHERE f.field = ${at} AND f.value = ${})",
        at + 1
    ));
    values.extend([field.into(), value.into()]);
}

/// The product of a row with a product's columns.
pub(crate) fn stored(row: &Row) -> Result<Stored, Error> {
    Ok(Stored {
        name: row.get("name")?,
        version: row.get("version")?,
        create_time: row.get("create_time")?,
        update_time: row.get("update_time")?,
        product: wire::decode_record(&row.get::<Vec<u8>>("record")?)?,
    })
}

/// The newest key that signs prices; `fresh` becomes the first.
pub(crate) async fn price_key(tx: &mut Tx, fresh: &Key) -> Result<Key, Error> {
    // Two copies of this service that start together agree on one key.
    tx.take_stream("price_keys").await?;
    let sql = "SELECT id, secret FROM price_keys ORDER BY create_time DESC, id DESC LIMIT 1";
    if let Some(row) = tx.query_opt(sql, params![]).await? {
        return Ok(Key { id: row.get("id")?, secret: row.get("secret")? });
    }
    let now = tx.now();
    tx.execute(
        "INSERT INTO price_keys (id, secret, create_time) VALUES ($1, $2, $3)",
        params![fresh.id.as_str(), &fresh.secret, now],
    )
    .await?;
    Ok(fresh.clone())
}
