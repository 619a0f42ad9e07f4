//! Spans: what was done in a story, when, for how long, as part of what. Names and attributes are those of OpenTelemetry's
//! semantic conventions for RPC, HTTP and messaging.
//!
//! What a process does of one story between the first of its spans that opens and the last that closes is a *part*. Whether
//! a part is kept is decided when it is over, so that one that failed or took long is kept whatever the dice say; the dice are the
//! trace id's own bits, so all processes with one ratio keep the same stories. What is not kept can still be read for a while.
//!
//! Where nothing is held and nothing exported a span is no more than its context; elsewhere one takes memory that is there
//! already, as long as its names are the program's own: neither case allocates.
//!
//! Invariants: nothing that somebody sends is a name or an attribute; what is held is bounded in bytes ([`Limits`]), and so
//! is a part in spans; a span that is dropped before its end is one that failed.

mod recorder;
mod ring;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use arrayvec::ArrayVec;

use crate::Trace;
use recorder::RECORDER;

pub use recorder::{Limits, configure, export, find};

/// What a span is to the spans around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something inside.
    Internal,
    /// A call that is answered.
    Server,
    /// A call that is made.
    Client,
    /// A message that is sent.
    Producer,
    /// A message that is dealt with.
    Consumer,
}

/// What was done: a verb, if there is one, and what it was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    verb: &'static str,
    what: Cow<'static, str>,
}

impl Name {
    /// `verb what`.
    pub fn of(verb: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Name { verb, what: what.into() }
    }
}

impl From<&'static str> for Name {
    fn from(what: &'static str) -> Self {
        Name::of("", what)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verb.is_empty() { f.write_str(&self.what) } else { write!(f, "{} {}", self.verb, self.what) }
    }
}

/// Attributes of a span at most; what comes after them is not told.
pub const ATTRIBUTES: usize = 8;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text that the program chose.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

/// A span that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The story.
    pub trace_id: [u8; 16],
    /// This part of it.
    pub span_id: [u8; 8],
    /// The part it is a part of.
    pub parent: Option<[u8; 8]>,
    /// Short name of the service that did it.
    pub service: &'static str,
    /// What was done.
    pub name: Name,
    /// What it is to the spans around it.
    pub kind: Kind,
    /// When it began, in nanoseconds of Unix time.
    pub begin_ns: u64,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
    /// Whether it failed.
    pub failed: bool,
    /// What else is known.
    pub attributes: ArrayVec<(&'static str, Value), ATTRIBUTES>,
}

impl Span {
    /// Its id in lower case hex.
    pub fn id(&self) -> String {
        crate::trace::hex(&self.span_id)
    }

    /// The id of the span it is a part of, in lower case hex; empty for the first of a story.
    pub fn parent_id(&self) -> String {
        self.parent.map_or_else(String::new, |id| crate::trace::hex(&id))
    }

    /// Bytes it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let text = |text: &Cow<'static, str>| match text {
            Cow::Borrowed(_) => 0,
            Cow::Owned(text) => text.capacity(),
        };
        let values = self.attributes.iter().map(|(_, value)| match value {
            Value::Text(it) => text(it),
            Value::Number(_) => 0,
        });
        size_of::<Self>() + text(&self.name.what) + values.sum::<usize>()
    }
}

/// A span that goes on. It ends with [`end`](Running::end); if it is dropped before, whoever did it gave up.
#[must_use = "a span is over when this is dropped"]
pub struct Running {
    trace: Trace,
    /// None where nobody would ever see it.
    span: Option<Span>,
    begun: Instant,
    /// Whether its part must be kept.
    fault: bool,
    /// Whether how long it takes says anything.
    timed: bool,
}

impl Running {
    /// A span of this service begins, as a part of `parent`.
    pub fn begin(service: &'static str, kind: Kind, name: impl Into<Name>, parent: &Trace) -> Self {
        let mut it = Running { trace: *parent, span: None, begun: Instant::now(), fault: false, timed: true };
        if RECORDER.is_on() {
            it.trace = parent.child();
            RECORDER.open(&it.trace.trace_id);
            it.span = Some(Span {
                trace_id: it.trace.trace_id,
                span_id: it.trace.span_id,
                parent: (!parent.untold).then_some(parent.span_id),
                service,
                name: name.into(),
                kind,
                begin_ns: now_ns(),
                duration_ns: 0,
                failed: false,
                attributes: ArrayVec::new(),
            });
        }
        it
    }

    /// As [`begin`](Running::begin), for what began a while ago.
    pub fn since(service: &'static str, kind: Kind, name: impl Into<Name>, parent: &Trace, took: Duration) -> Self {
        let mut it = Self::begin(service, kind, name, parent);
        if let Some(span) = &mut it.span {
            span.begin_ns = span.begin_ns.saturating_sub(nanoseconds(took));
        }
        it.begun = it.begun.checked_sub(took).unwrap_or(it.begun);
        it
    }

    /// The context of whatever happens inside; that of the parent where the span is none.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// Whether it is a span that somebody may see.
    pub fn is_recorded(&self) -> bool {
        self.span.is_some()
    }

    /// It lasts as long as somebody listens: that is not being slow.
    pub fn untimed(&mut self) {
        self.timed = false;
    }

    /// It is called so, now that more is known.
    pub fn rename(&mut self, name: impl Into<Name>) {
        if let Some(span) = &mut self.span {
            span.name = name.into();
        }
    }

    /// Something else is known. The value is one that the program chose.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            // More than there is room for are not told.
            let _ = span.attributes.try_push((key, value.into()));
        }
    }

    /// It failed; with `fault`, for a reason that whoever runs the shop wants to see.
    pub fn fail(&mut self, fault: bool) {
        self.fault |= fault;
        if let Some(span) = &mut self.span {
            span.failed = true;
        }
    }

    /// It ended with this code of gRPC: a call that was made failed unless it is 0, one that was answered only if the fault
    /// was here.
    pub fn end_rpc(mut self, code: i32) {
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
        let fault = matches!(code, 2 | 4 | 12 | 13 | 14 | 15);
        let client = self.span.as_ref().is_some_and(|span| span.kind == Kind::Client);
        if fault || (client && code != 0) {
            self.fail(fault);
        }
        self.set("rpc.response.status_code", crate::metrics::code_name(code));
        self.end();
    }

    /// It ended with this status of HTTP.
    pub fn end_http(mut self, status: u16) {
        let client = self.span.as_ref().is_some_and(|span| span.kind == Kind::Client);
        if status >= 500 || (client && status >= 400) {
            self.fail(status >= 500);
        }
        self.set("http.response.status_code", i64::from(status));
        self.end();
    }

    /// It is over.
    pub fn end(mut self) {
        self.close();
    }

    fn close(&mut self) {
        if let Some(mut span) = self.span.take() {
            let took = self.begun.elapsed();
            span.duration_ns = nanoseconds(took);
            RECORDER.close(span, self.fault, self.timed.then_some(took));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.span.is_some() {
            self.set("error.type", "cancelled");
            self.fail(false);
            self.close();
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Value::Number(number.into())
    }
}

tokio::task_local! {
    static CURRENT: Trace;
}

/// The story that the task is in, if it is in one.
pub fn current() -> Option<Trace> {
    CURRENT.try_with(|trace| *trace).ok()
}

/// The future in this story.
pub fn within<F: Future>(trace: Trace, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(trace, future)
}

/// The future, on whatever task, in the story of the task that calls this.
pub fn inherited<F: Future>(future: F) -> impl Future<Output = F::Output> {
    // A story of its own is that of nobody else, and so nothing is found under it by mistake.
    CURRENT.scope(current().unwrap_or_else(Trace::new_root), future)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Spans of processes that stand on one machine, or on many, are laid beside each other: by the time of the day.
#[expect(clippy::disallowed_methods, reason = "when something really happened, whatever time a test has set")]
fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanoseconds)
}
