//! The circuit breaker between one caller and one callee: a callee that fails half of its calls is left alone for a while, so
//! that its callers answer at once and it has a chance to come back.
//!
//! **Closed**, calls pass and their ends are counted over a sliding window. **Open**, none passes until a pause is over, which
//! doubles with every fruitless look. **Half-open**, one call at a time passes to see; some successes in a row close it.
//!
//! Only what says that the callee cannot answer is a failure ([`End::Failed`]): a refusal is an answer. The states are those
//! of M. Nygard, *Release It!*, 2nd ed. 2018, chapter 5.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How far back calls count.
    pub(crate) window: Duration,
    /// The fewest calls in the window of which anything is concluded.
    pub(crate) least: u32,
    /// It opens when this share of them failed, in percent.
    pub(crate) failed_percent: u32,
    /// The first pause; it doubles from there.
    pub(crate) first_pause: Duration,
    /// The longest pause, and how long one call that looks keeps others from doing so.
    pub(crate) longest_pause: Duration,
    /// Successes in a row that close it.
    pub(crate) successes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            window: Duration::from_secs(10),
            least: 20,
            failed_percent: 50,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(4),
            successes: 3,
        }
    }
}

/// The parts a window is counted in: what is older than the window leaves it in steps of that size.
const PARTS: u32 = 10;

/// How a call ended, as far as it says something of the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The callee answered, be it with a refusal.
    Answered,
    /// It could not be reached, said that it cannot answer, or did not in good time.
    Failed,
    /// Nothing is known: the caller gave up early, or failed itself.
    Unknown,
}

/// Whether a callee is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Circuit {
    Closed,
    HalfOpen,
    Open,
}

impl Circuit {
    /// As spans tell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::HalfOpen => "half-open",
            Circuit::Open => "open",
        }
    }

    /// Tells operators.
    pub(crate) fn tell(self, caller: &str, callee: &str) {
        match self {
            Circuit::Closed => tracing::info!(caller, callee, "the circuit is closed: calls pass"),
            Circuit::HalfOpen => tracing::debug!(caller, callee, "the circuit is half open: one call looks"),
            Circuit::Open => tracing::warn!(caller, callee, "the circuit is open: the callee fails and is left alone"),
        }
    }
}

impl From<Circuit> for telemetry::metrics::State {
    fn from(circuit: Circuit) -> Self {
        match circuit {
            Circuit::Closed => Self::Closed,
            Circuit::HalfOpen => Self::HalfOpen,
            Circuit::Open => Self::Open,
        }
    }
}

/// One caller's breaker for one callee.
pub(crate) struct Breaker {
    limits: Limits,
    state: Mutex<State>,
    /// Told of each change.
    changed: Box<dyn Fn(Circuit) + Send + Sync>,
}

enum State {
    Closed(Window),
    Open {
        until: Instant,
        pause: Duration,
    },
    HalfOpen {
        /// The pause that was over when it became so.
        pause: Duration,
        successes: u32,
        /// When the call began that looks now.
        looking: Option<Instant>,
    },
}

/// What ended in the window, the newest part last.
#[derive(Default)]
struct Window {
    parts: VecDeque<Part>,
}

struct Part {
    begun: Instant,
    ended: u32,
    failed: u32,
}

/// A call that may go; what became of it is told with [`Pass::ended`].
pub(crate) struct Pass<'a> {
    breaker: &'a Breaker,
    /// When it began, if it goes to look.
    looking: Option<Instant>,
    told: bool,
}

/// No call is let.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Where the breaker stands: open, or half-open while somebody else looks.
    pub(crate) circuit: Circuit,
    /// For how long.
    pub(crate) pause: Duration,
}

impl Breaker {
    pub(crate) fn new(limits: Limits, changed: impl Fn(Circuit) + Send + Sync + 'static) -> Self {
        Breaker { limits, state: Mutex::new(State::Closed(Window::default())), changed: Box::new(changed) }
    }

    /// Lets a call go, or says how long none is let.
    pub(crate) fn admit(&self) -> Result<Pass<'_>, Refused> {
        let now = Instant::now();
        let mut state = self.state();
        let looking = match &mut *state {
            State::Closed(_) => None,
            State::Open { until, .. } if now < *until => {
                return Err(Refused { circuit: Circuit::Open, pause: *until - now });
            }
            State::Open { pause, .. } => {
                *state = State::HalfOpen { pause: *pause, successes: 0, looking: Some(now) };
                (self.changed)(Circuit::HalfOpen);
                Some(now)
            }
            State::HalfOpen { pause, looking, .. } => match *looking {
                // Who looks for so long is not waited for.
                Some(since) if now - since < self.limits.longest_pause => {
                    return Err(Refused { circuit: Circuit::HalfOpen, pause: *pause });
                }
                Some(_) | None => {
                    *looking = Some(now);
                    Some(now)
                }
            },
        };
        Ok(Pass { breaker: self, looking, told: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self, looked: Option<Instant>, end: End) -> Option<Circuit> {
        let now = Instant::now();
        let mut state = self.state();
        let next = match (&mut *state, looked) {
            (State::Closed(window), None) => window.count(end, now, &self.limits).then(|| self.open(now, None)),
            (State::HalfOpen { pause, successes, looking }, Some(_)) if *looking == looked => match end {
                End::Answered if *successes + 1 >= self.limits.successes => Some(State::Closed(Window::default())),
                End::Answered | End::Unknown => {
                    *successes += u32::from(end == End::Answered);
                    *looking = None;
                    None
                }
                End::Failed => Some(self.open(now, Some(*pause))),
            },
            // Begun before the last change: of what is over.
            (State::Closed(_) | State::Open { .. } | State::HalfOpen { .. }, _) => None,
        };
        let next = next?;
        let circuit = match next {
            State::Closed(_) => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        };
        (self.changed)(circuit);
        *state = next;
        Some(circuit)
    }

    fn open(&self, now: Instant, last: Option<Duration>) -> State {
        let pause = last.map_or(self.limits.first_pause, |last| (last * 2).min(self.limits.longest_pause));
        State::Open { until: now + pause, pause }
    }
}

impl Pass<'_> {
    /// What became of the call; hands back where the breaker stands now, if that is why it moved.
    pub(crate) fn ended(mut self, end: End) -> Option<Circuit> {
        self.told = true;
        self.breaker.ended(self.looking, end)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // Dropped with its call, of which nobody knows the end.
        if !self.told {
            self.breaker.ended(self.looking, End::Unknown);
        }
    }
}

impl Window {
    /// Counts a call; whether too many have failed now.
    fn count(&mut self, end: End, now: Instant, limits: &Limits) -> bool {
        if end == End::Unknown {
            return false;
        }
        while self.parts.front().is_some_and(|part| now - part.begun >= limits.window) {
            self.parts.pop_front();
        }
        if self.parts.back().is_none_or(|part| now - part.begun >= limits.window / PARTS) {
            self.parts.push_back(Part { begun: now, ended: 0, failed: 0 });
        }
        if let Some(part) = self.parts.back_mut() {
            part.ended += 1;
            part.failed += u32::from(end == End::Failed);
        }
        let (ended, failed) = self.parts.iter().fold((0, 0), |(ended, failed): (u64, u64), part| {
            (ended + u64::from(part.ended), failed + u64::from(part.failed))
        });
        ended >= u64::from(limits.least) && failed * 100 >= ended * u64::from(limits.failed_percent)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn breaker() -> (Breaker, Arc<Mutex<Vec<Circuit>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        (Breaker::new(Limits::default(), move |circuit| sink.lock().unwrap().push(circuit)), seen)
    }

    fn ends(breaker: &Breaker, end: End, times: u32) {
        for _ in 0..times {
            breaker.admit().ok().unwrap().ended(end);
        }
    }

    async fn after(pause: Duration) {
        tokio::time::advance(pause).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_when_half_of_enough_calls_fail() {
        let (breaker, seen) = breaker();
        ends(&breaker, End::Failed, 9);
        ends(&breaker, End::Answered, 10);
        assert!(seen.lock().unwrap().is_empty(), "nineteen calls say nothing yet");
        ends(&breaker, End::Failed, 1);
        assert_eq!(*seen.lock().unwrap(), [Circuit::Open]);
        let pause = Duration::from_millis(250);
        assert_eq!(breaker.admit().err(), Some(Refused { circuit: Circuit::Open, pause }));
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_failures_than_half_leave_it_closed() {
        let (breaker, seen) = breaker();
        for _ in 0..100 {
            ends(&breaker, End::Answered, 3);
            ends(&breaker, End::Failed, 2);
            after(Duration::from_millis(100)).await;
        }
        assert!(seen.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_left_the_window_does_not_count() {
        let (breaker, seen) = breaker();
        ends(&breaker, End::Failed, 19);
        after(Duration::from_secs(10)).await;
        ends(&breaker, End::Failed, 1);
        assert!(seen.lock().unwrap().is_empty());
        ends(&breaker, End::Failed, 19);
        assert_eq!(*seen.lock().unwrap(), [Circuit::Open]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_call_at_a_time_looks_and_three_successes_close_it() {
        let (breaker, seen) = breaker();
        ends(&breaker, End::Failed, 20);
        after(Duration::from_millis(250)).await;
        for _ in 0..3 {
            let looking = breaker.admit().ok().unwrap();
            let refused = breaker.admit().err().unwrap();
            assert_eq!(refused.circuit, Circuit::HalfOpen, "somebody looks already");
            looking.ended(End::Answered);
        }
        assert_eq!(*seen.lock().unwrap(), [Circuit::Open, Circuit::HalfOpen, Circuit::Closed]);
        ends(&breaker, End::Failed, 19);
        assert!(breaker.admit().is_ok(), "it begins to count anew");
    }

    #[tokio::test(start_paused = true)]
    async fn each_fruitless_look_doubles_the_pause_up_to_the_longest() {
        let (breaker, _) = breaker();
        ends(&breaker, End::Failed, 20);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let pause = breaker.admit().err().unwrap().pause;
            pauses.push(pause.as_millis());
            after(pause).await;
            ends(&breaker, End::Failed, 1);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 4000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_is_dropped_or_hangs_lets_another_one_look() {
        let (breaker, _) = breaker();
        ends(&breaker, End::Failed, 20);
        after(Duration::from_millis(250)).await;
        drop(breaker.admit().ok().unwrap());
        let hanging = breaker.admit().ok().unwrap();
        assert!(breaker.admit().is_err());
        after(Duration::from_secs(4)).await;
        ends(&breaker, End::Answered, 3);
        hanging.ended(End::Failed);
        assert!(breaker.admit().is_ok(), "what was given up changes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_say_nothing_count_neither_way_and_late_ones_not_at_all() {
        let (breaker, seen) = breaker();
        let old: Vec<_> = (0..30).map(|_| breaker.admit().ok().unwrap()).collect();
        ends(&breaker, End::Unknown, 100);
        assert!(seen.lock().unwrap().is_empty());
        ends(&breaker, End::Failed, 20);
        after(Duration::from_millis(250)).await;
        ends(&breaker, End::Answered, 3);
        after(Duration::from_secs(1)).await;
        assert_eq!(seen.lock().unwrap().last(), Some(&Circuit::Closed));
        drop(old);
        assert!(breaker.admit().is_ok());
    }
}
