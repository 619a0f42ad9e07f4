//! The log alone, without a shop around it: measured by a program of the log's own, in the place of all other figures.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::command_line;
use tokio::process::Command;

use crate::Bench;
use crate::figures::Wanted;

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let program = match std::env::var_os("STOA_LOG_SPEED") {
        Some(path) => PathBuf::from(path),
        None => command_line::repository().join("target/release/examples/log_speed"),
    };
    ensure!(
        program.is_file(),
        "no program at {}: cargo build --release -p stoa-log --example log_speed",
        program.display()
    );
    let ended = command_line::run(Command::new(program).arg(&bench.place), Duration::from_secs(600)).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    for line in ended.output.lines() {
        // NAME RATE WANTED WORDS...
        let mut words = line.splitn(4, ' ');
        let mut next = || words.next().with_context(|| format!("not a figure: {line}"));
        let (name, rate, wanted, what) = (next()?, next()?.parse()?, next()?.parse()?, next()?);
        println!("{what}: {rate:.0} events/s");
        bench.figures.judged(&format!("log.{name}"), rate, "events/s", Wanted::AtLeast(wanted));
    }
    Ok(())
}
