//! A small hash table from names to numbers, made once, read at every key.
//!
//! Invariant: the table is at most half full and its names come from a schema, so a probe ends after few steps,
//! whatever the text asks for.

/// Names of a message's fields or of an enum's values.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Index into `entries` plus one; zero is free.
    slots: Box<[u32]>,
    entries: Vec<(Box<[u8]>, u32)>,
}

impl Names {
    /// The first of several equal names wins.
    pub(crate) fn new(names: impl IntoIterator<Item = (Box<[u8]>, u32)>) -> Self {
        let mut entries: Vec<(Box<[u8]>, u32)> = Vec::new();
        let names: Vec<_> = names.into_iter().collect();
        let size = (names.len() * 2).next_power_of_two().max(4);
        let mut slots = vec![0u32; size].into_boxed_slice();
        for (name, value) in names {
            let mut at = hash(&name) as usize & (size - 1);
            let known = loop {
                match slots[at] {
                    0 => break false,
                    entry if entries[entry as usize - 1].0 == name => break true,
                    _ => at = (at + 1) & (size - 1),
                }
            };
            if !known {
                entries.push((name, value));
                slots[at] = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            }
        }
        Names { slots, entries }
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<u32> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash(name) as usize & mask;
        loop {
            let entry = *self.slots.get(at)?;
            let (known, value) = self.entries.get((entry as usize).wrapping_sub(1))?;
            if **known == *name {
                return Some(*value);
            }
            at = (at + 1) & mask;
        }
    }
}

/// Mixes the first and last eight bytes and the length, which tells the names of one message apart.
fn hash(name: &[u8]) -> u32 {
    let (head, tail) = if let (Some(head), Some(tail)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
    } else if let (Some(head), Some(tail)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        (u64::from(u32::from_le_bytes(*head)), u64::from(u32::from_le_bytes(*tail)))
    } else {
        (name.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 0)
    };
    let mixed = (head ^ tail.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Mixes every byte, for keys that somebody else chose. Who provokes collisions gains nothing: equal hashes are only a
/// reason to look closer.
pub(crate) fn hash_all(text: &[u8]) -> u64 {
    let mut rest = text;
    let mut sum = text.len() as u64;
    let mut mix = |word: u64| sum = (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while let Some((chunk, more)) = rest.split_first_chunk::<8>() {
        mix(u64::from_le_bytes(*chunk));
        rest = more;
    }
    mix(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_no_other() {
        let names: Vec<String> = (0..500).map(|n| format!("field_number_{n}")).chain(["".into(), "a".into()]).collect();
        let table = Names::new(names.iter().zip(0..).map(|(name, at)| (name.as_bytes().into(), at)));
        for (at, name) in names.iter().enumerate() {
            assert_eq!(table.get(name.as_bytes()), Some(at as u32), "{name}");
        }
        assert_eq!(table.get(b"field_number_500"), None);
        assert_eq!(Names::default().get(b"a"), None);
    }
}
