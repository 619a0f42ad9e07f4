//! The payment provider as a process of its own, and its ledger: the judge of what was charged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::command_line;
use crate::http::Client;
use crate::server::{Output, spawn};

/// How long it takes to answer the slow token, unless told otherwise.
pub const SLOW: Duration = Duration::from_millis(1500);

/// A running `stoa psp`.
pub struct Provider {
    _folder: Option<TempDir>,
    child: Child,
    address: SocketAddr,
    output: Output,
}

/// One line of the ledger.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// What was recorded: `authorization`, `challenge`, `capture`, `void` or `refund`.
    pub kind: String,
    /// The provider's name of the authorisation it belongs to.
    pub authorization: String,
    /// The reference the shop gave.
    pub reference: String,
    /// The reference of the authorisation it belongs to.
    pub authorization_reference: String,
    /// The key under which it was asked for.
    pub idempotency_key: String,
    /// Minor units.
    pub amount: i64,
    /// ISO code.
    pub currency: String,
    /// The outcome when the entry was written.
    pub status: String,
    /// Where the authorisation stands now.
    pub authorization_status: String,
    /// The customer's token.
    pub token: String,
}

/// The whole ledger.
#[derive(Clone, Debug)]
pub struct Ledger(pub Vec<Entry>);

impl Provider {
    /// Starts a provider with an empty ledger.
    pub async fn start() -> Result<Self> {
        Self::start_slow(SLOW).await
    }

    /// As [`Provider::start`], with this time until the slow token is answered.
    pub async fn start_slow(slow: Duration) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("psp-").tempdir()?;
        let provider = Self::start_as(folder.path(), slow, &[]).await?;
        Ok(Self { _folder: Some(folder), ..provider })
    }

    /// As [`Provider::start_slow`], with room for so many connections.
    pub async fn start_for(slow: Duration, connections: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("psp-").tempdir()?;
        let provider = Self::start_as(folder.path(), slow, &["--connections", &connections.to_string()]).await?;
        Ok(Self { _folder: Some(folder), ..provider })
    }

    /// Starts a provider on a data folder, which the caller keeps.
    pub async fn start_on(data: &Path) -> Result<Self> {
        Self::start_as(data, SLOW, &[]).await
    }

    async fn start_as(data: &Path, slow: Duration, flags: &[&str]) -> Result<Self> {
        let mut command = Command::new(command_line::binary()?);
        command.args(["psp", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        // Late and slow enough to be noticed, short enough to wait for.
        command.args(["--late-ms", "500", "--slow-ms", &slow.as_millis().to_string()]).args(flags);
        let output = Output::default();
        let (child, address) = spawn(&mut command, &output).await?;
        Ok(Self { _folder: None, child, address, output })
    }

    /// Where it listens, as `--psp` wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it printed last.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Every entry.
    pub async fn ledger(&self) -> Result<Ledger> {
        let entries = Client::new(self.address).get("/ledger").await?.ok()?;
        Ok(Ledger(serde_json::from_value(entries).context("the ledger is not what we expect")?))
    }

    /// Sends its webhooks to a shop, signed with the key both know by default.
    pub async fn send_webhooks_to(&self, shop: SocketAddr) -> Result<()> {
        let endpoint = json!({
            "url": format!("http://{shop}/v1/webhooks/sandbox"),
            "secret": "sandbox-webhook-secret",
        });
        Client::new(self.address).send(http::Method::PUT, "/webhook_endpoint", Some(&endpoint)).await?.ok()?;
        Ok(())
    }

    /// Finishes a challenge as the customer would.
    pub async fn complete(&self, challenge: &str, approve: bool) -> Result<Value> {
        let outcome = if approve { "approve" } else { "decline" };
        let path = format!("/challenges/{challenge}:complete");
        Client::new(self.address).post(&path, &json!({ "outcome": outcome })).await?.ok()
    }
}

impl Ledger {
    /// Authorisations that stand, captured or not.
    pub fn authorized(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(|entry| entry.kind == "authorization" && entry.authorization_status == "authorized")
    }

    /// What was taken: captures that succeeded.
    pub fn captures(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(|entry| entry.kind == "capture")
    }

    /// Entries under one reference of the shop.
    pub fn of<'a>(&'a self, reference: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().filter(move |entry| entry.authorization_reference.contains(reference))
    }

    /// References with more than one standing authorisation: somebody would pay twice.
    pub fn doubled(&self) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.authorized() {
            // An attempt's own name is no excuse: what counts is the payment it belongs to.
            let payment = entry.reference.split("/attempts").next().unwrap_or_default();
            *counts.entry(payment).or_default() += 1;
        }
        counts.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_owned()).collect()
    }

    /// Captured less refunded for each currency, in minor units.
    pub fn taken(&self) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for entry in &self.0 {
            let sign = match entry.kind.as_str() {
                "capture" => 1,
                "refund" => -1,
                _ => 0,
            };
            *sums.entry(entry.currency.clone()).or_default() += sign * entry.amount;
        }
        sums
    }
}
