//! A running `stoa`: started on a data folder, found by its first line, killed and started again.
//!
//! The address is chosen by the system at the first start and kept for every later one, so that clients
//! find the server again as they would find a real one. What the process prints is kept; when a test
//! fails, its last lines are shown.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::command_line;
use crate::http::Client;

/// The operator's password in every test, and the name that goes with it.
pub const OPERATOR: (&str, &str) = ("operator@stoa.local", "correct horse battery staple");

/// How long a start may take; an existing folder is expected in a fraction of a second.
const START: Duration = Duration::from_secs(30);

/// SIGABRT.
const ABORT: i32 = 6;

/// Lines of output that are kept, and of those that tell of an error or a panic, which are kept for longer.
const LINES: usize = 400;
const ERRORS: usize = 100;

/// Windows of the payment's doubt, of the buyer's action, of holds and of retries, in seconds instead of minutes.
pub const SHORT_WINDOWS: [&str; 18] = [
    "--window-in-doubt",
    "8s",
    "--window-action",
    "6s",
    "--window-hold",
    "20s",
    "--psp-timeout",
    "2s",
    "--psp-late-window",
    "3s",
    "--retry-base",
    "50ms",
    "--retry-cap",
    "1s",
    "--sweep",
    "500ms",
    "--drain",
    "5s",
];

/// Access tokens that live for two seconds, time enough for a shopper to make one.
pub const SHORT_TOKENS: [&str; 2] = ["--access-token", "2s"];

/// Quotes that hold for two seconds, time enough to order by one.
pub const SHORT_QUOTES: [&str; 2] = ["--window-quote", "2s"];

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    binary: Option<PathBuf>,
    data: Option<PathBuf>,
    copy: Option<PathBuf>,
}

/// A running `stoa`, or one that was killed and can be started again.
pub struct Stoa {
    setup: Setup,
    data: PathBuf,
    _own_data: Option<TempDir>,
    running: Option<Running>,
    address: SocketAddr,
    /// From the start of the process to the first good answer.
    pub start_time: Duration,
    output: Output,
}

struct Running {
    child: Child,
}

/// A process that ended by itself.
#[derive(Debug)]
pub struct Died(pub ExitStatus);

impl Died {
    /// Whether it aborted, as one does that hits a crash point.
    pub fn aborted(&self) -> bool {
        self.0.signal() == Some(ABORT)
    }
}

impl std::fmt::Display for Died {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server ended: {}", self.0)
    }
}

impl std::error::Error for Died {}

/// What a process printed, its last lines.
#[derive(Clone, Default)]
pub struct Output {
    lines: Arc<Mutex<VecDeque<String>>>,
    errors: Arc<Mutex<VecDeque<String>>>,
    /// Where all of them go.
    copy: Option<Arc<Mutex<std::fs::File>>>,
}

impl Setup {
    /// The defaults, with the windows of retries and doubts set to seconds.
    pub fn new() -> Self {
        Self::default().flags(SHORT_WINDOWS)
    }

    /// More arguments.
    pub fn flags<I, S>(mut self, flags: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Uses a payment provider elsewhere.
    pub fn provider(self, url: &str) -> Self {
        self.flags(["--psp", url])
    }

    /// Starts another binary than the usual one.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Uses this folder, which the caller keeps.
    pub fn data(mut self, path: impl Into<PathBuf>) -> Self {
        self.data = Some(path.into());
        self
    }

    /// Everything that is printed is also written to this file.
    pub fn copy(mut self, path: impl Into<PathBuf>) -> Self {
        self.copy = Some(path.into());
        self
    }

    /// One more environment variable.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Stoa {
    /// Starts a server on a new folder and waits until it is ready.
    pub async fn start(setup: Setup) -> Result<Self> {
        let mut stoa = Self::reserve(setup).await?;
        stoa.restart().await?;
        Ok(stoa)
    }

    /// Takes a folder and a free port; nothing is started yet.
    pub async fn reserve(setup: Setup) -> Result<Self> {
        let output = Output::copied_to(setup.copy.as_deref())?;
        let (data, own_data) = match &setup.data {
            Some(path) => (path.clone(), None),
            None => {
                let own = tempfile::Builder::new().prefix("stoa-").tempdir()?;
                (own.path().to_owned(), Some(own))
            }
        };
        Ok(Self {
            setup,
            data,
            _own_data: own_data,
            running: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            start_time: Duration::ZERO,
            output,
        })
    }

    /// Starts the killed server again at its address and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.launch().await?;
        self.ready(START).await?;
        self.start_time = begun.elapsed();
        Ok(())
    }

    /// Starts the process and learns its address, without waiting for it to be ready.
    pub async fn launch(&mut self) -> Result<()> {
        let binary = match &self.setup.binary {
            Some(path) => path.clone(),
            None => command_line::binary()?,
        };
        let mut command = Command::new(binary);
        command
            .arg("--data")
            .arg(&self.data)
            .args(["--listen", &self.address.to_string()])
            .args(&self.setup.flags)
            .env("STOA_OPERATOR_PASSWORD", OPERATOR.1)
            .envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        let (child, address) = spawn(&mut command, &self.output).await?;
        self.address = address;
        self.running = Some(Running { child });
        Ok(())
    }

    /// Waits until the server says that it is ready, or its process ends.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let mut client = Client::new(self.address);
            if client.get("/readyz").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                let last = format!("the server ended before it was ready\n{}", self.output.tail(40));
                return Err(anyhow::Error::new(Died(status)).context(last));
            }
            if Instant::now() > deadline {
                bail!("not ready within {limit:?}\n{}", self.output.tail(40));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.running {
            Some(running) => Ok(running.child.try_wait()?),
            None => Err(anyhow!("the server was never started")),
        }
    }

    /// Waits until the process ends by itself, as one that hits a crash point does.
    pub async fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let running = self.running.as_mut().context("the server does not run")?;
        let status = tokio::time::timeout(limit, running.child.wait())
            .await
            .with_context(|| format!("the server still runs after {limit:?}"))??;
        self.running = None;
        Ok(status)
    }

    /// kill -9, and waits until the process is gone.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.child.kill().await?;
        }
        Ok(())
    }

    /// Asks the server to stop and waits for its drain.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let pid = self.pid().context("the server does not run")?;
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.wait_end(Duration::from_secs(30)).await
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it printed last.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// A new connection without a token.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The next process is started this way, at the same address and on the same folder.
    pub fn change(&mut self, setup: Setup) {
        self.setup = setup;
    }

    /// How the next process is started.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Lets `stoa audit` judge the books.
    pub async fn audit(&self) -> Result<String> {
        command_line::audit(&self.data).await
    }
}

impl Drop for Stoa {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's last lines:\n{}", self.output.tail(60));
        }
    }
}

impl Output {
    /// One of which all lines go to this file as well.
    pub(crate) fn copied_to(file: Option<&Path>) -> Result<Self> {
        let copy = file.map(std::fs::File::create).transpose()?.map(|file| Arc::new(Mutex::new(file)));
        Ok(Output { copy, ..Output::default() })
    }

    fn push(&self, line: String) {
        if let Some(copy) = &self.copy {
            // Whoever reads the copy misses what could not be written.
            let _ = writeln!(copy.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        }
        let keep = |lines: &Mutex<VecDeque<String>>, most, line| {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == most {
                lines.pop_front();
            }
            lines.push_back(line);
        };
        if ["ERROR", "panicked at"].iter().any(|word| line.contains(word)) {
            keep(&self.errors, ERRORS, line.clone());
        }
        keep(&self.lines, LINES, line);
    }

    /// What was told of errors and panics, the last of it.
    pub fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The last lines.
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.len().saturating_sub(count);
        lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// True if a kept line contains the text.
    pub fn contains(&self, text: &str) -> bool {
        [&self.errors, &self.lines].into_iter().any(|lines| {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.iter().any(|line| line.contains(text))
        })
    }
}

/// Starts a process whose first line tells where it listens.
pub(crate) async fn spawn(command: &mut Command, output: &Output) -> Result<(Child, SocketAddr)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let (told, mut tell) = watch::channel(None);
    let pipe = child.stdout.take().context("no standard output")?;
    tokio::spawn(keep(pipe, output.clone(), Some(told)));
    let pipe = child.stderr.take().context("no standard error")?;
    tokio::spawn(keep(pipe, output.clone(), None));
    let address = tokio::time::timeout(START, async { tell.wait_for(Option::is_some).await.map(|address| *address) });
    let address = match address.await {
        Ok(Ok(address)) => address.context("no address")?,
        // Its output ended, and so does it.
        Ok(Err(_)) => {
            let status = tokio::time::timeout(START, child.wait()).await??;
            let last = format!("{command:?} never said where it listens\n{}", output.tail(40));
            return Err(anyhow::Error::new(Died(status)).context(last));
        }
        Err(_) => bail!("{command:?} does not say where it listens\n{}", output.tail(40)),
    };
    Ok((child, address))
}

/// Keeps every line; the first `listening on http://ADDR:PORT`, or `https://`, is told.
async fn keep(pipe: impl AsyncRead + Unpin, output: Output, told: Option<watch::Sender<Option<SocketAddr>>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let address = line.strip_prefix("listening on ").and_then(|rest| rest.split_once("://"));
        let address = address.and_then(|(_, address)| address.trim().parse().ok());
        if let (Some(told), Some(address)) = (&told, address) {
            told.send_replace(Some(address));
        }
        output.push(line);
    }
}
