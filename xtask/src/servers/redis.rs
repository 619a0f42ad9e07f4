//! Redis.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use super::control::Restart;
use super::{Home, Owner, Place, Server, Started, certify, installed};

/// A private Redis that speaks TLS alone and lets one user in, to the keys that begin with `stoa:`.
pub(crate) struct Redis {
    server: Server,
    port: u16,
    program: PathBuf,
    authority: PathBuf,
    password: String,
    version: String,
}

const PASSWORD: &str = "a-password-of-tests";

/// What the shop's user may do: no more than the scripts and reads of the cache.
const RIGHTS: &str =
    "~stoa:* resetchannels -@all +get +set +mget +pttl +del +eval +evalsha +script|load +time +ping +select";

impl Redis {
    pub(crate) fn start() -> Result<Started<Self>> {
        Self::start_in(Place::Lane)
    }

    /// The same in a place of its own, going on with what is there.
    pub(crate) fn start_in(place: Place<'_>) -> Result<Started<Self>> {
        let Some(program) = self::program()? else {
            return Ok(Started::Missing("Redis is not installed and cannot be".to_owned()));
        };
        let owner = Owner { ids: None };
        let home = Home::new("redis", place, &owner)?;
        let path = |name: &str| home.folder.join(name);
        let authority = path("authority.pem");
        // Written last: who was told to trust it goes on to when the server comes back.
        if !authority.exists() {
            certify(&authority, &path("server.pem"), &path("server.key"))?;
        }
        let password = place.password().unwrap_or(PASSWORD).to_owned();
        fs::write(path("users.acl"), format!("user default off\nuser stoa on >{password} {RIGHTS}\n"))?;
        let port = place.port()?;
        let mut command = owner.command(&program);
        command.args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &port.to_string()]);
        command.args(["--tls-auth-clients", "no", "--tls-cert-file"]).arg(path("server.pem"));
        command.arg("--tls-key-file").arg(path("server.key")).arg("--tls-ca-cert-file").arg(&authority);
        command.arg("--aclfile").arg(path("users.acl")).arg("--dir").arg(&home.folder);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        command.args(["--maxmemory-policy", "noeviction", "--daemonize", "no"]);
        let said = Command::new(&program).arg("--version").output()?;
        let said = String::from_utf8_lossy(&said.stdout);
        let number = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
        let version = format!("Redis {}", number.unwrap_or("of unknown version"));
        let server = Server::spawn("redis", command, Signal::TERM, port, home)?;
        Ok(Started::Ready(Self { server, port, program, authority, password, version }))
    }

    /// Where it is, with the user and the user's password.
    pub(crate) fn url(&self) -> String {
        format!("rediss://stoa:{}@127.0.0.1:{}/0", self.password, self.port)
    }

    /// The certificate of the authority that signed its certificate.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// The server's program, for tests that kill servers of their own.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// What a map of a fleet says of it.
    pub(crate) fn lines(&self) -> Result<String> {
        let password = self.authority.with_file_name("password");
        fs::write(&password, &self.password)?;
        Ok(format!(
            "redis = \"rediss://stoa@127.0.0.1:{}/0\"\nredis_password_file = {password:?}\nredis_authority_file = {:?}\n",
            self.port, self.authority
        ))
    }

    /// Its process, for who stops it and lets it go on.
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

impl Restart for Redis {
    fn kill(&mut self) -> Result<()> {
        self.server.kill()
    }

    fn start(&mut self) -> Result<()> {
        self.server.start()
    }
}

fn find_redis() -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];
    folders.iter().map(|folder| Path::new(folder).join("redis-server")).find(|program| program.exists())
}

/// The server itself.
pub(super) fn program() -> Result<Option<PathBuf>> {
    installed("redis", "redis-server", find_redis)
}
