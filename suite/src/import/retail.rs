//! The *Online Retail* CSV: every line of every invoice of a shop, in order of time.
//!
//! Lines are gathered into [`Invoice`]s. The file is real, so a line can be refused: it then stands in its
//! invoice's `rejected`, and whoever books the invoice decides what to do with the rest. Lines of two invoices
//! written in the same minute may be mixed, so an invoice stays open until [`WINDOW`] lines have passed without one
//! of its own; a number that comes back later is another invoice. Invoices come out in the order of their first lines.
//!
//! The rules, by the invoice's first letter and the line (`retail_counts.py` in `integration/` states them again):
//! `C` cancels, and has negative quantities and positive prices; `A` adjusts, as it likes; a number alone sells,
//! with a positive quantity and price (*sale*), no price (*free*), or a negative quantity and no price
//! (*write-off*). Anything else is refused. So is a price with more decimals than pence.

mod generate;
mod tally;

use std::collections::VecDeque;
use std::io::{BufRead, Read};

use jiff::civil::DateTime;

use super::{Error, Position, Reason, Record, Reject, skip_to};
use crate::goods::{AmountError, parse_minor};

pub use generate::generate;
pub use tally::{Category, Tally};

/// Lines that may stand between two lines of one invoice.
pub const WINDOW: u64 = 64;

/// The currency of the shop.
pub const CURRENCY: &str = "GBP";

const COLUMNS: [&str; 8] =
    ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"];

/// An invoice with its lines in order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// Number as written, with its letter.
    pub number: String,
    /// What it does.
    pub kind: InvoiceKind,
    /// Time of its first line; the file names no zone.
    pub time: DateTime,
    /// The customer's number; nothing for a guest.
    pub customer: Option<String>,
    /// Country as written.
    pub country: String,
    /// Usable lines; none when all were refused.
    pub lines: Vec<Line>,
    /// Refused lines.
    pub rejected: Vec<Reject>,
}

/// What an invoice does, told by its first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InvoiceKind {
    /// A number alone: sells, gives away, or writes off.
    Sale,
    /// `C`: takes back.
    Cancellation,
    /// `A`: adjusts bad debt.
    Adjustment,
}

/// A line of an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Line of the file, from 1.
    pub line: u64,
    /// Stock code as written; codes that differ in case are different codes.
    pub code: String,
    /// Description, often missing or wrong.
    pub description: String,
    /// Pieces; below zero when they come back or are written off.
    pub quantity: i64,
    /// Price of one, in pence; below zero only in adjustments.
    pub price_minor: i64,
    /// What the line does.
    pub kind: LineKind,
    /// Whether the code is of goods; otherwise it is postage, a fee, a voucher, and has no stock.
    pub goods: bool,
}

/// What a line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LineKind {
    /// Sold.
    Sale,
    /// Given away.
    Free,
    /// Written off the stock.
    WriteOff,
    /// Taken back.
    Cancellation,
    /// Adjusted.
    Adjustment,
}

/// Whether a stock code stands for goods.
pub fn is_goods(code: &str) -> bool {
    const NO_GOODS: [&str; 11] = ["AMAZONFEE", "B", "BANK CHARGES", "C2", "CRUK", "D", "DOT", "M", "PADS", "POST", "S"];
    let code = code.to_ascii_uppercase();
    !NO_GOODS.contains(&code.as_str()) && !code.starts_with("GIFT_")
}

/// The iterator over a file: whole invoices, and lines that belong to none.
pub struct Reader<R: Read> {
    csv: csv::Reader<R>,
    start: Position,
    header_read: bool,
    finished: bool,
    open: VecDeque<Open>,
    /// Line of the last row that was read.
    row: u64,
    /// Last line of any invoice that came out.
    out: u64,
    safe: Position,
    record: csv::ByteRecord,
}

/// What has come in and not gone out.
struct Open {
    begins: Position,
    last: u64,
    content: Content,
}

enum Content {
    Invoice(Box<Invoice>),
    Stray(Reject),
}

/// A line with what it says of its invoice.
struct Row {
    number: String,
    kind: InvoiceKind,
    time: DateTime,
    customer: Option<String>,
    country: String,
    line: Result<Line, Reject>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from the beginning.
    pub fn new(file: R) -> Self {
        Self::at(file, Position::START)
    }

    /// Continues from a safe position.
    pub fn resume(mut file: R, position: Position) -> Result<Self, Error> {
        skip_to(&mut file, position)?;
        Ok(Self::at(file, position))
    }

    /// A place from which reading may continue: everything before it has come out, nothing behind it has, save
    /// where invoices are mixed; there it stays before the first of them, and some come out again.
    pub fn position(&self) -> Position {
        self.safe
    }

    fn at(file: R, start: Position) -> Self {
        Self {
            csv: csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(file),
            start,
            header_read: start != Position::START,
            finished: false,
            open: VecDeque::new(),
            row: start.line,
            out: 0,
            safe: start,
            record: csv::ByteRecord::new(),
        }
    }

    /// Reads one row, or nothing behind the last.
    fn read_row(&mut self) -> Result<bool, Error> {
        let more = self.csv.read_byte_record(&mut self.record);
        more.map_err(|error| {
            let line = self.row;
            match error.into_kind() {
                csv::ErrorKind::Io(source) => Error::Reading { line, source },
                _ => Error::Format { line, expected: "a line of the CSV was expected" },
            }
        })
    }

    fn read_header(&mut self) -> Result<(), Error> {
        self.header_read = true;
        if !self.read_row()? || !self.record.iter().eq(COLUMNS.map(str::as_bytes)) {
            return Err(Error::Format {
                line: 1,
                expected: "the header InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country was expected",
            });
        }
        self.safe = self.here();
        Ok(())
    }

    /// Where the next row begins.
    fn here(&self) -> Position {
        self.absolute(self.csv.position())
    }

    fn absolute(&self, position: &csv::Position) -> Position {
        Position { byte: self.start.byte + position.byte(), line: self.start.line + position.line() - 1 }
    }

    /// Takes in the row that was read.
    fn take(&mut self) {
        let begins = match self.record.position() {
            Some(position) => self.absolute(position),
            None => self.here(),
        };
        self.row = begins.line;
        let last = begins.line;
        match row(&self.record, begins.line) {
            Err(reject) => self.open.push_back(Open { begins, last, content: Content::Stray(reject) }),
            Ok(row) => {
                let known = self.open.iter_mut().rev().find_map(|open| {
                    let Content::Invoice(invoice) = &mut open.content else {
                        return None;
                    };
                    (invoice.number == row.number).then_some((&mut open.last, invoice))
                });
                match known {
                    Some((end, invoice)) => {
                        *end = last;
                        add(invoice, row, &self.record);
                    }
                    None => {
                        self.open.push_back(Open { begins, last, content: Content::Invoice(Box::new(invoice(row))) })
                    }
                }
            }
        }
    }

    /// Hands out the first of what is open, if it is complete.
    fn complete(&mut self) -> Option<Record<Invoice>> {
        let first = self.open.front()?;
        let waits = match first.content {
            Content::Stray(_) => false,
            Content::Invoice(_) => first.last + WINDOW >= self.row,
        };
        if waits && !self.finished {
            return None;
        }
        let first = self.open.pop_front()?;
        self.out = self.out.max(first.last);
        let next = match self.open.front() {
            Some(open) => open.begins,
            None => self.here(),
        };
        if next.line > self.out {
            self.safe = next;
        }
        Some(match first.content {
            Content::Stray(reject) => Record::Rejected(reject),
            Content::Invoice(invoice) => Record::Good(*invoice),
        })
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record<Invoice>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.complete() {
                return Some(Ok(record));
            }
            if self.finished {
                return None;
            }
            let more =
                if self.header_read { self.read_row() } else { self.read_header().and_then(|()| self.read_row()) };
            match more {
                Ok(true) => self.take(),
                Ok(false) => self.finished = true,
                Err(error) => {
                    // What is open may be incomplete, so it does not come out.
                    self.finished = true;
                    self.open.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

fn invoice(row: Row) -> Invoice {
    let (lines, rejected) = match row.line {
        Ok(line) => (vec![line], Vec::new()),
        Err(reject) => (Vec::new(), vec![reject]),
    };
    Invoice {
        number: row.number,
        kind: row.kind,
        time: row.time,
        customer: row.customer,
        country: row.country,
        lines,
        rejected,
    }
}

fn add(invoice: &mut Invoice, row: Row, record: &csv::ByteRecord) {
    match row.line {
        Err(reject) => invoice.rejected.push(reject),
        Ok(line) if invoice.customer != row.customer || invoice.country != row.country => {
            let detail = format!("invoice {} has another customer or country", row.number);
            let reject = Reject::new(line.line, Reason::InvoiceInconsistent, detail, &text(record));
            invoice.rejected.push(reject);
        }
        Ok(line) => invoice.lines.push(line),
    }
}

/// Reads a row; an error is of a row that belongs to no invoice.
fn row(record: &csv::ByteRecord, line: u64) -> Result<Row, Reject> {
    let refuse = |reason, detail: String| Reject::new(line, reason, detail, &text(record));
    if record.len() != COLUMNS.len() {
        return Err(refuse(Reason::Malformed, format!("{} columns", record.len())));
    }
    let mut fields = [""; COLUMNS.len()];
    for (field, bytes) in fields.iter_mut().zip(record) {
        *field = std::str::from_utf8(bytes).map_err(|error| refuse(Reason::InvalidText, error.to_string()))?;
    }
    let [number, code, description, quantity, time, price, customer, country] = fields;
    let Some(kind) = kind_of(number) else {
        return Err(refuse(Reason::InvoiceMalformed, number.to_owned()));
    };
    let Some(time) = parse_time(time) else {
        return Err(refuse(Reason::TimeMalformed, time.to_owned()));
    };
    let parsed = parse_line(kind, code, description, quantity, price);
    Ok(Row {
        number: number.to_owned(),
        kind,
        time,
        customer: (!customer.is_empty()).then(|| customer.to_owned()),
        country: country.to_owned(),
        line: match parsed {
            Ok(parsed) => Ok(Line { line, ..parsed }),
            Err((reason, detail)) => Err(refuse(reason, detail)),
        },
    })
}

/// Exactly `2010-12-01 08:26:00`; a parser of dates would let other spellings through.
fn parse_time(text: &str) -> Option<DateTime> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 19
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => *byte == b' ',
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        });
    if !shaped {
        return None;
    }
    let part = |from: usize, to: usize| text[from..to].parse::<i16>().ok();
    let small = |from: usize| part(from, from + 2).and_then(|part| i8::try_from(part).ok());
    DateTime::new(part(0, 4)?, small(5)?, small(8)?, small(11)?, small(14)?, small(17)?, 0).ok()
}

fn kind_of(number: &str) -> Option<InvoiceKind> {
    let (kind, digits) = match number.as_bytes().first()? {
        b'C' => (InvoiceKind::Cancellation, &number[1..]),
        b'A' => (InvoiceKind::Adjustment, &number[1..]),
        _ => (InvoiceKind::Sale, number),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(kind)
}

fn parse_line(
    invoice: InvoiceKind,
    code: &str,
    description: &str,
    quantity: &str,
    price: &str,
) -> Result<Line, (Reason, String)> {
    if code.trim().is_empty() {
        return Err((Reason::Missing, "StockCode".to_owned()));
    }
    let quantity: i64 = quantity.parse().map_err(|_| (Reason::QuantityMalformed, quantity.to_owned()))?;
    let price_minor = parse_minor(price, 2).map_err(|error| {
        let reason = match error {
            AmountError::Decimals => Reason::PriceDecimals,
            AmountError::Malformed | AmountError::TooLarge => Reason::PriceMalformed,
        };
        (reason, format!("{price} {error}"))
    })?;
    Ok(Line {
        line: 0,
        code: code.to_owned(),
        description: description.to_owned(),
        quantity,
        price_minor,
        kind: line_kind(invoice, quantity, price_minor)?,
        goods: is_goods(code),
    })
}

fn line_kind(invoice: InvoiceKind, quantity: i64, price_minor: i64) -> Result<LineKind, (Reason, String)> {
    if quantity == 0 {
        return Err((Reason::QuantityZero, "0".to_owned()));
    }
    if invoice == InvoiceKind::Adjustment {
        return Ok(LineKind::Adjustment);
    }
    if price_minor < 0 {
        return Err((Reason::PriceNegative, format!("{price_minor} pence")));
    }
    match (invoice, quantity > 0, price_minor > 0) {
        (InvoiceKind::Sale, true, true) => Ok(LineKind::Sale),
        (InvoiceKind::Sale, true, false) => Ok(LineKind::Free),
        (InvoiceKind::Sale, false, false) => Ok(LineKind::WriteOff),
        (InvoiceKind::Cancellation, false, true) => Ok(LineKind::Cancellation),
        (InvoiceKind::Adjustment, _, _) => Ok(LineKind::Adjustment),
        (InvoiceKind::Sale, false, true) | (InvoiceKind::Cancellation, _, _) => {
            Err((Reason::QuantitySign, format!("{quantity} pieces at {price_minor} pence")))
        }
    }
}

/// The record as it could stand in the file.
fn text(record: &csv::ByteRecord) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    if writer.write_byte_record(record).is_err() {
        return Vec::new();
    }
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests;
