//! The engines a fleet stands on, as whoever started them tells, and a way to kill each and start it again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::{command_line, fleet, skip};

/// How long an engine may take to come back on a busy machine.
const BACK: Duration = Duration::from_secs(240);

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Engines {
    /// The binary with the fleet's engines.
    pub binary: PathBuf,
    databases: String,
    bus: (String, String),
    redis: String,
    mongodb: String,
    controls: Vec<(String, String)>,
}

impl Engines {
    /// What the environment tells; a note that nothing is proven where it tells nothing.
    pub fn given() -> Result<Option<Self>> {
        let told = |name: &str| std::env::var(name).ok();
        let engines = (|| {
            Some((
                std::env::var_os("STOA_FLEET_BIN")?,
                told("STOA_FLEET_DATABASES")?,
                told("STOA_FLEET_BUS")?,
                told("STOA_FLEET_REDIS")?,
                told("STOA_FLEET_MONGODB")?,
                told("STOA_FLEET_CONTROLS")?,
            ))
        })();
        let Some((binary, databases, bus, redis, mongodb, controls)) = engines else {
            skip::not_proven("a fleet on every engine: there are none to kill");
            return Ok(None);
        };
        let (kind, address) = bus.split_once('=').context("STOA_FLEET_BUS is KIND=ADDRESS")?;
        let controls = controls.split(' ').map(|control| {
            let (name, address) = control.split_once('=').context("STOA_FLEET_CONTROLS is NAME=ADDRESS, ...")?;
            Ok((name.to_owned(), address.to_owned()))
        });
        Ok(Some(Self {
            binary: binary.into(),
            databases,
            bus: (kind.to_owned(), address.to_owned()),
            redis,
            mongodb,
            controls: controls.collect::<Result<_>>()?,
        }))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.controls.iter().map(|(name, _)| name.as_str())
    }

    /// What the map of the fleet of this name says of them.
    pub(crate) fn lines(&self, name: &str) -> Result<String> {
        let own = |text: &str| text.replace("{fleet}", name);
        let stores = format!("{}mongodb = \"{}/{name}_catalog\"\n", self.redis, self.mongodb);
        let rest = fleet::engines(Some(&own(&self.databases)), Some((&self.bus.0, &own(&self.bus.1))))?;
        Ok(stores + &rest)
    }

    /// Every crash point that the binary names.
    pub(crate) async fn points(&self) -> Result<BTreeSet<String>> {
        let told = command_line::run(Command::new(&self.binary).arg("crash-points"), BACK).await?;
        ensure!(told.code == Some(0), "{told:?}");
        Ok(told.output.lines().map(str::to_owned).collect())
    }

    /// Whether an engine says how much it is at.
    pub(crate) fn tells_of_work(&self, name: &str) -> bool {
        name == "postgresql"
    }

    /// How many transactions are open in such an engine.
    pub(crate) async fn open_work(&self, name: &str) -> Result<usize> {
        Ok(self.tell(name, "transactions").await?.parse()?)
    }

    /// kill -9 for an engine, which is gone then.
    pub(crate) async fn kill(&self, name: &str) -> Result<()> {
        self.tell(name, "kill").await.map(drop)
    }

    /// Starts it again; returns when it lets clients in.
    pub(crate) async fn start(&self, name: &str) -> Result<()> {
        self.tell(name, "start").await.map(drop)
    }

    async fn tell(&self, name: &str, word: &str) -> Result<String> {
        let control = self.controls.iter().find(|(engine, _)| engine == name);
        let (_, address) = control.with_context(|| format!("nobody kills {name}"))?;
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(format!("{word}\n").as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(BACK, BufReader::new(connection).read_line(&mut answer))
            .await
            .with_context(|| format!("{name}: {word}"))??;
        let said = answer.trim().strip_prefix("done").with_context(|| format!("{name}: {word}: {answer}"))?;
        Ok(said.trim().to_owned())
    }
}
