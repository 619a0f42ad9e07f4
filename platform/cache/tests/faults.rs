//! Redis killed, restarted, emptied, restored from an old copy, stopped: what was revoked stays revoked, and nobody is held.
#![cfg(feature = "fleet")]
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache::{Address, Cache, Limit, Mark, Marks, Standing, conformance};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};

/// A Redis of a test: it can be killed, stopped, started again.
struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    #[allow(clippy::disallowed_methods, reason = "a test is told where its server's program is")]
    fn program() -> PathBuf {
        std::env::var_os("CACHE_TEST_REDIS_PROGRAM").expect("CACHE_TEST_REDIS_PROGRAM names no program").into()
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = Self::spawn(port, folder.path());
        Server { child, port, folder }
    }

    fn spawn(port: u16, folder: &std::path::Path) -> Child {
        let child = Command::new(Self::program())
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--daemonize", "no"])
            // Written at once, so that what a copy of the folder holds is what was answered before.
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis does not start");
            std::thread::yield_now();
        }
        child
    }

    fn address(&self) -> Address {
        Address {
            patience: Duration::from_millis(500),
            lease: Duration::from_secs(2),
            ..Address::new(format!("redis://127.0.0.1:{}", self.port))
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = Self::spawn(self.port, self.folder.path());
    }

    /// What is on its disk, for [`Server::restore`].
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        copy
    }

    /// Puts an old copy in place of what it has, as somebody might who lost a disk. It must not run.
    fn restore(&mut self, copy: &tempfile::TempDir) {
        std::fs::remove_dir_all(self.folder.path()).unwrap();
        copy_folder(copy.path(), self.folder.path());
    }

    fn flush(&self) {
        assert_eq!(self.command("FLUSHALL"), "+OK\r\n");
    }

    /// The answer to a command, on a connection of its own.
    fn command(&self, command: &str) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_suffix("+OK\r\n").unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// The truth about what was revoked, and a keeper of it as a service has one.
#[derive(Default)]
struct Truth {
    revoked: Mutex<Vec<String>>,
    stopped: AtomicBool,
}

impl Truth {
    fn all(&self) -> Vec<Mark> {
        let mark = |id: &String| Mark { id: id.clone(), remaining: Duration::from_secs(300) };
        self.revoked.lock().unwrap().iter().map(mark).collect()
    }

    fn revoke(&self, id: &str) {
        self.revoked.lock().unwrap().push(id.to_owned());
    }

    async fn keep(self: Arc<Self>, marks: Arc<dyn Marks>) {
        while !self.stopped.load(Ordering::SeqCst) {
            let Ok(filling) = marks.begin().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let pace = marks.pace().unwrap().vouch;
            let mut known = 0;
            while !self.stopped.load(Ordering::SeqCst) {
                let all = self.all();
                if marks.put(&all[known..]).await.is_err() || marks.vouch(&filling).await != Ok(true) {
                    break;
                }
                known = all.len();
                tokio::time::sleep(pace).await;
            }
        }
    }
}

/// Asks all the time; an id that was revoked must never be said to be good.
async fn never_good(marks: Arc<dyn Marks>, id: &'static str, over: Arc<AtomicBool>) -> u64 {
    let mut asked = 0;
    while !over.load(Ordering::SeqCst) {
        assert_ne!(marks.standing(id).await, Ok(Standing::Good), "{id} came back");
        asked += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asked
}

struct Watched {
    truth: Arc<Truth>,
    gateway: Arc<dyn Marks>,
    over: Arc<AtomicBool>,
    watching: tokio::task::JoinHandle<u64>,
}

/// A keeper, a process that asks, and `revoked` revoked before.
async fn watched(server: &Server) -> Watched {
    let truth = Arc::new(Truth::default());
    let gateway = Cache::shared(&server.address()).unwrap().marks().clone();
    truth.revoke("revoked");
    tokio::spawn(Arc::clone(&truth).keep(Cache::shared(&server.address()).unwrap().marks().clone()));
    conformance::becomes(&*gateway, "good", Standing::Good).await;
    conformance::becomes(&*gateway, "revoked", Standing::Revoked).await;
    let over = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(never_good(gateway.clone(), "revoked", over.clone()));
    Watched { truth, gateway, over, watching }
}

impl Watched {
    async fn end(self) {
        conformance::becomes(&*self.gateway, "good", Standing::Good).await;
        conformance::becomes(&*self.gateway, "revoked", Standing::Revoked).await;
        self.over.store(true, Ordering::SeqCst);
        assert!(self.watching.await.unwrap() > 0);
        self.truth.stopped.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn an_emptied_redis_is_filled_again_and_says_nothing_until_then() {
    let server = Server::start();
    let watched = watched(&server).await;
    for _ in 0..20 {
        server.flush();
        conformance::becomes(&*watched.gateway, "revoked", Standing::Revoked).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn a_killed_redis_brings_nothing_back() {
    let mut server = Server::start();
    let watched = watched(&server).await;
    for _ in 0..3 {
        server.kill();
        assert_ne!(watched.gateway.standing("good").await, Ok(Standing::Good));
        server.start_again();
        conformance::becomes(&*watched.gateway, "good", Standing::Good).await;
    }
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn a_copy_from_a_moment_ago_brings_nothing_back() {
    let mut server = Server::start();
    let truth = Arc::new(Truth::default());
    // The lease outlives the test: the copy says that somebody vouches, and knows nothing of what is revoked after it.
    let address = Address { lease: Duration::from_secs(3600), ..server.address() };
    let marks = || Cache::shared(&address).unwrap().marks().clone();
    let (gateway, keeper) = (marks(), marks());
    gateway.standing("revoked").await.unwrap();
    let filling = keeper.begin().await.unwrap();
    assert_eq!(keeper.vouch(&filling).await, Ok(true));
    assert_eq!(gateway.standing("revoked").await, Ok(Standing::Good));
    let copy = server.copy();

    truth.revoke("revoked");
    keeper.put(&truth.all()).await.unwrap();
    assert_eq!(gateway.standing("revoked").await, Ok(Standing::Revoked));
    let over = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(never_good(gateway.clone(), "revoked", over.clone()));
    server.kill();
    server.restore(&copy);
    server.start_again();

    // Neither is what the copy holds believed, nor does the keeper vouch for it: it has not filled this one.
    conformance::becomes(&*gateway, "revoked", Standing::Unknown).await;
    let refused = async {
        loop {
            match keeper.vouch(&filling).await {
                Ok(vouched) => break vouched,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    assert!(!refused.await);
    assert_eq!(gateway.standing("revoked").await, Ok(Standing::Unknown));
    tokio::spawn(Arc::clone(&truth).keep(keeper));
    conformance::becomes(&*gateway, "revoked", Standing::Revoked).await;
    conformance::becomes(&*gateway, "good", Standing::Good).await;
    over.store(true, Ordering::SeqCst);
    watching.await.unwrap();
    truth.stopped.store(true, Ordering::SeqCst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn a_stopped_redis_holds_nobody_and_vouches_for_nothing_when_it_goes_on() {
    let server = Server::start();
    let address = Address { lease: Duration::from_secs(3600), ..server.address() };
    let marks = || Cache::shared(&address).unwrap().marks().clone();
    let (gateway, keeper) = (marks(), marks());
    gateway.standing("good").await.unwrap();
    let filling = keeper.begin().await.unwrap();
    assert_eq!(keeper.vouch(&filling).await, Ok(true));
    assert_eq!(gateway.standing("good").await, Ok(Standing::Good));
    let vouched = server.command("GET stoa:vouched");

    server.signal(Signal::STOP);
    // Sent, and lying in the server's buffer: carried out after the server goes on, it must be void.
    keeper.vouch(&filling).await.unwrap_err();
    gateway.standing("good").await.unwrap_err();
    // Whoever comes now is told at once: a thousand of them wait together no longer than one may.
    let begun = Instant::now();
    for _ in 0..1000 {
        gateway.standing("good").await.unwrap_err();
    }
    let waits = begun.elapsed().as_millis() / address.patience.as_millis();
    assert!(waits <= 4, "callers were held for {waits} times the patience of one");
    server.signal(Signal::CONT);
    // What had been sent before this connection was made is carried out before it.
    assert_eq!(server.command("GET stoa:vouched"), vouched);
    conformance::becomes(&*gateway, "good", Standing::Unknown).await;
    let fresh = keeper.begin().await.unwrap();
    assert_eq!(keeper.vouch(&fresh).await, Ok(true));
    conformance::becomes(&*gateway, "good", Standing::Good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a Redis server"]
async fn limits_hold_in_each_process_while_redis_is_gone_and_again_in_all_when_it_is_back() {
    let mut server = Server::start();
    let limit = Limit { times: 5, window: Duration::from_secs(3600) };
    let limiters = [(); 2].map(|()| Cache::shared(&server.address()).unwrap().limiter("tries", limit));
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    for attempt in 0..5 {
        let _ = limiters[attempt % 2].take(b"a", now).await.unwrap();
    }
    limiters[0].take(b"a", now).await.unwrap_err();
    server.kill();
    // What each has counted itself still counts: three and two; a lost cache gives no more than one limit to each.
    let mut passed = 0;
    for attempt in 0..20 {
        passed += usize::from(limiters[attempt % 2].take(b"a", now).await.is_ok());
    }
    assert_eq!(passed, 5);
    server.start_again();
    let shared_again = async {
        loop {
            let key = format!("{:?}", Instant::now());
            let mut passed = 0;
            for attempt in 0..20 {
                passed += usize::from(limiters[attempt % 2].take(key.as_bytes(), now).await.is_ok());
            }
            if passed == 5 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shared_again).await.unwrap();
}
