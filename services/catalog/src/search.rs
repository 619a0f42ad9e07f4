//! Searches: which products match words and filter, in which order, and what could narrow them.
//!
//! A statement is put together from texts of this file; whatever a caller said is a parameter.

use contract::{Currency, Money};
use contracts::catalog::v1 as proto;
use store::{Error, Tx, Value};

use crate::filter::{Filter, quoted_field};
use crate::store::{Stored, has_facet, stored};
use crate::words;

/// Values of one facet in an answer.
const MOST_VALUES: usize = 50;
/// Values of all facets that are counted at all.
const MOST_COUNTED: u32 = 10_000;
/// Where price ranges begin, in whole units of a currency with a minor unit; a hundredfold in one without.
const STEPS: [i64; 9] = [0, 10, 20, 50, 100, 200, 500, 1000, 5000];

/// What is searched for.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// The words, as `words::query` makes them; none finds all.
    pub(crate) words: Option<String>,
    pub(crate) filter: Filter,
    pub(crate) currency: Currency,
}

/// What could narrow a search, and how many products match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) facets: Vec<proto::Facet>,
    pub(crate) total: i64,
}

/// A statement being put together.
struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }
}

impl Search {
    /// `SELECT {columns} FROM` the products that match, under the name `p`.
    fn select(&self, columns: &str) -> Statement {
        let from = if self.words.is_some() { words::FROM } else { "products p" };
        let mut statement =
            Statement { sql: format!("SELECT {columns} FROM {from} WHERE p.state = 'ACTIVE'"), values: vec![] };
        if let Some(words) = &self.words {
            let place = statement.bind(words);
            statement.sql.push_str(&format!(" AND {}{place}", words::CONDITION));
        }
        for (field, value) in &self.filter.facets {
            has_facet(&mut statement.sql, &mut statement.values, field, value);
        }
        if self.filter.low.is_some() || self.filter.high.is_some() {
            let currency = statement.bind(self.currency.code());
            let low = statement.bind(self.filter.low.unwrap_or(i64::MIN));
            let high = statement.bind(self.filter.high.unwrap_or(i64::MAX));
            statement.sql.push_str(&format!(
                " AND p.number IN (SELECT c.number FROM prices c WHERE c.currency = {currency} AND c.amount >= {low}
                     AND c.amount <= {high})"
            ));
        }
        statement
    }

    /// A page of what matches, from `offset` on.
    pub(crate) async fn page(
        &self,
        tx: &mut Tx,
        order: proto::SearchOrder,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<Stored>, Error> {
        let mut statement = self.select("p.name, p.version, p.create_time, p.update_time, p.record");
        let order = match order {
            proto::SearchOrder::Unspecified | proto::SearchOrder::Relevance if self.words.is_some() => {
                format!("{}, p.number", words::RANK)
            }
            proto::SearchOrder::Unspecified | proto::SearchOrder::Relevance => "p.name".to_owned(),
            proto::SearchOrder::PriceAscending => format!("{}, p.number", self.price(&mut statement, i64::MAX)),
            proto::SearchOrder::PriceDescending => format!("{} DESC, p.number", self.price(&mut statement, -1)),
            proto::SearchOrder::Newest => "p.create_time DESC, p.number DESC".to_owned(),
        };
        let (limit, offset) = (statement.bind(limit), statement.bind(offset));
        statement
            .sql
            .push_str(&format!(" ORDER BY {order} LIMIT CAST({limit} AS BIGINT) OFFSET CAST({offset} AS BIGINT)"));
        tx.query(&statement.sql, &statement.values).await?.iter().map(stored).collect()
    }

    /// The lowest price of a product; `none` where it has none, so that it comes last.
    fn price(&self, statement: &mut Statement, none: i64) -> String {
        let currency = statement.bind(self.currency.code());
        format!(
            "COALESCE((SELECT MIN(c.amount) FROM prices c WHERE c.number = p.number AND c.currency = {currency}), {none})"
        )
    }

    /// How many products match, and what could narrow them.
    pub(crate) async fn count(&self, tx: &mut Tx) -> Result<Counts, Error> {
        let statement = self.select("COUNT(*) AS total");
        let row = tx.query_opt(&statement.sql, &statement.values).await?;
        let total: i64 = row.map_or(Ok(0), |row| row.get("total"))?;
        if total == 0 {
            return Ok(Counts::default());
        }
        let mut facets = self.facets(tx).await?;
        let place = facets.iter().take_while(|facet| !facet.field.starts_with("option.")).count();
        facets.splice(place..place, self.prices(tx).await?);
        Ok(Counts { facets, total })
    }

    async fn facets(&self, tx: &mut Tx) -> Result<Vec<proto::Facet>, Error> {
        let mut matched = self.select("p.number AS number");
        let limit = matched.bind(MOST_COUNTED);
        let sql = format!(
            "SELECT f.field AS field, f.value AS value, COUNT(*) AS found FROM ({}) m CROSS JOIN facets f
             WHERE f.number = m.number
             GROUP BY f.field, f.value ORDER BY f.field, found DESC, f.value LIMIT CAST({limit} AS BIGINT)",
            matched.sql
        );
        let mut facets: Vec<proto::Facet> = vec![];
        for row in tx.query(&sql, &matched.values).await? {
            let (field, value): (String, String) = (row.get("field")?, row.get("value")?);
            let field = quoted_field(&field);
            let value = proto::FacetValue {
                title: title_of_value(&value),
                value,
                count: count(row.get("found")?),
                low: None,
                high: None,
            };
            match facets.last_mut() {
                Some(facet) if facet.field == field => {
                    if facet.values.len() < MOST_VALUES {
                        facet.values.push(value);
                    }
                }
                Some(_) | None => facets.push(proto::Facet { title: title_of(&field), field, values: vec![value] }),
            }
        }
        Ok(facets)
    }

    /// The ranges of price in which there is something, by what a filter with the range would find.
    async fn prices(&self, tx: &mut Tx) -> Result<Option<proto::Facet>, Error> {
        let mut matched = self.select("p.number AS number");
        let currency = matched.bind(self.currency.code());
        // Prices beside the filter's are not what the shopper asked for.
        let low = matched.bind(self.filter.low.unwrap_or(i64::MIN));
        let high = matched.bind(self.filter.high.unwrap_or(i64::MAX));
        let steps = steps(self.currency);
        let cases: String = steps.iter().rev().map(|step| format!(" WHEN c.amount >= {step} THEN {step}")).collect();
        let sql = format!(
            "SELECT r.step AS step, COUNT(*) AS found FROM
                 (SELECT DISTINCT CASE{cases} ELSE 0 END AS step, m.number AS number
                  FROM ({}) m CROSS JOIN prices c
                  WHERE c.number = m.number AND c.currency = {currency} AND c.amount >= {low} AND c.amount <= {high}) r
             GROUP BY r.step ORDER BY r.step",
            matched.sql
        );
        let mut values = vec![];
        for row in tx.query(&sql, &matched.values).await? {
            let step: i64 = row.get("step")?;
            let next = steps.iter().find(|other| **other > step).map(|next| next - 1);
            values.push(self.range(step, next, count(row.get("found")?)));
        }
        let facet = proto::Facet { field: "price".to_owned(), title: "Price".to_owned(), values };
        Ok((!facet.values.is_empty()).then_some(facet))
    }

    fn range(&self, step: i64, next: Option<i64>, count: i32) -> proto::FacetValue {
        let low = Money::new(self.currency, step.max(self.filter.low.unwrap_or(step)));
        let high = match (next, self.filter.high) {
            (Some(next), Some(high)) => Some(next.min(high)),
            (next, high) => next.or(high),
        };
        let high = high.map(|minor| Money::new(self.currency, minor));
        let (from, to) = (plain(low), high.map(plain));
        proto::FacetValue {
            value: to.as_ref().map_or(format!("price>={from}"), |to| format!("price>={from} AND price<={to}")),
            title: to.map_or(format!("{from} and more"), |to| format!("{from} to {to}")),
            count,
            low: Some(low.into()),
            high: high.map(Into::into),
        }
    }
}

fn steps(currency: Currency) -> Vec<i64> {
    // A yen is about what a cent is, so a hundred of either is one unit of these steps.
    STEPS.iter().map(|step| step * if currency.exponent() == 0 { 1000 } else { 100 }).collect()
}

/// The amount without its currency, as filters write it.
fn plain(money: Money) -> String {
    let text = money.to_string();
    text.split_once(' ').map_or(text.clone(), |(amount, _)| amount.to_owned())
}

fn count(found: i64) -> i32 {
    i32::try_from(found).unwrap_or(i32::MAX)
}

/// `option.shoe size` as `Shoe size`.
fn title_of(field: &str) -> String {
    capitalised(field.strip_prefix("option.").unwrap_or(field).trim_matches('"'))
}

/// `categories/garden-tools` as `Garden tools`; other values are titles already.
fn title_of_value(value: &str) -> String {
    match value.strip_prefix("categories/") {
        Some(category) => capitalised(&category.replace(['-', '_'], " ")),
        None => value.to_owned(),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
