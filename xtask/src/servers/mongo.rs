//! A server of the MongoDB protocol: FerretDB as a library in a program of ours, built when it is needed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::control::Restart;
use super::{Home, Owner, Place, Server, Started};
use crate::command::{Run, tail};
use crate::paths;
use crate::tools::turn_of;

/// The first time it downloads and compiles all of FerretDB.
const BUILD: Duration = Duration::from_secs(600);

/// A private server that takes part in no replica set and asks nobody who they are.
pub(crate) struct Mongo {
    server: Server,
    port: u16,
    program: PathBuf,
    version: String,
}

impl Mongo {
    pub(crate) fn start() -> Result<Started<Self>> {
        Self::start_in(Place::Lane)
    }

    /// The same in a place of its own, going on with what is there.
    pub(crate) fn start_in(place: Place<'_>) -> Result<Started<Self>> {
        let program = match self::program() {
            Started::Ready(program) => program,
            Started::Missing(reason) => return Ok(Started::Missing(reason)),
        };
        let home = Home::new("mongo", place, &Owner { ids: None })?;
        let port = place.port()?;
        let mut command = Command::new(&program);
        command.current_dir("/").arg("-listen").arg(format!("127.0.0.1:{port}")).arg("-data").arg(&home.folder);
        let server = Server::spawn("mongo", command, Signal::TERM, port, home)?;
        let said = Command::new(&program).arg("-version").output()?;
        ensure!(said.status.success(), "{} does not say its version", program.display());
        let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        Ok(Started::Ready(Self { server, port, program, version }))
    }

    /// Lets it run on.
    pub(crate) fn detach(self) {
        self.server.detach();
    }

    /// Where it is, without a database.
    pub(crate) fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }

    /// The program, for tests that kill a server of their own.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

impl Restart for Mongo {
    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn start(&mut self) -> Result<()> {
        self.server.start()
    }
}

/// The program, built.
pub(super) fn program() -> Started<PathBuf> {
    let turn = turn_of("mongo");
    let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let program = paths::tools().join("mongo/stoa-mongo");
    if !program.exists() {
        println!("    building FerretDB (at most 10 minutes)");
    }
    // Always: it is a matter of seconds when nothing has changed, and never stale.
    let built = Run::new("build-mongo", "go")
        .args(["build", "-C"])
        .args([paths::root().join("integration/mongo")])
        .args(["-o"])
        .args([program.as_os_str(), ".".as_ref()])
        .limit(BUILD)
        .end();
    match built {
        Ok(ended) if ended.success => Started::Ready(program),
        Ok(ended) => Started::Missing(format!("FerretDB does not build: {}", tail(&ended.output, 3))),
        Err(error) => Started::Missing(format!("FerretDB cannot be built: {error:#}")),
    }
}
