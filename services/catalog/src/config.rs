//! What an operator may set, its default and its check.

use contract::Currency;

/// Configuration of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shop's own currency: prices are shown and searched in it where a caller names none.
    pub currency: Currency,
    /// Products of an import written in one transaction.
    pub import_batch: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { currency: Currency::EUR, import_batch: 500 }
    }
}
