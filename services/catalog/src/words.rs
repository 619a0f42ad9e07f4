//! Finding products by words: the statements that are SQLite's own, all of them here. Another engine has this file's
//! functions with its own text; everything else of the catalogue is the SQL that both engines read.

use store::{Error, Migration, MigrationSet, Tx, params};

use crate::product::Product;

/// The table of words.
pub(crate) const MIGRATIONS: MigrationSet = MigrationSet::new(
    "catalog.words",
    &[Migration::new(1, "words", include_str!("../migrations/sqlite_0001_words.sql"))],
);

/// Its name, for rebuilds.
pub(crate) const TABLE: &str = "words";

/// Words of a query that are looked for; more only narrow what is empty already.
const MOST_WORDS: usize = 16;

/// Where the products `p` that a query finds come from. The order of a CROSS JOIN is kept: the other way round, the query
/// would be run again for every product.
pub(crate) const FROM: &str = "words CROSS JOIN products p";
/// The condition that goes with it, before the place of the query in the parameters.
pub(crate) const CONDITION: &str = "p.number = words.rowid AND words MATCH ";
/// What to order by to have the best match first: a word in the title weighs most, then SKU, brand, description.
pub(crate) const RANK: &str = "bm25(words, 10.0, 5.0, 1.0, 8.0)";

/// Makes a new product findable.
pub(crate) async fn add(tx: &mut Tx, number: i64, product: &Product) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO words (rowid, title, brand, description, sku) VALUES ($1, $2, $3, $4, $5)",
        params![number, &product.title, &product.brand, &product.description, skus(product)],
    )
    .await?;
    Ok(())
}

/// Makes a product findable by what it is now.
pub(crate) async fn change(tx: &mut Tx, number: i64, product: &Product) -> Result<(), Error> {
    tx.execute(
        "UPDATE words SET title = $2, brand = $3, description = $4, sku = $5 WHERE rowid = $1",
        params![number, &product.title, &product.brand, &product.description, skus(product)],
    )
    .await?;
    Ok(())
}

/// A shopper's words as a query of the engine, or nothing when there are none: every word must be found, or begin a word
/// that is. Only letters and digits come through, each run of them in quotes, so nothing a shopper types is syntax.
pub(crate) fn query(text: &str) -> Option<String> {
    let mut phrases = vec![];
    for chunk in text.split_whitespace() {
        let words: Vec<&str> =
            chunk.split(|char: char| !char.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        if !words.is_empty() {
            phrases.push(format!("\"{}\"*", words.join(" ")));
        }
    }
    phrases.truncate(MOST_WORDS);
    (!phrases.is_empty()).then(|| phrases.join(" AND "))
}

fn skus(product: &Product) -> String {
    let skus: Vec<&str> = product.variants.iter().map(|variant| variant.sku.as_str()).collect();
    skus.join(" ")
}

#[cfg(test)]
mod tests {
    use super::query;

    #[test]
    fn what_a_shopper_types_is_never_syntax() {
        assert_eq!(query("red  mug").as_deref(), Some("\"red\"* AND \"mug\"*"));
        assert_eq!(query("MUG-RED.S").as_deref(), Some("\"MUG RED S\"*"));
        assert_eq!(
            query("title:mug OR \"x\" NEAR(a b)").as_deref(),
            Some("\"title mug\"* AND \"OR\"* AND \"x\"* AND \"NEAR a\"* AND \"b\"*")
        );
        for nothing in ["", "  ", "\"", "* - ^ ()", "\0"] {
            assert_eq!(query(nothing), None, "{nothing:?}");
        }
    }
}
