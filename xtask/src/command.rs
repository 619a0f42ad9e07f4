//! Child processes with a time limit, their output kept in a file and a sign of life on the terminal.
//!
//! A child runs in a process group of its own when nobody sits at the terminal, so that a time-out
//! ends the servers a test started as well. At a terminal it stays in ours, so that Ctrl-C reaches it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{interrupt, paths};

/// How often a lane that says nothing shows that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// A command to be run to its end.
pub(crate) struct Run {
    command: Command,
    shown: String,
    limit: Duration,
    log: PathBuf,
    verbose: bool,
}

/// How a command ended.
pub(crate) struct Ended {
    /// Exit code zero, within the limit.
    pub(crate) success: bool,
    /// The limit passed and the command was killed.
    pub(crate) timed_out: bool,
    /// Everything it wrote, standard output and error interleaved by line.
    pub(crate) output: String,
}

/// Cargo itself, the one that runs us, from the repository's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_itself());
    command.current_dir(paths::root());
    forget_our_own(&mut command);
    command
}

fn cargo_itself() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Cargo tells a program that it runs which package it is from. A build script that looks at that would run again, and all
/// that stands on its crate be compiled again, with each change between a cargo that we start and one that somebody else does.
fn forget_our_own(cargo: &mut Command) {
    let names = std::env::vars_os().map(|(name, _)| name);
    let told = |name: &OsString| {
        name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    };
    names.filter(told).for_each(|name| {
        cargo.env_remove(name);
    });
}

impl Run {
    /// A command whose output goes to the log of that name; it starts in the repository's root.
    pub(crate) fn new(log: &str, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program.as_ref());
        command.current_dir(paths::root());
        let file = log.replace([':', '/'], "-");
        Self {
            command,
            shown: program.as_ref().to_string_lossy().into_owned(),
            limit: Duration::from_secs(600),
            log: paths::logs().join(format!("{file}.log")),
            verbose: false,
        }
    }

    /// Cargo itself, the one that runs us.
    pub(crate) fn cargo(log: &str) -> Self {
        let mut run = Self::new(log, cargo_itself());
        forget_our_own(&mut run.command);
        // An error's own words are at the end of what is printed, not a hundred frames before it.
        let run = run.env("RUST_LIB_BACKTRACE", "0");
        // What makes the next build of a changed crate faster costs gigabytes, and there is no next one there.
        if paths::in_ci() { run.env("CARGO_INCREMENTAL", "0") } else { run }
    }

    pub(crate) fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        for arg in args {
            self.shown.push(' ');
            self.shown.push_str(&arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.command.current_dir(folder.into());
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }

    /// Runs the command; an error means it could not even be started.
    pub(crate) fn end(mut self) -> Result<Ended> {
        fs::create_dir_all(paths::logs())?;
        let mut log = File::options().create(true).append(true).open(&self.log)?;
        writeln!(log, "$ {}", self.shown)?;
        let grouped = !std::io::stdin().is_terminal();
        if grouped {
            self.command.process_group(0);
        }
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("cannot start `{}`", self.shown))?;

        let gathered = Arc::new(Mutex::new(Gathered { log, output: String::new(), verbose: self.verbose }));
        let readers: Vec<_> = [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ]
        .into_iter()
        .flatten()
        .map(|pipe| {
            let gathered = Arc::clone(&gathered);
            std::thread::spawn(move || gather(pipe, &gathered))
        })
        .collect();

        let (success, timed_out) = self.await_end(&mut child, grouped, &gathered)?;
        // A grandchild may hold the pipes open for longer than its parent lived: wait a moment, no more.
        let patience = Instant::now() + Duration::from_secs(10);
        while readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < patience {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let output = lock(&gathered).output.clone();
        Ok(Ended { success, timed_out, output })
    }

    fn await_end(&self, child: &mut Child, grouped: bool, gathered: &Mutex<Gathered>) -> Result<(bool, bool)> {
        let start = Instant::now();
        let mut next_sign = SIGN_OF_LIFE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok((status.success(), false));
            }
            if let Err(interrupted) = interrupt::check() {
                kill(child, grouped);
                child.wait()?;
                return Err(interrupted);
            }
            let elapsed = start.elapsed();
            if elapsed > self.limit {
                eprintln!("    killed after {}: {}", minutes(elapsed), self.shown);
                kill(child, grouped);
                child.wait()?;
                return Ok((false, true));
            }
            if elapsed > next_sign && !self.verbose {
                next_sign += SIGN_OF_LIFE;
                eprintln!("    {} ... {}", minutes(elapsed), lock(gathered).last_line());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// Minutes and seconds, as people say them.
pub(crate) fn minutes(time: Duration) -> String {
    format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60)
}

/// The last lines of an output, enough to see why something failed.
pub(crate) fn tail(output: &str, lines: usize) -> String {
    let all: Vec<&str> = output.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

struct Gathered {
    log: File,
    output: String,
    verbose: bool,
}

impl Gathered {
    fn last_line(&self) -> &str {
        let line = self.output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
        line.char_indices().nth(110).map_or(line, |(end, _)| &line[..end])
    }
}

fn gather(pipe: Box<dyn Read + Send>, gathered: &Mutex<Gathered>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(read) = reader.read_until(b'\n', &mut line) {
        if read == 0 {
            break;
        }
        let mut gathered = lock(gathered);
        // The log is a convenience: a full disk must not turn a passing lane into a failing one.
        let _ = gathered.log.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        gathered.output.push_str(&text);
        if gathered.verbose {
            eprint!("{text}");
        }
        line.clear();
    }
}

fn lock(gathered: &Mutex<Gathered>) -> std::sync::MutexGuard<'_, Gathered> {
    gathered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn kill(child: &mut Child, grouped: bool) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let (true, Some(pid)) = (grouped, pid) {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
}
