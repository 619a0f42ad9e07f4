//! A shop's real invoices, read line by line with a reason for each that cannot be used.
//!
//! The rules are those that `retail_counts.py` states; the two share nothing, so that the counts of one
//! can be held against the other's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The columns of the file.
const COLUMNS: [&str; 8] =
    ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"];

/// Codes that stand for no goods, in capitals.
const NO_GOODS: [&str; 11] = ["POST", "D", "M", "BANK CHARGES", "AMAZONFEE", "CRUK", "DOT", "S", "B", "PADS", "C2"];

/// What an invoice's line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Goods for money.
    Sale,
    /// Goods for nothing.
    Free,
    /// Goods that vanished.
    WriteOff,
    /// Goods that came back.
    Cancellation,
    /// Money without goods.
    Adjustment,
}

/// A line that can be used.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub kind: Kind,
    /// The stock code.
    pub code: String,
    /// What the shop called it.
    pub description: String,
    /// Pieces, negative where they come back.
    pub pieces: i64,
    /// The price of one, in pence.
    pub pence: i64,
}

/// An invoice with its usable lines.
#[derive(Clone, Debug)]
pub struct Invoice {
    /// Its number, with a `C` or `A` in front where it is no sale.
    pub number: String,
    /// When, as RFC 3339 in UTC.
    pub time: String,
    /// The customer's number; empty for a guest.
    pub customer: String,
    /// The country's name.
    pub country: String,
    /// What can be used.
    pub lines: Vec<Line>,
}

/// A file of invoices.
#[derive(Debug, Default)]
pub struct Invoices {
    /// In order of their first line.
    pub invoices: Vec<Invoice>,
    lines: u64,
    rejected: BTreeMap<&'static str, u64>,
    longest: BTreeMap<String, u64>,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Sale => "sale",
            Kind::Free => "free",
            Kind::WriteOff => "write_off",
            Kind::Cancellation => "cancellation",
            Kind::Adjustment => "adjustment",
        }
    }
}

/// True for a code that stands for goods, which have stock.
pub fn is_goods(code: &str) -> bool {
    let code = code.to_uppercase();
    !NO_GOODS.contains(&code.as_str()) && !code.starts_with("GIFT_")
}

impl Invoices {
    /// Reads a file, packed or not; lines from the day `until` on are left out.
    pub fn read(path: &Path, until: Option<&str>) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut file = BufReader::new(file);
        let packed = std::io::BufRead::fill_buf(&mut file)?.starts_with(&[0x1f, 0x8b]);
        let source: Box<dyn Read> =
            if packed { Box::new(flate2::bufread::GzDecoder::new(file)) } else { Box::new(file) };
        let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(source);
        let mut rows = rows.byte_records();
        let header = rows.next().context("an empty file")??;
        ensure!(header.iter().eq(COLUMNS.map(str::as_bytes)), "the header is {header:?}");
        let mut read = Self::default();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for row in rows {
            read.add(&row?, until, &mut places);
        }
        Ok(read)
    }

    fn add(&mut self, row: &csv::ByteRecord, until: Option<&str>, places: &mut BTreeMap<String, usize>) {
        let row = match strays(row) {
            Ok(row) => row,
            Err(reason) => {
                self.lines += 1;
                *self.rejected.entry(reason).or_default() += 1;
                return;
            }
        };
        if until.is_some_and(|day| &row[4][..10] >= day) {
            return;
        }
        self.lines += 1;
        *self.longest.entry(row[0].clone()).or_default() += 1;
        let place = *places.entry(row[0].clone()).or_insert_with(|| {
            self.invoices.push(Invoice {
                number: row[0].clone(),
                time: format!("{}Z", row[4].replace(' ', "T")),
                customer: row[6].clone(),
                country: row[7].clone(),
                lines: Vec::new(),
            });
            self.invoices.len() - 1
        });
        let invoice = &mut self.invoices[place];
        let line = classify(&row).and_then(|line| {
            let same = invoice.customer == row[6] && invoice.country == row[7];
            same.then_some(line).ok_or("invoice_inconsistent")
        });
        match line {
            Ok(line) => invoice.lines.push(line),
            Err(reason) => *self.rejected.entry(reason).or_default() += 1,
        }
    }

    /// The counts, in the words of `retail_counts.py`.
    pub fn counts(&self) -> Value {
        let mut categories: BTreeMap<&str, (u64, BTreeSet<&str>, i64, i64)> = BTreeMap::new();
        let mut prices: BTreeMap<(&str, &str), BTreeSet<i64>> = BTreeMap::new();
        let (mut without_goods, mut guests) = (0_u64, 0_u64);
        for invoice in &self.invoices {
            for line in &invoice.lines {
                let total = categories.entry(line.kind.name()).or_default();
                total.0 += 1;
                total.1.insert(&invoice.number);
                total.2 += line.pieces;
                total.3 += line.pieces * line.pence;
                without_goods += u64::from(!is_goods(&line.code));
                guests += u64::from(invoice.customer.is_empty());
                if line.kind == Kind::Sale {
                    prices.entry((&invoice.number, &line.code)).or_default().insert(line.pence);
                }
            }
        }
        let categories: BTreeMap<&str, Value> = categories
            .into_iter()
            .map(|(name, (lines, invoices, pieces, sum))| {
                let total = json!({
                    "lines": lines, "invoices": invoices.len(), "pieces": pieces, "sum_minor": sum,
                });
                (name, total)
            })
            .collect();
        json!({
            "lines": self.lines,
            "invoices": self.invoices.len(),
            "categories": categories,
            "rejected": self.rejected,
            "lines_without_goods": without_goods,
            "lines_of_guests": guests,
            "codes_at_two_prices": prices.values().filter(|found| found.len() > 1).count(),
            "longest_invoice": self.longest.values().max().copied().unwrap_or(0),
        })
    }
}

/// The eight columns as text, or why the line belongs to no invoice.
fn strays(row: &csv::ByteRecord) -> Result<Vec<String>, &'static str> {
    if row.len() != COLUMNS.len() {
        return Err("malformed");
    }
    let row: Vec<String> = row
        .iter()
        .map(|field| String::from_utf8(field.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| "invalid_text")?;
    let digits = row[0].strip_prefix(['C', 'A']).unwrap_or(&row[0]);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("invoice_malformed");
    }
    if !is_time(&row[4]) {
        return Err("time_malformed");
    }
    Ok(row)
}

/// True for a time like `2010-12-01 08:26:00` on a day that there was.
fn is_time(text: &str) -> bool {
    let shape = "dddd-dd-dd dd:dd:dd";
    let fits = text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    if !fits {
        return false;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap_or(u32::MAX);
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    year > 0 && (1..=days).contains(&day) && number(11..13) < 24 && number(14..16) < 60 && number(17..19) < 60
}

/// What a line of an invoice is, or why it cannot be used.
fn classify(row: &[String]) -> Result<Line, &'static str> {
    let (invoice, code, quantity, price) = (&row[0], &row[1], &row[3], &row[5]);
    if code.trim().is_empty() {
        return Err("missing");
    }
    let digits = quantity.strip_prefix(['+', '-']).unwrap_or(quantity);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("quantity_malformed");
    }
    let pieces: i64 = quantity.parse().map_err(|_| "quantity_malformed")?;
    let pence = pence(price)?;
    if pieces == 0 {
        return Err("quantity_zero");
    }
    let kind = match (invoice.as_bytes()[0], pieces > 0, pence) {
        (b'A', _, _) => Kind::Adjustment,
        (_, _, ..0) => return Err("price_negative"),
        (b'C', false, 1..) => Kind::Cancellation,
        (b'C', _, _) => return Err("quantity_sign"),
        (_, true, 1..) => Kind::Sale,
        (_, true, 0) => Kind::Free,
        (_, false, 1..) => return Err("quantity_sign"),
        (_, false, 0) => Kind::WriteOff,
    };
    Ok(Line { kind, code: code.clone(), description: row[2].clone(), pieces, pence })
}

fn pence(price: &str) -> Result<i64, &'static str> {
    let (negative, rest) = match price.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, price),
    };
    let (whole, part) = match rest.split_once('.') {
        Some((_, "")) => return Err("price_malformed"),
        Some(parts) => parts,
        None => (rest, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err("price_malformed");
    }
    let part = part.trim_end_matches('0');
    if part.len() > 2 {
        return Err("price_decimals");
    }
    let pence: i64 = format!("{whole}{part:0<2}").parse().map_err(|_| "price_malformed")?;
    Ok(if negative { -pence } else { pence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_pence_or_refused_with_the_reason() {
        assert_eq!(pence("2.55"), Ok(255));
        assert_eq!(pence("2.5"), Ok(250));
        assert_eq!(pence("2.500"), Ok(250));
        assert_eq!(pence("-11062.06"), Ok(-1_106_206));
        assert_eq!(pence("0.001"), Err("price_decimals"));
        assert_eq!(pence("1."), Err("price_malformed"));
        assert_eq!(pence(""), Err("price_malformed"));
        assert_eq!(pence("1e3"), Err("price_malformed"));
    }

    #[test]
    fn days_that_never_were_are_no_times() {
        assert!(is_time("2012-02-29 23:59:59"));
        assert!(!is_time("2011-02-29 00:00:00"));
        assert!(!is_time("2011-13-01 00:00:00"));
        assert!(!is_time("2011-01-01 24:00:00"));
        assert!(!is_time("2011-01-01T00:00:00"));
    }
}
