//! A shop as ten processes: nine services and the gateway, each with a data folder and a port, and the payment provider.
//!
//! Ports are chosen before the first start, since each process is told where all others are. A process that was killed is
//! started again at its port.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::await_until::until;
use crate::http::Client;
use crate::ledger::Provider;
use crate::server::{OPERATOR, Output, SHORT_WINDOWS, spawn};
use crate::shopper::Shopper;

/// The services, each a process.
pub const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "payment", "shipping", "notification", "orderview"];

/// The tenth.
pub const GATEWAY: &str = "gateway";

/// From the start of the processes to the first good answer through all of them.
const START: Duration = Duration::from_secs(60);

/// A running fleet.
pub struct Fleet {
    /// The payment provider, which nobody kills.
    pub provider: Provider,
    binary: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    running: BTreeMap<&'static str, Child>,
    outputs: BTreeMap<&'static str, Output>,
}

impl Fleet {
    /// Starts ten processes of this binary; `database` is where their databases are, with `{service}` for the name, or files.
    pub async fn start(binary: PathBuf, database: Option<&str>) -> Result<Self> {
        Self::start_with(binary, database, None).await
    }

    /// As [`Fleet::start`], with a broker between the processes: `("kafka", "host:port/PREFIX")`.
    pub async fn start_with(binary: PathBuf, database: Option<&str>, bus: Option<(&str, &str)>) -> Result<Self> {
        let mut engines = String::new();
        if let Some(url) = database {
            writeln!(engines, "database = {url:?}")?;
        }
        if let Some((kind, address)) = bus {
            writeln!(engines, "[bus]\n{kind} = {address:?}")?;
        }
        Self::start_on(binary, &engines).await
    }

    /// As [`Fleet::start`], with these lines of the map about engines.
    pub async fn start_on(binary: PathBuf, engines: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleet-").tempdir()?;
        let ports = free_ports(SERVICES.len() + 1)?;
        let mut map = format!("secret_file = \"secret\"\n{engines}[services]\n");
        for (service, port) in SERVICES.iter().zip(&ports) {
            writeln!(map, "{service} = \"127.0.0.1:{port}\"")?;
        }
        std::fs::write(folder.path().join("fleet.toml"), map)?;
        // Known to everybody on this machine, as the fleet's ports are to nobody else.
        std::fs::write(folder.path().join("secret"), "5a".repeat(32))?;
        let door = ports.last().copied().context("a port")?;
        let mut fleet = Self {
            provider: Provider::start().await?,
            binary,
            folder,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, door)),
            running: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        fleet.provider.send_webhooks_to(fleet.address).await?;
        for name in SERVICES.into_iter().chain([GATEWAY]) {
            fleet.launch(name).await?;
        }
        fleet.answers().await?;
        Ok(fleet)
    }

    /// Starts the process of that name and waits until it listens.
    pub async fn launch(&mut self, name: &'static str) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args(["--listen", &self.address.to_string(), "--psp", &self.provider.url()])
            .args(SHORT_WINDOWS)
            .args(["serve", name, "--fleet"])
            .arg(self.folder.path().join("fleet.toml"))
            .arg("--data")
            .arg(self.folder.path().join(name))
            .env("STOA_OPERATOR_PASSWORD", OPERATOR.1);
        let output = self.outputs.entry(name).or_default();
        let (child, _) = spawn(&mut command, output).await.with_context(|| name.to_owned())?;
        self.running.insert(name, child);
        Ok(())
    }

    /// kill -9 for one process, which is gone then.
    pub async fn kill(&mut self, name: &'static str) -> Result<()> {
        if let Some(mut child) = self.running.remove(name) {
            child.kill().await?;
        }
        Ok(())
    }

    /// A connection to the gateway, without a token.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The operator, over a connection that insists.
    pub async fn operator(&self) -> Result<Shopper> {
        Shopper::sign_in(self.client().insisting(START), OPERATOR.0, OPERATOR.1).await
    }

    /// What a process printed last.
    pub fn tail(&self, name: &str, count: usize) -> String {
        self.outputs.get(name).map(|output| output.tail(count)).unwrap_or_default()
    }

    /// Waits until every service answers through the gateway.
    async fn answers(&self) -> Result<()> {
        until(START, "an answer through the gateway", async || {
            let mut operator = self.operator().await?;
            for service in SERVICES {
                operator.http.get(&format!("/v1/services/{service}/consumers")).await?.ok().context(service)?;
            }
            Ok(Some(()))
        })
        .await
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, output) in &self.outputs {
                eprintln!("the last lines of {name}:\n{}", output.tail(20));
            }
        }
    }
}

/// Ports that are free now; all are held until all are known, so that no two are the same.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
