//! A gateway that is measured: its process, as it is by itself.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use integration::command_line::repository;
use integration::{machine, ports};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::backend;
use super::load::{self, Work};

/// From the start of a process until it answers.
const START: Duration = Duration::from_secs(20);
/// Between two looks at one that starts.
const LOOK: Duration = Duration::from_micros(500);

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stoa,
    Envoy,
    GrpcGateway,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Stoa, Kind::Envoy, Kind::GrpcGateway];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Stoa => "stoa",
            Kind::Envoy => "envoy",
            Kind::GrpcGateway => "grpc-gateway",
        }
    }

    /// Whether it does this kind of work at all.
    pub(super) fn does(self, work: &Work) -> bool {
        self != Kind::GrpcGateway || !work.is_web()
    }

    fn program(self) -> Option<PathBuf> {
        let name = match self {
            Kind::Stoa => "STOA_GATEWAY",
            Kind::Envoy => "STOA_ENVOY",
            Kind::GrpcGateway => "STOA_GRPC_GATEWAY",
        };
        std::env::var_os(name).map(PathBuf::from)
    }
}

/// A gateway in front of the backend.
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) door: SocketAddr,
    program: PathBuf,
    arguments: Vec<OsString>,
    child: Option<Child>,
}

impl Subject {
    /// Chooses its port; nothing where the program is not there.
    pub(super) fn new(kind: Kind, upstream: SocketAddr, descriptors: &Path, folder: &Path) -> Result<Option<Self>> {
        let Some(program) = kind.program() else { return Ok(None) };
        let port = ports::free(1)?.pop().context("no free port")?;
        let door = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (at, behind) = (door.to_string(), upstream.to_string());
        let arguments: Vec<OsString> = match kind {
            Kind::Stoa => {
                let words = ["--upstream", &behind, "--listen", &at, "--descriptors"];
                words.iter().map(OsString::from).chain([descriptors.into()]).collect()
            }
            Kind::Envoy => {
                let text = std::fs::read_to_string(repository().join("integration/gateway/envoy.yaml"))?;
                let text = text
                    .replace(": LISTEN", &format!(": {port}"))
                    .replace(": UPSTREAM", &format!(": {}", upstream.port()))
                    .replace(": DESCRIPTORS", &format!(": {}", descriptors.display()));
                let file = folder.join("envoy.yaml");
                std::fs::write(&file, text)?;
                // Without what one Envoy leaves to the next, which would find that of somebody else.
                let words = ["--disable-hot-restart", "--log-level", "error", "-c"];
                words.iter().map(OsString::from).chain([file.into()]).collect()
            }
            Kind::GrpcGateway => ["-upstream", &behind, "-listen", &at].iter().map(OsString::from).collect(),
        };
        Ok(Some(Self { kind, door, program, arguments, child: None }))
    }

    /// Starts it anew; how long it takes to its first right answer.
    pub(super) async fn start(&mut self, work: &Work) -> Result<Duration> {
        self.stop().await?;
        let begun = Instant::now();
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.child = Some(child);
        let mut looks = tokio::time::interval(LOOK);
        while begun.elapsed() < START {
            looks.tick().await;
            if load::first(work, self.door).await.is_some() {
                return Ok(begun.elapsed());
            }
        }
        bail!("{} did not answer within {START:?}", self.kind.name())
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// The id of its process.
    pub(super) fn pid(&self) -> Result<u32> {
        self.child.as_ref().and_then(Child::id).context("no process")
    }

    /// What it holds.
    pub(super) fn memory(&self) -> Result<machine::Memory> {
        machine::memory(self.pid()?)
    }
}

/// The service behind, until this is dropped.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    _child: Child,
}

impl Backend {
    pub(super) async fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(backend::WORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("no output")?;
        tokio::time::timeout(START, BufReader::new(out).read_line(&mut line)).await??;
        ensure!(!line.is_empty(), "the service behind has ended");
        let pid = child.id().context("no process")?;
        Ok(Self { address: line.trim().parse()?, pid, _child: child })
    }
}
