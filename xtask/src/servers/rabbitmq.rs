//! RabbitMQ.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use super::control::Restart;
use super::{Home, Kept, Owner, Place, Server, Started, installed, private_folder};
use crate::ports;

/// The programs as they are; those on the search path switch to another user first.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
/// Fixed, so that it does not depend on how large this machine is and how much of it is in use.
const CONFIGURATION: &str = "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 50MB\n";

/// Where it writes its process id, in its folder.
const PID: &str = "pid";
/// Who is let in, and to which virtual host, where it is kept.
const USER: &str = "stoa";

/// A private RabbitMQ of one node. Its user is `guest`, who is let in from the loopback interface.
pub(crate) struct RabbitMq {
    // In this order: the node says good-bye to its port mapper.
    server: Server,
    mapper: Server,
    pid_file: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    port: u16,
    version: String,
}

impl RabbitMq {
    pub(crate) fn start() -> Result<Started<Self>> {
        Self::start_in(Place::Lane)
    }

    /// The same in a place of its own, going on with what is there; where it is kept, nobody is let in without a password, and
    /// its user is `stoa`, with a virtual host of that name.
    pub(crate) fn start_in(place: Place<'_>) -> Result<Started<Self>> {
        if programs()?.is_none() {
            return Ok(Started::Missing("RabbitMQ is not installed and cannot be".to_owned()));
        }
        let owner = Owner { ids: None };
        let home = Home::new("rabbitmq", place, &owner)?;
        let (port, mapped) = (place.port()?, ports::one()?);
        let pid_file = home.folder.join(PID);
        // One that was killed has left its own.
        remove(&pid_file)?;
        let environment = environment(&home, port, mapped)?;
        let mut command = owner.command(Path::new("epmd"));
        command.args(["-port", &mapped.to_string(), "-address", "127.0.0.1"]);
        let place_of_mapper = match home.kept {
            Some(kept) => Home { folder: home.folder.clone(), kept: Some(kept), temporary: None },
            None => private_folder("epmd-", &owner)?.into(),
        };
        let mapper = Server::spawn("epmd", command, Signal::TERM, mapped, place_of_mapper)?;
        let (kept, starting) = (home.kept, program("rabbitmq-server", &environment));
        let server = Server::spawn("rabbitmq", starting, Signal::TERM, port, home)?;
        let mut started = Self { server, mapper, pid_file, environment, port, version: String::new() };
        started.find_inner()?;
        started.server.announce(kept)?;
        started.version = started.ctl(&["version"])?.trim().to_owned();
        Ok(Started::Ready(started))
    }

    /// Where it takes connections that come with its password.
    pub(crate) fn url_with(&self, password: &str) -> String {
        format!("amqp://{USER}:{password}@127.0.0.1:{}/{USER}", self.port)
    }

    /// Lets it run on.
    pub(crate) fn detach(self) {
        self.server.detach();
        self.mapper.detach();
    }

    /// Where it takes connections.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Makes a virtual host for each of these fleets; answers where they are, with `{fleet}` for the name.
    pub(crate) fn fleets(&self, names: &[&str]) -> Result<String> {
        for name in names {
            self.ctl(&["add_vhost", name])?;
            self.ctl(&["set_permissions", "--vhost", name, "guest", ".*", ".*", ".*"])?;
        }
        Ok(format!("amqp://guest:guest@127.0.0.1:{}/{{fleet}}", self.port))
    }

    /// What it is.
    pub(crate) fn version(&self) -> String {
        format!("RabbitMQ {}, one node", self.version)
    }

    /// Our child is a shell that waits for the node: signals are for the node.
    fn find_inner(&mut self) -> Result<()> {
        let pid = fs::read_to_string(&self.pid_file)?.trim().parse().ok().and_then(Pid::from_raw);
        self.server.inner = Some(pid.context("RabbitMQ wrote no process id")?);
        Ok(())
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let ended = program("rabbitmqctl", &self.environment).arg("--quiet").args(arguments).output()?;
        let said = String::from_utf8_lossy(&ended.stdout).replace('\n', " ");
        let complaint = String::from_utf8_lossy(&ended.stderr).replace('\n', " ");
        ensure!(ended.status.success(), "rabbitmqctl {arguments:?}: {said} {complaint}");
        Ok(said)
    }
}

impl Restart for RabbitMq {
    fn kill(&mut self) -> Result<()> {
        self.server.kill()?;
        // The next one writes its own.
        remove(&self.pid_file)
    }

    fn start(&mut self) -> Result<()> {
        self.server.start()?;
        self.find_inner()
    }

    /// `ctl` with a command of `rabbitmqctl`.
    fn ask(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["ctl", arguments @ ..] => self.ctl(arguments),
            _ => bail!("{words:?} is not understood"),
        }
    }
}

fn program(name: &str, environment: &[(&'static str, OsString)]) -> Command {
    let mut command = Command::new(Path::new(PROGRAMS).join(name));
    command.envs(environment.iter().cloned()).current_dir("/").stdin(Stdio::null());
    command
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Everything it would else look for in the machine's own places.
fn environment(home: &Home<'_>, port: u16, mapper: u16) -> Result<Vec<(&'static str, OsString)>> {
    let folder = &home.folder;
    let name = home.kept.map_or_else(|| format!("stoa-{}", std::process::id()), |_| USER.to_owned());
    let cookie = folder.join(".erlang.cookie");
    if !cookie.exists() {
        let secret = home.kept.map_or_else(|| format!("stoa{}", std::process::id()), |kept| kept.password.to_owned());
        fs::write(&cookie, secret)?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
    }
    let (plugins, configuration) = (folder.join("enabled_plugins"), folder.join("rabbitmq.conf"));
    fs::write(&plugins, "[].\n")?;
    fs::write(&configuration, format!("{CONFIGURATION}{}", home.kept.map(first_user).unwrap_or_default()))?;
    Ok(vec![
        ("HOME", folder.into()),
        ("RABBITMQ_NODENAME", format!("{name}@localhost").into()),
        ("RABBITMQ_NODE_PORT", port.to_string().into()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_DIST_PORT", ports::one()?.to_string().into()),
        ("ERL_EPMD_PORT", mapper.to_string().into()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_MNESIA_BASE", folder.join("data").into()),
        ("RABBITMQ_LOG_BASE", folder.join("log").into()),
        ("RABBITMQ_LOGS", "-".into()),
        ("RABBITMQ_PID_FILE", folder.join(PID).into()),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", plugins.into()),
        ("RABBITMQ_CONFIG_FILE", configuration.into()),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
    ])
}

/// What makes a first start on nothing let in its user alone.
fn first_user(kept: &Kept<'_>) -> String {
    format!("default_user = {USER}\ndefault_pass = {}\ndefault_vhost = {USER}\n", kept.password)
}

/// Its programs, where the distribution has them.
pub(super) fn programs() -> Result<Option<()>> {
    installed("rabbitmq", "rabbitmq-server", || Path::new(PROGRAMS).join("rabbitmq-server").exists().then_some(()))
}
