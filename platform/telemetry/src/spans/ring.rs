//! Spans in the order they ended, the oldest given up for the newest: bounded in bytes.

use std::collections::VecDeque;

use super::Span;

/// Room is made for all of it at once, so that it is what was said and nothing is moved later; the system gives the memory
/// when it is first written to.
pub(super) struct Ring {
    spans: VecDeque<Span>,
    bytes: usize,
    most_bytes: usize,
}

impl Ring {
    pub(super) fn new(most_bytes: usize) -> Self {
        Ring { spans: VecDeque::with_capacity(room(most_bytes)), bytes: 0, most_bytes }
    }

    pub(super) fn bound(&mut self, most_bytes: usize) {
        self.most_bytes = most_bytes;
        self.shrink();
        let mut spans = VecDeque::with_capacity(room(most_bytes));
        spans.append(&mut self.spans);
        self.spans = spans;
    }

    pub(super) fn push(&mut self, span: Span) {
        self.bytes += span.bytes();
        self.spans.push_back(span);
        self.shrink();
    }

    pub(super) fn of(&self, trace_id: &[u8; 16]) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.trace_id == *trace_id)
    }

    fn shrink(&mut self) {
        while self.bytes > self.most_bytes {
            let Some(oldest) = self.spans.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }
}

/// As many spans as so many bytes hold, and the one that pushes another out.
fn room(bytes: usize) -> usize {
    bytes / size_of::<Span>() + 1
}
