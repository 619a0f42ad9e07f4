//! The payment provider's ledger, as the provider tells it.

use anyhow::bail;
use serde::Deserialize;

use crate::asking;

/// One line of the ledger.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entry {
    /// What it is.
    pub(crate) kind: Kind,
    /// The provider's name of the authorisation it belongs to.
    pub(crate) authorization: String,
    /// Our reference of that authorisation: the payment's name.
    pub(crate) authorization_reference: String,
    /// The key it was asked for under.
    pub(crate) idempotency_key: Option<String>,
    /// Minor units.
    pub(crate) amount: i64,
    /// Where the authorisation stands now.
    pub(crate) authorization_status: String,
}

/// What a line records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Authorization,
    Challenge,
    Capture,
    Void,
    Refund,
}

/// The whole ledger of the provider at this address.
pub(crate) async fn fetch(provider: &str) -> anyhow::Result<Vec<Entry>> {
    if provider.is_empty() {
        bail!("--psp does not say where it is");
    }
    let answer = asking::get(provider, "/ledger").await?;
    Ok(serde_json::from_slice(&answer)?)
}
