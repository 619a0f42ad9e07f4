//! What was read lately, as long as nothing has been appended since.
//!
//! The value of `head` changes with every commit that appends, before that commit is answered. An entry is served only
//! while the head is the one that was seen before its snapshot began: whoever has the answer to a write reads no older
//! state. That holds because one process owns the rows: its store, or its own copy of the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// A bounded memory of answers by key.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    head: watch::Receiver<u64>,
    most: usize,
    kept: Mutex<Kept<V>>,
}

#[derive(Debug)]
struct Kept<V> {
    head: u64,
    entries: HashMap<String, V>,
}

impl<V: Clone> Recent<V> {
    /// Keeps at most `most` entries; when they are full it starts afresh.
    pub(crate) fn new(head: watch::Receiver<u64>, most: usize) -> Self {
        Self { head, most, kept: Mutex::new(Kept { head: 0, entries: HashMap::new() }) }
    }

    /// The head to remember before a snapshot is read that is to be kept.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// The answer for a key, if it is still true.
    pub(crate) fn get(&self, key: &str) -> Option<V> {
        let head = self.head();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entries.get(key).filter(|_| kept.head == head).cloned()
    }

    /// Keeps an answer of a snapshot that began when the head was `seen`.
    pub(crate) fn keep(&self, seen: u64, key: &str, value: V) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if seen < kept.head {
            return;
        }
        if seen > kept.head || kept.entries.len() >= self.most {
            kept.entries.clear();
            kept.head = seen;
        }
        kept.entries.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_served_until_something_is_appended() {
        let (appended, head) = watch::channel(7);
        let recent = Recent::new(head, 2);
        let seen = recent.head();
        recent.keep(seen, "a", 1);
        assert_eq!(recent.get("a"), Some(1));
        appended.send_replace(8);
        assert_eq!(recent.get("a"), None);
        recent.keep(seen, "a", 1);
        assert_eq!(recent.get("a"), None, "read before the append");
        recent.keep(recent.head(), "a", 2);
        recent.keep(seen, "b", 1);
        assert_eq!((recent.get("a"), recent.get("b")), (Some(2), None));
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        let (_appended, head) = watch::channel(0);
        let recent = Recent::new(head, 2);
        for key in ["a", "b", "c"] {
            recent.keep(0, key, ());
        }
        assert_eq!((recent.get("a"), recent.get("c")), (None, Some(())));
    }
}
