//! The widely used `catalog.json`: one array of `{Id, Type, Brand, Name, Description, Price}`.
//!
//! The file says neither currency nor SKU: the caller names the currency, and the SKU is `ESHOP-<Id>`. Further
//! fields are skipped, as the file exists in several versions; the price is read exactly.

use std::io::BufRead;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::array::Elements;
use super::jsonl::amount_of;
use super::{Error, Position, Reason, Record, Reject};
use crate::goods::{Price, Product, Variant, decimals, slug};

/// The iterator over a catalogue.
pub struct Reader<R> {
    elements: Elements<R>,
    currency: String,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning; prices are of `currency`.
    pub fn new(file: R, currency: &str) -> Self {
        Self { elements: Elements::new(file), currency: currency.to_owned() }
    }

    /// Continues behind what was read before.
    pub fn resume(file: R, currency: &str, position: Position) -> Result<Self, Error> {
        Ok(Self { elements: Elements::resume(file, position)?, currency: currency.to_owned() })
    }

    /// Behind the last record that came out.
    pub fn position(&self) -> Position {
        self.elements.position()
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record<Product>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let element = match self.elements.next()? {
            Ok(element) => element,
            Err(error) => return Some(Err(error)),
        };
        let parsed = if element.too_long {
            Err((Reason::TooLong, "an element".to_owned()))
        } else {
            parse(&element.text, &self.currency)
        };
        Some(Ok(match parsed {
            Ok(product) => Record::Good(product),
            Err((reason, detail)) => Record::Rejected(Reject::new(element.line, reason, detail, &element.text)),
        }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item<'a> {
    id: Option<u64>,
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    brand: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
}

fn parse(text: &[u8], currency: &str) -> Result<Product, (Reason, String)> {
    let text = std::str::from_utf8(text).map_err(|error| (Reason::InvalidText, error.to_string()))?;
    let item: Item<'_> = serde_json::from_str(text).map_err(|error| (Reason::Malformed, error.to_string()))?;
    let Some(id) = item.id else {
        return Err((Reason::Missing, "Id".to_owned()));
    };
    if item.name.trim().is_empty() {
        return Err((Reason::Missing, "Name".to_owned()));
    }
    let Some(price) = item.price else {
        return Err((Reason::Missing, "Price".to_owned()));
    };
    let Some(decimals) = decimals(currency) else {
        return Err((Reason::CurrencyUnknown, currency.to_owned()));
    };
    let minor = amount_of(price.get(), decimals)?;
    let category = slug(&item.r#type);
    Ok(Product {
        id: format!("eshop-{id}"),
        title: item.name,
        description: item.description,
        brand: item.brand,
        categories: if category.is_empty() { Vec::new() } else { vec![category] },
        stocked: true,
        external_id: id.to_string(),
        variants: vec![Variant {
            sku: format!("ESHOP-{id}"),
            title: String::new(),
            options: Vec::new(),
            prices: vec![Price { currency: currency.to_owned(), minor }],
            weight_grams: 0,
            tax_basis_points: 0,
            stock: Vec::new(),
        }],
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DIRTY: &str = r#"[
  {"Id": 1, "Type": "Ski/boarding", "Brand": "B", "Name": "A \"quoted\" ] name", "Description": "{", "Price": 109.99},
  {"Id": 2, "Name": "Three decimals", "Price": 1.005},
  {"Id": 3, "Name": "", "Price": 1},
  "no object",
  {"Id": "four", "Name": "N", "Price": 1},
  {"Id": 6, "Name": "Free of quotes", "Price": "7.5",
   "PictureFileName": "6.png"}
]
"#;

    #[test]
    fn good_elements_are_read_and_bad_ones_refused_by_line() {
        let records: Vec<_> = Reader::new(DIRTY.as_bytes(), "USD").map(Result::unwrap).collect();
        let outline: Vec<_> = records
            .iter()
            .map(|record| match record {
                Record::Good(product) => (product.id.clone(), product.variants[0].prices[0].minor),
                Record::Rejected(reject) => (reject.reason.to_string(), reject.line as i64),
            })
            .collect();
        assert_eq!(
            outline,
            [
                ("eshop-1".to_owned(), 10_999),
                ("price_decimals".to_owned(), 3),
                ("missing".to_owned(), 4),
                ("malformed".to_owned(), 5),
                ("malformed".to_owned(), 6),
                ("eshop-6".to_owned(), 750)
            ]
        );
        let Record::Good(first) = &records[0] else {
            panic!("the first is good");
        };
        assert_eq!(first.categories, ["ski-boarding"]);
    }

    #[test]
    fn reading_continues_where_it_was_left() {
        let whole: Vec<_> = Reader::new(DIRTY.as_bytes(), "USD").map(Result::unwrap).collect();
        let mut first = Reader::new(DIRTY.as_bytes(), "USD");
        for count in 0..=whole.len() {
            let rest: Vec<_> =
                Reader::resume(DIRTY.as_bytes(), "USD", first.position()).unwrap().map(Result::unwrap).collect();
            assert_eq!(rest, whole[count..]);
            first.next();
        }
    }

    #[test]
    fn what_is_no_array_or_is_cut_ends_with_an_error() {
        for (text, good) in [
            ("{}", 0),
            ("", 0),
            ("[{\"Id\":1,\"Name\":\"N\",\"Price\":1},", 1),
            ("[{\"Id\":1,\"Name\":\"N\",\"Price\":1} {}]", 1),
            ("[{\"Id\":1", 0),
            ("[,]", 0),
        ] {
            let records: Vec<_> = Reader::new(text.as_bytes(), "USD").collect();
            assert_eq!(records.len(), good + 1, "{text}");
            assert!(records[good].is_err(), "{text}");
        }
        assert_eq!(Reader::new("\u{feff}[]".as_bytes(), "USD").count(), 0);
    }

    /// The real file; reported as skipped where it is absent, and missed under `CI`.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_real_catalogue_is_read_whole() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let path =
            std::env::var("STOA_ESHOP_CATALOG").unwrap_or_else(|_| format!("{root}/../shared/data/eshop-catalog.json"));
        let Ok(file) = std::fs::File::open(&path) else {
            assert!(std::env::var("CI").is_err(), "{path} is missing");
            eprintln!("skipped, not proven: {path} is missing");
            return;
        };
        let products: Vec<_> = Reader::new(std::io::BufReader::new(file), "USD")
            .map(|record| match record.unwrap() {
                Record::Good(product) => product,
                Record::Rejected(reject) => panic!("{reject:?}"),
            })
            .collect();
        assert_eq!(products.len(), 101);
        assert_eq!(products[0].variants[0].prices[0].minor, 10_999);
    }
}
