//! A shop as processes: nine services and the gateway, a copy or several of each, every one with a data folder and a port,
//! and the payment provider.
//!
//! Ports are chosen before the first start, since each process is told where all others are. A process that was killed is
//! started again at its port. Every fleet has certificates, as `stoa ca` makes them: no process is spoken to without.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::await_until::until;
use crate::command_line::{self, Ended};
use crate::http::Client;
use crate::ledger::{Provider, SLOW};
use crate::server::{OPERATOR, Output, SHORT_WINDOWS, spawn};
use crate::shopper::Shopper;
use crate::sidecars::{self, Sidecars};
use crate::wire::Wire;
use crate::{grpc, ports};

/// The services, each a process.
pub const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "payment", "shipping", "notification", "orderview"];

/// The tenth.
pub const GATEWAY: &str = "gateway";

/// From the start of the processes to the first good answer through all of them.
const START: Duration = Duration::from_secs(60);
/// How long a command may ask the fleet.
const COMMAND: Duration = Duration::from_secs(600);

/// Under which prefix copies are found in etcd, and how long one that says nothing is believed to be there.
pub const PREFIX: &str = "shop";
/// See [`PREFIX`].
pub const TTL: Duration = Duration::from_secs(3);

/// A running fleet.
pub struct Fleet {
    /// The payment provider, which nobody kills.
    pub provider: Arc<Provider>,
    binary: PathBuf,
    folder: TempDir,
    addresses: BTreeMap<Copy, SocketAddr>,
    running: BTreeMap<Copy, Child>,
    outputs: BTreeMap<Copy, Output>,
    windows: Vec<String>,
    records: bool,
    clocks: BTreeMap<&'static str, i64>,
    logs: Option<PathBuf>,
    wires: BTreeMap<Link, Wire>,
    sidecars: Option<Sidecars>,
}

/// One copy of a service or of the gateway, counted from 0.
pub type Copy = (&'static str, usize);

/// Who calls whom.
pub type Link = (&'static str, &'static str);

/// What a fleet is made of.
#[derive(Clone, Debug, Default)]
pub struct Plan<'a> {
    /// Lines of the map about engines; see [`engines`].
    pub engines: &'a str,
    /// Copies of everything beyond the first, but for a catalogue that keeps a file.
    pub more: usize,
    /// Copies that the map names and nobody starts yet.
    pub reserved: &'a [Copy],
    /// The times, as flags; [`SHORT_WINDOWS`] where there are none.
    pub windows: &'a [&'a str],
    /// Callers that reach the first copy of a callee over a wire that can be troubled, and no other copy.
    pub wires: &'a [Link],
    /// How long the provider takes to answer its slow token; a second and a half if nothing is said.
    pub slow: Option<Duration>,
    /// Where etcd is, if the map names no address at all and copies say there where they are.
    pub etcd: Option<&'a str>,
    /// With the windows a shop has by itself, not the short ones of tests.
    pub own_windows: bool,
    /// Each process writes down the crash points it passes; see [`Fleet::passed`].
    pub records: bool,
    /// A folder into which everything is written that processes print, `NAME-NUMBER.log` each.
    pub logs: Option<&'a Path>,
    /// Whose clock is off, by how many seconds; needs a binary with planted bugs.
    pub clocks: &'a [(&'static str, i64)],
    /// Processes that leave certificates to an Envoy beside them.
    pub sidecars: Option<sidecars::Plan<'a>>,
}

impl Plan<'_> {
    fn copies(&self) -> Vec<Copy> {
        let alone = !self.engines.contains("mongodb = ");
        let most = |name| if name == "catalog" && alone { 1 } else { 1 + self.more };
        SERVICES.into_iter().chain([GATEWAY]).flat_map(|name| (0..most(name)).map(move |copy| (name, copy))).collect()
    }
}

impl Fleet {
    /// Starts ten processes of this binary; `database` is where their databases are, with `{service}` for the name, or files.
    pub async fn start(binary: PathBuf, database: Option<&str>) -> Result<Self> {
        Self::start_with(binary, database, None).await
    }

    /// As [`Fleet::start`], with a broker between the processes: `("kafka", "host:port/PREFIX")`.
    pub async fn start_with(binary: PathBuf, database: Option<&str>, bus: Option<(&str, &str)>) -> Result<Self> {
        Self::start_on(binary, &engines(database, bus)?).await
    }

    /// As [`Fleet::start`], with these lines of the map about engines.
    pub async fn start_on(binary: PathBuf, engines: &str) -> Result<Self> {
        Self::start_as(binary, &Plan { engines, ..Plan::default() }).await
    }

    /// Starts what the plan says.
    pub async fn start_as(binary: PathBuf, plan: &Plan<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleet-").tempdir()?;
        // Before ports are chosen, which are nobody's until they are listened at.
        certify(&binary, &folder.path().join(TLS), &[]).await?;
        let copies = plan.copies();
        let named: Vec<Copy> = copies.iter().chain(plan.reserved).copied().collect();
        let ports = ports::free(named.len())?.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let addresses: BTreeMap<Copy, SocketAddr> = named.into_iter().zip(ports).collect();
        let chosen = plan.sidecars.map(|sidecars| Sidecars::choose(sidecars, folder.path(), &addresses));
        let sidecars = chosen.transpose()?;
        let seen = sidecars.as_ref().map_or_else(|| addresses.clone(), |sidecars| sidecars.seen(&addresses));
        std::fs::write(folder.path().join("fleet.toml"), map(plan, &seen, &BTreeMap::new())?)?;
        let mut wires = BTreeMap::new();
        for &(caller, callee) in plan.wires {
            let target = addresses.get(&(callee, 0)).with_context(|| format!("there is no {callee}"))?;
            wires.insert((caller, callee), Wire::to(*target).await?);
        }
        for caller in wires.keys().map(|(caller, _)| *caller).collect::<BTreeSet<_>>() {
            let own = wires.iter().filter(|((from, _), _)| *from == caller);
            let own = own.map(|((_, callee), wire)| (*callee, wire.address())).collect();
            std::fs::write(folder.path().join(format!("{caller}.toml")), map(plan, &addresses, &own)?)?;
        }
        // Known to everybody on this machine, as the fleet's ports are to nobody else.
        std::fs::write(folder.path().join("secret"), "5a".repeat(32))?;
        let mut fleet = Self {
            provider: Arc::new(Provider::start_slow(plan.slow.unwrap_or(SLOW)).await?),
            binary,
            folder,
            addresses,
            running: BTreeMap::new(),
            outputs: BTreeMap::new(),
            windows: vec![],
            records: plan.records,
            clocks: plan.clocks.iter().copied().collect(),
            logs: plan.logs.map(Path::to_owned),
            wires,
            sidecars,
        };
        fleet.change_windows(match plan.windows {
            _ if plan.own_windows => &[],
            [] => &SHORT_WINDOWS,
            given => given,
        });
        fleet.provider.send_webhooks_to(fleet.address((GATEWAY, 0))?).await?;
        fleet.accompany(&seen).await?;
        for copy in copies {
            fleet.launch(copy).await?;
        }
        fleet.answers().await?;
        Ok(fleet)
    }

    /// Tells sidecars, if there are any, what they are to do, by the contracts as a shop in one process tells them.
    async fn accompany(&mut self, seen: &BTreeMap<Copy, SocketAddr>) -> Result<()> {
        let Some(sidecars) = &self.sidecars else { return Ok(()) };
        sidecars.write_maps()?;
        let stoa = crate::Stoa::start(crate::Setup::new().binary(&self.binary)).await?;
        let contracts = grpc::Client::connect(stoa.address()).await?;
        sidecars.write(contracts.pool(), seen)
    }

    /// The sidecars of those that have one.
    pub fn sidecars(&self) -> Result<&Sidecars> {
        self.sidecars.as_ref().context("the fleet has no sidecars")
    }

    /// The same, to be killed and started.
    pub fn sidecars_mut(&mut self) -> Result<&mut Sidecars> {
        self.sidecars.as_mut().context("the fleet has no sidecars")
    }

    /// What is started from now on has these times.
    pub fn change_windows(&mut self, windows: &[&str]) {
        self.windows = windows.iter().map(ToString::to_string).collect();
    }

    /// What of this service is started from now on has a clock that is so many seconds off.
    pub fn change_clock(&mut self, name: &'static str, seconds: i64) {
        self.clocks.insert(name, seconds);
    }

    /// Everything that runs.
    pub fn running(&self) -> Vec<Copy> {
        self.running.keys().copied().collect()
    }

    /// Where all copies of the gateway listen.
    pub fn doors(&self) -> Vec<SocketAddr> {
        self.addresses.iter().filter(|((name, _), _)| *name == GATEWAY).map(|(_, address)| *address).collect()
    }

    /// The process of a copy.
    pub fn pid(&self, copy: Copy) -> Result<u32> {
        self.running.get(&copy).and_then(Child::id).with_context(|| format!("{copy:?} does not run"))
    }

    /// Where a copy listens, or will.
    pub fn address(&self, copy: Copy) -> Result<SocketAddr> {
        self.addresses.get(&copy).copied().with_context(|| format!("the map has no {copy:?}"))
    }

    /// The folder of the certificates.
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join(TLS)
    }

    /// New certificates for everybody, while it runs.
    pub async fn certify_again(&self) -> Result<()> {
        issue(&self.binary, &self.certificates(), &[]).await
    }

    /// The data folder of a process.
    pub fn data(&self, (name, number): Copy) -> PathBuf {
        self.folder.path().join(format!("{name}-{number}"))
    }

    /// Starts a process, before it its sidecar if that is away, and waits until it listens.
    pub async fn launch(&mut self, copy: Copy) -> Result<()> {
        self.launch_with::<&str>(copy, &[]).await
    }

    /// Starts a process that must not come up; answers what it said.
    pub async fn refused(&mut self, copy: Copy, flags: &[&str]) -> Result<String> {
        let said = self.launch_with(copy, flags).await;
        match said {
            Ok(()) => bail!("{copy:?} started with {flags:?}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// As [`Fleet::launch`], with more flags.
    pub async fn launch_with<F: AsRef<OsStr>>(&mut self, copy: Copy, flags: &[F]) -> Result<()> {
        let (name, address) = (copy.0, self.address(copy)?.to_string());
        if let Some(sidecars) = self.sidecars.as_mut().filter(|sidecars| sidecars.is_away(copy)) {
            sidecars.start(copy).await?;
        }
        let mut command = Command::new(&self.binary);
        command.args(["--psp", &self.provider.url()]).args(&self.windows).args(flags);
        if name == GATEWAY {
            command.args(["--listen", &address]);
        }
        if let Some(seconds) = self.clocks.get(name) {
            command.args(["--planted-clock", &seconds.to_string()]);
        }
        if self.records {
            command.arg("--crash-record").arg(self.record_of(copy));
        }
        command
            .args(["serve", name, "--notice", "500ms", "--fleet"])
            .arg(self.map_of(copy))
            .arg("--data")
            .arg(self.data(copy))
            .env("STOA_OPERATOR_PASSWORD", OPERATOR.1);
        if name != GATEWAY {
            command.args(["--bind", &address]);
        }
        if !self.outputs.contains_key(&copy) {
            let file = self.logs.as_ref().map(|logs| logs.join(format!("{name}-{}.log", copy.1)));
            self.outputs.insert(copy, Output::copied_to(file.as_deref())?);
        }
        let output = self.outputs.entry(copy).or_default();
        let (child, _) = spawn(&mut command, output).await.with_context(|| format!("{copy:?}"))?;
        self.running.insert(copy, child);
        Ok(())
    }

    /// The crash points that the copies of a service have passed since [`Fleet::forget_passed`], and in how many lives: each
    /// life of a process tells of a point once.
    pub fn passed(&self, name: &str) -> Result<BTreeMap<String, usize>> {
        let mut passed = BTreeMap::new();
        for copy in self.addresses.keys().filter(|copy| copy.0 == name) {
            let record = self.record_of(*copy);
            if record.exists() {
                for point in std::fs::read_to_string(record)?.lines() {
                    *passed.entry(point.to_owned()).or_default() += 1;
                }
            }
        }
        Ok(passed)
    }

    /// Empties what was written down of points passed, into which every process goes on to write.
    pub fn forget_passed(&self) -> Result<()> {
        for record in self.addresses.keys().map(|copy| self.record_of(*copy)).filter(|record| record.exists()) {
            std::fs::File::create(record)?;
        }
        Ok(())
    }

    fn record_of(&self, (name, number): Copy) -> PathBuf {
        self.folder.path().join(format!("{name}-{number}.passed"))
    }

    /// The map by which a service finds the others.
    fn map_of(&self, copy: Copy) -> PathBuf {
        if let Some(map) = self.sidecars.as_ref().and_then(|sidecars| sidecars.map_of(copy)) {
            return map;
        }
        let name = copy.0;
        let wired = self.wires.keys().any(|(caller, _)| *caller == name);
        self.folder.path().join(if wired { format!("{name}.toml") } else { "fleet.toml".to_owned() })
    }

    /// The wire between these two.
    pub fn wire(&self, link: Link) -> Result<&Wire> {
        self.wires.get(&link).with_context(|| format!("there is no wire for {link:?}"))
    }

    /// kill -9 for one process, which is gone then.
    pub async fn kill(&mut self, copy: Copy) -> Result<()> {
        if let Some(mut child) = self.running.remove(&copy) {
            child.kill().await?;
        }
        Ok(())
    }

    /// Waits until a process ends by itself; how it did, or nothing if it still runs after so long.
    pub async fn end(&mut self, copy: Copy, limit: Duration) -> Result<Option<ExitStatus>> {
        let child = self.running.get_mut(&copy).with_context(|| format!("{copy:?} does not run"))?;
        let Ok(status) = tokio::time::timeout(limit, child.wait()).await else { return Ok(None) };
        self.running.remove(&copy);
        Ok(Some(status?))
    }

    /// The processes that ended by themselves, and how; they do not run any more.
    pub fn ended(&mut self) -> Result<Vec<(Copy, ExitStatus)>> {
        let mut ended = vec![];
        for (copy, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                ended.push((*copy, status));
            }
        }
        for (copy, _) in &ended {
            self.running.remove(copy);
        }
        Ok(ended)
    }

    /// SIGTERM for several processes at once; see [`Fleet::leave`].
    pub async fn leave_all(&mut self, copies: &[Copy]) -> Result<()> {
        copies.iter().try_for_each(|copy| self.signal(*copy, Signal::TERM))?;
        for copy in copies {
            self.gone(*copy).await?;
        }
        Ok(())
    }

    /// SIGTERM for one process, which has to end well within the time a drain may take.
    pub async fn leave(&mut self, copy: Copy) -> Result<()> {
        self.signal(copy, Signal::TERM)?;
        self.gone(copy).await
    }

    async fn gone(&mut self, copy: Copy) -> Result<()> {
        let mut child = self.running.remove(&copy).with_context(|| format!("{copy:?} does not run"))?;
        let status = tokio::time::timeout(START, child.wait()).await.context("it does not end")??;
        ensure!(status.success(), "{copy:?} ended with {status}:\n{}", self.tail(copy, 20));
        Ok(())
    }

    /// SIGSTOP for one process: it is there, and does nothing.
    pub fn freeze(&self, copy: Copy) -> Result<()> {
        self.signal(copy, Signal::STOP)
    }

    /// SIGCONT for one process.
    pub fn thaw(&self, copy: Copy) -> Result<()> {
        self.signal(copy, Signal::CONT)
    }

    fn signal(&self, copy: Copy, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid(copy)?)?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// A connection to the gateway, without a token.
    pub fn client(&self) -> Client {
        self.client_of(0)
    }

    /// A connection to this copy of the gateway, without a token.
    pub fn client_of(&self, copy: usize) -> Client {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Client::new(self.addresses.get(&(GATEWAY, copy)).copied().unwrap_or(nowhere))
    }

    /// The operator, over a connection that insists.
    pub async fn operator(&self) -> Result<Shopper> {
        Shopper::sign_in(self.client().insisting(START), OPERATOR.0, OPERATOR.1).await
    }

    /// Runs `stoa --fleet MAP` with these arguments to its end.
    pub async fn ask(&self, arguments: &[&str]) -> Result<Ended> {
        let mut command = Command::new(&self.binary);
        command.args(["--psp", &self.provider.url()]).args(&self.windows);
        command.arg("--fleet").arg(self.folder.path().join("fleet.toml"));
        command.arg("--data").arg(self.folder.path().join("operator"));
        command_line::run(command.args(arguments), COMMAND).await
    }

    /// Lets `stoa audit` judge the fleet over the network: an error carries every line it printed.
    pub async fn audit(&self) -> Result<String> {
        let ended = self.ask(&["audit"]).await?;
        ensure!(ended.code == Some(0), "the audit found something: {:?}\n{}{}", ended.code, ended.output, ended.errors);
        Ok(ended.output)
    }

    /// A word that some process printed, with the process.
    pub fn said(&self, word: &str) -> Option<Copy> {
        self.outputs.iter().find(|(_, output)| output.contains(word)).map(|(copy, _)| *copy)
    }

    /// Whether a process printed a word.
    pub fn said_by(&self, copy: Copy, word: &str) -> bool {
        self.outputs.get(&copy).is_some_and(|output| output.contains(word))
    }

    /// Whether a process has told of an error.
    pub fn complains(&self, copy: Copy) -> bool {
        self.said_by(copy, "ERROR")
    }

    /// The errors that processes told of, the last few of each.
    pub fn complaints(&self) -> String {
        let mut said = String::from("what the processes said of errors:\n");
        for (copy, output) in &self.outputs {
            for line in output.errors() {
                let _ = writeln!(said, "{copy:?} {line}");
            }
        }
        said
    }

    /// What a process printed last.
    pub fn tail(&self, copy: Copy, count: usize) -> String {
        self.outputs.get(&copy).map(|output| output.tail(count)).unwrap_or_default()
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
                eprintln!("the last lines of {name:?}:\n{}", output.tail(20));
            }
        }
    }
}

/// Where the certificates are, beside the map.
const TLS: &str = "tls";

/// Makes an authority in this folder and certificates by it, for these names or for all.
pub async fn certify(binary: &Path, folder: &Path, names: &[&str]) -> Result<()> {
    let mut command = Command::new(binary);
    let ended = command_line::run(command.args(["ca", "init"]).arg(folder), COMMAND).await?;
    ensure!(ended.code == Some(0), "no authority: {}", ended.errors);
    issue(binary, folder, names).await
}

async fn issue(binary: &Path, folder: &Path, names: &[&str]) -> Result<()> {
    let mut command = Command::new(binary);
    let ended = command_line::run(command.args(["ca", "issue"]).arg(folder).args(names), COMMAND).await?;
    ensure!(ended.code == Some(0), "no certificates: {}", ended.errors);
    Ok(())
}

/// The lines of a map for databases at this address, with `{service}` for the name, and a broker of this kind.
pub fn engines(database: Option<&str>, bus: Option<(&str, &str)>) -> Result<String> {
    let mut lines = String::new();
    if let Some(url) = database {
        writeln!(lines, "database = {url:?}")?;
    }
    if let Some((kind, address)) = bus {
        writeln!(lines, "[bus]\n{kind} = {address:?}")?;
    }
    Ok(lines)
}

/// A map of these addresses, but for the services that are found elsewhere.
fn map(
    plan: &Plan<'_>,
    addresses: &BTreeMap<Copy, SocketAddr>,
    elsewhere: &BTreeMap<&str, SocketAddr>,
) -> Result<String> {
    let mut map = format!("secret_file = \"secret\"\n{}[services]\n", plan.engines);
    for service in SERVICES {
        if plan.etcd.is_some() {
            writeln!(map, "{service} = \"etcd://{PREFIX}\"")?;
            continue;
        }
        let all: Vec<String> = match elsewhere.get(service) {
            Some(address) => vec![address.to_string()],
            None => addresses.iter().filter(|((name, _), _)| *name == service).map(|(_, it)| it.to_string()).collect(),
        };
        writeln!(map, "{service} = {all:?}")?;
    }
    writeln!(
        map,
        "[tls]\nauthority_file = \"{TLS}/authority.pem\"\ncertificate_file = \"{TLS}/{{service}}.pem\"\n\
         key_file = \"{TLS}/{{service}}.key\"\ntrust_domain = \"stoa.local\""
    )?;
    if let Some(etcd) = plan.etcd {
        writeln!(map, "[discovery.etcd]\nmembers = [{etcd:?}]\nttl_s = {}", TTL.as_secs())?;
    }
    Ok(map)
}
