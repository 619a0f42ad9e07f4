//! Protobuf wire format, as far as a gateway without message types needs it: write a field, find a field.
//!
//! Binding works by concatenation: in protobuf a later singular field replaces an earlier one, repeated fields collect,
//! and sub-messages merge; so a path variable, a query parameter or a header is one more field behind the body.

/// The payload of one field as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw<'a> {
    /// Integers, booleans and enums.
    Varint(u64),
    /// `fixed64`, `sfixed64` and `double`.
    Fixed64([u8; 8]),
    /// Strings, bytes, messages and packed lists.
    Len(&'a [u8]),
    /// `fixed32`, `sfixed32` and `float`.
    Fixed32([u8; 4]),
}

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf message")]
pub struct Malformed;

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field.
pub fn put(out: &mut Vec<u8>, number: u32, value: Raw<'_>) {
    let key = u64::from(number) << 3;
    match value {
        Raw::Varint(value) => {
            put_varint(out, key);
            put_varint(out, value);
        }
        Raw::Fixed64(bytes) => {
            put_varint(out, key | 1);
            out.extend_from_slice(&bytes);
        }
        Raw::Len(bytes) => {
            put_varint(out, key | 2);
            put_varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Raw::Fixed32(bytes) => {
            put_varint(out, key | 5);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends an encoded field inside the messages named by `parents`, outermost first.
pub fn put_nested(out: &mut Vec<u8>, parents: &[u32], field: &[u8]) {
    match parents.split_first() {
        None => out.extend_from_slice(field),
        Some((number, inner)) => {
            let mut nested = Vec::with_capacity(field.len() + 8);
            put_nested(&mut nested, inner, field);
            put(out, *number, Raw::Len(&nested));
        }
    }
}

/// Walks the top-level fields of a message.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// The iterator of [`fields`]; it ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Raw<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Raw<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
        let value = match key & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(self.take(8)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Raw::Len(self.take(length)?)
            }
            5 => Raw::Fixed32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((number, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

/// Finds the value that holds for the field at `path`, or `None` if it is absent; the last one wins, as in a decoder.
pub fn find<'a>(message: &'a [u8], path: &[u32]) -> Option<Raw<'a>> {
    let (number, inner) = path.split_first()?;
    let mut last = None;
    for field in fields(message) {
        let Ok((at, value)) = field else { return last };
        if at != *number {
            continue;
        }
        if inner.is_empty() {
            last = Some(value);
        } else if let Raw::Len(nested) = value
            && let Some(found) = find(nested, inner)
        {
            last = Some(found);
        }
    }
    last
}

/// Finds a string field; absent, empty and not UTF-8 are all `None`.
pub fn find_text<'a>(message: &'a [u8], path: &[u32]) -> Option<&'a str> {
    match find(message, path)? {
        Raw::Len(bytes) => std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()),
        Raw::Varint(_) | Raw::Fixed64(_) | Raw::Fixed32(_) => None,
    }
}

/// Collects a sub-message from all its occurrences, which a decoder would merge.
pub fn find_message(message: &[u8], number: u32) -> Option<Vec<u8>> {
    let mut merged = None;
    for (at, value) in fields(message).map_while(Result::ok) {
        if at == number
            && let Raw::Len(bytes) = value
        {
            merged.get_or_insert_with(Vec::new).extend_from_slice(bytes);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found_and_the_last_one_wins() {
        let mut message = Vec::new();
        put(&mut message, 1, Raw::Len(b"first"));
        put(&mut message, 300, Raw::Varint(u64::MAX));
        put(&mut message, 4, Raw::Fixed32(*b"abcd"));
        put(&mut message, 5, Raw::Fixed64(*b"abcdefgh"));
        put(&mut message, 1, Raw::Len(b"second"));
        assert_eq!(find_text(&message, &[1]), Some("second"));
        assert_eq!(find(&message, &[300]), Some(Raw::Varint(u64::MAX)));
        assert_eq!(find(&message, &[4]), Some(Raw::Fixed32(*b"abcd")));
        assert_eq!(find(&message, &[2]), None);
    }

    #[test]
    fn nested_fields_merge() {
        let mut message = Vec::new();
        for (number, text) in [(1, "a"), (2, "b")] {
            let mut field = Vec::new();
            put(&mut field, number, Raw::Len(text.as_bytes()));
            put_nested(&mut message, &[7, 8], &field);
        }
        assert_eq!(find_text(&message, &[7, 8, 1]), Some("a"));
        assert_eq!(find_text(&message, &[7, 8, 2]), Some("b"));
        assert_eq!(find_message(&message, 7).map(|merged| merged.len()), Some(10));
    }

    #[test]
    fn bytes_that_are_no_message_end_the_walk() {
        for bad in [&[0x0a][..], &[0x0a, 0x05, 1], &[0xff; 11], &[0x0b, 0x0c], &[0x00, 0x00], &[0x09, 1]] {
            assert!(fields(bad).any(|field| field.is_err()), "{bad:?}");
        }
    }
}
