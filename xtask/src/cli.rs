//! The command line: what each command is called and which lanes it runs.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::lanes::{self, Lane};
use crate::{bench, fleet, fuzz, golden, lane, tools};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a change lands; the continuous integration runs exactly this.
    Test(Selection),
    /// The part of `test` that needs no server: formatting, lints, structure, contracts, dependencies.
    Check(Selection),
    /// The measurements; arguments after `--` go to the benchmark itself.
    Bench {
        /// Passed on to the benchmark binary.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// The services as processes on real servers of this machine: `up`, `status`, `down`.
    Fleet {
        #[command(subcommand)]
        command: fleet::Command,
    },
    /// Looks for inputs that break what reads bytes of strangers; those that do lie in `target/fuzz/broken` then.
    Fuzz {
        /// How long at each parser.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Writes what was found into `fuzz/corpus`.
        #[arg(long)]
        keep: bool,
    },
    /// Formats the contracts and the Rust sources in place.
    Gen,
    /// Writes a golden file for each stored event that has none yet; existing files are never touched.
    Golden,
}

#[derive(clap::Args)]
struct Selection {
    /// Runs only the lanes whose name is, or starts with, this; may be given more than once.
    #[arg(long = "lane", value_name = "NAME")]
    lanes: Vec<String>,
    /// Prints the lanes and what each proves, and runs none.
    #[arg(long)]
    list: bool,
    /// Shows the output of every command while it runs.
    #[arg(long, short)]
    verbose: bool,
}

/// Runs the command given on the command line; `false` means something failed and was reported.
pub(crate) fn run() -> Result<bool> {
    match Arguments::parse().command {
        Command::Test(selection) => run_lanes(lanes::all()?, &selection),
        Command::Check(selection) => run_lanes(lanes::checks()?, &selection),
        Command::Bench { arguments } => bench::run(&arguments),
        Command::Fleet { command } => fleet::run(command),
        Command::Fuzz { seconds, keep } => fuzz::run(seconds, keep),
        Command::Gen => crate::contracts::format(),
        Command::Golden => golden::write_missing(),
    }
}

fn run_lanes(all: Vec<Lane>, selection: &Selection) -> Result<bool> {
    let named = |lane: &Lane| selection.lanes.iter().any(|name| lane.name.starts_with(name.as_str()));
    // A list shows what there is; what takes too long for every day is run by whoever names it.
    let wanted = |lane: &Lane| named(lane) || selection.lanes.is_empty() && (selection.list || !lane.on_request);
    let chosen: Vec<Lane> = all.into_iter().filter(wanted).collect();
    anyhow::ensure!(!chosen.is_empty(), "no lane is called {:?}; see --list", selection.lanes);
    if selection.list {
        for lane in &chosen {
            let when = if lane.on_request { " (only where it is named)" } else { "" };
            println!("{:<28} {}{when}", lane.name, lane.proves);
        }
        return Ok(true);
    }
    if selection.lanes.is_empty() && chosen.iter().any(|lane| lane.name == "kafka") {
        tools::ahead();
    }
    lane::run_all(chosen, selection.verbose)
}
