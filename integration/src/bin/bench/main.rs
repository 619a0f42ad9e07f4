//! The measurements: what one machine does with one `stoa`, or with a fleet, with the machine's own limits beside them.
//!
//! Server, payment provider and load generator are three processes; their CPU time is read apart from
//! `/proc`. Everything is measured on the file system of the data folder, whose fsync time stands in the
//! first lines; a folder in memory is refused. A run that cannot keep its promises (an order that is not
//! confirmed, an audit that finds something) has no numbers.

mod attacks;
mod checkouts;
mod days;
mod figures;
mod flash;
mod fleet;
mod gateway;
mod generated;
mod load;
mod log;
mod overhead;
mod overload;
mod parked;
mod reads;
mod rebuild;
mod recovery;
mod start;
mod year;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::{command_line, limits, machine};
use tokio::process::Command;

use figures::Figures;

/// The measurements of one process by name, in the order they run.
const ALL: [&str; 13] = [
    "start",
    "reads",
    "checkouts",
    "half-load",
    "flash-sale",
    "appends",
    "parked",
    "attacks",
    "overload",
    "overhead",
    "recovery",
    "rebuild",
    "year",
];

/// Those of a fleet; `fleet` is all of them. They need servers, so nobody gets them unasked.
const FLEET: [&str; 4] = ["fleet-appends", "fleet-events", "fleet-checkouts", "fleet-rebuild"];

/// That of the gateway beside those of others, which have to be there: nobody gets it unasked either.
const GATEWAY: &str = "gateway";

/// How long a program may measure.
const PROGRAM: Duration = Duration::from_secs(600);

/// What was asked for.
#[derive(Default)]
struct Wanted {
    names: Vec<String>,
    json: Option<PathBuf>,
}

/// What every measurement has: a place for data folders, and where its figures go.
struct Bench {
    place: PathBuf,
    figures: Figures,
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(gateway::backend::WORD) {
        return gateway::backend::main();
    }
    let Some(wanted) = arguments()? else {
        println!("bench [NAME...] [--json FILE]   measures {}", ALL.join(", "));
        println!("bench fleet                     measures {}: see `cargo xtask bench`", FLEET.join(", "));
        println!("bench {GATEWAY}                   measures gateways beside each other: see `cargo xtask bench`");
        println!("STOA_BENCH_DIR    where data folders are made (on a disk)");
        println!(
            "STOA_LOG_SPEED    the program that measures the log alone, of `cargo build --release --example log_speed`"
        );
        println!("STOA_PARKED       the program that parks calls, of `cargo build --release --example parked`");
        println!("STOA_OVERHEAD     the program that calls, of `cargo build --release -p server --example overhead`");
        println!("STOA_RETAIL_CSV   the real year's file");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&wanted))
}

/// Reads the command line; nothing where help is wanted.
fn arguments() -> Result<Option<Wanted>> {
    let mut wanted = Wanted::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => wanted.json = Some(words.next().context("--json needs a file")?.into()),
            "fleet" => wanted.names.extend(FLEET.map(str::to_owned)),
            name if ALL.contains(&name) || FLEET.contains(&name) || days::NAMES.contains(&name) || name == GATEWAY => {
                wanted.names.push(word)
            }
            unknown => {
                bail!("no measurement is called {unknown:?}; there are {}, {}", ALL.join(", "), FLEET.join(", "))
            }
        }
    }
    Ok(Some(wanted))
}

async fn measure(wanted: &Wanted) -> Result<()> {
    limits::raise_open_files();
    let place = match std::env::var_os("STOA_BENCH_DIR") {
        Some(place) => PathBuf::from(place),
        None => command_line::repository().join("target"),
    };
    std::fs::create_dir_all(&place)?;
    let mut bench = Bench { figures: Figures::default(), place };
    bench.machine()?;
    let mut outcome = Ok(());
    for name in ALL.into_iter().chain(FLEET).chain([GATEWAY]).chain(days::NAMES) {
        let unasked = wanted.names.is_empty() && ALL.contains(&name);
        if unasked || wanted.names.iter().any(|word| word == name) {
            println!("\n{name} (load average {})", machine::load_average()?);
            outcome = bench.run(name).await.with_context(|| format!("{name} has no numbers"));
            if outcome.is_err() {
                break;
            }
        }
    }
    // What was measured before something failed is still told.
    bench.figures.print();
    if let Some(path) = &wanted.json {
        bench.figures.write(path)?;
    }
    outcome
}

impl Bench {
    /// What the figures depend on beside the program.
    fn machine(&mut self) -> Result<()> {
        let cores = std::thread::available_parallelism()?;
        let fsync = machine::fsync_time(&self.place)?;
        println!("machine: {cores} cores, {} on {}", machine::file_system(&self.place)?, self.place.display());
        println!("fsync of 4 KiB: median {:.2} ms", load::millis(fsync));
        println!("other work on the machine: load average {}", machine::load_average()?);
        self.figures.add("machine.cores", cores.get() as f64, "");
        self.figures.add("machine.fsync", load::millis(fsync), "ms");
        Ok(())
    }

    async fn run(&mut self, name: &str) -> Result<()> {
        match name {
            "start" => start::measure(self).await,
            "reads" => reads::measure(self).await,
            "checkouts" => checkouts::full(self).await,
            "half-load" => checkouts::half(self).await,
            "flash-sale" => flash::measure(self).await,
            "appends" => log::measure(self).await,
            "parked" => parked::measure(self).await,
            "attacks" => attacks::measure(self).await,
            "overhead" => overhead::measure(self).await,
            "overload" => overload::measure(self).await,
            "recovery" => recovery::measure(self).await,
            "rebuild" => rebuild::measure(self).await,
            "year" => year::measure(self).await,
            days if days::NAMES.contains(&days) => days::lived(days).await,
            GATEWAY => gateway::measure(self).await,
            "fleet-appends" => fleet::engines::appends(self).await,
            "fleet-events" => fleet::engines::events(self).await,
            "fleet-checkouts" => fleet::shop::checkouts(self).await,
            "fleet-rebuild" => fleet::shop::rebuild(self).await,
            other => bail!("no measurement is called {other:?}"),
        }
    }

    /// Figures that another program measures and prints, a line each.
    async fn program(&mut self, group: &str, program: &mut Command) -> Result<()> {
        let ended = command_line::run(program, PROGRAM).await?;
        ensure!(ended.code == Some(0), "{program:?}: {ended:?}");
        ended.output.lines().try_for_each(|line| self.figures.told(group, line))
    }

    /// A folder for one server on the measured file system.
    fn folder(&self) -> Result<tempfile::TempDir> {
        folder_in(&self.place)
    }
}

fn folder_in(place: &Path) -> Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(place)?)
}
