//! The log alone, without a shop around it: measured by a program of the log's own, in the place of all other figures.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use integration::command_line;
use tokio::process::Command;

use crate::Bench;

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
    let mut command = Command::new(program);
    command.arg(&bench.place);
    bench.program("log", &mut command).await
}
