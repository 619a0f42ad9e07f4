//! `cargo xtask bench`: builds the released binary and hands over to the benchmark of `integration/`.

use std::process::Command;

use anyhow::{Context, Result};

use crate::paths;

/// What is built, and measured or measures.
const BUILT: [&[&str]; 3] = [
    &["--bins", "--package", "stoa"],
    &["--bins", "--package", "integration"],
    &["--example", LOG, "--package", "stoa-log"],
];

/// The program that measures the log alone.
const LOG: &str = "log_speed";

/// Builds, then measures; the benchmark's own output is the result.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for what in BUILT {
        let built = Command::new(&cargo)
            .current_dir(paths::root())
            .args(["build", "--release"])
            .args(what)
            .status()
            .context("cannot start cargo")?;
        if !built.success() {
            return Ok(false);
        }
    }
    let bench = paths::release("bench");
    let status = Command::new(&bench)
        .current_dir(paths::root())
        .args(arguments)
        .env("STOA_BIN", paths::release("stoa"))
        .env("STOA_LOG_SPEED", paths::release("examples").join(LOG))
        .status()
        .with_context(|| format!("cannot start {}", bench.display()))?;
    Ok(status.success())
}
