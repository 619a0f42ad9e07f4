//! A kube-apiserver with its own etcd: everything a cluster judges of a document, and nothing that acts on it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::{Etcd, LOOK, Owner, READY, Server, Started, certify, private_folder};
use crate::command::{Run, minutes, tail};
use crate::{paths, ports};

/// What it says it is; `integration/kubernetes` names the same.
pub(crate) const VERSION: &str = "1.34.2";

/// The first time it downloads and compiles both programs, with both cores for ten minutes or so.
const BUILD: Duration = Duration::from_secs(3600);

/// A private server, its etcd, and the client that speaks to them as somebody who may do everything.
pub(crate) struct Kubernetes {
    _server: Server,
    _etcd: Etcd,
    kubectl: PathBuf,
    folder: PathBuf,
}

impl Kubernetes {
    pub(crate) fn start() -> Result<Started<Self>> {
        let programs = match programs()? {
            Started::Ready(programs) => programs,
            Started::Missing(reason) => return Ok(Started::Missing(reason)),
        };
        let etcd = match Etcd::start()? {
            Started::Ready(etcd) => etcd,
            Started::Missing(reason) => return Ok(Started::Missing(reason)),
        };
        let owner = Owner { ids: None };
        let folder = private_folder("kubernetes-", &owner)?;
        let path = |name: &str| folder.path().join(name);
        certify(&path("authority.pem"), &path("server.pem"), &path("server.key"))?;
        let accounts = rcgen::KeyPair::generate()?;
        fs::write(path("accounts.key"), accounts.serialize_pem())?;
        fs::write(path("accounts.pub"), accounts.public_key_pem())?;
        fs::write(path("tokens.csv"), "a-token-of-tests,admin,1,system:masters\n")?;
        let port = ports::one()?;
        fs::write(path("kubeconfig"), kubeconfig(port, &path("authority.pem")))?;
        let mut command = owner.command(&programs.join("kube-apiserver"));
        command.args(["--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"]);
        command.args(["--secure-port", &port.to_string(), "--etcd-servers", &etcd.url()]);
        command.args(["--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC"]);
        command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        for (flag, file) in [
            ("--tls-cert-file", "server.pem"),
            ("--tls-private-key-file", "server.key"),
            ("--service-account-key-file", "accounts.pub"),
            ("--service-account-signing-key-file", "accounts.key"),
            ("--token-auth-file", "tokens.csv"),
        ] {
            command.arg(flag).arg(path(file));
        }
        command.arg("--cert-dir").arg(folder.path());
        let (kubectl, place) = (programs.join("kubectl"), folder.path().to_owned());
        let server = Server::spawn("kube-apiserver", command, Signal::TERM, port, folder)?;
        let kubernetes = Self { _server: server, _etcd: etcd, kubectl, folder: place };
        kubernetes.await_ready()?;
        Ok(Started::Ready(kubernetes))
    }

    /// It takes connections before it has made what every cluster begins with.
    fn await_ready(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.kubectl(&["get", "--raw", "/readyz"])? {
                Ok(_) => return Ok(()),
                Err(said) if begun.elapsed() > READY => bail!("kube-apiserver is not ready within {READY:?}: {said}"),
                Err(_) => std::thread::park_timeout(LOOK),
            }
        }
    }

    /// What `kubectl` prints, or why it does not.
    pub(crate) fn kubectl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Result<String, String>> {
        let ended = Run::new("kubectl", &self.kubectl)
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            // What it knows of one server is no use for the next.
            .env("KUBECACHEDIR", self.folder.join("cache"))
            .limit(Duration::from_secs(120))
            .end()?;
        Ok(if ended.success { Ok(ended.output) } else { Err(tail(&ended.output, 10)) })
    }

    /// How clients find it and who they are.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A file of this name, gone with the server.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// The folder with both programs, built if they are missing.
fn programs() -> Result<Started<PathBuf>> {
    let folder = paths::tools().join(format!("kubernetes-{VERSION}"));
    let names = ["kube-apiserver", "kubectl"];
    if names.iter().all(|name| folder.join(name).exists()) {
        return Ok(Started::Ready(folder));
    }
    println!("    building kube-apiserver {VERSION} and kubectl (at most {})", minutes(BUILD));
    let mut parts = VERSION.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let set = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    // Without it the server says that it is v0.0.0, and Helm that the chart is for a newer one.
    let version = [set("gitVersion", &format!("v{VERSION}")), set("gitMajor", major), set("gitMinor", minor)];
    let built = Run::new("build-kubernetes", "go")
        .args(["build", "-C"])
        .args([paths::root().join("integration/kubernetes")])
        .args(["-ldflags", &version.join(" "), "-o"])
        .args([&folder])
        .args(names.map(|name| format!("k8s.io/kubernetes/cmd/{name}")))
        .env("CGO_ENABLED", "0")
        .limit(BUILD)
        .end();
    Ok(match built {
        Ok(ended) if ended.success => Started::Ready(folder),
        Ok(ended) => Started::Missing(format!("kube-apiserver does not build: {}", tail(&ended.output, 3))),
        Err(error) => Started::Missing(format!("kube-apiserver cannot be built: {error:#}")),
    })
}

fn kubeconfig(port: u16, authority: &Path) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: lane\n\
         clusters: [{{name: lane, cluster: {{server: \"https://127.0.0.1:{port}\", certificate-authority: {authority:?}}}}}]\n\
         users: [{{name: admin, user: {{token: a-token-of-tests}}}}]\n\
         contexts: [{{name: lane, context: {{cluster: lane, user: admin}}}}]\n"
    )
}
