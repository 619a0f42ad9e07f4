//! etcd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::control::Restart;
use super::{LOOK, Owner, READY, Server, Started, installed, private_folder};
use crate::ports;

/// A private etcd, a cluster of one that asks nobody who they are.
pub(crate) struct Etcd {
    server: Server,
    port: u16,
    program: PathBuf,
    version: String,
}

impl Etcd {
    pub(crate) fn start() -> Result<Started<Self>> {
        let Some(program) = self::program()? else {
            return Ok(Started::Missing("etcd is not installed and cannot be".to_owned()));
        };
        let owner = Owner { ids: None };
        let folder = private_folder("etcd-", &owner)?;
        let port = ports::one()?;
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", ports::one()?));
        let mut command = owner.command(&program);
        command.args(["--logger", "zap", "--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--data-dir"]).arg(folder.path().join("data"));
        let said = Command::new(&program).arg("--version").output()?;
        let version = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().to_owned();
        let server = Server::spawn("etcd", command, Signal::TERM, port, folder)?;
        let etcd = Self { server, port, program, version };
        etcd.await_leader()?;
        Ok(Started::Ready(etcd))
    }

    /// It takes connections before it can answer.
    fn await_leader(&self) -> Result<()> {
        let begun = Instant::now();
        while !super::answer(self.port, "/health").is_some_and(|text| text.contains("\"health\":\"true\"")) {
            if begun.elapsed() > READY {
                bail!("etcd has no leader within {READY:?}");
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The server's program, for tests that kill servers of their own.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

impl Restart for Etcd {
    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn start(&mut self) -> Result<()> {
        self.server.start()?;
        self.await_leader()
    }

    fn ask(&mut self, words: &[&str]) -> Result<String> {
        let ["empty"] = words else { bail!("{words:?} is not understood") };
        // What it knew is gone, as after the loss of a disk. It must not run.
        let folder = self.server.folder.as_ref().map(|folder| folder.path().join("data"));
        folder.map_or(Ok(()), std::fs::remove_dir_all)?;
        Ok(String::new())
    }
}

fn find_etcd() -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];
    folders.iter().map(|folder| Path::new(folder).join("etcd")).find(|program| program.exists())
}

/// The server itself.
pub(super) fn program() -> Result<Option<PathBuf>> {
    installed("etcd", "etcd-server", find_etcd)
}
