//! PostgreSQL.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::control::Restart;
use super::{Home, Owner, Place, Server, Started, installed};
use crate::command::{Run, tail};
use crate::interrupt;

/// A private PostgreSQL with one superuser, `postgres`, who needs no password on the loopback interface.
pub(crate) struct Postgres {
    server: Server,
    port: u16,
    certificate: PathBuf,
    programs: PathBuf,
    version: String,
    /// Of every role, where others on this machine are to be kept out.
    password: Option<String>,
}

/// From a start on what a crash has left until clients are let in.
const RECOVERED: Duration = Duration::from_secs(120);

/// How long what a killed one has left may hold its memory.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// Counts the transactions of others.
const OPEN: &str = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND backend_type = 'client backend' \
                    AND pid <> pg_backend_pid()";

/// Who has a database in a fleet.
const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "payment", "shipping", "notification", "orderview"];

impl Postgres {
    pub(crate) fn start() -> Result<Started<Self>> {
        Self::start_in(Place::Lane)
    }

    /// The same in a place of its own, going on with what is there; where it is kept, nobody is let in without a password.
    pub(crate) fn start_in(place: Place<'_>) -> Result<Started<Self>> {
        let password = place.password();
        let Some(programs) = programs()? else {
            return Ok(Started::Missing("PostgreSQL is not installed and cannot be".to_owned()));
        };
        let owner = Owner::of_servers("postgres")?;
        let home = Home::new("postgres", place, &owner)?;
        let data = home.folder.join("data");
        let made = home.folder.join("made");
        if !made.exists() {
            // What an attempt that was cut off has left.
            let _ = fs::remove_dir_all(&data);
            let mut init = owner.command(&programs.join("initdb"));
            init.args(["--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres"]);
            match password {
                // Locally trusted: the port is on the loopback interface, the data is made for one lane.
                None => init.args(["--auth=trust", "--no-sync"]),
                Some(password) => {
                    let file = home.folder.join("password");
                    fs::write(&file, password)?;
                    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
                    owner.give(&file)?;
                    init.arg("--auth=scram-sha-256").arg("--pwfile").arg(file)
                }
            };
            init.arg("--pgdata").arg(&data).stdout(Stdio::null()).stderr(Stdio::null());
            if !init.status().context("cannot start initdb")?.success() {
                return Ok(Started::Missing("initdb made no database cluster".to_owned()));
            }
            fs::write(made, "")?;
        }
        let certificate = certify(&data, &owner)?;
        let port = place.port()?;
        let server = spawn(&programs, &data, &owner, port, home)?;
        await_recovered(&programs, port, password.unwrap_or_default())?;
        let said = Command::new(programs.join("postgres")).arg("--version").output()?;
        let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        Ok(Started::Ready(Self { server, port, certificate, programs, version, password: password.map(str::to_owned) }))
    }

    /// Where its first database is.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Who vouches for it: its own certificate, for whoever wants TLS.
    pub(crate) fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Makes nine databases for each of these fleets, one a service, each owned by a role of its own that is let into no other;
    /// answers where they are, with `{service}` and `{fleet}` for the names.
    pub(crate) fn fleets(&self, names: &[&str]) -> Result<String> {
        let mut statements = Vec::new();
        for service in SERVICES {
            statements.push(format!("CREATE ROLE {service} LOGIN"));
            for fleet in names {
                let database = format!("{fleet}_{service}");
                statements.push(format!(
                    "CREATE DATABASE {database} OWNER {service} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE \
                     'C' STRATEGY wal_log"
                ));
                statements.push(format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"));
            }
        }
        let mut run =
            Run::new("psql", self.programs.join("psql")).args(["--quiet", "--set=ON_ERROR_STOP=1", &self.url()]);
        for statement in statements {
            run = run.args(["--command", &statement]);
        }
        let ended = run.end()?;
        ensure!(ended.success, "the databases cannot be made: {}", tail(&ended.output, 5));
        Ok(format!("postgres://{{service}}@127.0.0.1:{}/{{fleet}}_{{service}}", self.port))
    }

    /// Makes the nine databases and roles of one fleet unless they are there, as [`fleets`](Self::fleets) does for new ones;
    /// answers where they are, with `{service}` for the name.
    pub(crate) fn fleet(&self) -> Result<String> {
        let password = self.password.as_deref().unwrap_or_default();
        let mut script = String::new();
        for service in SERVICES {
            // Neither statement knows IF NOT EXISTS.
            writeln!(
                script,
                "SELECT $$CREATE ROLE {service} LOGIN PASSWORD '{password}'$$ WHERE NOT EXISTS (SELECT FROM pg_roles WHERE \
                 rolname = '{service}') \\gexec\n\
                 SELECT $$CREATE DATABASE stoa_{service} OWNER {service} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' \
                 LC_CTYPE 'C' STRATEGY wal_log$$ WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = \
                 'stoa_{service}') \\gexec\n\
                 REVOKE CONNECT ON DATABASE stoa_{service} FROM PUBLIC;"
            )?;
        }
        // Not on the command line, where everybody could read the password.
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), script)?;
        let ended = Run::new("psql", self.programs.join("psql"))
            .args(["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", &self.url(), "--file"])
            .args([file.path()])
            .env("PGPASSWORD", password)
            .end()?;
        ensure!(ended.success, "the databases cannot be made: {}", tail(&ended.output, 5));
        Ok(format!("postgres://{{service}}:{password}@127.0.0.1:{}/stoa_{{service}}", self.port))
    }

    /// One of the programs that came with it.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Its process; who asks for it counts its children too.
    pub(crate) fn process(&self) -> u32 {
        self.server.child.id()
    }

    /// Lets it run on.
    pub(crate) fn detach(self) {
        self.server.detach();
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

impl Restart for Postgres {
    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn start(&mut self) -> Result<()> {
        // What the killed one has left running holds its memory for a moment, and it does not start beside that.
        let begun = Instant::now();
        while let Err(error) = self.server.start() {
            ensure!(begun.elapsed() < RECOVERED, "{error:#}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        await_recovered(&self.programs, self.port, self.password.as_deref().unwrap_or_default())
    }

    fn ask(&mut self, words: &[&str]) -> Result<String> {
        ensure!(words == ["transactions"], "{words:?} is not understood");
        let ended = Run::new("psql", self.programs.join("psql"))
            .args(["--no-psqlrc", "--tuples-only", "--no-align", &self.url(), "--command", OPEN])
            .env("PGPASSWORD", self.password.as_deref().unwrap_or_default())
            .end()?;
        ensure!(ended.success, "{}", tail(&ended.output, 5));
        Ok(ended.output.trim().to_owned())
    }
}

/// Starts it; where it is kept, one that was killed may have left processes that hold its memory for a moment, and it does not
/// start beside them.
fn spawn(programs: &Path, data: &Path, owner: &Owner, port: u16, home: Home<'_>) -> Result<Server> {
    let Home { folder, kept, mut temporary } = home;
    let begun = Instant::now();
    loop {
        let mut command = owner.command(&programs.join("postgres"));
        command.arg("-D").arg(data);
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            // Clients come over the loopback interface; the path of a socket may not be as long as that of a folder.
            "unix_socket_directories=".to_owned(),
            // Many small stores at once, each with its pools.
            "max_connections=900".to_owned(),
            "recovery_init_sync_method=syncfs".to_owned(),
            "ssl=on".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let home = Home { folder: folder.clone(), kept, temporary: temporary.take() };
        match Server::spawn("postgres", command, Signal::INT, port, home) {
            Err(error) if kept.is_none() || begun.elapsed() > LEFT_BEHIND => return Err(error),
            Err(_) => interrupt::check()?,
            Ok(server) => return Ok(server),
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// Gives the server a key and a certificate for its address, where it looks for them.
fn certify(data: &Path, owner: &Owner) -> Result<PathBuf> {
    let made = rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()])?;
    let certificate = data.join("server.crt");
    let key = data.join("server.key");
    fs::write(&certificate, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    owner.give(&certificate)?;
    owner.give(&key)?;
    Ok(certificate)
}

/// Waits until it lets clients in: after a crash it listens long before.
fn await_recovered(programs: &Path, port: u16, password: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        interrupt::check()?;
        let asked = Command::new(programs.join("psql"))
            .args(["--no-psqlrc", "--host=127.0.0.1", "--username=postgres", "--command=SELECT 1"])
            .arg(format!("--port={port}"))
            .env("PGPASSWORD", password)
            .stdin(Stdio::null())
            .output()?;
        if asked.status.success() {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < RECOVERED,
            "PostgreSQL lets nobody in after {RECOVERED:?}: {}",
            String::from_utf8_lossy(&asked.stderr).trim()
        );
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The folder of the newest version's programs; the ones of the distribution are not all on the search path.
fn find_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

/// Where its programs are.
pub(super) fn programs() -> Result<Option<PathBuf>> {
    installed("postgres", "postgresql", find_postgres)
}
