//! Planted bugs, to show that the crash matrix and the suites find their classes of fault. Compiled for tests alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use store::{Tx, params};

use crate::Source;

static SEQUENCE: AtomicBool = AtomicBool::new(false);
static NO_FENCE: AtomicBool = AtomicBool::new(false);
static OFFSET_BEFORE_EFFECT: AtomicBool = AtomicBool::new(false);
static CURSOR_BEFORE_EFFECT: AtomicBool = AtomicBool::new(false);
#[cfg(feature = "rabbitmq")]
static MANDATORY_OFF: AtomicBool = AtomicBool::new(false);

/// From now on every consumer moves its cursor (and inbox) in a commit before that of the effect.
pub fn cursor_before_effect(on: bool) {
    CURSOR_BEFORE_EFFECT.store(on, Ordering::Relaxed);
}

pub(crate) fn moves_cursor_before_effect() -> bool {
    CURSOR_BEFORE_EFFECT.load(Ordering::Relaxed)
}

/// From now on every relay moves on to the last number that was handed out, as one does that follows a sequence, and not to
/// the last position it has read: what was committed in between is skipped.
pub fn relay_by_sequence(on: bool) {
    SEQUENCE.store(on, Ordering::Relaxed);
}

pub(crate) async fn last_by_sequence(source: &Arc<dyn Source>, shard: u32) -> Option<u64> {
    if !SEQUENCE.load(Ordering::Relaxed) {
        return None;
    }
    source.heads().await.ok()?.get(shard as usize).copied()
}

/// From now on a relay moves its position whether it holds the shard or not.
pub fn fence_unchecked(on: bool) {
    NO_FENCE.store(on, Ordering::Relaxed);
}

pub(crate) fn checks_no_fence() -> bool {
    NO_FENCE.load(Ordering::Relaxed)
}

pub(crate) async fn advance_unfenced(tx: &mut Tx, shard: u32, position: u64) -> Result<bool, log::Error> {
    let moved =
        tx.execute("UPDATE relays SET position = $2 WHERE shard = $1", params![i64::from(shard), position]).await?;
    Ok(moved == 1)
}

/// From now on every consumer acknowledges what a broker delivers before it has the effect.
pub fn offset_before_effect(on: bool) {
    OFFSET_BEFORE_EFFECT.store(on, Ordering::Relaxed);
}

pub(crate) fn acknowledges_before_effect() -> bool {
    OFFSET_BEFORE_EFFECT.load(Ordering::Relaxed)
}

/// From now on RabbitMQ is not told to return what no queue takes.
#[cfg(feature = "rabbitmq")]
pub fn mandatory_off(on: bool) {
    MANDATORY_OFF.store(on, Ordering::Relaxed);
}

#[cfg(feature = "rabbitmq")]
pub(crate) fn mandatory_is_off() -> bool {
    MANDATORY_OFF.load(Ordering::Relaxed)
}
