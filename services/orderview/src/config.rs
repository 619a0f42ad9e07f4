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
