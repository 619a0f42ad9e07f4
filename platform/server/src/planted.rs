//! A planted fault: a service that cannot answer a share of its calls, to show what callers do then. Compiled for tests alone.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tonic::Status;

use crate::status;

static FAILING_PERCENT: AtomicU32 = AtomicU32::new(0);
static CALLS: AtomicU32 = AtomicU32::new(0);

/// From now on so many of a hundred calls are answered with `UNAVAILABLE`, spread evenly.
pub fn fail(percent: u32) {
    FAILING_PERCENT.store(percent, Ordering::Relaxed);
}

/// Whether the next call fails.
pub(crate) fn failure() -> Result<(), Status> {
    let percent = FAILING_PERCENT.load(Ordering::Relaxed);
    let so_far = CALLS.fetch_add(1, Ordering::Relaxed) % 100;
    // As a line is drawn on a grid: of any few calls in a row the share is about right.
    let failed = |calls: u32| calls * percent / 100;
    if failed(so_far + 1) > failed(so_far) {
        return Err(status::unavailable("planted", Duration::ZERO));
    }
    Ok(())
}
