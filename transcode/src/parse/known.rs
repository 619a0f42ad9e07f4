//! The well-known types on their way from JSON.

use super::{
    Parser,
    scan::{Next, Raw},
};
use crate::{
    error::{ErrorKind, Fallible, Fault},
    known::Known,
    schema::{Message, Shape},
    time,
    wire::put_varint,
};

const TYPE: &[u8] = b"@type";

impl<'a> Parser<'a> {
    pub(super) fn known(&mut self, known: Known, message: &Message, depth: usize) -> Fallible {
        match known {
            Known::Timestamp => self.seconds_and_nanos(time::timestamp, "a timestamp, like 2026-11-30T04:05:06.789Z"),
            Known::Duration => self.seconds_and_nanos(time::duration, "a duration, like 1.5s"),
            Known::FieldMask => self.field_mask(),
            Known::Any => self.any(depth),
            Known::Value => self.dynamic(message, depth),
            Known::Wrapper | Known::Struct | Known::ListValue => self.only_field(message, depth),
        }
    }

    fn quoted(&mut self, expected: &str) -> Fallible<Raw<'a>> {
        if self.scan.peek() != b'"' {
            return Err(self.wrong_type(expected));
        }
        self.scan.string()
    }

    fn seconds_and_nanos(&mut self, read: fn(&[u8]) -> Option<(i64, i32)>, expected: &str) -> Fallible {
        let raw = self.quoted(expected)?;
        let Some((seconds, nanos)) = read(&raw.unescape()?) else {
            return Err(Fault::new(ErrorKind::BadFormat, raw.start - 1, format!("the string is not {expected}")));
        };
        for (tag, value) in [(0x08, seconds), (0x10, i64::from(nanos))] {
            if value != 0 {
                self.out.push(tag);
                put_varint(value as u64, self.out);
            }
        }
        Ok(())
    }

    fn field_mask(&mut self) -> Fallible {
        let raw = self.quoted("a string of paths with commas")?;
        let text = raw.unescape()?;
        if text.is_empty() {
            return Ok(());
        }
        for path in text.split(|byte| *byte == b',') {
            self.out.push(0x0a);
            let gap = self.leave(1);
            for byte in path {
                match byte {
                    b'A'..=b'Z' => self.out.extend_from_slice(&[b'_', byte.to_ascii_lowercase()]),
                    b'a'..=b'z' | b'0'..=b'9' | b'.' => self.out.push(*byte),
                    _ => {
                        let reason = "a path of a field mask is not in lower camel case";
                        return Err(Fault::new(ErrorKind::BadFormat, raw.start - 1, reason));
                    }
                }
            }
            self.fill(gap);
            self.room()?;
        }
        Ok(())
    }

    /// A message that is written as the value of its only field.
    fn only_field(&mut self, message: &Message, depth: usize) -> Fallible {
        let Some(field) = message.by_number(1) else { return Ok(()) };
        match field.shape {
            Shape::One { presence } => self.one(field, presence, depth),
            Shape::Many { packed } => self.list(field, packed, depth),
            Shape::Map { key, value } => self.map(field, (key, value), depth),
        }
    }

    /// `google.protobuf.Value`: any JSON.
    fn dynamic(&mut self, message: &Message, depth: usize) -> Fallible {
        let number = match self.scan.peek() {
            b'n' => {
                self.scan.word("null")?;
                self.out.extend_from_slice(&[0x08, 0]);
                return Ok(());
            }
            b'"' => 3,
            b't' | b'f' => 4,
            b'{' => 5,
            b'[' => 6,
            b'-' | b'0'..=b'9' => 2,
            _ => return Err(self.scan.fault("expected a JSON value")),
        };
        let Some(field) = message.by_number(number) else { return Ok(()) };
        self.out.extend_from_slice(field.tag.as_bytes());
        self.value(field.kind, number, &mut 1, depth).map(drop)
    }

    fn any(&mut self, depth: usize) -> Fallible {
        if self.scan.peek() != b'{' {
            return Err(self.wrong_type("an object with `@type`"));
        }
        let start = self.scan.at;
        let Some(raw) = self.find_type(depth)? else { return Ok(()) };
        let url = raw.unescape()?;
        self.out.push(0x0a);
        put_varint(url.len() as u64, self.out);
        self.out.extend_from_slice(&url);
        let tables = self.tables;
        let Some(index) = tables.resolve(&url) else {
            let reason = format!("the type `{}` is not in the schema", String::from_utf8_lossy(&url));
            return Err(Fault::new(ErrorKind::UnknownType, raw.start - 1, reason).under("@type"));
        };
        self.scan.at = start;
        let before = self.out.len();
        self.out.push(0x12);
        let gap = self.leave(1);
        let content = self.out.len();
        let message = &tables.messages[index as usize];
        if message.known.is_some() || message.is_empty_known() {
            self.any_value(index, message, depth)?;
        } else {
            self.members(message, depth, Some(TYPE))?;
        }
        if self.out.len() == content {
            self.out.truncate(before);
        } else {
            self.fill(gap);
        }
        Ok(())
    }

    /// The string under `@type`, wherever in the object it stands; none for an empty object, which is then read. What
    /// is passed over on the way is read again by whoever knows what it is.
    fn find_type(&mut self, depth: usize) -> Fallible<Option<Raw<'a>>> {
        let start = self.scan.at;
        let keys = self.keys.len();
        let mut next = self.scan.open(b'}', depth)?;
        if next == Next::End {
            return Ok(None);
        }
        while next == Next::More {
            if *self.scan.key()?.unescape()? == *TYPE {
                let raw = self.quoted("a string").map_err(|fault| fault.under("@type"))?;
                self.keys.truncate(keys);
                return Ok(Some(raw));
            }
            self.skip(depth + 1)?;
            next = self.scan.next(b'}')?;
        }
        Err(Fault::new(ErrorKind::BadFormat, start, "an Any without `@type`"))
    }

    /// The object around a well-known type, which stands under `value`.
    fn any_value(&mut self, index: u32, message: &Message, depth: usize) -> Fallible {
        let start = self.scan.at;
        let (mut typed, mut met) = (false, false);
        let mut next = self.scan.open(b'}', depth)?;
        while next == Next::More {
            self.scan.peek();
            let at = self.scan.at;
            let raw = self.scan.key()?;
            let key = raw.unescape()?;
            let again = match &*key {
                b"value" => std::mem::replace(&mut met, true),
                TYPE => std::mem::replace(&mut typed, true),
                _ => false,
            };
            let name = || String::from_utf8_lossy(&key).into_owned();
            if again {
                return Err(Fault::new(ErrorKind::DuplicateKey, at, "the key is given twice").under(&name()));
            }
            match &*key {
                b"value" => self.message(index, depth + 1).map_err(|fault| fault.under("value"))?,
                TYPE => self.skip(depth + 1)?,
                _ if self.options.ignore_unknown => self.skip(depth + 1)?,
                _ => {
                    let reason = format!("an Any of {} has the keys `@type` and `value`", message.name);
                    return Err(Fault::new(ErrorKind::UnknownField, at, reason).under(&name()));
                }
            }
            next = self.scan.next(b'}')?;
        }
        if met || message.is_empty_known() {
            return Ok(());
        }
        let reason = format!("an Any of {} has its content under `value`", message.name);
        Err(Fault::new(ErrorKind::BadFormat, start, reason))
    }
}
