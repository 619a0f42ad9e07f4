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

/// The command line of catalog as a process of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Currency of the shop
    #[arg(long, value_name = "CODE", env = "STOA_CURRENCY", default_value = "EUR")]
    currency: Currency,
}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config { currency: self.currency, ..Config::default() }
    }
}
