//! How a process is asked to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at Ctrl-C or SIGTERM; a second one ends the process at once.
pub fn until_asked_to_stop(shutdown: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if shutdown.is_cancelled() {
                // Nothing is lost by it: what is not committed has not been acknowledged.
                std::process::exit(130);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}
