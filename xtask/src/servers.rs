//! Real servers for the lanes that need them: installed from the distribution when missing, started privately, gone with
//! the lane.
//!
//! Each server is a direct child with its own data folder and a free port on the loopback interface. A server that cannot
//! be had leaves its lane *skipped, not proven*. A server of a fleet is the same, but keeps its folder and outlives us.

mod control;
mod etcd;
mod jaeger;
mod kafka;
mod kubernetes;
mod mongo;
mod postgres;
mod rabbitmq;
mod redis;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{Run, tail};
use crate::tools::turn_of;
use crate::{interrupt, paths, ports};

pub(crate) use control::Control;
pub(crate) use etcd::Etcd;
pub(crate) use jaeger::Jaeger;
pub(crate) use kafka::Kafka;
pub(crate) use kubernetes::{Kubernetes, VERSION as KUBERNETES};
pub(crate) use mongo::Mongo;
pub(crate) use postgres::Postgres;
pub(crate) use rabbitmq::RabbitMq;
pub(crate) use redis::Redis;

/// From the start of a server until it takes connections.
const READY: Duration = Duration::from_secs(120);
/// From the request to stop until it is killed.
const STOPPED: Duration = Duration::from_secs(20);
/// Between two looks at a server.
const LOOK: Duration = Duration::from_millis(50);

/// A server, or why there is none.
pub(crate) enum Started<S> {
    Ready(S),
    Missing(String),
}

/// Installs what all of them are made of.
pub(crate) fn ahead() {
    let _ = postgres::programs();
    let _ = redis::program();
    let _ = etcd::program();
    let _ = rabbitmq::programs();
    let _ = mongo::program();
    let _ = kafka::classes();
}

/// What `find` finds, after an attempt to install the distribution's package if it finds nothing.
fn installed<T>(name: &str, package: &str, find: impl Fn() -> Option<T>) -> Result<Option<T>> {
    // One package manager at a time; what it has begun is not there yet.
    let turn = turn_of("packages");
    let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = find() {
        return Ok(Some(found));
    }
    if !rustix::process::geteuid().is_root() {
        println!("    only root can install: apt-get install {package}");
        return Ok(None);
    }
    println!("    installing {package} (at most 5 minutes)");
    let log = format!("install-{name}");
    let apt = |arguments: &[&str]| {
        let lock = ["-o", "DPkg::Lock::Timeout=180"];
        Run::new(&log, "apt-get")
            .args(lock)
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .limit(Duration::from_secs(300))
            .end()
    };
    for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", package]] {
        match apt(arguments) {
            Ok(ended) if ended.success => {}
            Ok(ended) => println!("    {}", tail(&ended.output, 2)),
            Err(error) => println!("    {error:#}"),
        }
    }
    Ok(find())
}

/// Who runs a server: some refuse to be run by root.
struct Owner {
    ids: Option<(u32, u32)>,
}

impl Owner {
    /// The user of that name when we are root, else ourselves.
    fn of_servers(user: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { ids: None });
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let ids = users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            (name == user).then(|| Some((uid.parse().ok()?, gid.parse().ok()?)))?
        });
        let ids = ids.with_context(|| format!("there is no user {user} to run a server"))?;
        Ok(Self { ids: Some(ids) })
    }

    /// Makes a file or folder the user's own.
    fn give(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.ids {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.ids {
            command.gid(gid).uid(uid);
        }
        command
    }
}

/// A folder that the server's user owns, outside of what only we may enter.
fn private_folder(prefix: &str, owner: &Owner) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix(&format!("stoa-{prefix}")).tempdir()?;
    owner.give(folder.path())?;
    Ok(folder)
}

/// An authority, and a certificate it signed for a server on the loopback interface.
fn certify(authority: &Path, certificate: &Path, key: &Path) -> Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let signing = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(authority, params.self_signed(&signing)?.pem())?;
    let own = KeyPair::generate()?;
    let issuer = Issuer::new(params, signing);
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let signed = CertificateParams::new(names)?.signed_by(&own, &issuer)?;
    fs::write(certificate, signed.pem())?;
    fs::write(key, own.serialize_pem()).context("the server's key cannot be written")
}

/// What a server of this machine answers to a request without a body, head and all.
fn answer(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Where a server is to keep its files.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In a folder that is gone with the lane.
    Lane,
    /// In a folder for good.
    Kept(&'a Kept<'a>),
}

/// How a server is kept that outlives us.
pub(crate) struct Kept<'a> {
    /// Where its files are.
    pub(crate) folder: &'a Path,
    /// Folder of what it prints, `NAME.log`.
    pub(crate) logs: &'a Path,
    /// What lets its users in.
    pub(crate) password: &'a str,
    /// Where it listened before; it does so again if it can.
    pub(crate) port: Option<u16>,
    /// Hears of each of its processes before that is waited for, so that none is lost when we are killed meanwhile.
    pub(crate) born: &'a dyn Fn(Born<'_>) -> Result<()>,
}

/// A process of a server.
pub(crate) struct Born<'a> {
    pub(crate) name: &'a str,
    pub(crate) pid: i32,
    pub(crate) port: u16,
    /// What asks it to stop.
    pub(crate) stop: Signal,
}

impl Place<'_> {
    fn password(&self) -> Option<&str> {
        match self {
            Place::Lane => None,
            Place::Kept(kept) => Some(kept.password),
        }
    }

    /// The port it had, else one that is free.
    fn port(&self) -> Result<u16> {
        let before = match self {
            Place::Lane => None,
            Place::Kept(kept) => kept.port,
        };
        match before.map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))) {
            Some(Ok(free)) => Ok(free.local_addr()?.port()),
            Some(Err(_)) | None => ports::one(),
        }
    }
}

/// A server's folder and who is told of its processes.
struct Home<'a> {
    folder: PathBuf,
    kept: Option<&'a Kept<'a>>,
    temporary: Option<tempfile::TempDir>,
}

impl<'a> Home<'a> {
    fn new(name: &str, place: Place<'a>, owner: &Owner) -> Result<Self> {
        match place {
            Place::Lane => Ok(private_folder(&format!("{name}-"), owner)?.into()),
            Place::Kept(kept) => {
                fs::create_dir_all(kept.folder)?;
                fs::set_permissions(kept.folder, fs::Permissions::from_mode(0o700))?;
                owner.give(kept.folder)?;
                Ok(Self { folder: kept.folder.to_owned(), kept: Some(kept), temporary: None })
            }
        }
    }
}

impl From<tempfile::TempDir> for Home<'_> {
    fn from(folder: tempfile::TempDir) -> Self {
        Self { folder: folder.path().to_owned(), kept: None, temporary: Some(folder) }
    }
}

/// A running child; dropping it stops it and removes its folder.
struct Server {
    name: String,
    command: Command,
    child: Child,
    /// Who is signalled, where the child is only a shell around it.
    inner: Option<Pid>,
    stop: Signal,
    port: u16,
    log: PathBuf,
    /// None where it stays.
    folder: Option<tempfile::TempDir>,
    /// Whether it goes on when we have ended.
    detached: bool,
}

impl Server {
    /// Starts it and waits until its port takes connections.
    fn spawn<'a>(name: &str, mut command: Command, stop: Signal, port: u16, home: impl Into<Home<'a>>) -> Result<Self> {
        let home = home.into();
        fs::create_dir_all(paths::logs())?;
        let log = match home.kept {
            Some(kept) => kept.logs.join(format!("{name}.log")),
            None => paths::logs().join(format!("server-{name}.log")),
        };
        // What was printed before the end of one that is kept may tell why it ended.
        let out = match home.kept {
            Some(_) => File::options().create(true).append(true).open(&log)?,
            None => File::create(&log)?,
        };
        // Not in our group, so that Ctrl-C at the terminal stops it through us, in order.
        command.stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let (name, folder) = (name.to_owned(), home.temporary);
        let mut server = Self { name, command, child, inner: None, stop, port, log, folder, detached: false };
        server.announce(home.kept)?;
        server.await_ready()?;
        Ok(server)
    }

    /// Tells of its process who keeps it.
    fn announce(&self, kept: Option<&Kept<'_>>) -> Result<()> {
        let Some(kept) = kept else { return Ok(()) };
        let pid = self.pid()?.as_raw_nonzero().get();
        (kept.born)(Born { name: &self.name, pid, port: self.port, stop: self.stop })
    }

    /// Who is signalled.
    fn pid(&self) -> Result<Pid> {
        let child = || i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        self.inner.or_else(child).context("a server without a process id")
    }

    fn await_ready(&mut self) -> Result<()> {
        let Self { name, port, log, .. } = self;
        let begun = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        while TcpStream::connect_timeout(&address, LOOK).is_err() {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("{name} ended at once ({status}): {}", tail(&fs::read_to_string(&*log)?, 5));
            }
            if begun.elapsed() > READY {
                bail!("{name} took no connection within {READY:?}: {}", tail(&fs::read_to_string(&*log)?, 5));
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// Ends it without warning.
    fn kill(&mut self) -> Result<()> {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL)?;
        }
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Starts it again on what it has on disk, unless it runs.
    fn start(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            self.child = self.command.spawn().with_context(|| format!("cannot start {} again", self.name))?;
        }
        self.await_ready()
    }

    /// Lets it run on; its folder stays.
    fn detach(mut self) {
        self.detached = true;
        if let Some(folder) = self.folder.take() {
            let _ = folder.keep();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        let begun = Instant::now();
        let mut told = false;
        while matches!(self.child.try_wait(), Ok(None)) {
            if !std::mem::replace(&mut told, true) {
                let _ = self.signal(self.stop);
            }
            if begun.elapsed() > STOPPED {
                let _ = self.signal(Signal::KILL);
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::park_timeout(LOOK);
        }
    }
}
