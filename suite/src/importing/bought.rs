//! What customers bought, as far as the file says that somebody takes it back: a cancellation names no invoice.
//!
//! It is kept by (customer, code, price) in memory, only under those that are cancelled somewhere, and in a journal beside
//! the position file, so that an import that is begun again need not play the sales before its position to know what they
//! were. The journal's first line is the place where its sales begin; each other one is some pieces of an order. It is
//! flushed before the position moves, and a sale that is played twice stands in it once.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use contracts::ordering::v1::Order;
use serde::{Deserialize, Serialize};

use super::sales::minor;
use crate::import::Position;
use crate::import::retail::{Invoice, Line};

/// Customer, code, price of one in minor units.
pub(super) type Key = (String, String, i64);

pub(super) struct Bought {
    pieces: HashMap<Key, Vec<Pieces>>,
    begins: Position,
    journal: File,
    path: PathBuf,
}

/// Pieces of one line of an order that did not come back yet.
struct Pieces {
    /// The line of the file where the sale begins: what was bought last comes back first.
    sale: u64,
    order: String,
    line: String,
    left: i64,
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
struct Noted {
    key: Key,
    sale: u64,
    order: String,
    line: String,
    pieces: i64,
}

impl Bought {
    /// Continues the journal of an import that did not end, or begins one at `position`.
    pub(super) fn open(path: PathBuf, position: Position, anew: bool) -> anyhow::Result<Self> {
        let found = if anew { None } else { read(&path)? };
        let mut options = File::options();
        options.create(true).append(true);
        let mut journal = options.open(&path).with_context(|| format!("{} cannot be written", path.display()))?;
        let text = found.unwrap_or_default();
        // A line that was being written when the process died says nothing.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        journal.set_len(whole.len() as u64)?;
        let mut lines = whole.lines();
        let damaged = || format!("{} is no journal of an import; --from-start begins anew", path.display());
        let begins = match lines.next() {
            Some(first) => super::parse_position(first).with_context(damaged)?,
            None => {
                writeln!(journal, "{} {}", position.byte, position.line)?;
                journal.sync_data()?;
                position
            }
        };
        let mut pieces = HashMap::new();
        for line in lines {
            insert(&mut pieces, serde_json::from_str(line).with_context(damaged)?);
        }
        Ok(Self { pieces, begins, journal, path })
    }

    /// Where its sales begin.
    pub(super) fn begins(&self) -> Position {
        self.begins
    }

    /// Somebody takes back what is sold under `key`.
    pub(super) fn want(&mut self, key: Key) {
        self.pieces.entry(key).or_default();
    }

    /// Notes what of a sale is wanted back.
    pub(super) fn add(&mut self, sale: &Invoice, order: &Order) -> anyhow::Result<()> {
        let Some(customer) = &sale.customer else { return Ok(()) };
        let begins = sale.lines.first().map_or(0, |line| line.line);
        for line in &order.lines {
            let key = (customer.clone(), line.sku.clone(), minor(line.unit_price.as_ref())?);
            if !self.pieces.contains_key(&key) {
                continue;
            }
            let pieces = i64::from(line.quantity);
            let noted = Noted { key, sale: begins, order: order.name.clone(), line: line.line.clone(), pieces };
            let mut text = serde_json::to_vec(&noted)?;
            text.push(b'\n');
            self.journal.write_all(&text)?;
            insert(&mut self.pieces, noted);
        }
        Ok(())
    }

    /// What was added outlives the process.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.journal.sync_data()
    }

    /// All sales are in: from now on pieces are taken, in an order that does not depend on which sale was done first.
    pub(super) fn complete(&mut self) {
        for pieces in self.pieces.values_mut() {
            pieces.sort_by(|one, other| (one.sale, &one.line).cmp(&(other.sale, &other.line)));
        }
    }

    /// Takes as many pieces as a cancelled line says, nothing if there are not enough: order, line, pieces.
    pub(super) fn take(&mut self, customer: &str, line: &Line) -> Option<Vec<(String, String, i64)>> {
        let pieces = self.pieces.get_mut(&(customer.to_owned(), line.code.clone(), line.price_minor))?;
        let mut wanted = -line.quantity;
        if pieces.iter().map(|it| it.left).sum::<i64>() < wanted {
            return None;
        }
        let mut taken = Vec::new();
        for it in pieces.iter_mut().rev() {
            let some = it.left.min(wanted);
            if some > 0 {
                it.left -= some;
                wanted -= some;
                taken.push((it.order.clone(), it.line.clone(), some));
            }
        }
        Some(taken)
    }

    /// Everything went back: nobody needs the journal any more.
    pub(super) fn close(self) -> io::Result<()> {
        drop(self.journal);
        fs::remove_file(self.path)
    }
}

fn insert(pieces: &mut HashMap<Key, Vec<Pieces>>, noted: Noted) {
    let Noted { key, sale, order, line, pieces: left } = noted;
    let known = pieces.entry(key).or_default();
    if !known.iter().any(|it| it.order == order && it.line == line) {
        known.push(Pieces { sale, order, line, left });
    }
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use contracts::ordering::v1::OrderLine;

    use super::*;
    use crate::import::retail::{InvoiceKind, LineKind};

    const BEGINS: Position = Position { byte: 100, line: 2 };

    fn line(line: u64, quantity: i64) -> Line {
        let (code, description) = ("MUG".to_owned(), String::new());
        Line { line, code, description, quantity, price_minor: 250, kind: LineKind::Sale, goods: true }
    }

    fn sale(number: u64) -> (Invoice, Order) {
        let invoice = Invoice {
            number: number.to_string(),
            kind: InvoiceKind::Sale,
            time: jiff::civil::date(2010, 12, 1).at(8, 26, 0, 0),
            customer: Some("17850".to_owned()),
            country: "United Kingdom".to_owned(),
            lines: vec![line(number, 2)],
            rejected: Vec::new(),
        };
        let of_order = OrderLine {
            sku: "MUG".to_owned(),
            line: "1".to_owned(),
            quantity: 2,
            unit_price: Some(crate::stocking::money("GBP", 250)),
            ..Default::default()
        };
        let order = Order { name: format!("orders/{number}"), lines: vec![of_order], ..Default::default() };
        (invoice, order)
    }

    fn wanted(mut bought: Bought) -> Bought {
        bought.want(("17850".to_owned(), "MUG".to_owned(), 250));
        bought
    }

    #[test]
    fn an_import_that_died_knows_what_it_sold_and_takes_back_the_last_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("year.csv.bought");
        let mut bought = wanted(Bought::open(path.clone(), BEGINS, false).unwrap());
        for number in [8, 5] {
            let (invoice, order) = sale(number);
            bought.add(&invoice, &order).unwrap();
        }
        bought.flush().unwrap();
        drop(bought);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"key\":[\"178").unwrap();

        let mut bought = wanted(Bought::open(path.clone(), Position { byte: 900, line: 9 }, false).unwrap());
        assert_eq!(bought.begins(), BEGINS, "where its own sales begin");
        for number in [8, 9] {
            let (invoice, order) = sale(number);
            bought.add(&invoice, &order).unwrap();
        }
        bought.complete();
        let taken = bought.take("17850", &line(99, -5)).unwrap();
        let taken: Vec<(&str, i64)> = taken.iter().map(|(order, _, pieces)| (order.as_str(), *pieces)).collect();
        assert_eq!(taken, [("orders/9", 2), ("orders/8", 2), ("orders/5", 1)]);
        assert!(bought.take("17850", &line(99, -2)).is_none(), "one piece is left");
        assert!(bought.take("somebody", &line(99, -1)).is_none());
        bought.close().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_nobody_takes_back_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("year.csv.bought");
        let mut bought = Bought::open(path.clone(), Position::START, false).unwrap();
        let (invoice, order) = sale(5);
        bought.add(&invoice, &order).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0 1\n");
        let reopened = Bought::open(path.clone(), BEGINS, true).unwrap();
        assert_eq!(reopened.begins(), BEGINS, "begun anew");
    }
}
