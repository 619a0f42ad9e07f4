//! The gateways: processes, each in front of a service of its own.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use super::behind::{Behind, Reached};
use super::cases::Case;
use super::{Outcome, behind};
use crate::command_line::repository;
use crate::{ports, raw, until};

/// From the start of a process until it answers.
const START: Duration = Duration::from_secs(30);

/// A gateway and what is behind it.
pub struct Door {
    address: SocketAddr,
    behind: Behind,
    _process: Child,
}

/// Ours, and Envoy.
pub struct Doors {
    /// `stoa-gateway`.
    pub ours: Door,
    /// Envoy.
    pub envoy: Door,
}

impl Doors {
    /// Starts both, which are told the descriptors of this file.
    pub async fn open(gateway: &Path, envoy: &Path, descriptors: &Path, folder: &Path) -> Result<Self> {
        let ours = Door::open(gateway, |at, behind| {
            let words = ["--upstream", &behind.to_string(), "--listen", &at.to_string(), "--descriptors"];
            Ok(words.iter().map(OsString::from).chain([descriptors.into()]).collect())
        });
        let envoy = Door::open(envoy, |at, behind| {
            let file = configuration(at, behind, descriptors, folder)?;
            let words = ["--disable-hot-restart", "--log-level", "error", "-c"];
            Ok(words.iter().map(OsString::from).chain([file.into()]).collect())
        });
        Ok(Self { ours: ours.await?, envoy: envoy.await? })
    }
}

fn configuration(at: SocketAddr, behind: SocketAddr, descriptors: &Path, folder: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(repository().join("integration/gateway/envoy.yaml"))?;
    let text = text
        .replace(": LISTEN", &format!(": {}", at.port()))
        .replace(": UPSTREAM", &format!(": {}", behind.port()))
        .replace(": DESCRIPTORS", &format!(": {}", descriptors.display()))
        .replace("library.v1.LibraryService", "gallery.v1.GalleryService");
    let file = folder.join("envoy.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}

impl Door {
    async fn open(
        program: &Path,
        arguments: impl FnOnce(SocketAddr, SocketAddr) -> Result<Vec<OsString>>,
    ) -> Result<Self> {
        let behind = Behind::start().await?;
        let port = ports::free(1)?.pop().context("no free port")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = Command::new(program)
            .args(arguments(address, behind.address)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let door = Self { address, behind, _process: process };
        until(START, "a gateway that answers", async || {
            let answer = raw::exchange(address, &raw::request("GET", "/v1/pictures/first", &[], b"")).await;
            Ok(answer.ok().filter(|answer| answer.status == 200).map(drop))
        })
        .await?;
        Ok(door)
    }

    /// What becomes of a request here.
    pub async fn ask(&self, case: &Case) -> Result<Outcome> {
        let number = case.number.to_string();
        let mut headers = vec![(behind::CASE, number.as_str())];
        headers.extend(case.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let request = raw::request(case.verb, &case.target, &headers, &case.body);
        let answer = raw::exchange(self.address, &request).await.ok();
        let reached: Option<Reached> = self.behind.take(case.number);
        ensure!(answer.is_some() || reached.is_none(), "a call was made and not answered: {case:?}");
        let (status, body) = answer.map(|answer| (answer.status, answer.body.to_vec())).unzip();
        Ok(Outcome { reached, status, body: body.unwrap_or_default() })
    }
}
