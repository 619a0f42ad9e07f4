//! Starting a fleet: servers, map, processes, sample catalogue; and waiting until the shop answers. What lives of a fleet is
//! left alone where only parts of it are started again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::door::Door;
use super::engines::{Engine, Servers};
use super::process::{self, Kind, LOOK, Process, Stop};
use super::state::{self, State};
use crate::command::{Run, cargo, tail};
use crate::{interrupt, paths, ports};

/// The services in layers, callees before their callers: layers are stopped the other way round, each at once.
const LAYERS: [&[&str]; 4] = [
    &["identity", "catalog"],
    &["inventory", "shipping", "payment", "notification"],
    &["cart"],
    &["ordering", "orderview"],
];

const GATEWAY: &str = "gateway";
const PROVIDER: &str = "provider";

/// From the start of a process until it takes connections.
const LISTENS: Duration = Duration::from_secs(60);
/// From there until all of them are well and the shop answers through the gateway.
const ANSWERS: Duration = Duration::from_secs(60);

/// The services, callees first.
fn services() -> impl Iterator<Item = &'static str> {
    LAYERS.into_iter().flatten().copied()
}

/// What is stopped together has the same layer, and stands together in the order of starts.
pub(crate) fn layer(process: &Process) -> (Option<usize>, &str) {
    match process.kind {
        // Each for itself.
        Kind::Server => (None, &process.name),
        Kind::Service => (LAYERS.iter().position(|layer| layer.contains(&&*process.service)), ""),
        Kind::Gateway => (None, ""),
    }
}

/// The name of a copy, counted from 1.
fn name_of(service: &str, copy: usize) -> String {
    if copy == 1 { service.to_owned() } else { format!("{service}-{copy}") }
}

/// Builds the `stoa` that can be a part of a fleet.
pub(crate) fn build() -> Result<PathBuf> {
    println!("building stoa with the engines of the fleet");
    let built = cargo()
        .args(["build", "--release", "--package", "stoa", "--features", "fleet"])
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "stoa does not build");
    Ok(paths::release("stoa"))
}

/// The program that a fleet runs, its own copy: the next build of the workspace is another program.
pub(crate) fn program(folder: &Path) -> PathBuf {
    folder.join("bin/stoa")
}

/// Starts everything; what was started before an error is in the state.
pub(crate) fn everything(state: &mut State, folder: &Path, binary: &Path, port: u16) -> Result<()> {
    let own = program(folder);
    let _ = fs::remove_file(&own);
    fs::copy(binary, &own).with_context(|| format!("there is no {}", binary.display()))?;
    let engines = Engine::of(&state.plan);
    println!("starting {}", state.plan);
    let mut lines = String::new();
    if !engines.is_empty() {
        let servers = Servers::new(state, folder)?;
        for engine in engines {
            lines.push_str(&servers.start(engine)?);
        }
    }
    let copies = |name: &str| if name == GATEWAY { state.plan.copies } else { state.plan.copies_of(name) };
    let names = services().chain([GATEWAY]);
    let wanted: Vec<(&str, usize)> = names.flat_map(|name| (1..=copies(name)).map(move |copy| (name, copy))).collect();
    let mut ports = Ports::new(wanted.len(), port)?;
    let provider = ports.take();
    let mut places = BTreeMap::new();
    for (name, copy) in &wanted {
        let first_gateway = (*name, *copy) == (GATEWAY, 1);
        places.insert((*name, *copy), if first_gateway { ports.door } else { ports.take() });
    }
    certify(folder)?;
    state.certified = true;
    write_map(folder, &lines, &places)?;
    state.provider = format!("http://{provider}");
    state.save(folder)?;

    let mut starter = Starter { folder, state, children: Vec::new() };
    starter.provider(provider, ports_door(&places)?)?;
    for (name, copy) in wanted {
        let address = *places.get(&(name, copy)).context("every copy has a place")?;
        starter.copy(name, copy, address)?;
    }
    starter.await_all()?;
    await_answers(state, folder)?;
    if !state.sampled {
        sample(state, folder)?;
    }
    state.complete = true;
    state.save(folder)
}

/// Starts what died again, where it was; `false` if a server cannot be had at its address again.
pub(crate) fn again(state: &mut State, folder: &Path) -> Result<bool> {
    for engine in Engine::of(&state.plan) {
        let own: Vec<Process> = engine.processes().iter().filter_map(|name| state.process(name).cloned()).collect();
        if own.len() == engine.processes().len() && own.iter().all(Process::lives) {
            continue;
        }
        // Those of its processes that are left are nothing without the others.
        process::end(&own)?;
        Servers::new(state, folder)?.start(engine)?;
        let moved = |before: &Process| {
            let now = state.process(&before.name);
            // Nobody but its own node asks the port mapper.
            before.name != "epmd" && now.is_none_or(|now| now.address != before.address)
        };
        if own.iter().any(moved) {
            return Ok(false);
        }
    }
    let dead: Vec<Process> = state.processes.iter().filter(|process| !process.lives()).cloned().collect();
    println!("starting again: {}", dead.iter().map(|it| &*it.name).collect::<Vec<_>>().join(", "));
    let door = state.door()?;
    let mut starter = Starter { folder, state, children: Vec::new() };
    for process in dead {
        match process.kind {
            Kind::Server => starter.provider(process.address, door)?,
            Kind::Service => starter.copy(&process.service, copy_of(&process.name), process.address)?,
            Kind::Gateway => starter.copy(GATEWAY, copy_of(&process.name), process.address)?,
        }
    }
    starter.await_all()?;
    await_answers(state, folder)?;
    Ok(true)
}

fn copy_of(name: &str) -> usize {
    name.rsplit_once('-').and_then(|(_, copy)| copy.parse().ok()).unwrap_or(1)
}

fn ports_door(places: &BTreeMap<(&str, usize), SocketAddr>) -> Result<SocketAddr> {
    places.get(&(GATEWAY, 1)).copied().context("there is a gateway")
}

fn sample(state: &mut State, folder: &Path) -> Result<()> {
    println!("filling the shop with the sample catalogue");
    let ended = Run::new("fleet-sample", program(folder))
        .args(["--fleet", &state::map(folder).display().to_string(), "sample"])
        .limit(Duration::from_secs(300))
        .end()?;
    interrupt::check()?;
    ensure!(ended.success, "the sample catalogue cannot be loaded: {}", tail(&ended.output, 3));
    state.sampled = true;
    state.save(folder)
}

/// Where whoever is new in the fleet will listen.
struct Ports {
    door: SocketAddr,
    free: Vec<SocketAddr>,
}

impl Ports {
    /// One for the first gateway, as wanted if that is free, any for 0, and so many others.
    fn new(count: usize, wanted: u16) -> Result<Self> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let door = match TcpListener::bind(at(wanted)) {
            Ok(_) if wanted == 0 => ports::one()?,
            Ok(_) => wanted,
            Err(_) => {
                println!("port {wanted} is taken, the gateway has another one");
                ports::one()?
            }
        };
        Ok(Self { door: at(door), free: ports::free(count)?.into_iter().map(at).collect() })
    }

    fn take(&mut self) -> SocketAddr {
        self.free.pop().unwrap_or(self.door)
    }
}

/// Makes certificates for all processes, by an authority that is made the first time.
fn certify(folder: &Path) -> Result<()> {
    let certificates = state::certificates(folder);
    let ca = |task: &str, days: &str| -> Result<()> {
        let place = certificates.display().to_string();
        let ended = Run::new("fleet-certificates", program(folder)).args(["ca", task, &place, "--days", days]).end()?;
        ensure!(ended.success, "there are no certificates: {}", tail(&ended.output, 3));
        Ok(())
    };
    if !certificates.join("authority.pem").exists() {
        ca("init", "3650")?;
    }
    // A fleet for development stays up longer than one whose certificates somebody looks after.
    ca("issue", "365")
}

fn write_map(folder: &Path, engines: &str, places: &BTreeMap<(&str, usize), SocketAddr>) -> Result<()> {
    let mut text = format!("# Written by `cargo xtask fleet up`.\nsecret_file = \"secret\"\n{engines}\n[services]\n");
    for service in services() {
        let own = places.iter().filter(|((name, _), _)| *name == service);
        let own: Vec<String> = own.map(|(_, address)| address.to_string()).collect();
        writeln!(text, "{service} = {own:?}")?;
    }
    text.push_str(
        "\n[tls]\nauthority_file = \"tls/authority.pem\"\ncertificate_file = \"tls/{service}.pem\"\n\
         key_file = \"tls/{service}.key\"\ntrust_domain = \"stoa.local\"\n",
    );
    state::write_private(&state::map(folder), text.as_bytes())
}

/// Starts processes of ours, and waits for all of them at the end.
struct Starter<'a> {
    folder: &'a Path,
    state: &'a mut State,
    children: Vec<(Child, Process)>,
}

impl Starter<'_> {
    fn provider(&mut self, address: SocketAddr, door: SocketAddr) -> Result<()> {
        let webhooks = format!("http://{door}/v1/webhooks/sandbox");
        let mut command = self.command(PROVIDER);
        command.args(["psp", "--listen", &address.to_string(), "--webhook-url", &webhooks]);
        self.spawn(PROVIDER, Kind::Server, "", command, address)
    }

    /// Starts a copy, counted from 1, of a service or of the gateway.
    fn copy(&mut self, part: &str, copy: usize, address: SocketAddr) -> Result<()> {
        let name = name_of(part, copy);
        self.share_mail(part, &name)?;
        let (kind, service, place) = match part {
            GATEWAY => (Kind::Gateway, "", "--listen"),
            service => (Kind::Service, service, "--bind"),
        };
        let mut command = self.command(&name);
        let at = address.to_string();
        if kind == Kind::Gateway {
            command.args([place, &at]);
        }
        command.args(["--psp", &self.state.provider, "serve", part, "--fleet"]).arg(state::map(self.folder));
        if kind == Kind::Service {
            command.args([place, &at]);
        }
        command.env("STOA_OPERATOR_PASSWORD", &self.state.password);
        self.spawn(&name, kind, service, command, address)
    }

    /// All copies of notification put their mail into the folder of the first one, where the tour looks for it.
    fn share_mail(&self, part: &str, name: &str) -> Result<()> {
        let (first, own) = (state::data(self.folder, part).join("mail"), state::data(self.folder, name).join("mail"));
        if part != "notification" || own == first || own.exists() {
            return Ok(());
        }
        fs::create_dir_all(&first)?;
        fs::create_dir_all(state::data(self.folder, name))?;
        Ok(std::os::unix::fs::symlink(first, own)?)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(self.folder));
        command.arg("--data").arg(state::data(self.folder, name));
        command
    }

    fn spawn(
        &mut self,
        name: &str,
        kind: Kind,
        service: &str,
        mut command: Command,
        address: SocketAddr,
    ) -> Result<()> {
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
            about: String::new(),
            pid,
            // One that ended at once is told of when its listener is waited for.
            born: process::born(pid).unwrap_or_default(),
            address,
            stop: Stop::Terminate,
            log,
        };
        self.state.started(self.folder, process.clone())?;
        self.children.push((child, process));
        Ok(())
    }

    fn await_all(mut self) -> Result<()> {
        println!("waiting for {} processes of ours", self.children.len());
        self.children.iter_mut().try_for_each(|(child, process)| await_listener(child, process))
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

/// Waits until each process is well and every service answers the operator through the gateway.
fn await_answers(state: &State, folder: &Path) -> Result<()> {
    let door = Door::new(state.door()?);
    let begun = Instant::now();
    let stoa = program(folder);
    let map = state.certified.then(|| state::map(folder));
    let mut unwell: Vec<&Process> = state.processes.iter().collect();
    loop {
        interrupt::check()?;
        unwell.retain(|process| !process.answers(&stoa, map.as_deref()));
        let answered = match unwell.first() {
            Some(process) => Err(anyhow::anyhow!("{} is not well: see {}", process.name, process.log.display())),
            None => door.sign_in(&state.password).and_then(|token| {
                services()
                    .try_for_each(|service| door.service_answers(service, &token).with_context(|| service.to_owned()))
            }),
        };
        match answered {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > ANSWERS => {
                return Err(error).context("the shop does not answer through its gateway");
            }
            Err(_) => std::thread::park_timeout(LOOK),
        }
    }
}
