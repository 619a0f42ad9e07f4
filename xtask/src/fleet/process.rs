//! One process of a fleet, as it is remembered, found again and stopped.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// From the request to stop until it is killed: longer than a process takes to drain.
const STOPPED: Duration = Duration::from_secs(30);
/// Between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// What a process is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A server that is not ours, or the payment provider.
    Server,
    /// One of the nine.
    Service,
    /// The door.
    Gateway,
}

/// What asks it to stop.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stop {
    Interrupt,
    Terminate,
}

impl From<Signal> for Stop {
    fn from(signal: Signal) -> Self {
        if signal == Signal::INT { Stop::Interrupt } else { Stop::Terminate }
    }
}

/// A process that was started.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The service's short name.
    pub(crate) service: String,
    /// What a server says of itself.
    #[serde(default)]
    pub(crate) about: String,
    pub(crate) pid: i32,
    /// When it was born, so that a number that is used again is not taken for it.
    pub(crate) born: String,
    pub(crate) address: SocketAddr,
    pub(crate) stop: Stop,
    pub(crate) log: PathBuf,
}

impl Process {
    /// Whether it is the one we started, and has not ended.
    pub(crate) fn lives(&self) -> bool {
        born(self.pid).is_some_and(|born| born == self.born)
    }

    /// Whether it does what it is for: a server takes connections, a service of ours says itself that its store answers. A
    /// service that wants to see a certificate is asked with those of the map.
    pub(crate) fn answers(&self, stoa: &Path, map: Option<&Path>) -> bool {
        match self.kind {
            Kind::Server => TcpStream::connect_timeout(&self.address, Duration::from_secs(2)).is_ok(),
            Kind::Service => asked(stoa, &self.address, &self.service, map),
            Kind::Gateway => asked(stoa, &self.address, "", None),
        }
    }

    /// Asks it to stop.
    fn ask(&self) {
        let signal = match self.stop {
            Stop::Interrupt => Signal::INT,
            Stop::Terminate => Signal::TERM,
        };
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.lives()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until it has ended; kills it when that takes too long, and says so.
    fn await_end(&self, begun: Instant) -> Result<()> {
        while self.lives() {
            if begun.elapsed() > STOPPED {
                println!("    {} did not stop within {STOPPED:?} and is killed", self.name);
                let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
                kill_process(pid, Signal::KILL).with_context(|| format!("{} cannot be killed", self.name))?;
                return Ok(());
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }
}

/// Asks all of them to stop, then waits until they have.
pub(crate) fn end(processes: &[Process]) -> Result<()> {
    let begun = Instant::now();
    processes.iter().for_each(Process::ask);
    processes.iter().try_for_each(|process| process.await_end(begun))
}

/// What a process of ours says when it is asked for its health.
fn asked(stoa: &Path, address: &SocketAddr, service: &str, map: Option<&Path>) -> bool {
    let mut command = Command::new(stoa);
    let scheme = if map.is_some() { "https" } else { "http" };
    command.args(["health", &format!("{scheme}://{address}"), "--service", service]);
    if let Some(map) = map {
        command.arg("--fleet").arg(map);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// When the process of that number was born, as its system tells it; nothing when it has ended.
pub(crate) fn born(pid: i32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces and parentheses: fields are counted from the last one.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // One that has ended is still there until its parent, which may be us, has asked for it.
        return (!matches!(fields.first(), Some(&"Z" | &"X")))
            .then(|| fields.get(19).map(|&ticks| ticks.to_owned()))?;
    }
    let said = Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let (state, born) = said.split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| born.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_was_born() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut process = Process {
            name: "us".to_owned(),
            kind: Kind::Server,
            service: String::new(),
            about: String::new(),
            pid,
            born: born(pid).unwrap(),
            address: SocketAddr::from(([127, 0, 0, 1], 9)),
            stop: Stop::Terminate,
            log: PathBuf::new(),
        };
        assert!(process.lives());
        process.born = "never".to_owned();
        assert!(!process.lives());
        // Another one's number: not a signal is sent to it.
        end(&[process]).unwrap();
    }

    #[test]
    fn who_has_ended_is_dead_even_before_its_parent_asks() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let begun = Instant::now();
        while born(pid).is_some() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::park_timeout(LOOK);
        }
        assert_eq!(born(pid), None);
        child.wait().unwrap();
    }
}
