//! Which fields of a message have been met: bits, on the stack for all but huge messages.

const WORDS: usize = 4;

/// A set of small numbers.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    few: [u64; WORDS],
    /// For numbers from 256 on; grows to the highest one, which a schema bounds.
    more: Vec<u64>,
}

impl Seen {
    /// True if it was not yet there.
    #[inline]
    pub(crate) fn insert(&mut self, number: u16) -> bool {
        let (at, bit) = (usize::from(number / 64), 1 << (number % 64));
        if let Some(word) = self.few.get_mut(at) {
            let fresh = *word & bit == 0;
            *word |= bit;
            return fresh;
        }
        let at = at - WORDS;
        if self.more.len() <= at {
            self.more.resize(at + 1, 0);
        }
        let fresh = self.more[at] & bit == 0;
        self.more[at] |= bit;
        fresh
    }

    pub(crate) fn contains(&self, number: u16) -> bool {
        let (at, bit) = (usize::from(number / 64), 1 << (number % 64));
        let word = self.few.get(at).or_else(|| self.more.get(at.wrapping_sub(WORDS)));
        word.is_some_and(|word| word & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_fresh_once() {
        let mut seen = Seen::default();
        for number in [0, 63, 64, 255, 256, 257, 1_000, u16::MAX] {
            assert!(!seen.contains(number));
            assert!(seen.insert(number) && !seen.insert(number) && seen.contains(number), "{number}");
        }
        assert!(!seen.contains(1));
    }
}
