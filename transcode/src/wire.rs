//! Reading the protobuf wire format: a cursor over borrowed bytes.
//!
//! Invariant: whatever the bytes are, a read ends in a value inside them or in an error; nothing is allocated.

use crate::{
    MAX_DEPTH,
    error::{ErrorKind, Fallible, Fault},
    schema::{Kind, WireType},
};

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire<'a> {
    pub(crate) rest: &'a [u8],
}

/// The head of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) number: u32,
    pub(crate) wire_type: WireType,
}

const CUT: &str = "the message ends inside a field";

impl<'a> Wire<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Wire { rest }
    }

    /// The next field, or none at the end.
    #[inline]
    pub(crate) fn head(&mut self) -> Fallible<Option<Head>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire_type = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Bytes,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(Fault::wire("a field has a wire type that does not exist")),
        };
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 || number > 0x1fff_ffff {
            return Err(Fault::wire("a field has a number outside 1 to 536,870,911"));
        }
        Ok(Some(Head { number, wire_type }))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Fallible<u64> {
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Fallible<u64> {
        let mut value = 0u64;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            if at == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(Fault::wire(if self.rest.len() < 10 { CUT } else { "a number is longer than 64 bits" }))
    }

    #[inline]
    pub(crate) fn fixed32(&mut self) -> Fallible<u32> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| Fault::wire(CUT))?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Fallible<u64> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| Fault::wire(CUT))?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// What a length stands in front of.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Fallible<&'a [u8]> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| Fault::wire(CUT))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The fields of a group whose head was read; its end is read as well.
    pub(crate) fn group(&mut self, number: u32) -> Fallible<&'a [u8]> {
        let whole = self.rest;
        let mut open = vec![number];
        loop {
            let before = self.rest.len();
            let head = self.head()?.ok_or_else(|| Fault::wire("the message ends inside a group"))?;
            match head.wire_type {
                WireType::StartGroup if open.len() >= MAX_DEPTH => return Err(too_deep()),
                WireType::StartGroup => open.push(head.number),
                WireType::EndGroup if open.pop() != Some(head.number) => {
                    return Err(Fault::wire("a group ends that did not begin"));
                }
                WireType::EndGroup if open.is_empty() => return Ok(&whole[..whole.len() - before]),
                WireType::EndGroup => {}
                WireType::Varint | WireType::Fixed64 | WireType::Bytes | WireType::Fixed32 => self.skip(head)?,
            }
        }
    }

    /// Goes past the value of a field.
    #[inline]
    pub(crate) fn skip(&mut self, head: Head) -> Fallible {
        match head.wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.fixed64().map(drop),
            WireType::Bytes => self.bytes().map(drop),
            WireType::Fixed32 => self.fixed32().map(drop),
            WireType::StartGroup => self.group(head.number).map(drop),
            WireType::EndGroup => Err(Fault::wire("a group ends that did not begin")),
        }
    }

    /// True if the value that comes next is the zero of its kind.
    #[inline]
    pub(crate) fn zero_next(&self, kind: Kind) -> bool {
        let mut ahead = *self;
        match kind.wire_type() {
            WireType::Varint => match ahead.varint() {
                Ok(value) if matches!(kind, Kind::Bool | Kind::Int64 | Kind::Uint64 | Kind::Sint64) => value == 0,
                Ok(value) => value as u32 == 0,
                Err(_) => false,
            },
            WireType::Fixed64 => ahead.fixed64().is_ok_and(|value| value == 0),
            WireType::Fixed32 => ahead.fixed32().is_ok_and(|value| value == 0),
            WireType::Bytes => ahead.bytes().is_ok_and(<[u8]>::is_empty),
            WireType::StartGroup | WireType::EndGroup => false,
        }
    }
}

#[cold]
pub(crate) fn too_deep() -> Box<Fault> {
    Fault::new(ErrorKind::TooDeep, 0, "nested deeper than 100 levels")
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let mut bytes = [0u8; 10];
    let mut length = 0;
    for byte in &mut bytes {
        *byte = value as u8 | 0x80;
        length += 1;
        value >>= 7;
        if value == 0 {
            *byte &= 0x7f;
            break;
        }
    }
    out.extend_from_slice(&bytes[..length]);
}

/// Appends a field that a length stands in front of.
pub(crate) fn put_field(number: u32, value: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | u64::from(WireType::Bytes.code()), out);
    put_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// The last value of the field at a path of numbers, if it is one that a length stands in front of.
pub(crate) fn find_bytes<'a>(message: &'a [u8], path: &[u32]) -> Option<&'a [u8]> {
    let (number, inner) = path.split_first()?;
    let mut rest = Wire::new(message);
    let mut last = None;
    while let Ok(Some(head)) = rest.head() {
        if head.number == *number && head.wire_type == WireType::Bytes {
            let value = rest.bytes().ok()?;
            // What stands in pieces is merged: a later piece may not have the field.
            last = if inner.is_empty() { Some(value) } else { find_bytes(value, inner).or(last) };
        } else if rest.skip(head).is_err() {
            return last;
        }
    }
    last
}

/// How many bytes a length takes.
#[inline]
pub(crate) fn varint_width(value: usize) -> usize {
    (64 - (value as u64 | 1).leading_zeros() as usize).div_ceil(7)
}

#[inline]
pub(crate) fn zigzag32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[inline]
pub(crate) fn zigzag64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_take_the_width_that_was_told() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            assert_eq!(out.len(), varint_width(value as usize), "{value}");
            let mut wire = Wire::new(&out);
            assert_eq!((wire.varint().unwrap(), wire.rest.len()), (value, 0));
        }
    }

    #[test]
    fn numbers_that_do_not_end_are_refused() {
        for bad in [&[0x80u8][..], &[0xff; 10], &[0xff; 11], &[0x80, 0x80]] {
            assert!(Wire::new(bad).varint().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_group_ends_with_its_own_number() {
        let body = [0x08, 0x01, 0x13, 0x14, 0x0c];
        let mut wire = Wire::new(&body);
        assert_eq!(wire.group(1).unwrap(), &body[..4]);
        assert!(Wire::new(&[0x14]).group(1).is_err());
        assert!(Wire::new(&[0x13, 0x0c]).group(1).is_err());
        assert!(Wire::new(&[0x0b; 200]).group(1).is_err());
    }
}
