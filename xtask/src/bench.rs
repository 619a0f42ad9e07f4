//! `cargo xtask bench`: builds the released binary and hands over to the benchmark of `integration/`.

use std::process::Command;

use anyhow::{Context, Result};

use crate::paths;

/// Builds, then measures; the benchmark's own output is the result.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for package in ["stoa", "integration"] {
        let built = Command::new(&cargo)
            .current_dir(paths::root())
            .args(["build", "--release", "--bins", "--package", package])
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
        .status()
        .with_context(|| format!("cannot start {}", bench.display()))?;
    Ok(status.success())
}
