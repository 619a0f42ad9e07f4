//! What an operator may set, its default and its check.

use crate::rates::Table;

/// Configuration of shipping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What sending a parcel costs.
    pub rates: Table,
}
