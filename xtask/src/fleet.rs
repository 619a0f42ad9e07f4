//! `cargo xtask fleet`: the services as processes on real servers, on this machine, until they are stopped.
//!
//! Everything lies in one folder: the state (which processes, where), the map, the secret, the logs, the data. `up` goes on
//! with the data that is there; `down` stops the processes in an order in which nobody is called that is gone. A fleet whose
//! processes died, or whose `up` was killed, is put in order by the next `up` or `down`: what lives is found by its number
//! and the time it was born at, never by its name.

mod door;
mod engines;
mod plan;
mod process;
mod proof;
mod start;
mod state;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{interrupt, paths};
use plan::{Asked, Plan};
use start::build;
use state::State;

pub(crate) use engines::Missing;
pub(crate) use proof::prove;

/// What to do with the fleet.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Starts the servers, the copies of every service and the gateway, and a payment provider; leaves them running
    ///
    /// Without flags that is everything: PostgreSQL, Redis, RabbitMQ, products in documents, two copies of each service. What
    /// is missing is installed (packages of Debian; as root). A fleet that was there before goes on with its data and its
    /// engines; one that runs and lost processes gets these back, at their addresses. `--database files` is the small fleet:
    /// one process a service and no server at all.
    Up(Up),
    /// Tells each process: its number, its address, whether it lives and is well
    Status(Where),
    /// Stops everything in order, callers before callees; the data stays for the next `up`
    Down {
        #[command(flatten)]
        place: Where,
        /// Also deletes the data, the logs and the secret
        #[arg(long)]
        purge: bool,
    },
}

/// Where the fleet is.
#[derive(Clone, clap::Args)]
pub(crate) struct Where {
    /// Folder of the fleet; by default `fleet` in cargo's build folder
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// How a fleet is started.
#[derive(Clone, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    asked: Asked,
    /// Port of the first gateway; any free one if it is taken
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Runs this `stoa`, which has the feature `fleet`, instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

impl Where {
    /// The folder, as a path that means the same everywhere.
    fn folder(&self) -> Result<PathBuf> {
        let folder = self.state.clone().unwrap_or_else(|| paths::target().join("fleet"));
        Ok(std::path::absolute(folder)?)
    }
}

impl Up {
    /// A fleet of this binary in a folder of its own, on any port, with everything.
    pub(crate) fn aside(folder: PathBuf, binary: PathBuf) -> Self {
        let place = Where { state: Some(folder) };
        Self { place, asked: Asked::default(), port: 0, binary: Some(binary) }
    }
}

/// Does what was asked; `false` means it was said why not.
pub(crate) fn run(command: Command) -> Result<bool> {
    match command {
        Command::Up(up) => self::up(&up),
        Command::Status(place) => status(&place.folder()?),
        Command::Down { place, purge } => down(&place.folder()?, purge),
    }
}

/// Starts the fleet, or what of it does not run.
pub(crate) fn up(asked: &Up) -> Result<bool> {
    let folder = asked.place.folder()?;
    let _lock = state::lock(&folder)?;
    let before = State::load(&folder)?;
    let plan = Plan::settle(&asked.asked, before.as_ref().map(|state| &state.plan))?;
    let mut state = match before {
        Some(state) => state,
        None => State::new(&folder, plan.clone())?,
    };
    if state.lives() && state.plan != plan {
        println!("A fleet of {} is up; `cargo xtask fleet down` first to have {plan}.", state.plan);
        return Ok(false);
    }
    if state.runs() {
        println!("The fleet is up already: {plan}, its gateway at {}.", state.gateway());
        println!("`cargo xtask fleet status` tells more, `cargo xtask fleet down` stops it.");
        return Ok(true);
    }
    // From here on Ctrl-C is heard by us, so that nothing stays that was started.
    interrupt::listen()?;
    let begun = std::time::Instant::now();
    if state.complete && state.lives() && mended(&mut state, &folder)? {
        println!("The fleet is in order again after {} s.", begun.elapsed().as_secs());
        return Ok(true);
    }
    if state.lives() {
        println!("stopping what is left of a fleet that is not whole");
    }
    state.stop(&folder)?;
    let binary = match &asked.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build()?,
    };
    state.plan = plan;
    state.save(&folder)?;
    let begun = std::time::Instant::now();
    if let Err(error) = start::everything(&mut state, &folder, &binary, asked.port) {
        println!("stopping what was started");
        state.stop(&folder)?;
        return Err(error);
    }
    greet(&state, &folder, begun.elapsed())?;
    Ok(true)
}

/// Starts again what died; `false` if all of it has to be started anew.
fn mended(state: &mut State, folder: &Path) -> Result<bool> {
    match start::again(state, folder) {
        Ok(true) => Ok(true),
        Ok(false) => {
            println!("a server has another address than before: starting everything anew");
            Ok(false)
        }
        Err(error) => {
            interrupt::check()?;
            println!("that did not do ({error:#}): starting everything anew");
            Ok(false)
        }
    }
}

/// Tells what a newcomer needs.
fn greet(state: &State, folder: &Path, took: std::time::Duration) -> Result<()> {
    let environment = folder.join("env");
    write_environment(state, folder, &environment)?;
    let shown = environment.strip_prefix(std::env::current_dir()?).unwrap_or(&environment).display().to_string();
    println!("\nThe fleet is up: {} processes after {} s.\n", state.processes.len(), took.as_secs());
    println!("  made of    {}", state.plan);
    println!("  gateway    {}", state.gateways().join(", "));
    println!("  operator   {}, password: {}", door::OPERATOR, state.password);
    println!("  map        {}", state::map(folder).display());
    println!("  logs       {}/NAME.log", state::logs(folder).display());
    println!("\nThe README's tour, unchanged, after a first line that tells where this fleet is:\n");
    println!("  source {shown}");
    println!(
        "  TOKEN=$(curl -fsS -X POST $SHOP/v1/sessions:guest -d '{{}}' -H 'Content-Type: application/json' \
         | sed 's/.*\"accessToken\":\"\\([^\"]*\\)\".*/\\1/')"
    );
    if !state.gateway().ends_with(":8080") {
        println!("\n(Port 8080 was not to be had: leave out the tour's line `SHOP=...`.)");
    }
    println!("\n`cargo xtask fleet status` looks after it, `cargo xtask fleet down` stops it.");
    Ok(())
}

/// The same for a shell.
fn write_environment(state: &State, folder: &Path, file: &Path) -> Result<()> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut text = format!("export PATH={}:\"$PATH\"\n", quoted(&folder.join("bin").display().to_string()));
    for (name, value) in words(state, folder) {
        text.push_str(&format!("export {name}={}\n", quoted(&value)));
    }
    text.push_str(&format!("SHOP={}\n", state.gateway()));
    state::write_private(file, text.as_bytes())
}

/// What the tour's commands find a running fleet by.
pub(crate) fn environment(folder: &Path) -> Result<Vec<(&'static str, String)>> {
    let state = State::load(folder)?.context("there is no fleet")?;
    let mut words = words(&state, folder);
    words.push(("STOA_TOUR_ADDRESS", state.door()?.to_string()));
    Ok(words)
}

fn words(state: &State, folder: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("STOA_FLEET", state::map(folder).display().to_string()),
        // Where the mail is, which the tour looks for.
        ("STOA_DATA", state::data(folder, "notification").display().to_string()),
        ("STOA_PSP", state.provider.clone()),
        ("STOA_OPERATOR_PASSWORD", state.password.clone()),
    ]
}

/// Tells what of the fleet lives; `false` unless all of it does.
pub(crate) fn status(folder: &Path) -> Result<bool> {
    let Some(state) = State::load(folder)?.filter(|state| !state.processes.is_empty()) else {
        println!("No fleet runs in {}; `cargo xtask fleet up` starts one.", folder.display());
        return Ok(false);
    };
    println!("{}", state.plan);
    let stoa = start::program(folder);
    let map = state.certified.then(|| state::map(folder));
    let mut out = std::io::stdout();
    let mut well = state.complete;
    writeln!(out, "{:<16} {:>8}  {:<22} {:<6} {:<6}", "process", "pid", "address", "alive", "well")?;
    for process in &state.processes {
        let alive = process.lives();
        let answers = alive && process.answers(&stoa, map.as_deref());
        well &= answers;
        let word = |yes: bool| if yes { "yes" } else { "NO" };
        let line = format!(
            "{:<16} {:>8}  {:<22} {:<6} {:<6} {}",
            process.name,
            process.pid,
            process.address,
            word(alive),
            word(answers),
            process.about
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    if !well {
        writeln!(out, "`cargo xtask fleet up` puts it in order")?;
    }
    writeln!(out, "logs: {}/NAME.log", state::logs(folder).display())?;
    Ok(well)
}

/// Stops the fleet.
pub(crate) fn down(folder: &Path, purge: bool) -> Result<bool> {
    if !folder.exists() {
        println!("There is no fleet in {}.", folder.display());
        return Ok(true);
    }
    let _lock = state::lock(folder)?;
    match State::load(folder)? {
        Some(mut state) => {
            state.stop(folder)?;
            if purge && let Some(elsewhere) = &state.servers {
                fs::remove_dir_all(elsewhere).with_context(|| format!("{} cannot be deleted", elsewhere.display()))?;
            }
            println!("The fleet is down.");
        }
        None if purge => {}
        None => println!("No fleet runs in {}.", folder.display()),
    }
    if purge {
        if !state::is_ours(folder) {
            bail!("{} is no folder of a fleet and is not deleted", folder.display());
        }
        fs::remove_dir_all(folder).with_context(|| format!("{} cannot be deleted", folder.display()))?;
        println!("Its data is deleted.");
    }
    Ok(true)
}
