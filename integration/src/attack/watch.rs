//! The memory of a process, looked at all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinHandle;

use crate::machine;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// How much a process holds beyond what it held at first.
pub struct Memory {
    first: u64,
    most: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl Memory {
    /// Begins to look.
    pub fn of(pid: u32) -> Result<Self> {
        let first = machine::resident_kib(pid)?;
        let most = Arc::new(AtomicU64::new(first));
        let seen = Arc::clone(&most);
        let looking = tokio::spawn(async move {
            while let Ok(now) = machine::resident_kib(pid) {
                seen.fetch_max(now, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Self { first, most, looking })
    }

    /// The most it held beyond the first look, in MiB.
    pub fn growth_mib(&self) -> u64 {
        self.most.load(Ordering::Relaxed).saturating_sub(self.first) / 1024
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.looking.abort();
    }
}
