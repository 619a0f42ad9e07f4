//! The lane `fleet`: the whole fleet as a newcomer starts it, toured, hurt, put in order, stopped and started again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::state::{self, State};
use super::{Missing, Up, down, environment, start, status, up};
use crate::built::{Program, Shape, Tests, built};
use crate::command::{Run, tail};
use crate::lane::{Context, Outcome};
use crate::tools::{GRPCURL, Had};
use crate::{libtest, paths, suites};

/// Who dies (`kill -9`): a server of each kind that has state, a copy in each layer, the gateway that is toured.
const VICTIMS: [&str; 8] = ["postgres", "redis", "mongo", "rabbitmq", "identity-2", "inventory", "ordering", "gateway"];

/// From then on nothing may be open of what was under way when the processes died.
const SETTLED: Duration = Duration::from_secs(30);

/// Runs it all; the fleet is gone at the end, however it ends.
pub(crate) fn prove(context: &Context) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let folder = paths::target().join("fleet-lane");
    if folder.exists() {
        // Left by a lane that was killed.
        down(&folder, true)?;
    }
    let asked = Up::aside(folder.clone(), built(Shape::Fleet)?.stoa.clone());
    let went = live(&asked, &folder, context, &mut outcome);
    let stopped = down(&folder, true);
    match went {
        Err(error) if error.is::<Missing>() => outcome.skip(format!("{error:#}")),
        went => went?,
    }
    stopped?;
    outcome.check("down --purge", if folder.exists() { vec!["its folder is still there".to_owned()] } else { vec![] });
    Ok(outcome)
}

fn live(asked: &Up, folder: &Path, context: &Context, outcome: &mut Outcome) -> Result<()> {
    outcome.check("up", said(up(asked)?, "it said no"));
    outcome.check("up twice is once", said(up(asked)?, "the second time it said no"));
    outcome.add(toured(folder, context)?);
    outcome.check("status", said(status(folder)?, "not all of it is well"));

    hurt(folder)?;
    outcome.check("status tells what died", said(!status(folder)?, "all is well, it says"));
    outcome.check("up after kill -9", said(up(asked)?, "it said no"));
    outcome.check("status after that", said(status(folder)?, "not all of it is well"));
    outcome.check("the books after that", audited(folder)?);

    outcome.check("down", said(down(folder, false)?, "it said no"));
    outcome.check("nothing is left running", running_in(folder)?);
    outcome.check("up on what was there", said(up(asked)?, "it said no"));
    outcome.check("the books are still there", audited(folder)?);
    Ok(())
}

/// The README's tour against the fleet that runs.
fn toured(folder: &Path, context: &Context) -> Result<Outcome> {
    let tour = |program: &Program| program.package == suites::PACKAGE && program.test.as_deref() == Some("tour");
    let mut run = Tests::new("fleet", built(Shape::Plain)?.programs(tour), context)
        .args(&["--ignored"])
        .env("STOA_BIN", start::program(folder))
        .env("STOA_SKIPS", paths::logs().join("fleet.skipped"))
        .limit(Duration::from_secs(300));
    for (name, value) in environment(folder)? {
        run = run.env(name, value);
    }
    if let Had::Ready(path) = GRPCURL.get()? {
        run = run.env("STOA_GRPCURL", path);
    }
    Ok(libtest::outcome(&run.end()?))
}

fn hurt(folder: &Path) -> Result<()> {
    let state = State::load(folder)?.context("there is no fleet")?;
    for name in VICTIMS {
        let victim = state.process(name).with_context(|| format!("there is no {name}"))?;
        let pid = Pid::from_raw(victim.pid).context("a process without a number")?;
        kill_process(pid, Signal::KILL).with_context(|| format!("{name} cannot be killed"))?;
        // This process started it: its number is taken until it is asked for, and a database that comes back believes that
        // the one before it still runs. Whoever runs `up` in a shell is no parent of anything.
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
    Ok(())
}

/// What the audit has against it once it had time to settle; there has to be an order.
fn audited(folder: &Path) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let mut run = Run::new("fleet-audit", start::program(folder)).args(["audit"]).limit(Duration::from_secs(60));
        for (name, value) in environment(folder)? {
            run = run.env(name, value);
        }
        let ended = run.end()?;
        let good = ended.success && !ended.output.contains("orders: 0 confirmed");
        if good || begun.elapsed() > SETTLED {
            return Ok(said(good, &tail(&ended.output, 30)));
        }
    }
}

/// Whoever has a file of the fleet's open, such as the log it prints to; nobody, where the system does not tell.
fn running_in(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let Ok(processes) = fs::read_dir("/proc") else { return Ok(found) };
    let us = std::process::id().to_string();
    for process in processes.flatten().filter(|process| *process.file_name() != *us) {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let open = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if let Some(file) = open.filter(|file| file.starts_with(folder)).last() {
            found.push(format!("{} has {} open", process.path().display(), file.display()));
        }
    }
    let left = State::load(folder)?.map(|state| state.processes.len()).unwrap_or_default();
    found.extend((left > 0).then(|| format!("{left} processes are remembered in {}", state::map(folder).display())));
    Ok(found)
}

fn said(good: bool, problem: &str) -> Vec<String> {
    if good { vec![] } else { vec![problem.to_owned()] }
}
