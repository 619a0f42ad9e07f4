//! A planted bug, to show that the crash matrix finds its class of fault. Compiled for tests alone.

use crate::payment::Attempt;

#[cfg(feature = "planted-bugs")]
static NEW_KEY: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// From now on every try after the first uses a key of its own.
#[cfg(feature = "planted-bugs")]
pub fn new_key_on_retry(on: bool) {
    NEW_KEY.store(on, std::sync::atomic::Ordering::Relaxed);
}

/// The key an attempt is sent under.
#[cfg(feature = "planted-bugs")]
pub(crate) fn key(attempt: &Attempt) -> String {
    let planted = NEW_KEY.load(std::sync::atomic::Ordering::Relaxed) && attempt.tries > 1;
    if planted { format!("{}-again-{}", attempt.key, attempt.tries) } else { attempt.key.clone() }
}

/// The key an attempt is sent under.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) fn key(attempt: &Attempt) -> String {
    attempt.key.clone()
}
