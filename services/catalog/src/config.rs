//! What an operator may set, its default and its check.

use std::time::Duration;

use contract::Currency;

/// Configuration of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shop's own currency: prices are shown and searched in it where a caller names none.
    pub currency: Currency,
    /// How long a signed price may be relied upon.
    pub price_validity: Duration,
    /// Products of an import written in one transaction.
    pub import_batch: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { currency: Currency::EUR, price_validity: Duration::from_secs(15 * 60), import_batch: 500 }
    }
}
