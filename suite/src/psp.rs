//! The sandbox payment provider as a process of its own.
//!
//! It keeps its ledger where a shop on the same folder has the provider inside it: who ran with that one can go on with this
//! one, and of the two only one at a time has the ledger.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use process::until_asked_to_stop;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::settings::Settings;

/// Flags of `stoa psp`.
#[derive(Debug, clap::Args)]
pub(crate) struct Line {
    /// Address to listen at; port 0 takes any, and the first line of output tells which
    #[arg(long = "listen", id = "psp_listen", value_name = "ADDR:PORT", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    #[command(flatten)]
    flags: sandbox::Flags,
}

/// The folder of the provider's ledger in a data folder.
pub(crate) fn ledger(data: &Path) -> PathBuf {
    data.join("psp")
}

/// Runs the provider until it is asked to stop.
pub(crate) async fn run(line: Line, settings: &Settings) -> anyhow::Result<ExitCode> {
    let ledger = ledger(&settings.data);
    let sandbox = sandbox::build(line.flags.config(&ledger)).await?;
    let listener = TcpListener::bind(line.listen).await.with_context(|| format!("cannot listen at {}", line.listen))?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", listener.local_addr()?)?;
    writeln!(out, "the ledger is in {}", ledger.display())?;
    out.flush()?;
    let shutdown = CancellationToken::new();
    until_asked_to_stop(shutdown.clone())?;
    sandbox.run(listener, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}
