//! What an operator may set, its default and its check.

use std::time::Duration;

/// Configuration of inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long stock may be held in all, counted from the last extension.
    pub longest_hold: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { longest_hold: Duration::from_secs(24 * 60 * 60) }
    }
}

/// The command line of inventory as a process of its own: it is told nothing.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config::default()
    }
}
