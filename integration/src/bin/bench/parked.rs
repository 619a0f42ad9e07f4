//! Ten thousand calls that wait for a slow provider: measured by a program of payment's own, beside a provider of ours.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::command_line;
use integration::ledger::Provider;
use tokio::process::Command;

use crate::Bench;

/// Calls at once.
const CALLS: usize = 10_000;
/// How long the provider takes.
const SLOW: Duration = Duration::from_secs(1);

pub(crate) async fn measure(bench: &mut Bench) -> Result<()> {
    let program = match std::env::var_os("STOA_PARKED") {
        Some(path) => PathBuf::from(path),
        None => command_line::repository().join("target/release/examples/parked"),
    };
    ensure!(
        program.is_file(),
        "no program at {}: cargo build --release -p stoa-payment --example parked",
        program.display()
    );
    let provider = Provider::start_for(SLOW, CALLS + 64).await?;
    let mut command = Command::new(program);
    command.arg(&bench.place).arg(provider.url()).arg(CALLS.to_string());
    let ended = command_line::run(&mut command, Duration::from_secs(300)).await?;
    ensure!(ended.code == Some(0), "{ended:?}");
    for line in ended.output.lines() {
        // NAME VALUE UNIT WORDS...
        let mut words = line.splitn(4, ' ');
        let mut next = || words.next().with_context(|| format!("not a figure: {line}"));
        let (name, value, unit, what) = (next()?, next()?.parse()?, next()?, next()?);
        println!("{value} {unit} {what}");
        bench.figures.add(&format!("parked.{name}"), value, unit);
    }
    Ok(())
}
