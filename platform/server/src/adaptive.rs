//! How many calls are worked on at once: a limit that follows how long they keep each other waiting.
//!
//! Additive increase and multiplicative decrease on delay, as `AIMDLimit` of Netflix' concurrency-limits does it, over windows
//! as its `WindowedLimit` takes them and with the square root of the limit as increase, as its `GradientLimit`. The delay is
//! LEDBAT's (RFC 6817): what a call took beyond the least that any call of its method took in the last minutes. So a method
//! that is slow by nature is not taken for a slow service, and methods of all kinds teach one limit.
//!
//! Invariants: the limit stays within its bounds; a call that began before the last decrease does not cause the next one (as
//! Swift decreases once a round trip, SIGCOMM 2020); what is remembered is bounded by the number of methods. Pure: time comes
//! in with each call.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// The least the limit falls to: as few as cannot keep each other waiting for long, whatever they do.
const LEAST: usize = 64;
/// What is allowed before anything is known.
const BEGIN: usize = 256;
/// Between two looks at the limit.
const WINDOW: Duration = Duration::from_millis(100);
/// As many calls as say something; a window waits for them.
const ENOUGH: u32 = 10;
/// How long it waits for them before it begins anew: what was seen then says nothing of now.
const STALE: Duration = Duration::from_secs(1);
/// The delay that is nobody's harm: as long again as the call takes by itself, and this much at least.
const TOLERATED: Duration = Duration::from_millis(50);
/// What is left of the limit by a decrease, in fifths.
const LEFT_FIFTHS: usize = 4;
/// How long the least duration of a method is believed: this long at least, twice as long at most.
const HISTORY: Duration = Duration::from_secs(5 * 60);

/// A limit and what it has learnt.
#[derive(Debug)]
pub(crate) struct Adaptive {
    limit: usize,
    least: usize,
    most: usize,
    window: Window,
    lowered: Option<Instant>,
    bases: HashMap<&'static str, Base>,
}

/// A call as it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Of which method, by its path in the contract.
    pub(crate) method: &'static str,
    /// When it began.
    pub(crate) began: Instant,
    /// How long it took, without what it waited for others.
    pub(crate) took: Duration,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    calls: u32,
    slow: u32,
    /// Most calls at once.
    peak: usize,
}

/// The least that calls of a method took, now and in the span before.
#[derive(Debug)]
struct Base {
    since: Instant,
    now: Duration,
    before: Duration,
}

impl Adaptive {
    /// A limit that is never above `most`, and not below a least of 64 unless `most` is.
    pub(crate) fn new(most: usize, now: Instant) -> Self {
        Adaptive {
            limit: BEGIN.min(most),
            least: LEAST.min(most),
            most,
            window: Window::at(now, 0),
            lowered: None,
            bases: HashMap::new(),
        }
    }

    /// Calls that may be worked on at once.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// So many are worked on now.
    pub(crate) fn taken(&mut self, at_once: usize) {
        self.window.peak = self.window.peak.max(at_once);
    }

    /// A call was answered well.
    pub(crate) fn answered(&mut self, done: Done, at_once: usize, now: Instant) {
        let base = self.bases.entry(done.method).or_insert_with(|| Base::new(done.took, now));
        let base = base.with(done.took, now);
        self.seen(done, base, at_once, now);
    }

    /// A call was given up or not answered well. How fast it failed says nothing; that it had taken long does.
    pub(crate) fn failed(&mut self, done: Done, at_once: usize, now: Instant) {
        let base = self.bases.get(done.method).map_or(Duration::ZERO, Base::least);
        if is_slow(done.took, base) {
            self.seen(done, base, at_once, now);
        }
    }

    /// The least that calls of this method took, as far as it is known.
    #[cfg(test)]
    pub(crate) fn least_of(&self, method: &str) -> Option<Duration> {
        self.bases.get(method).map(Base::least)
    }

    fn seen(&mut self, done: Done, base: Duration, at_once: usize, now: Instant) {
        if self.lowered.is_some_and(|lowered| done.began < lowered) {
            return;
        }
        let open = now.saturating_duration_since(self.window.begun);
        if open > STALE && self.window.calls < ENOUGH {
            self.window = Window::at(now, at_once);
        }
        self.window.calls += 1;
        self.window.slow += u32::from(is_slow(done.took, base));
        if self.window.calls >= ENOUGH && open >= WINDOW {
            self.decide(now);
            self.window = Window::at(now, at_once);
        }
    }

    fn decide(&mut self, now: Instant) {
        let Window { calls, slow, peak, .. } = self.window;
        if slow * 2 > calls {
            // What was really there is where it was too much; a limit that nobody reached says nothing.
            self.limit = (self.limit.min(peak) * LEFT_FIFTHS / 5).max(self.least);
            self.lowered = Some(now);
        } else if peak * 2 >= self.limit {
            self.limit = (self.limit + self.limit.isqrt()).min(self.most);
        }
    }
}

fn is_slow(took: Duration, base: Duration) -> bool {
    took > base + base.max(TOLERATED)
}

impl Window {
    fn at(now: Instant, at_once: usize) -> Self {
        Window { begun: now, calls: 0, slow: 0, peak: at_once }
    }
}

impl Base {
    fn new(took: Duration, now: Instant) -> Self {
        Base { since: now, now: took, before: took }
    }

    fn least(&self) -> Duration {
        self.now.min(self.before)
    }

    fn with(&mut self, took: Duration, now: Instant) -> Duration {
        if now.saturating_duration_since(self.since) >= HISTORY {
            *self = Base { since: now, now: took, before: self.now };
        } else {
            self.now = self.now.min(took);
        }
        self.least()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(2);

    /// A server of so many calls a second that it works on one after the other, driven by a clock of its own.
    struct Queue {
        adaptive: Adaptive,
        now: Instant,
        each: Duration,
        waiting: std::collections::VecDeque<Instant>,
        shed: usize,
    }

    impl Queue {
        fn new(most: usize, each: Duration) -> Self {
            let now = Instant::now();
            Queue { adaptive: Adaptive::new(most, now), now, each, waiting: std::collections::VecDeque::new(), shed: 0 }
        }

        /// Calls arrive evenly, so many for each one that can be answered; what the answered ones took.
        fn offer(&mut self, times: usize, answers: usize) -> Vec<Duration> {
            let mut took = Vec::new();
            for _ in 0..answers {
                for _ in 0..times {
                    if self.waiting.len() < self.adaptive.limit() {
                        self.waiting.push_back(self.now);
                        self.adaptive.taken(self.waiting.len());
                    } else {
                        self.shed += 1;
                    }
                }
                self.now += self.each;
                let Some(began) = self.waiting.pop_front() else { continue };
                let done = Done { method: "/a/A", began, took: self.now - began };
                self.adaptive.answered(done, self.waiting.len() + 1, self.now);
                took.push(done.took);
            }
            took
        }
    }

    fn calls(adaptive: &mut Adaptive, now: &mut Instant, windows: u32, at_once: usize, took: Duration) {
        for _ in 0..windows * ENOUGH {
            *now += WINDOW / ENOUGH;
            adaptive.taken(at_once);
            adaptive.answered(Done { method: "/a/A", began: *now - took, took }, at_once, *now);
        }
    }

    #[test]
    fn a_limit_that_is_used_grows_while_calls_take_what_they_take() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        calls(&mut adaptive, &mut now, 20, 200, QUICK);
        let grown = adaptive.limit();
        assert!(grown > BEGIN, "{grown}");
        calls(&mut adaptive, &mut now, 1000, 4096, QUICK);
        assert_eq!(adaptive.limit(), 4096, "and never beyond its most");
    }

    #[test]
    fn a_limit_that_nobody_uses_stays() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        calls(&mut adaptive, &mut now, 100, 3, QUICK);
        assert_eq!(adaptive.limit(), BEGIN);
    }

    #[test]
    fn a_server_that_is_offered_ten_times_its_measure_answers_soon_and_all_the_time() {
        // A thousand a second; ten thousand come. Without a limit the last of a second would wait for nine.
        let mut queue = Queue::new(4096, Duration::from_millis(1));
        queue.offer(10, 2_000);
        queue.shed = 0;
        let took = queue.offer(10, 10_000);
        assert_eq!(took.len(), 10_000, "the server never stood still");
        let longest = took.iter().max().unwrap();
        assert!(*longest < 3 * TOLERATED, "{longest:?}");
        assert!(queue.shed >= 89_000, "{}", queue.shed);
    }

    #[test]
    fn what_was_too_much_is_allowed_again_when_it_is_not() {
        let mut queue = Queue::new(4096, Duration::from_millis(1));
        queue.offer(10, 5_000);
        let narrow = queue.adaptive.limit();
        assert!(narrow < BEGIN, "{narrow}");
        // The same calls, ten times as fast: as many more fit into the same delay.
        queue.each = Duration::from_micros(100);
        queue.offer(10, 50_000);
        assert!(queue.adaptive.limit() > 3 * narrow, "{} after {narrow}", queue.adaptive.limit());
    }

    #[test]
    fn the_limit_never_falls_below_its_least() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        calls(&mut adaptive, &mut now, 1, 1, QUICK);
        calls(&mut adaptive, &mut now, 500, 4000, Duration::from_secs(2));
        assert_eq!(adaptive.limit(), LEAST);
        assert_eq!(Adaptive::new(1, now).limit(), 1, "unless its most is less");
    }

    #[test]
    fn a_method_that_is_slow_by_nature_teaches_nothing_and_hides_nothing() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        let mix = |adaptive: &mut Adaptive, now: &mut Instant, slow, quick| {
            for _ in 0..2000 {
                *now += Duration::from_millis(10);
                adaptive.taken(200);
                for (method, took) in [("/a/Slow", slow), ("/a/Quick", quick)] {
                    adaptive.answered(Done { method, began: *now - took, took }, 200, *now);
                }
            }
            adaptive.limit()
        };
        let second = Duration::from_secs(1);
        assert!(mix(&mut adaptive, &mut now, second, QUICK) >= BEGIN);
        assert_eq!(mix(&mut adaptive, &mut now, 3 * second, QUICK + 2 * TOLERATED), LEAST);
    }

    #[test]
    fn calls_that_began_before_a_decrease_cause_no_other() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        calls(&mut adaptive, &mut now, 1, 256, QUICK);
        let crowd = now;
        now += Duration::from_secs(1);
        // A crowd that came at once and ends over ten windows, all of it late.
        for _ in 0..10 * ENOUGH {
            now += WINDOW / ENOUGH;
            adaptive.taken(256);
            adaptive.answered(Done { method: "/a/A", began: crowd, took: now - crowd }, 256, now);
        }
        assert!(adaptive.limit() >= (BEGIN + 16) * 3 / 5, "{}", adaptive.limit());
    }

    #[test]
    fn a_refusal_is_no_measure_of_how_fast_the_service_is_and_silence_is_one_of_how_slow() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        let slow_disk = Duration::from_millis(80);
        let fails = |adaptive: &mut Adaptive, now: &mut Instant, took: Duration| {
            for _ in 0..10 * ENOUGH {
                *now += WINDOW / ENOUGH;
                adaptive.taken(200);
                adaptive.failed(Done { method: "/a/A", began: *now - took, took }, 200, *now);
            }
        };
        fails(&mut adaptive, &mut now, Duration::from_micros(10));
        calls(&mut adaptive, &mut now, 10, 200, slow_disk);
        assert!(adaptive.limit() >= BEGIN, "what takes 80 ms is not late after 80 ms");
        fails(&mut adaptive, &mut now, Duration::from_secs(5));
        assert!(adaptive.limit() < BEGIN, "{}", adaptive.limit());
    }

    #[test]
    fn what_a_method_takes_is_learnt_anew_after_some_minutes() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        calls(&mut adaptive, &mut now, 10, 10, QUICK);
        // The data has grown: for some minutes that looks like a queue, then it is what the method takes.
        let grown = Duration::from_millis(200);
        calls(&mut adaptive, &mut now, 10, 200, grown);
        assert!(adaptive.limit() < BEGIN);
        calls(&mut adaptive, &mut now, 7_000, 200, grown);
        assert!(adaptive.limit() > 200, "{}", adaptive.limit());
    }

    #[test]
    fn calls_that_are_few_and_far_between_are_not_put_together() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(4096, now);
        calls(&mut adaptive, &mut now, 1, 1, QUICK);
        for _ in 0..100 {
            now += 2 * STALE;
            let took = Duration::from_secs(1);
            adaptive.answered(Done { method: "/a/A", began: now - took, took }, 1, now);
        }
        assert_eq!(adaptive.limit(), BEGIN);
    }
}
