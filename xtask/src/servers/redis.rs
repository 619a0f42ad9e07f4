//! Redis.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::{Owner, Server, Started, free_port, installed, private_folder};

/// A private Redis that speaks TLS alone and lets one user in, to the keys that begin with `stoa:`.
pub(crate) struct Redis {
    server: Server,
    port: u16,
    program: PathBuf,
    authority: PathBuf,
    version: String,
}

const PASSWORD: &str = "a-password-of-tests";

/// What the shop's user may do: no more than the scripts and reads of the cache.
const RIGHTS: &str =
    "~stoa:* resetchannels -@all +get +set +mget +pttl +del +eval +evalsha +script|load +time +ping +select";

impl Redis {
    pub(crate) fn start() -> Result<Started<Self>> {
        let Some(program) = installed("redis", "redis-server", find_redis)? else {
            return Ok(Started::Missing("Redis is not installed and cannot be".to_owned()));
        };
        let owner = Owner { ids: None };
        let folder = private_folder("redis-", &owner)?;
        let path = |name: &str| folder.path().join(name);
        let authority = path("authority.pem");
        certify(&authority, &path("server.pem"), &path("server.key"))?;
        fs::write(path("users.acl"), format!("user default off\nuser stoa on >{PASSWORD} {RIGHTS}\n"))?;
        let port = free_port()?;
        let mut command = owner.command(&program);
        command.args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &port.to_string()]);
        command.args(["--tls-auth-clients", "no", "--tls-cert-file"]).arg(path("server.pem"));
        command.arg("--tls-key-file").arg(path("server.key")).arg("--tls-ca-cert-file").arg(&authority);
        command.arg("--aclfile").arg(path("users.acl")).arg("--dir").arg(folder.path());
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        command.args(["--maxmemory-policy", "noeviction", "--daemonize", "no"]);
        let said = Command::new(&program).arg("--version").output()?;
        let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        let server = Server::spawn("redis", command, Signal::TERM, port, folder)?;
        Ok(Started::Ready(Self { server, port, program, authority, version }))
    }

    /// Where it is, with the user and the user's password.
    pub(crate) fn url(&self) -> String {
        format!("rediss://stoa:{PASSWORD}@127.0.0.1:{}/0", self.port)
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
        fs::write(&password, PASSWORD)?;
        Ok(format!(
            "redis = \"rediss://stoa@127.0.0.1:{}/0\"\nredis_password_file = {password:?}\nredis_authority_file = {:?}\n",
            self.port, self.authority
        ))
    }

    /// Its process, for who stops it and lets it go on.
    pub(crate) fn process(&self) -> u32 {
        self.server.child.id()
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

fn find_redis() -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];
    folders.iter().map(|folder| Path::new(folder).join("redis-server")).find(|program| program.exists())
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
