//! What an operator may set, its default and its check.

use std::time::Duration;

/// Configuration of orderview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Orders watched at the same time; more are turned away.
    pub watchers: usize,
    /// How long one service is waited for when an order is explained.
    pub explain_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { watchers: 1_000, explain_patience: Duration::from_secs(5) }
    }
}

/// The command line of orderview as a process of its own: it is told nothing.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config::default()
    }
}
