//! A real etcd of a test: killed, stopped, emptied, started again; and asked and told things by its JSON interface, which is
//! none of our code.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long a server may take to come up.
const START: Duration = Duration::from_secs(30);

/// One member, alone or of a cluster.
pub(crate) struct Etcd {
    child: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    /// Whether it speaks plain HTTP, so that it can be asked.
    plain: bool,
}

#[allow(dead_code, reason = "each test binary uses some of it")]
impl Etcd {
    #[allow(clippy::disallowed_methods, reason = "a test is told where its server's program is")]
    fn program() -> PathBuf {
        std::env::var_os("REGISTRY_TEST_ETCD").expect("REGISTRY_TEST_ETCD names no program: run the lane `etcd`").into()
    }

    /// A cluster of one.
    pub(crate) fn start() -> Self {
        let etcd = Self::prepared("http", &[]);
        etcd.await_health();
        etcd
    }

    /// A cluster of one whose clients come with TLS; its files are made by the caller.
    pub(crate) fn start_secured(certificate: &Path, key: &Path, authority: &Path) -> Self {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (certificate, key, authority) = (path(certificate), path(key), path(authority));
        let more =
            ["--cert-file", &certificate, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file", &authority];
        let etcd = Self::prepared("https", &more);
        until("etcd listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, etcd.port)).is_ok());
        etcd
    }

    /// A cluster of three.
    pub(crate) fn cluster() -> Vec<Self> {
        let peers: Vec<String> = (0..3).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
        let named: Vec<String> = peers.iter().enumerate().map(|(at, peer)| format!("m{at}={peer}")).collect();
        let cluster = named.join(",");
        let member = |at: usize| {
            let name = format!("m{at}");
            let more = ["--name", &name, "--listen-peer-urls", &peers[at], "--initial-advertise-peer-urls", &peers[at]];
            Self::prepared("http", &[&more[..], &["--initial-cluster", &cluster]].concat())
        };
        let members: Vec<Self> = (0..3).map(member).collect();
        members.iter().for_each(Self::await_health);
        members
    }

    fn prepared(scheme: &str, more: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let url = format!("{scheme}://127.0.0.1:{port}");
        let mut arguments: Vec<String> = vec!["--listen-client-urls".into(), url.clone()];
        arguments.extend(["--advertise-client-urls".into(), url, "--logger".into(), "zap".into()]);
        if !more.contains(&"--name") {
            let peer = format!("http://127.0.0.1:{}", free_port());
            arguments.extend(["--listen-peer-urls".into(), peer.clone()]);
            arguments.extend(["--initial-advertise-peer-urls".into(), peer.clone()]);
            arguments.extend(["--initial-cluster".into(), format!("default={peer}")]);
        }
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        let child = Self::spawn(&arguments, folder.path());
        Etcd { child, port, folder, arguments, plain: scheme == "http" }
    }

    fn spawn(arguments: &[String], folder: &Path) -> Child {
        let mut command = Command::new(Self::program());
        command.args(arguments).arg("--data-dir").arg(folder.join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn await_health(&self) {
        until("etcd is well", || {
            let answer = self.ask("GET", "/health", "");
            answer.is_ok_and(|text| text.contains("\"health\":\"true\""))
        });
    }

    /// Where its clients find it.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.plain { "http" } else { "https" }, self.port)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with what it has on disk.
    pub(crate) fn start_again(&mut self) {
        self.child = Self::spawn(&self.arguments, self.folder.path());
        if self.plain {
            self.await_health();
        }
    }

    /// Everything it knew is gone. It must not run.
    pub(crate) fn empty(&self) {
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Calls a method of its JSON interface.
    pub(crate) fn tell(&self, path: &str, body: &Value) -> Value {
        let text = self.ask("POST", path, &body.to_string()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{path}: {text}");
        serde_json::from_str(body).unwrap()
    }

    /// Keys under a prefix with their values and the revision of it all.
    pub(crate) fn keys(&self, prefix: &str) -> (Vec<(String, String)>, i64) {
        let found = self.tell("/v3/kv/range", &json!({ "key": coded(prefix), "range_end": coded(&after(prefix)) }));
        let text = |value: &Value| {
            let bytes = BASE64_STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let pairs = found["kvs"].as_array().into_iter().flatten().map(|kv| (text(&kv["key"]), text(&kv["value"])));
        (pairs.collect(), found["header"]["revision"].as_str().unwrap().parse().unwrap())
    }

    pub(crate) fn put(&self, key: &str, value: &str) {
        self.tell("/v3/kv/put", &json!({ "key": coded(key), "value": coded(value) }));
    }

    /// Deletes everything under a prefix.
    pub(crate) fn delete(&self, prefix: &str) {
        self.tell("/v3/kv/deleterange", &json!({ "key": coded(prefix), "range_end": coded(&after(prefix)) }));
    }

    /// Forgets everything before the newest revision.
    pub(crate) fn compact(&self) {
        let (_, revision) = self.keys("nothing");
        self.tell("/v3/kv/compaction", &json!({ "revision": revision.to_string() }));
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Version 1.0: the answer is not in chunks and ends with the connection.
        let head = format!("{method} {path} HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn coded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// The end of a prefix whose last character is an ordinary one.
fn after(prefix: &str) -> String {
    let (last, rest) = prefix.as_bytes().split_last().unwrap();
    format!("{}{}", std::str::from_utf8(rest).unwrap(), char::from(last + 1))
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < START, "{what}: not within {START:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
