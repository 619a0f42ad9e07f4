//! The sandbox provider as a process of its own.

use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use tokio_util::sync::CancellationToken;

/// A payment provider to try a shop against.
#[derive(Parser)]
struct Arguments {
    /// Address to listen at; port 0 takes any, and the first line of output tells which.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: std::net::SocketAddr,
    /// Folder of the ledger.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    flags: sandbox::Flags,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let sandbox = sandbox::build(arguments.flags.config(&arguments.data)).await?;
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::signal::ctrl_c().await.ok();
        stop.cancel();
    });
    Ok(sandbox.run(listener, shutdown).await?)
}
