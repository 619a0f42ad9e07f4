//! The trace context of a call: W3C Trace Context level 1, the part that travels in `traceparent`.
//!
//! Invariant: an id is never all zeros; what does not follow the grammar is refused whole, never repaired.

use std::cell::Cell;
use std::fmt;

/// Which trace a piece of work belongs to, and which span of it this is.
#[derive(Clone, Copy)]
pub struct Trace {
    /// The whole story: the same in every call and event that follows from one request.
    pub trace_id: [u8; 16],
    /// This step of it.
    pub span_id: [u8; 8],
    /// Whether nothing has happened in the story yet: its first span has no parent.
    pub(crate) untold: bool,
}

impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        (self.trace_id, self.span_id) == (other.trace_id, other.span_id)
    }
}

impl Eq for Trace {}

/// A `traceparent` that does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedTraceparent;

impl Trace {
    /// Starts a new story.
    pub fn new_root() -> Self {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&random_id());
        trace_id[8..].copy_from_slice(&random_id());
        Trace { trace_id, span_id: random_id(), untold: true }
    }

    /// A story that is taken up again where its last step is not known.
    pub fn resumed(trace_id: [u8; 16]) -> Self {
        Trace { trace_id, span_id: random_id(), untold: true }
    }

    /// The next step of the same story. Only a span takes one: what follows from a step that nobody recorded would be a part of
    /// nothing.
    pub(crate) fn child(&self) -> Self {
        Trace { trace_id: self.trace_id, span_id: random_id(), untold: false }
    }

    /// The header value, `00-<trace id>-<span id>-01`.
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(LENGTH);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id);
        text.push('-');
        push_hex(&mut text, &self.span_id);
        text.push_str("-01");
        text
    }

    /// The trace id in lower case hex, as log lines carry it.
    pub fn id(&self) -> String {
        hex(&self.trace_id)
    }

    /// The span id in lower case hex.
    pub fn span(&self) -> String {
        hex(&self.span_id)
    }

    /// The trace id that this text is, 32 digits of lower case hex.
    pub fn parse_id(text: &str) -> Result<[u8; 16], MalformedTraceparent> {
        let id = match text.len() {
            32 => unhex(text.as_bytes())?,
            _ => return Err(MalformedTraceparent),
        };
        if id == [0; 16] { Err(MalformedTraceparent) } else { Ok(id) }
    }

    /// Reads a header value; the flags are checked and dropped, since each process decides by itself what it keeps.
    ///
    /// A version after `00` may carry more fields after the flags; version `ff` is none.
    pub fn parse(text: &str) -> Result<Self, MalformedTraceparent> {
        let bytes = text.as_bytes();
        let fits = match bytes.get(..2) {
            Some(b"00") => bytes.len() == LENGTH,
            Some(b"ff") | None => false,
            Some(_) => bytes.len() == LENGTH || bytes.get(LENGTH) == Some(&b'-'),
        };
        if !fits || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return Err(MalformedTraceparent);
        }
        let _version: [u8; 1] = unhex(&bytes[..2])?;
        let trace_id: [u8; 16] = unhex(&bytes[3..35])?;
        let span_id: [u8; 8] = unhex(&bytes[36..52])?;
        let _flags: [u8; 1] = unhex(&bytes[53..55])?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(MalformedTraceparent);
        }
        Ok(Trace { trace_id, span_id, untold: false })
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())
    }
}

impl fmt::Display for MalformedTraceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed traceparent")
    }
}

impl std::error::Error for MalformedTraceparent {}

const LENGTH: usize = 55;

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn unhex<const N: usize>(digits: &[u8]) -> Result<[u8; N], MalformedTraceparent> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(MalformedTraceparent),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(bytes)
}

/// Ids need to differ, not to be secret: a counter per thread, started from the operating system's randomness and scrambled
/// (SplitMix64, Steele and others 2014), so that a call pays no system call.
fn random_id() -> [u8; 8] {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(getrandom::u64().unwrap_or_else(|_| {
            // Without the system's randomness an address still differs between processes and threads.
            let here = 0_u8;
            std::ptr::from_ref(&here).addr() as u64
        }));
    }
    STATE.with(|state| {
        loop {
            let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            state.set(next);
            let mut z = next;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            if z != 0 {
                return z.to_be_bytes();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_survives_the_round_trip() {
        assert_eq!(Trace::parse(GOOD).map(|trace| trace.traceparent()), Ok(GOOD.to_owned()));
        let root = Trace::new_root();
        assert_eq!(Trace::parse(&root.traceparent()), Ok(root));
    }

    #[test]
    fn a_child_keeps_the_trace_and_gets_its_own_span() {
        let root = Trace::new_root();
        let child = root.child();
        assert_eq!(child.trace_id, root.trace_id);
        assert_ne!(child.span_id, root.span_id);
        assert_eq!(root.id().len(), 32);
    }

    #[test]
    fn a_later_version_may_carry_more() {
        let later = GOOD.replacen("00-", "01-", 1);
        assert!(Trace::parse(&later).is_ok());
        assert!(Trace::parse(&format!("{later}-more")).is_ok());
        assert!(Trace::parse(&format!("{later}more")).is_err());
    }

    #[test]
    fn what_does_not_follow_the_grammar_is_refused() {
        let refused = [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\u{e9}",
        ];
        for text in refused {
            assert_eq!(Trace::parse(text), Err(MalformedTraceparent), "{text:?}");
        }
    }
}
