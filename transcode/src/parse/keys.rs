//! Keys that are no names of fields: remembered, so that none stands twice; and what is passed over.

use super::{
    Parser,
    scan::{Next, Scan},
};
use crate::{
    error::{ErrorKind, Fallible, Fault},
    names,
};

/// A key as a hash, or as the number it is.
pub(super) struct Key {
    pub(super) hash: u64,
    /// Where it stands.
    pub(super) at: usize,
}

impl Parser<'_> {
    /// Passes over a value of an unknown field, by the same grammar as one that counts.
    pub(super) fn skip(&mut self, depth: usize) -> Fallible {
        match self.scan.peek() {
            b'{' => {
                let base = self.keys.len();
                let mut next = self.scan.open(b'}', depth)?;
                while next == Next::More {
                    self.scan.peek();
                    let at = self.scan.at;
                    let key = self.scan.key()?.unescape()?;
                    self.keys.push(Key { hash: names::hash_all(&key), at });
                    self.skip(depth + 1)?;
                    next = self.scan.next(b'}')?;
                }
                self.unique_texts(base)
            }
            b'[' => {
                let mut next = self.scan.open(b']', depth)?;
                while next == Next::More {
                    self.skip(depth + 1)?;
                    next = self.scan.next(b']')?;
                }
                Ok(())
            }
            b'"' => self.scan.string()?.unescape().map(drop),
            b't' => self.scan.word("true"),
            b'f' => self.scan.word("false"),
            b'n' => self.scan.word("null"),
            b'-' | b'0'..=b'9' => self.scan.number().map(drop),
            _ => Err(self.scan.fault("expected a JSON value")),
        }
    }

    /// Refuses a key that stands twice among those from `base` on, and forgets them.
    pub(super) fn unique_texts(&mut self, base: usize) -> Fallible {
        let text = self.scan.text;
        let keys = &mut self.keys[base..];
        let read = |key: &Key| Scan { text, at: key.at }.string().and_then(|raw| raw.unescape()).unwrap_or_default();
        keys.sort_unstable_by(|one, other| {
            one.hash.cmp(&other.hash).then_with(|| read(one).cmp(&read(other))).then(one.at.cmp(&other.at))
        });
        let twice = keys.windows(2).find(|pair| pair[0].hash == pair[1].hash && read(&pair[0]) == read(&pair[1]));
        if let Some(pair) = twice {
            return Err(key_twice(&pair[1], &read(&pair[1])));
        }
        self.keys.truncate(base);
        Ok(())
    }

    /// The same for keys whose hash is the key.
    pub(super) fn unique_numbers(&mut self, base: usize) -> Fallible {
        let text = self.scan.text;
        let keys = &mut self.keys[base..];
        keys.sort_unstable_by_key(|key| (key.hash, key.at));
        if let Some(pair) = keys.windows(2).find(|pair| pair[0].hash == pair[1].hash) {
            let name = Scan { text, at: pair[1].at }.string().map(|raw| raw.text).unwrap_or_default();
            return Err(key_twice(&pair[1], name));
        }
        self.keys.truncate(base);
        Ok(())
    }
}

#[cold]
fn key_twice(key: &Key, name: &[u8]) -> Box<Fault> {
    Fault::new(ErrorKind::DuplicateKey, key.at, "the key is given twice").under(&String::from_utf8_lossy(name))
}
