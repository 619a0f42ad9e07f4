//! The command line: what can be asked of `stoa`, and which answer becomes which exit code.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::settings::{self, File, Settings};
use crate::work::{self, Work};
use crate::{ca, crash_points, health, psp, run, serve};

/// A shop in one process: nine services, a gateway and a payment provider to try it with.
///
/// Without a command it runs the shop. The other commands ask the shop that runs on the same data folder, and open the
/// folder themselves when none does.
#[derive(Parser, Debug)]
#[command(name = "stoa", version, max_term_width = 110)]
struct Line {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand, Debug)]
enum Task {
    #[command(flatten)]
    Work(Work),
    /// Print every setting and where its value comes from
    Config,
    /// Run the sandbox payment provider alone, with the ledger that the data folder's shop has inside; 3 if that is in use
    Psp(psp::Line),
    /// Run some of the services as a process of a fleet
    Serve(serve::Line),
    /// Ask a process of a fleet for its health
    Health(health::Line),
    /// Make certificates for the processes of a fleet, for development
    #[command(subcommand)]
    Ca(ca::Line),
    /// List the points at which a test may kill the process
    #[command(hide = true)]
    CrashPoints,
}

/// Exit codes beside 0 (done), 1 (found or failed something), 2 (a flag is wrong) and 4 (a part does not answer).
const IN_USE: u8 = 3;

/// The whole program.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("stoa: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(answer()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stoa: {error:#}");
            let in_use = error.chain().any(|cause| {
                let ledger = cause.downcast_ref::<sandbox::Error>();
                let folder = cause.downcast_ref::<crate::folder::Error>();
                matches!(folder, Some(crate::folder::Error::InUse(_)))
                    || matches!(ledger, Some(sandbox::Error::Locked(_)))
            });
            if in_use { ExitCode::from(IN_USE) } else { ExitCode::FAILURE }
        }
    }
}

async fn answer() -> anyhow::Result<ExitCode> {
    // The first reading finds the file of settings; the second one has its values as defaults.
    let first = Line::command().get_matches();
    let named = Settings::from_arg_matches(&first)?.config;
    let file = File::load(named.as_deref())?;
    let mut command = file.apply(Line::command())?;
    let matches = command.clone().try_get_matches().unwrap_or_else(|error| error.exit());
    let line = Line::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit());
    let settings = line.settings;
    // A command answers on its terminal; what it did to the shop is the shop's to log.
    let default_filter = matches.value_source("log_filter") == Some(clap::parser::ValueSource::DefaultValue);
    let quiet = default_filter && line.task.is_some() && !matches!(line.task, Some(Task::Psp(_) | Task::Serve(_)));
    let filter = if quiet { "warn,audit=warn" } else { &settings.log_filter };
    telemetry::init(settings.log, filter).map_err(|error| anyhow::anyhow!("{error}"))?;
    match line.task {
        None => Box::pin(run::run(settings)).await,
        Some(Task::Work(work)) => Box::pin(work::answer(work, &settings)).await,
        Some(Task::Config) => {
            print!("{}", settings::print(&command, &matches, &file));
            Ok(ExitCode::SUCCESS)
        }
        Some(Task::Psp(line)) => psp::run(line, &settings).await,
        Some(Task::Serve(line)) => serve::run(line, settings).await,
        Some(Task::Health(line)) => health::run(line, settings.fleet.as_deref()).await,
        Some(Task::Ca(line)) => ca::run(line),
        Some(Task::CrashPoints) => Box::pin(crash_points::print()).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }
}
