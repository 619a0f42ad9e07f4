//! A shop in which something of everything has happened, stopped: for tests that look at its files, or damage them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::acts::{Act, PATIENCE, SERVICES, Stage};
use crate::ledger::Provider;
use crate::shopper::{Shopper, text};
use crate::{Setup, Stoa, until};

const SETTLED: Duration = Duration::from_secs(30);

/// A stopped shop.
pub struct Closed {
    _folder: tempfile::TempDir,
    /// Its data folder.
    pub data: PathBuf,
    /// The derived tables of each service, as the running services named them.
    pub derived: BTreeMap<&'static str, Vec<String>>,
    /// The last order: when it was placed, all others had come to rest.
    pub order: String,
}

/// Opens a shop, lets people buy, and stops it.
pub async fn closed() -> Result<Closed> {
    let folder = tempfile::Builder::new().prefix("rebuild-").tempdir()?;
    let data = folder.path().join("data");
    let provider = Provider::start().await?;
    let mut stoa =
        Stoa::start(Setup::default().flags(Act::Sale.windows()).provider(&provider.url()).data(&data)).await?;
    provider.send_webhooks_to(stoa.address()).await?;
    for act in [Act::People, Act::Goods, Act::Cart, Act::Sale, Act::Refusals] {
        act.play(&Stage { client: &stoa.client(), provider: &provider, patience: PATIENCE }).await?;
    }
    until(SETTLED, "everything at rest", async || stoa.audit().await.map(Some)).await?;
    let mut shopper = Shopper::customer(&stoa).await?;
    let sku = shopper.something().await?;
    let order = text(&shopper.buy("EUR", &sku, 1, "tok_ok").await?, "name")?;
    let mut operator = Shopper::operator(&stoa).await?;
    let mut derived = BTreeMap::new();
    for service in SERVICES {
        let path = format!("/v1/services/{service}/projections?pageSize=100");
        let list = operator.http.get(&path).await?.ok()?;
        let tables: Vec<String> = list["projections"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|projection| projection["tables"].as_array().into_iter().flatten())
            .filter_map(|table| table.as_str().map(str::to_owned))
            .collect();
        ensure!(!tables.is_empty(), "{service} has no derived table: {list}");
        derived.insert(service, tables);
    }
    until(SETTLED, "a clean audit", async || stoa.audit().await.map(Some)).await?;
    ensure!(stoa.stop().await?.success());
    Ok(Closed { _folder: folder, data, derived, order })
}

/// The SQLite file of a service: the one in the data folder that is named for it.
pub fn file_of(data: &Path, service: &str) -> Result<PathBuf> {
    let mut open = vec![data.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_stem().is_some_and(|stem| stem == service)
                && path.extension().is_some_and(|end| end == "db" || end == "sqlite" || end == "sqlite3")
            {
                return Ok(path);
            }
        }
    }
    bail!("no file of {service} in {}", data.display())
}
