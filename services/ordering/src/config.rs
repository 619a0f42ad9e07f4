//! What an operator may set, its default and its check.

use std::time::Duration;

/// Configuration of ordering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long PlaceOrder waits for an outcome when the caller does not say.
    pub wait: Duration,
    /// Sagas run at once.
    pub sagas: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { wait: Duration::from_secs(10), sagas: 512 }
    }
}

/// The command line of ordering as a process of its own: it is told nothing.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config::default()
    }
}
