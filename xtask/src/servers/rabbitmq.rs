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
use super::{Owner, Server, Started, free_port, installed, private_folder};

/// The programs as they are; those on the search path switch to another user first.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";
/// Fixed, so that it does not depend on how large this machine is and how much of it is in use.
const CONFIGURATION: &str = "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 50MB\n";

/// Where it writes its process id, in its folder.
const PID: &str = "pid";

/// A private RabbitMQ of one node. Its user is `guest`, who is let in from the loopback interface.
pub(crate) struct RabbitMq {
    // In this order: the node says good-bye to its port mapper.
    server: Server,
    _mapper: Server,
    pid_file: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    port: u16,
    version: String,
}

impl RabbitMq {
    pub(crate) fn start() -> Result<Started<Self>> {
        let find = || Path::new(PROGRAMS).join("rabbitmq-server").exists().then_some(());
        if installed("rabbitmq", "rabbitmq-server", find)?.is_none() {
            return Ok(Started::Missing("RabbitMQ is not installed and cannot be".to_owned()));
        }
        let owner = Owner { ids: None };
        let folder = private_folder("rabbitmq-", &owner)?;
        let (port, mapped) = (free_port()?, free_port()?);
        let environment = environment(folder.path(), port, mapped)?;
        let mut command = owner.command(Path::new("epmd"));
        command.args(["-port", &mapped.to_string(), "-address", "127.0.0.1"]);
        let mapper = Server::spawn("epmd", command, Signal::TERM, mapped, private_folder("epmd-", &owner)?)?;
        let pid_file = folder.path().join(PID);
        let server = Server::spawn("rabbitmq", program("rabbitmq-server", &environment), Signal::TERM, port, folder)?;
        let mut started = Self { server, _mapper: mapper, pid_file, environment, port, version: String::new() };
        started.find_inner()?;
        started.version = started.ctl(&["version"])?.trim().to_owned();
        Ok(Started::Ready(started))
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
        match fs::remove_file(&self.pid_file) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
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

/// Everything it would else look for in the machine's own places.
fn environment(folder: &Path, port: u16, mapper: u16) -> Result<Vec<(&'static str, OsString)>> {
    let cookie = folder.join(".erlang.cookie");
    fs::write(&cookie, format!("stoa{}", std::process::id()))?;
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
    let (plugins, configuration) = (folder.join("enabled_plugins"), folder.join("rabbitmq.conf"));
    fs::write(&plugins, "[].\n")?;
    fs::write(&configuration, CONFIGURATION)?;
    Ok(vec![
        ("HOME", folder.into()),
        ("RABBITMQ_NODENAME", format!("stoa-{}@localhost", std::process::id()).into()),
        ("RABBITMQ_NODE_PORT", port.to_string().into()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_DIST_PORT", free_port()?.to_string().into()),
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
