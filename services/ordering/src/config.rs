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
