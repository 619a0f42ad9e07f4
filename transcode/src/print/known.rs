//! The well-known types on their way to JSON. Each reads all pieces of its message, so duplicates need no second walk
//! except where values are merged.

use super::{Parts, Printer, gathered::last_pieces};
use crate::{
    MAX_DEPTH,
    error::{ErrorKind, Fallible, Fault},
    known::Known,
    schema::{Kind, Message, Shape, WireType},
    text::quote_wire,
    time,
    wire::{Head, Wire, too_deep},
};

impl<'a> Printer<'a> {
    pub(super) fn known(&mut self, known: Known, message: &Message, parts: Parts<'_, 'a>, depth: usize) -> Fallible {
        match known {
            Known::Timestamp => {
                let (seconds, nanos) = seconds_and_nanos(parts)?;
                if time::put_timestamp(seconds, nanos, self.out) {
                    return Ok(());
                }
                Err(no_json("a timestamp outside the years 1 to 9999, or with nanos outside 0 to 999,999,999"))
            }
            Known::Duration => {
                let (seconds, nanos) = seconds_and_nanos(parts)?;
                if time::put_duration(seconds, nanos, self.out) {
                    return Ok(());
                }
                Err(no_json("a duration of more than 10,000 years, or with seconds and nanos of different signs"))
            }
            Known::FieldMask => self.field_mask(parts),
            Known::Any => self.any(parts, depth),
            Known::Wrapper => self.wrapper(message, parts, depth),
            Known::Struct => self.only_field(message, parts, b"{}", depth),
            Known::ListValue => self.only_field(message, parts, b"[]", depth),
            Known::Value => self.dynamic(message, parts, depth),
        }
    }

    fn field_mask(&mut self, parts: Parts<'_, 'a>) -> Fallible {
        self.out.push(b'"');
        let empty = self.out.len();
        each(parts, |head, mut wire| {
            if head != (Head { number: 1, wire_type: WireType::Bytes }) {
                return Ok(());
            }
            if self.out.len() > empty {
                self.out.push(b',');
            }
            self.mask_path(wire.bytes()?)?;
            self.room()
        })?;
        self.out.push(b'"');
        Ok(())
    }

    /// `shipping_address.city` as `shippingAddress.city`; refused if it would not come back the same.
    fn mask_path(&mut self, path: &[u8]) -> Fallible {
        let mut rest = path;
        while let [byte, more @ ..] = rest {
            rest = more;
            let letter = match (byte, more) {
                (b'_', [letter @ b'a'..=b'z', more @ ..]) => {
                    rest = more;
                    letter.to_ascii_uppercase()
                }
                (b'a'..=b'z' | b'0'..=b'9' | b'.', _) => *byte,
                _ => return Err(no_json("a field mask's path that is not in lower snake case")),
            };
            self.out.push(letter);
        }
        Ok(())
    }

    fn any(&mut self, parts: Parts<'_, 'a>, depth: usize) -> Fallible {
        let (mut url, mut value): (&[u8], &[u8]) = (&[], &[]);
        each(parts, |head, mut wire| {
            match head {
                Head { number: 1, wire_type: WireType::Bytes } => url = wire.bytes()?,
                Head { number: 2, wire_type: WireType::Bytes } => value = wire.bytes()?,
                Head { .. } => {}
            }
            Ok(())
        })?;
        if url.is_empty() && value.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let Some(index) = self.tables.resolve(url) else {
            let url = String::from_utf8_lossy(url);
            return Err(Fault::new(ErrorKind::UnknownType, 0, format!("the type `{url}` is not in the schema")));
        };
        self.out.extend_from_slice(b"{\"@type\":");
        quote_wire(url, self.out)?;
        let tables = self.tables;
        let message = &tables.messages[index as usize];
        if message.known.is_some() || message.is_empty_known() {
            self.out.extend_from_slice(b",\"value\":");
            self.message(index, &[value], depth + 1)?;
        } else if depth + 1 >= MAX_DEPTH {
            return Err(too_deep());
        } else {
            self.members(message, &[value], false, depth + 1)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn wrapper(&mut self, message: &Message, parts: Parts<'_, 'a>, depth: usize) -> Fallible {
        let Some(field) = message.by_number(1) else { return Ok(()) };
        let mut last = None;
        each(parts, |head, wire| {
            if head.number == 1 && head.wire_type == field.kind.wire_type() {
                last = Some(wire);
            }
            Ok(())
        })?;
        match last {
            Some(mut wire) => self.value(field, &mut wire, depth),
            None => self.absent(field.kind, depth),
        }
    }

    /// A message that is written as its only field: an object or a list, also when it is empty.
    fn only_field(&mut self, message: &Message, parts: Parts<'_, 'a>, empty: &[u8], depth: usize) -> Fallible {
        let Some(field) = message.by_number(1) else { return Ok(()) };
        if self.gathers {
            let occurrences = self.gather(message, parts)?;
            return self.gathered_many(field, &occurrences, depth).map(drop);
        }
        let start = self.out.len();
        for part in parts {
            let mut wire = Wire::new(part);
            while let Some(head) = wire.head()? {
                if self.known_field(message, head, &wire).is_none() {
                    wire.skip(head)?;
                    continue;
                }
                if self.out.len() > start {
                    return Err(self.begin_anew());
                }
                match field.shape {
                    Shape::Map { key, value } => self.bare_map(field, (key, value), &mut wire, depth)?,
                    Shape::One { .. } | Shape::Many { .. } => self.bare_list(field, head, &mut wire, depth)?,
                };
            }
        }
        if self.out.len() == start {
            self.out.extend_from_slice(empty);
        }
        Ok(())
    }

    /// `google.protobuf.Value`: any JSON.
    fn dynamic(&mut self, message: &Message, parts: Parts<'_, 'a>, depth: usize) -> Fallible {
        if self.gathers {
            let occurrences = self.gather(message, parts)?;
            let Some(last) = occurrences.last() else { return Err(no_kind()) };
            let field = last.field(message);
            if let (Kind::Double, Some(last)) = (field.kind, last_pieces(&occurrences).next_back()) {
                finite(last)?;
            }
            return self.merged(field.kind, field.number, last_pieces(&occurrences), depth);
        }
        let mut met = false;
        for part in parts {
            let mut wire = Wire::new(part);
            while let Some(head) = wire.head()? {
                let Some(field) = self.known_field(message, head, &wire) else {
                    wire.skip(head)?;
                    continue;
                };
                if std::mem::replace(&mut met, true) {
                    return Err(self.begin_anew());
                }
                if field.kind == Kind::Double {
                    finite(wire)?;
                }
                self.value(field, &mut wire, depth)?;
            }
        }
        if met { Ok(()) } else { Err(no_kind()) }
    }
}

/// Refuses the numbers that JSON does not have.
fn finite(mut wire: Wire<'_>) -> Fallible {
    if f64::from_bits(wire.fixed64()?).is_finite() {
        return Ok(());
    }
    Err(no_json("a google.protobuf.Value holds a number that is none"))
}

/// Calls with every field of all pieces.
fn each<'a>(parts: Parts<'_, 'a>, mut visit: impl FnMut(Head, Wire<'a>) -> Fallible) -> Fallible {
    for part in parts {
        let mut wire = Wire::new(part);
        while let Some(head) = wire.head()? {
            visit(head, wire)?;
            wire.skip(head)?;
        }
    }
    Ok(())
}

fn seconds_and_nanos(parts: Parts<'_, '_>) -> Fallible<(i64, i32)> {
    let (mut seconds, mut nanos) = (0, 0);
    each(parts, |head, mut wire| {
        match head {
            Head { number: 1, wire_type: WireType::Varint } => seconds = wire.varint()? as i64,
            Head { number: 2, wire_type: WireType::Varint } => nanos = wire.varint()? as i32,
            Head { .. } => {}
        }
        Ok(())
    })?;
    Ok((seconds, nanos))
}

#[cold]
fn no_json(reason: &'static str) -> Box<Fault> {
    Fault::new(ErrorKind::NoJson, 0, reason)
}

#[cold]
fn no_kind() -> Box<Fault> {
    no_json("a google.protobuf.Value holds nothing")
}
