//! Waiting longer after each failure, never in step with the others who wait.

use std::time::Duration;

/// A pause before try `attempt + 1`: `first` doubled for every attempt, at most `most`, and of that
/// a random part between half and all, so that those who failed together do not return together.
pub fn jittered(attempt: u32, first: Duration, most: Duration) -> Duration {
    let full = first.saturating_mul(1u32 << attempt.saturating_sub(1).min(20)).min(most);
    let mut byte = [128u8];
    // Without randomness the pause is three quarters: still a pause.
    let _ = getrandom::fill(&mut byte);
    full.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}
