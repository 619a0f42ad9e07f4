//! Forgets what is kept of the tokens of sessions that have expired: nobody is given anything for them again, and without this
//! there would be a row for every session there ever was.

use std::time::Duration;

use ::store::{Tx, site};
use contracts::identity::v1::Event;
use log::Log;
use server::{Context, Task};

use crate::{later, store as rows};

/// Between two sweeps.
const PAUSE: Duration = Duration::from_secs(60 * 60);

/// Rows a transaction, so that no other waits long for it.
const AT_ONCE: u32 = 500;

/// The task that sweeps, at the start and then every hour.
pub(crate) fn task(log: Log<Event>, context: &Context) -> Task {
    let (clock, shutdown) = (context.clock.clone(), context.shutdown.clone());
    Task::endless("identity.sweep", async move {
        loop {
            match sweep(&log).await {
                Ok(0) => {}
                Ok(swept) => tracing::debug!(swept, "tokens of expired sessions are forgotten"),
                Err(error) => tracing::warn!(%error, "tokens of expired sessions could not be swept; tried again"),
            }
            let due = later(clock.now(), PAUSE);
            tokio::select! {
                () = clock.sleep_until(due) => {}
                () = shutdown.cancelled() => return,
            }
        }
    })
}

/// Sweeps what is due; says how many rows that was. Looked for by a reader, so that the writer has only rows to delete: an
/// expired session is never refreshed again.
pub(crate) async fn sweep(log: &Log<Event>) -> Result<usize, ::store::Error> {
    let mut swept = 0;
    loop {
        let now = log.store().clock().now();
        let due = log.store().read(async move |tx: &mut Tx| rows::expired_families(tx, now, AT_ONCE).await).await?;
        if due.is_empty() {
            return Ok(swept);
        }
        swept += due.len();
        let forget = async move |tx: &mut Tx| {
            for session in &due {
                rows::drop_family(tx, session).await?;
            }
            Ok::<_, ::store::Error>(())
        };
        log.store().write(site!("identity.sweep_tokens"), forget).await?;
    }
}
