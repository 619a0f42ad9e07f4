//! Waiting for a condition, with a deadline and a name for what did not come.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` finds something; an error of a single look is a reason to look again.
pub async fn until<T, F, Fut>(limit: Duration, what: &str, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    let mut last;
    loop {
        last = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    match last {
        Some(error) => Err(error.context(format!("{what}: not within {limit:?}"))),
        None => bail!("{what}: not within {limit:?}"),
    }
}
