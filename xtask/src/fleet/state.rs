//! What is remembered of a fleet: a file in its folder, written whole after every process that was started.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::process::{self, Kind, Process};
use super::start::layer;

const STATE: &str = "state.json";
const LOCK: &str = "lock";
const SECRET: &str = "secret";

/// A fleet, running or not.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    #[serde(flatten)]
    pub(crate) plan: Plan,
    /// The operator's.
    pub(crate) password: String,
    /// Of the servers, which let nobody in without it.
    pub(crate) server_password: String,
    /// Folder of the servers' data, where their user may enter.
    pub(crate) servers: Option<PathBuf>,
    /// Where the payment provider is.
    pub(crate) provider: String,
    /// Whether the sample catalogue is in.
    pub(crate) sampled: bool,
    /// Whether its processes know each other by certificates.
    #[serde(default)]
    pub(crate) certified: bool,
    /// Whether its last start came to its end.
    #[serde(default)]
    pub(crate) complete: bool,
    /// In the order in which they were started.
    pub(crate) processes: Vec<Process>,
}

/// The map of a fleet in this folder.
pub(crate) fn map(folder: &Path) -> PathBuf {
    folder.join("fleet.toml")
}

/// The certificates of its processes.
pub(crate) fn certificates(folder: &Path) -> PathBuf {
    folder.join("tls")
}

/// What its processes print.
pub(crate) fn logs(folder: &Path) -> PathBuf {
    folder.join("logs")
}

/// The data folder of one process.
pub(crate) fn data(folder: &Path, name: &str) -> PathBuf {
    folder.join("data").join(name)
}

/// Whether a fleet was ever in this folder.
pub(crate) fn is_ours(folder: &Path) -> bool {
    folder.join(LOCK).exists() && folder.join(SECRET).exists()
}

/// Makes the folder and keeps everybody else from changing the fleet in it; the system lets go of it when we end.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    if !folder.is_dir() {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent)?;
        }
        // Others may pass through to what is theirs, such as the data of a server that runs as another user.
        fs::DirBuilder::new().mode(0o711).create(folder)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("another `cargo xtask fleet` is at work on {}", folder.display())
        }
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Writes a file whole or not at all, readable by us alone.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

impl State {
    /// What is remembered, if there was a fleet.
    pub(crate) fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(STATE);
        match fs::read(&path) {
            Ok(text) => {
                Ok(Some(serde_json::from_slice(&text).with_context(|| format!("{} cannot be read", path.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// A new fleet in this folder.
    pub(crate) fn new(folder: &Path, plan: Plan) -> Result<Self> {
        for name in ["logs", "data", "bin"] {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(folder.join(name))?;
        }
        write_private(&folder.join(SECRET), random(32)?.as_bytes())?;
        let state = Self {
            plan,
            password: random(12)?,
            server_password: random(16)?,
            servers: None,
            provider: String::new(),
            sampled: false,
            certified: false,
            complete: false,
            processes: Vec::new(),
        };
        state.save(folder)?;
        Ok(state)
    }

    /// Remembers it.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        write_private(&folder.join(STATE), &serde_json::to_vec_pretty(self)?)
    }

    /// Remembers a process, in place of the one that had its name.
    pub(crate) fn started(&mut self, folder: &Path, process: Process) -> Result<()> {
        match self.processes.iter_mut().find(|it| it.name == process.name) {
            Some(before) => *before = process,
            None => self.processes.push(process),
        }
        self.save(folder)
    }

    /// The process of that name.
    pub(crate) fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }

    /// Notes what a server says of itself.
    pub(crate) fn tell(&mut self, name: &str, about: &str) {
        if let Some(process) = self.processes.iter_mut().find(|process| process.name == name) {
            about.clone_into(&mut process.about);
        }
    }

    /// Whether all of it lives.
    pub(crate) fn runs(&self) -> bool {
        self.complete && self.processes.iter().all(Process::lives)
    }

    /// Whether any of it does.
    pub(crate) fn lives(&self) -> bool {
        self.processes.iter().any(Process::lives)
    }

    /// Where the gateways are, as URLs.
    pub(crate) fn gateways(&self) -> Vec<String> {
        let gateways = self.processes.iter().filter(|process| process.kind == Kind::Gateway);
        gateways.map(|process| format!("http://{}", process.address)).collect()
    }

    /// Where the first gateway is, as a URL.
    pub(crate) fn gateway(&self) -> String {
        self.gateways().into_iter().next().unwrap_or_default()
    }

    /// Where the first gateway is.
    pub(crate) fn door(&self) -> Result<SocketAddr> {
        let gateway = self.processes.iter().find(|process| process.kind == Kind::Gateway);
        Ok(gateway.context("the fleet has no gateway")?.address)
    }

    /// Stops every process, layer by layer, the last one started first, and forgets it.
    pub(crate) fn stop(&mut self, folder: &Path) -> Result<()> {
        self.complete = false;
        while let Some(last) = self.processes.last() {
            let first = self.processes.iter().rposition(|it| layer(it) != layer(last)).map_or(0, |before| before + 1);
            process::end(&self.processes[first..])?;
            self.processes.truncate(first);
            self.save(folder)?;
        }
        Ok(())
    }
}

/// So many random bytes as hexadecimal digits.
fn random(bytes: usize) -> Result<String> {
    let mut seed = vec![0; bytes];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut seed)?;
    Ok(seed.iter().map(|byte| format!("{byte:02x}")).collect())
}
