//! The `stoa` command run to its end: `audit`, `explain`, `orders`, `rebuild`, `import`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// How a command ended, with what it said.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` when it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

/// The binary under test: `STOA_BIN`, or the release build of this clone.
pub fn binary() -> Result<PathBuf> {
    let path = match std::env::var_os("STOA_BIN") {
        Some(path) => PathBuf::from(path),
        None => target().join("release/stoa"),
    };
    if !path.is_file() {
        bail!("no binary at {}: cargo build --release -p stoa", path.display());
    }
    Ok(path)
}

/// The binary with the planted bugs, if this run has one.
pub fn planted_binary() -> Option<PathBuf> {
    let path = match std::env::var_os("STOA_PLANTED_BIN") {
        Some(path) => PathBuf::from(path),
        None => target().join("release/stoa-planted"),
    };
    path.is_file().then_some(path)
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Runs `stoa` with the arguments and waits, at most ten minutes: the books of a whole year take a while on a busy machine.
pub async fn stoa<I, S>(arguments: I) -> Result<Ended>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run(Command::new(binary()?).args(arguments), Duration::from_secs(600)).await
}

/// Runs a command and waits for its end, at most that long.
pub async fn run(command: &mut Command, limit: Duration) -> Result<Ended> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let output = tokio::time::timeout(limit, child.wait_with_output())
        .await
        .with_context(|| format!("{command:?} took longer than {limit:?}"))??;
    Ok(Ended {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Lets `stoa audit` judge a data folder: an error carries every line it printed.
pub async fn audit(data: &Path) -> Result<String> {
    let ended = stoa([OsStr::new("audit"), OsStr::new("--data"), data.as_os_str()]).await?;
    if ended.code != Some(0) {
        bail!("the audit found something ({:?}):\n{}{}", ended.code, ended.output, ended.errors);
    }
    Ok(ended.output)
}

fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => repository().join(folder),
        None => repository().join("target"),
    }
}
