//! The values that are not objects or lists: numbers, strings, base64, names of enum values.

use std::{borrow::Cow, str::FromStr};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{Parser, number};
use crate::{
    error::{ErrorKind, Fallible, Fault},
    known::Known,
    schema::{Kind, Tables, Tag, WireType},
    wire::{put_varint, varint_width},
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// True if a text stands in JSON without quotes: booleans, and the numbers of enums.
pub(super) fn is_bare(tables: &Tables, kind: Kind, text: &[u8]) -> bool {
    match kind {
        Kind::Bool => matches!(text, b"true" | b"false"),
        Kind::Enum(_) => number::is_number(text),
        Kind::Message(index) => {
            let wrapped = tables.messages[index as usize].by_number(1).map(|field| field.kind);
            wrapped == Some(Kind::Bool) && is_bare(tables, Kind::Bool, text)
        }
        _ => false,
    }
}

/// True for the kinds of integers, and for the messages that wrap one.
pub(super) fn is_integer(tables: &Tables, kind: Kind) -> bool {
    match kind {
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64 => true,
        Kind::Message(index) => {
            let message = &tables.messages[index as usize];
            let wrapped = message.by_number(1).filter(|_| message.known == Some(Known::Wrapper));
            wrapped.is_some_and(|field| is_integer(tables, field.kind))
        }
        Kind::Double | Kind::Float | Kind::Bool | Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Group(_) => false,
    }
}

impl<'a> Parser<'a> {
    /// A value without its tag; false if it was passed over, which only options allow.
    pub(super) fn value(&mut self, kind: Kind, number: u32, width: &mut usize, depth: usize) -> Fallible<bool> {
        match kind {
            Kind::String => {
                if self.scan.peek() != b'"' {
                    return Err(self.wrong_type("a string"));
                }
                let raw = self.scan.string()?;
                self.put_string(&raw)?;
            }
            Kind::Message(index) => {
                let gap = self.leave(*width);
                self.message(index, depth)?;
                *width = self.fill(gap);
            }
            Kind::Group(index) => {
                self.message(index, depth)?;
                self.out.extend_from_slice(Tag::new(number, WireType::EndGroup).as_bytes());
            }
            Kind::Bool => {
                let value = match self.scan.peek() {
                    b't' => self.scan.word("true").map(|()| 1)?,
                    b'f' => self.scan.word("false").map(|()| 0)?,
                    _ => return Err(self.wrong_type("a boolean")),
                };
                self.out.push(value);
            }
            Kind::Double => {
                let value: f64 = self.float()?;
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Float => {
                let value: f32 = self.float()?;
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Kind::Bytes => self.base64()?,
            Kind::Enum(index) => return self.enum_value(index),
            Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64 => {
                self.scan.peek();
                let at = self.scan.at;
                let value = number::integer(&mut self.scan)?;
                self.put_integer(kind, value, at)?;
            }
        }
        Ok(true)
    }

    #[inline]
    pub(super) fn put_integer(&mut self, kind: Kind, value: i128, at: usize) -> Fallible {
        let out = &mut *self.out;
        let done = match kind {
            Kind::Int32 => i32::try_from(value).map(|value| put_varint(i64::from(value) as u64, out)),
            Kind::Int64 => i64::try_from(value).map(|value| put_varint(value as u64, out)),
            Kind::Uint32 => u32::try_from(value).map(|value| put_varint(value.into(), out)),
            Kind::Uint64 => u64::try_from(value).map(|value| put_varint(value, out)),
            Kind::Sint32 => {
                i32::try_from(value).map(|value| put_varint(((value << 1) ^ (value >> 31)) as u32 as u64, out))
            }
            Kind::Sint64 => i64::try_from(value).map(|value| put_varint(((value << 1) ^ (value >> 63)) as u64, out)),
            Kind::Fixed32 => u32::try_from(value).map(|value| out.extend_from_slice(&value.to_le_bytes())),
            Kind::Fixed64 => u64::try_from(value).map(|value| out.extend_from_slice(&value.to_le_bytes())),
            Kind::Sfixed32 => i32::try_from(value).map(|value| out.extend_from_slice(&value.to_le_bytes())),
            _ => i64::try_from(value).map(|value| out.extend_from_slice(&value.to_le_bytes())),
        };
        done.map_err(|_| Fault::new(ErrorKind::OutOfRange, at, format!("the number does not fit {}", kind.name())))
    }

    fn float<T: FromStr + Into<f64> + Copy>(&mut self) -> Fallible<T> {
        let next = self.scan.peek();
        let at = self.scan.at;
        let text = match next {
            b'"' => {
                let raw = self.scan.string()?;
                let text = raw.unescape()?;
                if let b"NaN" | b"Infinity" | b"-Infinity" = &*text {
                    return number_of(&text).ok_or_else(|| self.scan.fault("no number"));
                }
                if !number::is_number(&text) {
                    return Err(Fault::new(ErrorKind::BadFormat, at, "the string is not a number"));
                }
                text
            }
            b'-' | b'0'..=b'9' => Cow::Borrowed(self.scan.number()?),
            _ => return Err(self.wrong_type("a number")),
        };
        let value: Option<T> = number_of(&text);
        let value = value.filter(|value| (*value).into().is_finite());
        value.ok_or_else(|| Fault::new(ErrorKind::OutOfRange, at, "the number is too large"))
    }

    /// Either alphabet, padded or not.
    fn base64(&mut self) -> Fallible {
        if self.scan.peek() != b'"' {
            return Err(self.wrong_type("a string of base64"));
        }
        let raw = self.scan.string()?;
        let text = raw.unescape()?;
        let url_safe = memchr::memchr2(b'-', b'_', &text).is_some();
        let engine = if url_safe { &URL_SAFE } else { &STANDARD };
        let room = text.len().div_ceil(4) * 3;
        let gap = self.leave(varint_width(text.len() / 4 * 3));
        let start = self.out.len();
        self.out.resize(start + room, 0);
        let length = engine
            .decode_slice(&*text, &mut self.out[start..])
            .map_err(|_| Fault::new(ErrorKind::BadFormat, raw.start - 1, "the string is not base64"))?;
        self.out.truncate(start + length);
        self.fill(gap);
        Ok(())
    }

    fn enum_value(&mut self, index: u32) -> Fallible<bool> {
        let tables = self.tables;
        let kind = &tables.enums[index as usize];
        let next = self.scan.peek();
        let at = self.scan.at;
        let number = match next {
            b'"' => {
                let raw = self.scan.string()?;
                let name = raw.unescape()?;
                match kind.number(&name) {
                    Some(number) => number,
                    None if self.options.ignore_unknown => return Ok(false),
                    None => {
                        let reason = format!("`{}` is no value of the enum", String::from_utf8_lossy(&name));
                        return Err(Fault::new(ErrorKind::UnknownEnumValue, at, reason));
                    }
                }
            }
            b'n' if kind.null => self.scan.word("null").map(|()| 0)?,
            b'-' | b'0'..=b'9' => {
                let number = number::integer(&mut self.scan)?;
                i32::try_from(number)
                    .map_err(|_| Fault::new(ErrorKind::OutOfRange, at, "the number does not fit an enum"))?
            }
            _ => return Err(self.wrong_type("the name of an enum's value")),
        };
        put_varint(i64::from(number) as u64, self.out);
        Ok(true)
    }
}

fn number_of<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
