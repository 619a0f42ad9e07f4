//! What an operator may set, its default and its check.

use std::time::Duration;

use contract::Currency;

/// Configuration of cart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The currency of a cart whose maker names none.
    pub currency: Currency,
    /// How long what the catalogue says of a variant (its name, title, and whether it has stock; never a price) is believed
    /// without asking again.
    pub variants_kept: Duration,
    /// How many variants are remembered at most.
    pub variants_at_most: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { currency: Currency::EUR, variants_kept: Duration::from_secs(10), variants_at_most: 20_000 }
    }
}

/// The command line of cart as a process of its own.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Currency of a cart whose maker names none
    #[arg(long, value_name = "CODE", env = "STOA_CURRENCY", default_value = "EUR")]
    currency: Currency,
}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config { currency: self.currency, ..Config::default() }
    }
}
