//! The program of a service that is a process of its own.

use std::error::Error as StdError;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};
use contract::Table;

use crate::part::{BoxError, Part};
use crate::run::{Surroundings, run};
use crate::settings::Settings;

#[derive(Parser, Debug)]
#[command(version, max_term_width = 110)]
struct Line<F: Args> {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    flags: F,
}

/// The whole program: its command line, its runtime, its exit code. `part` makes the service of the flags that are its own.
pub fn main<F: Args>(name: &'static str, methods: Table, part: impl FnOnce(F) -> Part) -> ExitCode {
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BoxError::from)
        .and_then(|runtime| runtime.block_on(answer(name, methods, part)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn answer<F: Args>(name: &'static str, methods: Table, part: impl FnOnce(F) -> Part) -> Result<(), BoxError> {
    let command = Line::<F>::command().name(name).about(format!("{name}, a process of a fleet"));
    let line = Line::<F>::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let settings = line.settings;
    telemetry::init(settings.log, &settings.log_filter).map_err(|error| BoxError::from(error.to_string()))?;
    settings.faults.arm()?;
    let surroundings = Surroundings {
        map: crate::Map::load(&settings.fleet)?,
        data: settings.data,
        windows: settings.times.windows(),
        watching: settings.watching,
        notice: settings.notice.notice,
        methods,
    };
    Ok(run(surroundings, vec![part(line.flags).bind(settings.bind).advertise(settings.advertise)]).await?)
}

/// An error with everything that caused it.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::NoFlags;

    #[test]
    fn the_command_line_is_consistent() {
        Line::<NoFlags>::command().debug_assert();
    }
}
