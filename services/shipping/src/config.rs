//! What an operator may set, its default and its check.

use crate::rates::Table;

/// Configuration of shipping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What sending a parcel costs.
    pub rates: Table,
}

/// The command line of shipping as a process of its own: it is told nothing.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config::default()
    }
}
