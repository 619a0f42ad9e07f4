//! PostgreSQL.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::{Owner, Server, Started, free_port, installed, private_folder};
use crate::command::{Run, tail};

/// A private PostgreSQL with one superuser, `postgres`, who needs no password on the loopback interface.
pub(crate) struct Postgres {
    _server: Server,
    port: u16,
    certificate: PathBuf,
    programs: PathBuf,
    version: String,
}

/// Who has a database in a fleet.
const SERVICES: [&str; 9] =
    ["identity", "catalog", "inventory", "cart", "ordering", "payment", "shipping", "notification", "orderview"];

impl Postgres {
    pub(crate) fn start() -> Result<Started<Self>> {
        let Some(programs) = installed("postgres", "postgresql", find_postgres)? else {
            return Ok(Started::Missing("PostgreSQL is not installed and cannot be".to_owned()));
        };
        let owner = Owner::of_servers("postgres")?;
        let folder = private_folder("postgres-", &owner)?;
        let data = folder.path().join("data");
        let mut init = owner.command(&programs.join("initdb"));
        // Locally trusted: the port is on the loopback interface, the data is made for one lane.
        init.args([
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--username=postgres",
            "--pgdata",
        ])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
        if !init.status().context("cannot start initdb")?.success() {
            return Ok(Started::Missing("initdb made no database cluster".to_owned()));
        }
        let certificate = certify(&data, &owner)?;
        let port = free_port()?;
        let mut command = owner.command(&programs.join("postgres"));
        command.arg("-D").arg(&data);
        for setting in [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("unix_socket_directories={}", folder.path().display()),
            // Many small stores at once, each with its pools.
            "max_connections=400".to_owned(),
            "recovery_init_sync_method=syncfs".to_owned(),
            "ssl=on".to_owned(),
        ] {
            command.arg("-c").arg(setting);
        }
        let server = Server::spawn("postgres", command, Signal::INT, port, folder)?;
        let said = Command::new(programs.join("postgres")).arg("--version").output()?;
        let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        Ok(Started::Ready(Self { _server: server, port, certificate, programs, version }))
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

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
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
