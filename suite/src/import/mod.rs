//! Goods and sales from files: streaming readers that never hold a file, and say what they refuse and why.
//!
//! Each reader is an iterator over [`Record`]s. `Err` is the end (the file cannot be read on); a bad record is
//! a [`Reject`] with its line and reason, and reading goes on behind it. [`Position`] is a place between two
//! records to continue from.

pub mod eshop;
pub mod jsonl;
pub mod retail;

mod array;

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

/// Largest single record, in bytes; a longer one is refused without being kept.
pub const LARGEST_RECORD: usize = 1024 * 1024;

/// One record of a file: usable, or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<T> {
    /// A record that means something.
    Good(T),
    /// A record that does not.
    Rejected(Reject),
}

/// A refused record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Line of the file it begins in, from 1.
    pub line: u64,
    /// Why.
    pub reason: Reason,
    /// What exactly, for a person.
    pub detail: String,
    /// The record as it stands in the file, cut at 1,000 characters.
    pub text: String,
}

/// Why a record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It is not of the file's format.
    Malformed,
    /// It is not UTF-8.
    InvalidText,
    /// It is longer than a record may be.
    TooLong,
    /// A field that must have a value has none.
    Missing,
    /// A price is no decimal number, or too large a one.
    PriceMalformed,
    /// A price has more decimals than its currency.
    PriceDecimals,
    /// A price is below zero.
    PriceNegative,
    /// The currency is none that is sold in.
    CurrencyUnknown,
    /// A stock keeping unit has characters that none may have.
    SkuMalformed,
    /// A quantity is no whole number.
    QuantityMalformed,
    /// A quantity of nothing.
    QuantityZero,
    /// A quantity whose sign contradicts the rest of the line.
    QuantitySign,
    /// A time is none.
    TimeMalformed,
    /// An invoice number is none.
    InvoiceMalformed,
    /// A line contradicts the invoice it belongs to.
    InvoiceInconsistent,
}

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Bytes of the (unpacked) file before it.
    pub byte: u64,
    /// Line that begins there, from 1.
    pub line: u64,
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed, or the packed file is damaged or cut.
    #[error("reading failed near line {line}: {source}")]
    Reading {
        /// Where.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("line {line}: {expected}")]
    Format {
        /// Where.
        line: u64,
        /// What should stand there.
        expected: &'static str,
    },
}

impl Position {
    /// The beginning of a file.
    pub const START: Position = Position { byte: 0, line: 1 };
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 15] = [
        Reason::Malformed,
        Reason::InvalidText,
        Reason::TooLong,
        Reason::Missing,
        Reason::PriceMalformed,
        Reason::PriceDecimals,
        Reason::PriceNegative,
        Reason::CurrencyUnknown,
        Reason::SkuMalformed,
        Reason::QuantityMalformed,
        Reason::QuantityZero,
        Reason::QuantitySign,
        Reason::TimeMalformed,
        Reason::InvoiceMalformed,
        Reason::InvoiceInconsistent,
    ];

    /// A stable word for programs and report columns.
    pub fn code(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::InvalidText => "invalid_text",
            Reason::TooLong => "too_long",
            Reason::Missing => "missing",
            Reason::PriceMalformed => "price_malformed",
            Reason::PriceDecimals => "price_decimals",
            Reason::PriceNegative => "price_negative",
            Reason::CurrencyUnknown => "currency_unknown",
            Reason::SkuMalformed => "sku_malformed",
            Reason::QuantityMalformed => "quantity_malformed",
            Reason::QuantityZero => "quantity_zero",
            Reason::QuantitySign => "quantity_sign",
            Reason::TimeMalformed => "time_malformed",
            Reason::InvoiceMalformed => "invoice_malformed",
            Reason::InvoiceInconsistent => "invoice_inconsistent",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

impl Reject {
    fn new(line: u64, reason: Reason, detail: impl Into<String>, text: &[u8]) -> Self {
        let text: String = String::from_utf8_lossy(text).chars().take(1000).collect();
        Self { line, reason, detail: detail.into(), text: text.trim_end_matches(['\r', '\n']).to_owned() }
    }
}

/// A file as text, unpacked when it is gzip, which its first two bytes tell.
pub fn unpacked<'a>(file: impl Read + Send + 'a) -> io::Result<Box<dyn BufRead + Send + 'a>> {
    let mut file = BufReader::with_capacity(64 * 1024, file);
    if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        let plain = flate2::bufread::MultiGzDecoder::new(file);
        Ok(Box::new(BufReader::with_capacity(64 * 1024, plain)))
    } else {
        Ok(Box::new(file))
    }
}

/// Reads up to a position, whose bytes have been imported before.
fn skip_to(file: &mut impl BufRead, position: Position) -> Result<(), Error> {
    let skipped = io::copy(&mut file.take(position.byte), &mut io::sink())
        .map_err(|source| Error::Reading { line: position.line, source })?;
    if skipped < position.byte {
        return Err(Error::Format {
            line: position.line,
            expected: "the file is shorter than what was imported of it",
        });
    }
    Ok(())
}
