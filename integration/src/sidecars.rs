//! Sidecars: an Envoy beside some processes of a fleet, which speak to it over loopback without certificates.
//!
//! `deploy/envoy` has the example of cart's. Those of others are made of it: its parts are repeated for each callee, its
//! addresses and files exchanged, and what the contracts say is put in as a running shop tells it by reflection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::await_until::until;
use crate::command_line::{self, repository};
use crate::fleet::{Copy, GATEWAY, SERVICES};
use crate::http::Client;
use crate::ports;
use crate::promised::Contracts;

/// From the start of an Envoy until it takes connections.
const START: Duration = Duration::from_secs(30);
/// How long it may look at a configuration.
const LOOK: Duration = Duration::from_secs(60);

/// Of whom the example is, and of which of its callees the others are made.
const MODEL: (&str, &str) = ("cart", "catalog");

/// Beside whom there are sidecars.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Envoy.
    pub envoy: &'a Path,
    /// Services, or the gateway; all their copies.
    pub beside: &'a [&'static str],
}

/// The sidecars of a fleet.
pub struct Sidecars {
    envoy: PathBuf,
    folder: PathBuf,
    places: BTreeMap<Copy, Places>,
    running: BTreeMap<Copy, Child>,
}

/// Where a sidecar listens, and for whom.
struct Places {
    own: SocketAddr,
    admin: SocketAddr,
    inbound: SocketAddr,
    outbound: BTreeMap<&'static str, SocketAddr>,
}

impl Sidecars {
    /// Chooses where they will listen; `folder` is the fleet's, with its certificates in `tls`.
    pub(crate) fn choose(plan: Plan<'_>, folder: &Path, addresses: &BTreeMap<Copy, SocketAddr>) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (copy, own) in addresses.iter().filter(|(copy, _)| plan.beside.contains(&copy.0)) {
            let ports = ports::free(2 + SERVICES.len())?;
            let mut ports = ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let mut port = || ports.next().context("too few ports");
            let (admin, inbound) = (port()?, port()?);
            let outbound = SERVICES.into_iter().map(|callee| Ok((callee, port()?))).collect::<Result<_>>()?;
            places.insert(*copy, Places { own: *own, admin, inbound, outbound });
        }
        Ok(Self { envoy: plan.envoy.to_owned(), folder: folder.to_owned(), places, running: BTreeMap::new() })
    }

    /// Where others reach each copy.
    pub(crate) fn seen(&self, addresses: &BTreeMap<Copy, SocketAddr>) -> BTreeMap<Copy, SocketAddr> {
        let inbound = |copy| self.places.get(copy).map(|it| it.inbound);
        addresses.iter().map(|(copy, own)| (*copy, inbound(copy).unwrap_or(*own))).collect()
    }

    /// The map of a copy with a sidecar: without certificates, each callee at the sidecar's listener for it.
    pub fn map_of(&self, (name, number): Copy) -> Option<PathBuf> {
        self.places.contains_key(&(name, number)).then(|| self.folder.join(format!("{name}-{number}.toml")))
    }

    /// Writes the maps of those that have a sidecar.
    pub(crate) fn write_maps(&self) -> Result<()> {
        for (copy, places) in &self.places {
            let mut map = "secret_file = \"secret\"\n[services]\n".to_owned();
            for callee in callees(copy.0)? {
                writeln!(map, "{callee} = \"{}\"", places.outbound[callee])?;
            }
            if SERVICES.contains(&copy.0) {
                writeln!(map, "{} = \"{}\"", copy.0, places.own)?;
            }
            std::fs::write(self.map_of(*copy).context("no sidecar")?, map)?;
        }
        Ok(())
    }

    /// Writes what the sidecars are to do: `pool` are the contracts as a running shop tells them, `seen` where each copy is.
    pub(crate) fn write(&self, pool: &DescriptorPool, seen: &BTreeMap<Copy, SocketAddr>) -> Result<()> {
        let contracts = Contracts::read(pool)?;
        let example = Example::read()?;
        for (copy, places) in &self.places {
            let config = example.config(copy.0, places, &contracts, seen)?.to_string();
            let files = self.files_of(*copy);
            let config = ["own", "authority"].iter().fold(config, |config, name| {
                config.replace(
                    &format!("/etc/stoa/envoy/{name}.yaml"),
                    &files.join(format!("{name}.yaml")).to_string_lossy(),
                )
            });
            std::fs::create_dir_all(&files)?;
            std::fs::write(files.join("envoy.yaml"), config)?;
            secrets(copy.0, &self.folder.join("tls"), &files)?;
        }
        Ok(())
    }

    fn files_of(&self, (name, number): Copy) -> PathBuf {
        self.folder.join(format!("envoy-{name}-{number}"))
    }

    /// Whether a copy has a sidecar, and it does not run.
    pub(crate) fn is_away(&self, copy: Copy) -> bool {
        self.places.contains_key(&copy) && !self.running.contains_key(&copy)
    }

    /// Starts a sidecar and waits until it takes connections.
    pub async fn start(&mut self, copy: Copy) -> Result<()> {
        let files = self.files_of(copy);
        let log = files.join("envoy.log");
        let child = Command::new(&self.envoy)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--log-path"])
            .arg(&log)
            .arg("-c")
            .arg(files.join("envoy.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.envoy.display()))?;
        self.running.insert(copy, child);
        let ready = until(START, "a sidecar that is ready", async || {
            let answer = self.admin(copy, "/ready").await?;
            Ok((answer.status == 200).then_some(()))
        });
        ready.await.with_context(|| format!("{copy:?}: {}", std::fs::read_to_string(&log).unwrap_or_default()))
    }

    /// kill -9 for a sidecar, which is gone then.
    pub async fn kill(&mut self, copy: Copy) -> Result<()> {
        let mut child = self.running.remove(&copy).with_context(|| format!("{copy:?} has no sidecar"))?;
        Ok(child.kill().await?)
    }

    /// Where the sidecar of a copy takes calls for it.
    pub fn inbound(&self, copy: Copy) -> Result<SocketAddr> {
        Ok(self.places(copy)?.inbound)
    }

    /// Where a copy tells its sidecar what is for a callee.
    pub fn outbound(&self, copy: Copy, callee: &str) -> Result<SocketAddr> {
        self.places(copy)?.outbound.get(callee).copied().with_context(|| format!("{callee} is no service"))
    }

    fn places(&self, copy: Copy) -> Result<&Places> {
        self.places.get(&copy).with_context(|| format!("{copy:?} has no sidecar"))
    }

    async fn admin(&self, copy: Copy, path: &str) -> Result<crate::http::Answer> {
        Client::new(self.places(copy)?.admin).get(path).await
    }

    /// A number that the sidecar of a copy keeps.
    pub async fn count(&self, copy: Copy, name: &str) -> Result<u64> {
        let stats = self.admin(copy, &format!("/stats?format=json&filter={name}")).await?.ok()?;
        let stats = stats["stats"].as_array().context("no statistics")?;
        let found = stats.iter().find(|stat| stat["name"] == name).and_then(|stat| stat["value"].as_u64());
        found.with_context(|| format!("{copy:?} does not count {name}"))
    }

    /// What the sidecar of a copy thinks of the copies of a callee, in its own words.
    pub async fn opinion(&self, copy: Copy, callee: &str) -> Result<String> {
        let mut told = String::new();
        for path in ["/clusters", "/stats"] {
            let answer = self.admin(copy, path).await?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let names = [format!("{callee}::"), format!("cluster.{callee}.")];
            let about = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
            for line in about.filter(|line| !line.ends_with(": 0") && !line.ends_with("::0")) {
                writeln!(told, "{line}")?;
            }
        }
        Ok(told)
    }

    /// How many calls the sidecar of a copy has sent to each copy of a callee, by address.
    pub async fn sent(&self, copy: Copy, callee: &str) -> Result<BTreeMap<SocketAddr, u64>> {
        let clusters = self.admin(copy, "/clusters?format=json").await?.ok()?;
        let clusters = clusters["cluster_statuses"].as_array().context("no clusters")?;
        let cluster = clusters.iter().find(|cluster| cluster["name"] == callee).context("no such cluster")?;
        let mut sent = BTreeMap::new();
        for host in cluster["host_statuses"].as_array().into_iter().flatten() {
            let place = &host["address"]["socket_address"];
            let (ip, port) = (place["address"].as_str().context("no address")?, place["port_value"].as_u64());
            let address = SocketAddr::new(ip.parse()?, u16::try_from(port.context("no port")?)?);
            let total = host["stats"].as_array().into_iter().flatten().find(|stat| stat["name"] == "rq_total");
            // One that is zero is left out.
            let total = total.and_then(|stat| stat["value"].as_str()).unwrap_or("0");
            sent.insert(address, total.parse()?);
        }
        Ok(sent)
    }
}

/// Whom a process calls, or whose log it follows: everybody for the gateway, and for others what their example says.
fn callees(name: &str) -> Result<Vec<&'static str>> {
    Ok(match name {
        GATEWAY => SERVICES.to_vec(),
        "cart" => vec!["catalog", "identity", "shipping"],
        "catalog" => vec![],
        other => bail!("nobody has said whom {other} calls through a sidecar"),
    })
}

/// The example, taken apart.
struct Example {
    whole: Value,
    inbound: Value,
    outbound: Value,
    own: Value,
    callee: Value,
}

impl Example {
    fn read() -> Result<Self> {
        let file = repository().join(format!("deploy/envoy/{}.yaml", MODEL.0));
        let whole: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(file)?)?;
        let part = |kind: &str, name: &str| {
            let parts = whole["static_resources"][kind].as_array().into_iter().flatten();
            let mut named = parts.filter(|part| part["name"] == name);
            named.next().cloned().with_context(|| format!("the example has no {name} among its {kind}"))
        };
        Ok(Self {
            inbound: part("listeners", "inbound")?,
            outbound: part("listeners", MODEL.1)?,
            own: part("clusters", "own")?,
            callee: part("clusters", MODEL.1)?,
            whole,
        })
    }

    /// What the sidecar of a process is to do.
    fn config(
        &self,
        name: &str,
        places: &Places,
        contracts: &Contracts,
        seen: &BTreeMap<Copy, SocketAddr>,
    ) -> Result<Value> {
        let (mut listeners, mut clusters) = (vec![], vec![]);
        // The door of the gateway is for whoever is outside.
        if name != GATEWAY {
            listeners.push(self.inbound(name, places, contracts)?);
            let mut own = self.own.clone();
            set(&mut own, "/load_assignment/endpoints/0/lb_endpoints", json!([endpoint(places.own)]))?;
            clusters.push(own);
        }
        for callee in callees(name)? {
            listeners.push(self.outbound(callee, places.outbound[callee], contracts)?);
            let copies: Vec<Value> =
                seen.iter().filter(|((name, _), _)| *name == callee).map(|(_, it)| endpoint(*it)).collect();
            let mut cluster = renamed(&self.callee, callee)?;
            set(&mut cluster, "/load_assignment/endpoints/0/lb_endpoints", Value::Array(copies))?;
            clusters.push(cluster);
        }
        let mut config = self.whole.clone();
        set(&mut config, "/node/id", json!(name))?;
        set(&mut config, "/admin/address/socket_address", socket(places.admin))?;
        set(&mut config, "/static_resources/listeners", Value::Array(listeners))?;
        set(&mut config, "/static_resources/clusters", Value::Array(clusters))?;
        Ok(config)
    }

    fn inbound(&self, name: &str, places: &Places, contracts: &Contracts) -> Result<Value> {
        let callers = contracts.callers(name);
        let known: Vec<Value> =
            callers.iter().map(|caller| json!({ "san_type": "URI", "matcher": { "exact": id(caller) } })).collect();
        let mut inbound = self.inbound.clone();
        // At every address of the machine, as the example has it.
        set(&mut inbound, "/address/socket_address/port_value", json!(places.inbound.port()))?;
        const TLS: &str =
            "/filter_chains/0/transport_socket/typed_config/common_tls_context/combined_validation_context";
        set(&mut inbound, &format!("{TLS}/default_validation_context/match_typed_subject_alt_names"), json!(known))?;
        const RULES: &str = "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/rules/policies";
        let health = inbound.pointer(&format!("{RULES}/health")).cloned().context("nobody may ask for health")?;
        let mut policies = json!({ "health": health });
        for caller in callers {
            let paths: Vec<Value> = [name, "operations"]
                .into_iter()
                .flat_map(|owner| contracts.patterns(owner, |method| method.admits(&caller)))
                .map(|regex| json!({ "url_path": { "path": { "safe_regex": { "regex": regex } } } }))
                .collect();
            let who = json!([{ "authenticated": { "principal_name": { "exact": id(&caller) } } }]);
            policies[caller] = json!({ "permissions": paths, "principals": who });
        }
        set(&mut inbound, RULES, policies)?;
        Ok(inbound)
    }

    fn outbound(&self, callee: &str, address: SocketAddr, contracts: &Contracts) -> Result<Value> {
        let mut outbound = renamed(&self.outbound, callee)?;
        set(&mut outbound, "/address/socket_address", socket(address))?;
        let again = contracts.patterns(callee, |method| method.may_be_sent_again).join("|");
        ensure!(!again.is_empty(), "nothing that {callee} does may be sent again");
        let route =
            "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes/0/match/safe_regex/regex";
        set(&mut outbound, route, json!(again))?;
        Ok(outbound)
    }
}

/// A part of the example about its callee, about another one.
fn renamed(part: &Value, callee: &str) -> Result<Value> {
    let text = part.to_string();
    let (name, id) = (format!("\"{}\"", MODEL.1), self::id(MODEL.1));
    ensure!(text.contains(&name) && !part.is_null(), "the example does not name {}", MODEL.1);
    let text = text.replace(&name, &format!("\"{callee}\"")).replace(&id, &self::id(callee));
    Ok(serde_json::from_str(&text)?)
}

fn set(value: &mut Value, pointer: &str, new: Value) -> Result<()> {
    *value.pointer_mut(pointer).with_context(|| format!("the example has no {pointer}"))? = new;
    Ok(())
}

fn id(name: &str) -> String {
    format!("spiffe://stoa.local/{name}")
}

fn socket(address: SocketAddr) -> Value {
    json!({ "address": address.ip().to_string(), "port_value": address.port() })
}

fn endpoint(address: SocketAddr) -> Value {
    json!({ "endpoint": { "address": { "socket_address": socket(address) } } })
}

/// Writes where the certificates of a process are, for its sidecar.
fn secrets(name: &str, certificates: &Path, files: &Path) -> Result<()> {
    for file in ["own.yaml", "authority.yaml"] {
        let text = std::fs::read_to_string(repository().join("deploy/envoy").join(file))?;
        let own = format!("/etc/stoa/tls/{}.", MODEL.0);
        let text = text.replace(&own, &format!("/etc/stoa/tls/{name}."));
        std::fs::write(files.join(file), text.replace("/etc/stoa/tls", &certificates.to_string_lossy()))?;
    }
    Ok(())
}

/// Lets Envoy judge the example as it stands, on these certificates; what it says of it.
pub async fn validate(
    envoy: &Path,
    certificates: &Path,
    change: impl Fn(String) -> String,
) -> Result<command_line::Ended> {
    let files = tempfile::tempdir()?;
    secrets(MODEL.0, certificates, files.path())?;
    let example = std::fs::read_to_string(repository().join(format!("deploy/envoy/{}.yaml", MODEL.0)))?;
    let text = change(example).replace("/etc/stoa/envoy", &files.path().to_string_lossy());
    let file = files.path().join("envoy.yaml");
    std::fs::write(&file, text)?;
    command_line::run(Command::new(envoy).args(["--mode", "validate", "-c"]).arg(&file), LOOK).await
}

/// What stands in the example and the contracts decide, as they have it now.
pub fn differences(pool: &DescriptorPool) -> Result<BTreeSet<String>> {
    let (contracts, example) = (Contracts::read(pool)?, Example::read()?);
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let outbound = SERVICES.into_iter().map(|callee| (callee, nowhere)).collect();
    let places = Places { own: nowhere, admin: nowhere, inbound: nowhere, outbound };
    let made = example.config(MODEL.0, &places, &contracts, &BTreeMap::new())?;
    let (written, made) = (said(&example.whole), said(&made));
    Ok(written.symmetric_difference(&made).cloned().collect())
}

/// The names and the methods in a configuration, and who may call which.
fn said(config: &Value) -> BTreeSet<String> {
    match config {
        Value::String(text) if text.starts_with("spiffe://") || text.starts_with("/stoa") => {
            BTreeSet::from([text.clone()])
        }
        Value::Array(parts) => parts.iter().flat_map(said).collect(),
        // Who may do what belongs together.
        Value::Object(parts) => match (parts.get("principals"), parts.get("permissions")) {
            (Some(who), Some(what)) => {
                let (who, what) = (said(who), said(what));
                who.iter().flat_map(|who| what.iter().map(move |what| format!("{who} may call {what}"))).collect()
            }
            (_, _) => parts.values().flat_map(said).collect(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => BTreeSet::new(),
    }
}
