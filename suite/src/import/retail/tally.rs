//! Counts of what a retail file holds, in the words of `integration/retail_counts.py`, so that the two can be compared.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Invoice, InvoiceKind, LineKind};
use crate::import::{Record, Reject};

/// What came out of a file. Sums are pence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Lines, refused ones too.
    pub lines: u64,
    /// Invoices, those whose lines were all refused too.
    pub invoices: u64,
    /// Usable lines by what they do.
    pub categories: BTreeMap<&'static str, Category>,
    /// Refused lines by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Usable lines whose code is of no goods.
    pub lines_without_goods: u64,
    /// Usable lines of guests.
    pub lines_of_guests: u64,
    /// Pairs of a sale invoice and a code that it sells at more than one price.
    pub codes_at_two_prices: u64,
    /// Lines of the longest invoice.
    pub longest_invoice: u64,
}

/// Counts of one kind of line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Category {
    /// Lines.
    pub lines: u64,
    /// Invoices with such a line.
    pub invoices: u64,
    /// Pieces.
    pub pieces: i64,
    /// Quantity times price.
    pub sum_minor: i64,
}

impl Tally {
    /// Counts a record.
    pub fn add(&mut self, record: &Record<Invoice>) {
        match record {
            Record::Good(invoice) => self.add_invoice(invoice),
            Record::Rejected(reject) => self.add_reject(reject),
        }
    }

    fn add_reject(&mut self, reject: &Reject) {
        self.lines += 1;
        *self.rejected.entry(reject.reason.code()).or_default() += 1;
    }

    fn add_invoice(&mut self, invoice: &Invoice) {
        self.invoices += 1;
        let length = (invoice.lines.len() + invoice.rejected.len()) as u64;
        self.longest_invoice = self.longest_invoice.max(length);
        for reject in &invoice.rejected {
            self.add_reject(reject);
        }
        let mut seen = BTreeMap::new();
        let mut prices: BTreeMap<&str, (i64, bool)> = BTreeMap::new();
        for line in &invoice.lines {
            self.lines += 1;
            self.lines_without_goods += u64::from(!line.goods);
            self.lines_of_guests += u64::from(invoice.customer.is_none());
            let category = self.categories.entry(word(line.kind)).or_default();
            category.lines += 1;
            category.pieces += line.quantity;
            category.sum_minor += line.quantity * line.price_minor;
            seen.insert(line.kind, ());
            if line.kind == LineKind::Sale {
                let (first, differs) = prices.entry(&line.code).or_insert((line.price_minor, false));
                *differs |= *first != line.price_minor;
            }
        }
        for kind in seen.into_keys() {
            self.categories.entry(word(kind)).or_default().invoices += 1;
        }
        if invoice.kind == InvoiceKind::Sale {
            let twice = prices.values().filter(|(_, differs)| *differs).count();
            self.codes_at_two_prices += twice as u64;
        }
    }
}

fn word(kind: LineKind) -> &'static str {
    match kind {
        LineKind::Sale => "sale",
        LineKind::Free => "free",
        LineKind::WriteOff => "write_off",
        LineKind::Cancellation => "cancellation",
        LineKind::Adjustment => "adjustment",
    }
}
