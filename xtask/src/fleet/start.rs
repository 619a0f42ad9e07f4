//! Starting a fleet: servers, databases, map, processes, sample catalogue; and waiting until the shop answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::door::Door;
use super::process::{self, Kind, LOOK, Process, Stop};
use super::state::{self, State};
use super::{Database, interrupt};
use crate::command::{Run, tail};
use crate::paths;
use crate::servers::{Place, Postgres, Started};

/// The services, callees before their callers: they are stopped the other way round.
const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "shipping", "payment", "notification", "cart", "ordering", "orderview"];

const GATEWAY: &str = "gateway";
const PROVIDER: &str = "provider";

/// From the start of a process until it takes connections.
const LISTENS: Duration = Duration::from_secs(60);
/// From there until the shop answers through the gateway.
const ANSWERS: Duration = Duration::from_secs(60);

/// A server that is needed and cannot be had.
#[derive(Debug)]
pub(crate) struct Missing(String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; `--database files` does without", self.0)
    }
}

impl std::error::Error for Missing {}

/// Builds the `stoa` that can be a part of a fleet.
pub(crate) fn build() -> Result<PathBuf> {
    println!("building stoa with the engines of the fleet");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(paths::root())
        .args(["build", "--release", "--package", "stoa", "--features", "fleet"])
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "stoa does not build");
    Ok(paths::release("stoa"))
}

/// Starts everything; what was started before an error is in the state.
pub(crate) fn everything(state: &mut State, folder: &Path, binary: &Path, port: u16) -> Result<()> {
    let own = folder.join("bin/stoa");
    let _ = fs::remove_file(&own);
    // A copy: the next build of the workspace is another program.
    fs::copy(binary, &own).with_context(|| format!("there is no {}", binary.display()))?;
    let databases = servers(state, folder)?;
    let mut ports = Ports::new(SERVICES.len() + 2, port)?;
    let door = ports.door;
    let places: BTreeMap<&str, SocketAddr> = SERVICES.iter().map(|&name| (name, ports.take())).collect();
    let provider = ports.take();
    ports.release();
    write_map(folder, databases.as_deref(), &places)?;
    state.provider = format!("http://{provider}");
    state.save(folder)?;

    let starter = Starter { folder, binary: &own, state };
    starter.all(provider, &places, door)?;
    await_answers(state)?;
    if !state.sampled {
        println!("filling the shop with the sample catalogue");
        let ended = Run::new("fleet-sample", &own)
            .args(["--fleet", &state::map(folder).display().to_string(), "sample"])
            .limit(Duration::from_secs(300))
            .end()?;
        interrupt::check()?;
        ensure!(ended.success, "the sample catalogue cannot be loaded: {}", tail(&ended.output, 3));
        state.sampled = true;
        state.save(folder)?;
    }
    Ok(())
}

/// Starts the servers; answers where the databases are.
fn servers(state: &mut State, folder: &Path) -> Result<Option<String>> {
    match state.database {
        Database::Files => Ok(None),
        Database::Postgres => {
            let home = match &state.servers {
                Some(home) => home.clone(),
                None => {
                    let home = home_of_servers(folder)?;
                    state.servers = Some(home.clone());
                    state.save(folder)?;
                    home
                }
            };
            let log = state::logs(folder).join("postgres.log");
            let place = Place::Kept { folder: &home.join("postgres"), log: &log };
            let postgres = match Postgres::start_in(place, Some(&state.server_password))? {
                Started::Ready(postgres) => postgres,
                Started::Missing(reason) => return Err(Missing(reason).into()),
            };
            println!("{} at 127.0.0.1:{}", postgres.version(), postgres.port());
            let databases = postgres.fleet()?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, postgres.port()));
            interrupt::check()?;
            let detached = postgres.detach()?;
            let remembered = Process {
                name: "postgres".to_owned(),
                kind: Kind::Server,
                service: String::new(),
                pid: detached.pid,
                born: process::born(detached.pid).context("postgres ended at once")?,
                address,
                stop: Stop::from(detached.stop),
                log,
            };
            state.started(folder, remembered)?;
            Ok(Some(databases))
        }
    }
}

/// A folder that the servers' user may enter: ours, unless we are root in a place that is root's alone.
fn home_of_servers(folder: &Path) -> Result<PathBuf> {
    let open = |path: &Path| fs::metadata(path).is_ok_and(|it| it.mode() & 0o001 != 0);
    if !rustix::process::geteuid().is_root() || folder.ancestors().all(open) {
        return Ok(folder.join("servers")).inspect(|home| {
            let _ = fs::DirBuilder::new().mode(0o711).create(home);
        });
    }
    let home = tempfile::Builder::new().prefix("stoa-fleet-").tempdir_in("/var/tmp")?.keep();
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    Ok(home)
}

/// Free ports, all held until all are known, so that no two are the same.
struct Ports {
    held: Vec<TcpListener>,
    door: SocketAddr,
    free: Vec<SocketAddr>,
}

impl Ports {
    fn new(count: usize, wanted: u16) -> Result<Self> {
        let any = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let door = match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
            Ok(listener) => listener,
            Err(_) => {
                println!("port {wanted} is taken, the gateway has another one");
                any()?
            }
        };
        let held: Vec<TcpListener> = (0..count).map(|_| any()).collect::<Result<_, _>>()?;
        let free = held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let (address, mut held) = (door.local_addr()?, held);
        held.push(door);
        Ok(Self { held, door: address, free })
    }

    fn take(&mut self) -> SocketAddr {
        self.free.pop().unwrap_or(self.door)
    }

    fn release(self) {
        drop(self.held);
    }
}

fn write_map(folder: &Path, databases: Option<&str>, places: &BTreeMap<&str, SocketAddr>) -> Result<()> {
    let mut text = "# Written by `cargo xtask fleet up`.\nsecret_file = \"secret\"\n".to_owned();
    if let Some(url) = databases {
        writeln!(text, "database = {url:?}")?;
    }
    text.push_str("\n[services]\n");
    for (service, address) in places {
        writeln!(text, "{service} = \"{address}\"")?;
    }
    state::write_private(&state::map(folder), text.as_bytes())
}

/// What every process is started with.
struct Starter<'a> {
    folder: &'a Path,
    binary: &'a Path,
    state: &'a mut State,
}

impl Starter<'_> {
    fn all(mut self, provider: SocketAddr, places: &BTreeMap<&str, SocketAddr>, door: SocketAddr) -> Result<()> {
        let webhooks = format!("http://{door}/v1/webhooks/sandbox");
        let mut children = Vec::new();
        let mut command = self.command(PROVIDER);
        command.args(["psp", "--listen", &provider.to_string(), "--webhook-url", &webhooks]);
        children.push(self.spawn(PROVIDER, Kind::Server, "", command, provider)?);
        for service in SERVICES {
            let address = *places.get(service).context("every service has a place")?;
            let command = self.part(service, door);
            children.push(self.spawn(service, Kind::Service, service, command, address)?);
        }
        let command = self.part(GATEWAY, door);
        children.push(self.spawn(GATEWAY, Kind::Gateway, "", command, door)?);
        println!("waiting for {} processes", children.len());
        for (child, process) in &mut children {
            await_listener(child, process)?;
        }
        Ok(())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binary);
        command.arg("--data").arg(state::data(self.folder, name));
        command
    }

    fn part(&self, name: &str, door: SocketAddr) -> Command {
        let mut command = self.command(name);
        command
            .args(["--listen", &door.to_string(), "--psp", &self.state.provider, "serve", name, "--fleet"])
            .arg(state::map(self.folder))
            .env("STOA_OPERATOR_PASSWORD", &self.state.password);
        command
    }

    fn spawn(
        &mut self,
        name: &str,
        kind: Kind,
        service: &str,
        mut command: Command,
        address: SocketAddr,
    ) -> Result<(Child, Process)> {
        interrupt::check()?;
        let log = state::logs(self.folder).join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        // In a group of its own, so that Ctrl-C at the terminal does not reach what is to go on.
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let pid = i32::try_from(child.id())?;
        let process = Process {
            name: name.to_owned(),
            kind,
            service: service.to_owned(),
            pid,
            // One that ended at once is told of when its listener is waited for.
            born: process::born(pid).unwrap_or_default(),
            address,
            stop: Stop::Terminate,
            log,
        };
        self.state.started(self.folder, process.clone())?;
        Ok((child, process))
    }
}

fn await_listener(child: &mut Child, process: &Process) -> Result<()> {
    let begun = Instant::now();
    let last = || tail(&fs::read_to_string(&process.log).unwrap_or_default(), 5);
    while TcpStream::connect_timeout(&process.address, LOOK).is_err() {
        interrupt::check()?;
        if let Some(status) = child.try_wait()? {
            bail!("{} ended at once ({status}): {}", process.name, last());
        }
        if begun.elapsed() > LISTENS {
            bail!("{} took no connection within {LISTENS:?}: {}", process.name, last());
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

/// Waits until every service answers the operator through the gateway.
fn await_answers(state: &State) -> Result<()> {
    let door = Door::new(state.door()?);
    let begun = Instant::now();
    loop {
        interrupt::check()?;
        let answered = door.sign_in(&state.password).and_then(|token| {
            SERVICES
                .iter()
                .try_for_each(|service| door.service_answers(service, &token).with_context(|| (*service).to_owned()))
        });
        match answered {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > ANSWERS => {
                return Err(error).context("the shop does not answer through its gateway");
            }
            Err(_) => std::thread::park_timeout(LOOK),
        }
    }
}
