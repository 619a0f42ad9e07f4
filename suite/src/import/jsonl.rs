//! Products as JSON lines, in the JSON of the public interface: one product a line.
//!
//! `{"name":"products/mug","title":"Mug","brand":"..","description":"..","categories":["categories/kitchen"],
//! "stocked":true,"externalId":"..","variants":[{"sku":"MUG-1","title":"Red","options":[{"name":"color","value":"Red"}],
//! "prices":[{"currencyCode":"EUR","units":"14","nanos":500000000}],"weightGrams":380,"taxBasisPoints":1900}]}`.
//! Two things are more than the interface takes: a price may be `{"currencyCode":"EUR","amount":"14.50"}`, and a variant may have
//! `"stock":[{"warehouse":"warehouses/berlin","quantity":10}]`. Empty lines are skipped; unknown fields are refused.

use std::io::BufRead;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Error, LARGEST_RECORD, Position, Reason, Record, Reject, skip_to};
use crate::goods::{AmountError, Price, Product, Stock, Variant, decimals, is_sku, parse_minor};

/// The iterator over a file of products.
pub struct Reader<R> {
    file: R,
    position: Position,
    failed: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning.
    pub fn new(file: R) -> Self {
        Self { file, position: Position::START, failed: false }
    }

    /// Continues behind what was read before.
    pub fn resume(mut file: R, position: Position) -> Result<Self, Error> {
        skip_to(&mut file, position)?;
        Ok(Self { file, position, failed: false })
    }

    /// Behind the last record that came out.
    pub fn position(&self) -> Position {
        self.position
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record<Product>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            let line = self.position.line;
            let (text, length) = match read_line(&mut self.file) {
                Ok((_, 0)) => return None,
                Ok(read) => read,
                Err(source) => {
                    self.failed = true;
                    return Some(Err(Error::Reading { line, source }));
                }
            };
            self.position.byte += length;
            self.position.line += 1;
            let text = if line == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text) } else { &text };
            if text.trim_ascii().is_empty() {
                continue;
            }
            return Some(Ok(match parse(text, length) {
                Ok(product) => Record::Good(product),
                Err((reason, detail)) => Record::Rejected(Reject::new(line, reason, detail, text)),
            }));
        }
        None
    }
}

/// A line with its end, and how many bytes it took; of a line that is too long only the beginning is kept.
fn read_line(file: &mut impl BufRead) -> std::io::Result<(Vec<u8>, u64)> {
    let mut line = Vec::new();
    let mut length = 0;
    loop {
        let buffer = file.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.map_or(buffer.len(), |end| end + 1)];
        let used = part.len();
        let room = (LARGEST_RECORD + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..used.min(room)]);
        file.consume(used);
        length += used as u64;
        if end.is_some() || used == 0 {
            return Ok((line, length));
        }
    }
}

type Refusal = (Reason, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Line<'a> {
    #[serde(default)]
    name: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    brand: String,
    #[serde(default)]
    categories: Vec<String>,
    stocked: Option<bool>,
    #[serde(default)]
    external_id: String,
    #[serde(default, borrow)]
    variants: Vec<VariantLine<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VariantLine<'a> {
    #[serde(default)]
    sku: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    options: Vec<OptionLine>,
    #[serde(default, borrow)]
    prices: Vec<PriceLine<'a>>,
    #[serde(default)]
    weight_grams: i32,
    #[serde(default)]
    tax_basis_points: i32,
    #[serde(default)]
    stock: Vec<StockLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionLine {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PriceLine<'a> {
    currency_code: String,
    #[serde(borrow)]
    units: Option<&'a RawValue>,
    nanos: Option<i64>,
    #[serde(borrow)]
    amount: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StockLine {
    warehouse: String,
    quantity: i64,
}

fn parse(text: &[u8], length: u64) -> Result<Product, Refusal> {
    if length > LARGEST_RECORD as u64 {
        return Err((Reason::TooLong, format!("{length} bytes")));
    }
    let text = std::str::from_utf8(text).map_err(|error| (Reason::InvalidText, error.to_string()))?;
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| (Reason::Malformed, error.to_string()))?;
    if line.title.trim().is_empty() {
        return Err((Reason::Missing, "title".to_owned()));
    }
    if line.variants.is_empty() {
        return Err((Reason::Missing, "variants".to_owned()));
    }
    let variants = line.variants.into_iter().map(variant).collect::<Result<Vec<_>, _>>()?;
    Ok(Product {
        id: last_part(line.name, "products/"),
        title: line.title,
        description: line.description,
        brand: line.brand,
        categories: line.categories.into_iter().map(|category| last_part(category, "categories/")).collect(),
        stocked: line.stocked.unwrap_or(true),
        external_id: line.external_id,
        variants,
    })
}

fn variant(line: VariantLine<'_>) -> Result<Variant, Refusal> {
    if line.sku.is_empty() {
        return Err((Reason::Missing, "sku".to_owned()));
    }
    if !is_sku(&line.sku) {
        return Err((Reason::SkuMalformed, line.sku));
    }
    if line.prices.is_empty() {
        return Err((Reason::Missing, format!("prices of {}", line.sku)));
    }
    let prices = line.prices.into_iter().map(price).collect::<Result<Vec<_>, _>>()?;
    if let Some(stock) = line.stock.iter().find(|stock| stock.quantity < 0) {
        return Err((Reason::QuantitySign, format!("stock {}", stock.quantity)));
    }
    Ok(Variant {
        sku: line.sku,
        title: line.title,
        options: line.options.into_iter().map(|option| (option.name, option.value)).collect(),
        prices,
        weight_grams: line.weight_grams,
        tax_basis_points: line.tax_basis_points,
        stock: line
            .stock
            .into_iter()
            .map(|stock| Stock { warehouse: last_part(stock.warehouse, "warehouses/"), quantity: stock.quantity })
            .collect(),
    })
}

fn price(line: PriceLine<'_>) -> Result<Price, Refusal> {
    let Some(decimals) = decimals(&line.currency_code) else {
        return Err((Reason::CurrencyUnknown, line.currency_code));
    };
    let minor = match (line.amount, line.units, line.nanos) {
        (Some(amount), None, None) => amount_of(amount.get(), decimals)?,
        (None, None, None) => return Err((Reason::Missing, "amount of a price".to_owned())),
        (None, units, nanos) => {
            let units = units.map_or("0", RawValue::get).trim_matches('"');
            let nanos = nanos.unwrap_or(0);
            if !(0..1_000_000_000).contains(&nanos) {
                return Err((Reason::PriceMalformed, format!("nanos {nanos}")));
            }
            amount_of(&format!("{units}.{nanos:09}"), decimals)?
        }
        (Some(_), _, _) => {
            return Err((Reason::Malformed, "a price has amount, or units and nanos".to_owned()));
        }
    };
    Ok(Price { currency: line.currency_code, minor })
}

/// The minor units of a JSON number, or of a string that holds one.
pub(super) fn amount_of(raw: &str, decimals: u32) -> Result<i64, Refusal> {
    let text = raw.trim_matches('"');
    let minor = parse_minor(text, decimals).map_err(|error| {
        let reason = match error {
            AmountError::Decimals => Reason::PriceDecimals,
            AmountError::Malformed | AmountError::TooLarge => Reason::PriceMalformed,
        };
        (reason, format!("{text} {error}"))
    })?;
    if minor < 0 {
        return Err((Reason::PriceNegative, text.to_owned()));
    }
    Ok(minor)
}

fn last_part(name: String, prefix: &str) -> String {
    match name.strip_prefix(prefix) {
        Some(id) => id.to_owned(),
        None => name,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"name":"products/mug","title":"Mug","categories":["categories/kitchen"],"variants":[{"sku":"MUG-1","options":[{"name":"color","value":"Red"}],"prices":[{"currencyCode":"EUR","units":"14","nanos":500000000},{"currencyCode":"USD","amount":15.1}],"stock":[{"warehouse":"warehouses/berlin","quantity":3}]}]}"#;

    fn reasons(text: &[u8]) -> Vec<(u64, Option<Reason>)> {
        let mut reader = Reader::new(text);
        let mut seen = Vec::new();
        loop {
            let line = reader.position().line;
            match reader.next() {
                None => return seen,
                Some(record) => match record.unwrap() {
                    Record::Good(_) => seen.push((line, None)),
                    Record::Rejected(reject) => seen.push((reject.line, Some(reject.reason))),
                },
            }
        }
    }

    #[test]
    fn a_product_is_read_with_exact_prices() {
        let records: Vec<_> = Reader::new(GOOD.as_bytes()).collect();
        let [Ok(Record::Good(product))] = records.as_slice() else {
            panic!("{records:?}");
        };
        assert_eq!((product.id.as_str(), product.stocked), ("mug", true));
        assert_eq!(product.categories, ["kitchen"]);
        let variant = &product.variants[0];
        let prices: Vec<_> = variant.prices.iter().map(|price| price.minor).collect();
        assert_eq!(prices, [1450, 1510]);
        assert_eq!(variant.stock[0].warehouse, "berlin");
    }

    #[test]
    fn each_bad_line_is_refused_with_its_number_and_reason_and_the_rest_is_read() {
        let with_price = |price: &str| format!(r#"{{"title":"T","variants":[{{"sku":"S","prices":[{price}]}}]}}"#);
        let text = [
            GOOD.to_owned(),
            String::new(),
            "{".to_owned(),
            r#"{"title":"T"}"#.to_owned(),
            r#"{"title":"T","variants":[{"sku":"a/b","prices":[]}]}"#.to_owned(),
            with_price(r#"{"currencyCode":"EUR","amount":"1.005"}"#),
            with_price(r#"{"currencyCode":"EUR","amount":-1}"#),
            with_price(r#"{"currencyCode":"EUR","amount":1e2}"#),
            with_price(r#"{"currencyCode":"XXX","amount":1}"#),
            with_price(r#"{"currencyCode":"EUR","units":"1","nanos":1}"#),
            r#"{"title":"T","price":1}"#.to_owned(),
            GOOD.to_owned(),
        ]
        .join("\r\n");
        assert_eq!(
            reasons(text.as_bytes()),
            [
                (1, None),
                (3, Some(Reason::Malformed)),
                (4, Some(Reason::Missing)),
                (5, Some(Reason::SkuMalformed)),
                (6, Some(Reason::PriceDecimals)),
                (7, Some(Reason::PriceNegative)),
                (8, Some(Reason::PriceMalformed)),
                (9, Some(Reason::CurrencyUnknown)),
                (10, Some(Reason::PriceDecimals)),
                (11, Some(Reason::Malformed)),
                (12, None),
            ]
        );
    }

    #[test]
    fn bad_text_and_endless_lines_are_refused() {
        let mut text = b"\"\xff\"\n".to_vec();
        text.extend(std::iter::repeat_n(b' ', LARGEST_RECORD));
        text.extend_from_slice(b"1\n");
        text.extend_from_slice(GOOD.as_bytes());
        assert_eq!(reasons(&text), [(1, Some(Reason::InvalidText)), (2, Some(Reason::TooLong)), (3, None)]);
    }

    #[test]
    fn reading_continues_where_it_was_left() {
        let text = format!("{GOOD}\n{{\n{GOOD}\n");
        let mut first = Reader::new(text.as_bytes());
        first.next();
        let mut second = Reader::resume(text.as_bytes(), first.position()).unwrap();
        assert_eq!(second.position().line, 2);
        let Some(Ok(Record::Rejected(reject))) = second.next() else {
            panic!("the second line is bad");
        };
        assert_eq!(reject.line, 2);
        assert!(matches!(second.next(), Some(Ok(Record::Good(_)))));
        assert!(second.next().is_none());
        let beyond = Position { byte: 9999, line: 9 };
        assert!(Reader::resume(text.as_bytes(), beyond).is_err());
    }
}
