//! The JSON of long answers that come again and again: a page of a list is much the same for everybody who opens it, and to
//! write it as JSON costs more than everything else about it.
//!
//! Invariant: what is given back was made from the very same bytes of the same message. An answer is kept when it comes the
//! second time, so that what only one client is told is not; all that is kept is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Answers shorter than this are written faster than they are looked up and kept.
const SHORT: usize = 4 << 10;

/// Bytes kept, messages and their JSON together.
const MOST_BYTES: usize = 4 << 20;

/// Answers of which it is known that they have come.
const MOST_SEEN: usize = 4 << 10;

/// Remembers what was written.
#[derive(Default)]
pub(crate) struct Memo {
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By the hash of kind and message; nothing where the answer has come once.
    entries: HashMap<u64, Option<Entry>>,
    bytes: usize,
}

struct Entry {
    kind: Kind,
    message: Bytes,
    text: Bytes,
}

/// What else the text depends on: the method, by its place in memory, and the number of the answer's field that is told.
pub(crate) type Kind = (usize, u32);

impl Memo {
    /// The text of a message, as it was written before or as `write` does now.
    pub(crate) fn text<E>(
        &self,
        kind: Kind,
        message: &Bytes,
        write: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Bytes, E> {
        if message.len() < SHORT {
            return write().map(Bytes::from);
        }
        let hash = self.hasher.hash_one((kind, message));
        let again = match self.lock().entries.get(&hash) {
            Some(Some(entry)) if entry.kind == kind && entry.message == message => return Ok(entry.text.clone()),
            Some(_) => true,
            None => false,
        };
        let text = Bytes::from(write()?);
        let entry = again.then(|| Entry { kind, message: message.clone(), text: text.clone() });
        self.lock().put(hash, entry);
        Ok(text)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Keeps an entry; when there is no room, it starts afresh.
    fn put(&mut self, hash: u64, entry: Option<Entry>) {
        let size = entry.as_ref().map_or(0, Entry::size);
        if size > MOST_BYTES {
            return;
        }
        if self.bytes + size > MOST_BYTES || self.entries.len() >= MOST_SEEN {
            *self = Self::default();
        }
        self.bytes += size;
        if let Some(Some(before)) = self.entries.insert(hash, entry) {
            self.bytes -= before.size();
        }
    }
}

impl Entry {
    fn size(&self) -> usize {
        self.message.len() + self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of these messages was written anew.
    fn written(memo: &Memo, kind: Kind, messages: &[&Bytes]) -> usize {
        let mut count = 0;
        for message in messages {
            let text = memo.text(kind, message, || {
                count += 1;
                Ok::<_, ()>(message.to_ascii_uppercase())
            });
            assert_eq!(text.unwrap(), message.to_ascii_uppercase());
        }
        count
    }

    fn long(byte: u8) -> Bytes {
        vec![byte; SHORT].into()
    }

    #[test]
    fn a_long_answer_is_written_twice_and_then_known() {
        let (memo, a, b) = (Memo::default(), long(b'a'), long(b'b'));
        assert_eq!(written(&memo, (1, 0), &[&a, &a, &a, &a, &b]), 3);
        assert_eq!(written(&memo, (2, 0), &[&a, &a, &a]), 2, "another method");
        let short = Bytes::from_static(b"short");
        assert_eq!(written(&memo, (1, 0), &[&short, &short, &short]), 3);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let memo = Memo::default();
        for byte in 0..=u8::MAX {
            let message: Bytes = vec![byte; MOST_BYTES / 64].into();
            written(&memo, (1, 0), &[&message, &message, &message]);
            let kept = memo.lock();
            let bytes: usize = kept.entries.values().flatten().map(Entry::size).sum();
            assert_eq!(kept.bytes, bytes);
            assert!(bytes <= MOST_BYTES);
        }
        let huge: Bytes = vec![b'h'; MOST_BYTES].into();
        assert_eq!(written(&memo, (1, 0), &[&huge, &huge, &huge]), 3);
        for number in 0..2 * MOST_SEEN {
            let mut message = vec![b'm'; SHORT];
            message.extend(number.to_le_bytes());
            let message = Bytes::from(message);
            assert_eq!(memo.text((1, 0), &message, || Ok::<_, ()>(vec![])), Ok(Bytes::new()));
            assert!(memo.lock().entries.len() <= MOST_SEEN);
        }
    }
}
