//! Where spans go: with the other spans of their part until that is over, then to those that are kept, or to the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::ring::Ring;
use super::{Span, nanoseconds};

/// What is kept, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Which share of the stories is kept, 0 to 1, whatever became of them.
    pub ratio: f64,
    /// A part with a span that takes this long is kept.
    pub slow: Duration,
    /// Bytes of spans that are held: half of them for what is kept, half for the rest. With none of them, and no export, there
    /// are no spans.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { ratio: 0.01, slow: Duration::from_secs(1), bytes: 16 * 1024 * 1024 }
    }
}

/// Keeps so from now on.
pub fn configure(limits: Limits) {
    // A ratio of 1 is every id; the comparison below is with 64 bits of it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of all numbers is one of them"
    )]
    let threshold = if limits.ratio >= 1.0 { u64::MAX } else { (limits.ratio.max(0.0) * u64::MAX as f64) as u64 };
    RECORDER.threshold.store(threshold, Ordering::Relaxed);
    RECORDER.slow_ns.store(nanoseconds(limits.slow), Ordering::Relaxed);
    lock(&RECORDER.kept).bound(limits.bytes / 2);
    lock(&RECORDER.others).bound(limits.bytes / 2);
    RECORDER.holds.store(limits.bytes > 0, Ordering::Relaxed);
}

/// Also gives what is kept to this, span by span; it must not wait.
pub fn export(to: impl Fn(&Span) + Send + Sync + 'static) {
    *RECORDER.export.write().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(to));
    RECORDER.exports.store(true, Ordering::Relaxed);
}

/// The spans of a story that are still held here, in the order they began.
pub fn find(trace_id: &[u8; 16]) -> Vec<Span> {
    let mut found: Vec<Span> = lock(&RECORDER.kept).of(trace_id).cloned().collect();
    found.extend(lock(&RECORDER.others).of(trace_id).cloned());
    if let Some(part) = lock(RECORDER.shard(trace_id)).parts.get(trace_id) {
        found.extend(part.spans.iter().cloned());
    }
    found.sort_by_key(|span| (span.begin_ns, std::cmp::Reverse(span.duration_ns)));
    found
}

/// Spans of one part that are held until it is over; more go to the others at once.
const PART_SPANS: usize = 1024;

/// Shards of the parts, so that calls on several workers do not wait for each other.
const SHARDS: usize = 16;

/// Empty lists a shard holds for parts to come, and how many spans such a list has room for at most.
const SPARE: usize = 16;
const SPARE_SPANS: usize = 16;

pub(super) static RECORDER: LazyLock<Recorder> = LazyLock::new(Recorder::new);

pub(super) struct Recorder {
    shards: [Mutex<Shard>; SHARDS],
    kept: Mutex<Ring>,
    others: Mutex<Ring>,
    threshold: AtomicU64,
    slow_ns: AtomicU64,
    holds: AtomicBool,
    exports: AtomicBool,
    export: RwLock<Option<Export>>,
}

type Export = Box<dyn Fn(&Span) + Send + Sync>;

#[derive(Default)]
struct Shard {
    parts: HashMap<[u8; 16], Part>,
    /// Lists of parts that are over, for others.
    spare: Vec<Vec<Span>>,
}

/// What goes on of one story in this process. As many as there are open spans at most, and those are bounded by the calls
/// that are taken.
struct Part {
    open: usize,
    /// Whether it is kept, whatever the dice say.
    wanted: bool,
    spans: Vec<Span>,
}

impl Recorder {
    fn new() -> Self {
        let Limits { ratio: _, slow, bytes } = Limits::default();
        Recorder {
            shards: std::array::from_fn(|_| Mutex::default()),
            kept: Mutex::new(Ring::new(bytes / 2)),
            others: Mutex::new(Ring::new(bytes / 2)),
            threshold: AtomicU64::new(u64::MAX / 100),
            slow_ns: AtomicU64::new(nanoseconds(slow)),
            holds: AtomicBool::new(true),
            exports: AtomicBool::new(false),
            export: RwLock::default(),
        }
    }

    /// Whether anybody could ever see a span.
    pub(super) fn is_on(&self) -> bool {
        self.holds.load(Ordering::Relaxed) || self.exports.load(Ordering::Relaxed)
    }

    fn shard(&self, trace_id: &[u8; 16]) -> &Mutex<Shard> {
        &self.shards[usize::from(trace_id[15]) % SHARDS]
    }

    pub(super) fn open(&self, trace_id: &[u8; 16]) {
        let Shard { parts, spare } = &mut *lock(self.shard(trace_id));
        let part = parts.entry(*trace_id).or_insert_with(|| Part {
            open: 0,
            wanted: false,
            spans: spare.pop().unwrap_or_default(),
        });
        part.open += 1;
    }

    /// A span is over; `took` is how long it was, if that says anything.
    pub(super) fn close(&self, span: Span, fault: bool, took: Option<Duration>) {
        let trace_id = span.trace_id;
        let slow = took.is_some_and(|took| nanoseconds(took) >= self.slow_ns.load(Ordering::Relaxed));
        let (over, early) = {
            let Shard { parts, .. } = &mut *lock(self.shard(&trace_id));
            let Some(part) = parts.get_mut(&trace_id) else { return };
            part.open -= 1;
            part.wanted |= fault || slow;
            let early = if part.spans.len() < PART_SPANS {
                part.spans.push(span);
                None
            } else {
                Some(span)
            };
            (if part.open == 0 { parts.remove(&trace_id) } else { None }, early)
        };
        if let Some(span) = early {
            lock(&self.others).push(span);
        }
        if let Some(part) = over {
            self.decide(&trace_id, part);
        }
    }

    fn decide(&self, trace_id: &[u8; 16], part: Part) {
        let Part { wanted, mut spans, .. } = part;
        let ring = if wanted || self.drawn(trace_id) {
            if let Some(export) = &*self.export.read().unwrap_or_else(PoisonError::into_inner) {
                spans.iter().for_each(export);
            }
            &self.kept
        } else {
            &self.others
        };
        {
            let mut ring = lock(ring);
            spans.drain(..).for_each(|span| ring.push(span));
        }
        if spans.capacity() <= SPARE_SPANS {
            let Shard { spare, .. } = &mut *lock(self.shard(trace_id));
            if spare.len() < SPARE {
                spare.push(spans);
            }
        }
    }

    /// Whether the story is one of the share that is kept anyway. Whoever chooses a trace id chooses that too, and gains a
    /// place in a bounded ring by it.
    fn drawn(&self, trace_id: &[u8; 16]) -> bool {
        let mut low = [0; 8];
        low.copy_from_slice(&trace_id[8..]);
        let threshold = self.threshold.load(Ordering::Relaxed);
        threshold == u64::MAX || u64::from_be_bytes(low) < threshold
    }
}

/// What is guarded is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Running};
    use super::*;
    use crate::Trace;

    fn names(trace: &Trace) -> Vec<String> {
        find(&trace.trace_id).into_iter().map(|span| span.name.to_string()).collect()
    }

    fn kept(trace: &Trace) -> usize {
        lock(&RECORDER.kept).of(&trace.trace_id).count()
    }

    /// A story that the dice do not keep.
    fn undrawn() -> Trace {
        std::iter::repeat_with(Trace::new_root)
            .find(|it| !RECORDER.drawn(&it.trace_id))
            .expect("one in a hundred is drawn")
    }

    #[test]
    fn a_part_is_decided_as_a_whole_when_its_last_span_ends() {
        let story = undrawn();
        let outer = Running::begin("a", Kind::Server, "outer", &story);
        let mut inner = Running::begin("b", Kind::Client, "inner", &outer.trace());
        inner.fail(true);
        inner.end();
        assert_eq!(kept(&story), 0);
        assert_eq!(names(&story), ["inner"]);
        outer.end();
        assert_eq!(kept(&story), 2);
        let spans = find(&story.trace_id);
        assert_eq!(spans[0].parent, None);
        assert_eq!(spans[1].parent, Some(spans[0].span_id));
    }

    #[test]
    fn what_went_well_is_read_for_a_while_and_not_kept() {
        let story = undrawn();
        Running::begin("a", Kind::Server, "well", &story).end();
        assert_eq!((kept(&story), names(&story)), (0, vec!["well".to_owned()]));
    }

    #[test]
    fn a_refusal_is_no_fault_and_a_failure_is_one() {
        for (code, expected) in [(0, 0), (5, 0), (16, 0), (13, 1), (14, 1), (4, 1)] {
            let story = undrawn();
            Running::begin("a", Kind::Server, "call", &story).end_rpc(code);
            assert_eq!(kept(&story), expected, "{code}");
        }
        let story = undrawn();
        Running::begin("a", Kind::Client, "call", &story).end_rpc(5);
        assert!(find(&story.trace_id)[0].failed);
    }

    #[test]
    fn what_took_long_is_kept() {
        let story = undrawn();
        Running::since("a", Kind::Internal, "long", &story, Duration::from_secs(2)).end();
        assert_eq!(kept(&story), 1);
    }

    #[test]
    fn what_lasts_as_long_as_somebody_listens_is_not_slow() {
        let story = undrawn();
        let mut stream = Running::since("a", Kind::Server, "stream", &story, Duration::from_secs(2));
        stream.untimed();
        stream.end();
        assert_eq!((kept(&story), names(&story)), (0, vec!["stream".to_owned()]));
    }

    #[test]
    fn a_span_that_is_dropped_failed() {
        let story = undrawn();
        drop(Running::begin("a", Kind::Server, "given up", &story));
        assert!(find(&story.trace_id)[0].failed);
    }

    #[test]
    fn a_part_holds_a_bounded_number_of_spans() {
        let story = undrawn();
        let outer = Running::begin("a", Kind::Server, "outer", &story);
        for _ in 0..PART_SPANS + 10 {
            Running::begin("a", Kind::Internal, "inner", &outer.trace()).end();
        }
        let held = lock(RECORDER.shard(&story.trace_id)).parts.get(&story.trace_id).map(|part| part.spans.len());
        assert_eq!(held, Some(PART_SPANS));
        assert!(find(&story.trace_id).len() >= PART_SPANS + 10);
        outer.end();
    }

    #[test]
    fn a_ring_gives_up_the_oldest() {
        let story = Trace::new_root();
        let mut ring = Ring::new(0);
        let span = |name: &'static str| {
            Running::begin("a", Kind::Internal, name, &story).end();
            find(&story.trace_id).into_iter().find(|it| it.name == name.into()).expect("a span")
        };
        let spans = ["one", "two", "three"].map(span);
        ring.bound(spans[1].bytes() + spans[2].bytes());
        spans.into_iter().for_each(|span| ring.push(span));
        let left: Vec<_> = ring.of(&story.trace_id).map(|span| span.name.to_string()).collect();
        assert_eq!(left, ["two", "three"]);
        ring.bound(0);
        assert_eq!(ring.of(&story.trace_id).count(), 0);
    }

    #[tokio::test]
    async fn a_task_knows_its_story() {
        let story = Trace::new_root();
        assert_eq!(super::super::current(), None);
        assert_eq!(super::super::within(story, async { super::super::current() }).await, Some(story));
    }
}
