//! A planted bug, to show that the crash matrix finds its class of fault. Compiled for tests alone.

use std::sync::atomic::{AtomicBool, Ordering};

static CURSOR_BEFORE_EFFECT: AtomicBool = AtomicBool::new(false);

/// From now on every consumer moves its cursor (and inbox) in a commit before that of the effect.
pub fn cursor_before_effect(on: bool) {
    CURSOR_BEFORE_EFFECT.store(on, Ordering::Relaxed);
}

pub(crate) fn moves_cursor_before_effect() -> bool {
    CURSOR_BEFORE_EFFECT.load(Ordering::Relaxed)
}
