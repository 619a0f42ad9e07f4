//! From JSON to the wire, in one pass: a field is written when its key is read.
//!
//! The length of a nested message stands in front of it and is known only behind it: room of one byte, or of what the
//! sibling before needed, is left open, filled in afterwards, and the message is moved where the guess was wrong.
//!
//! Memory: the output, which is not longer than a small multiple of the text and which `max_bytes` bounds; 16 bytes for
//! each key of the maps, `Struct`s and unknown objects that are open.

mod known;
mod number;
mod scan;

use std::{borrow::Cow, str::FromStr};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use scan::{Next, Raw, Scan};

use crate::{
    ParseOptions,
    error::{ErrorKind, Fallible, Fault},
    names,
    print::too_long,
    schema::{Field, Kind, Message, Shape, Tables, Tag, WireType},
    seen::Seen,
    wire::{put_varint, varint_width},
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Appends the encoding of a message given as JSON.
pub(crate) fn parse(tables: &Tables, message: u32, text: &[u8], options: &ParseOptions, out: &mut Vec<u8>) -> Fallible {
    if let Err(error) = simdutf8::compat::from_utf8(text) {
        return Err(Fault::new(ErrorKind::Utf8, error.valid_up_to(), "the text is not UTF-8"));
    }
    let start = out.len();
    let limit = start.saturating_add(options.max_bytes);
    let mut parser = Parser { tables, options, scan: Scan::new(text), out, limit, keys: Vec::new() };
    let result = parser.whole(message);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

struct Parser<'a> {
    tables: &'a Tables,
    options: &'a ParseOptions,
    scan: Scan<'a>,
    out: &'a mut Vec<u8>,
    limit: usize,
    /// Keys of open objects that are no field names, those of the innermost last.
    keys: Vec<Key>,
}

struct Key {
    hash: u64,
    at: usize,
}

/// Room for a length that is not yet known.
struct Gap {
    at: usize,
    width: usize,
}

impl<'a> Parser<'a> {
    fn whole(&mut self, message: u32) -> Fallible {
        self.message(message, 0)?;
        if self.scan.peek() == 0 && self.scan.at >= self.scan.text.len() {
            return Ok(());
        }
        Err(self.scan.fault("text after the value"))
    }

    /// The fields of a message, without a length in front; `depth` is how many brackets are open.
    fn message(&mut self, index: u32, depth: usize) -> Fallible {
        let tables = self.tables;
        let message = &tables.messages[index as usize];
        match message.known {
            Some(known) => self.known(known, message, depth),
            None => self.members(message, depth, None),
        }
    }

    /// An object whose keys are fields, but for one key that somebody else has read.
    fn members(&mut self, message: &Message, depth: usize, but: Option<&[u8]>) -> Fallible {
        if self.scan.peek() != b'{' {
            return Err(self.wrong_type("an object"));
        }
        let mut seen = Seen::default();
        let mut guess = 0;
        let base = self.keys.len();
        let mut next = self.scan.open(b'}', depth)?;
        while next == Next::More {
            self.scan.peek();
            let start = self.scan.at;
            match self.field_key(message, guess, but)? {
                Some(field) => {
                    guess = usize::from(field.index) + 1;
                    self.member(field, &mut seen, start, depth).map_err(|fault| fault.under(&field.name))?;
                }
                None => self.skip(depth + 1)?,
            }
            self.room()?;
            next = self.scan.next(b'}')?;
        }
        if self.keys.len() > base {
            self.unique_texts(base)?;
        }
        for index in &message.required {
            if !seen.contains(*index) {
                return Err(self.missing(&message.fields[usize::from(*index)].name));
            }
        }
        Ok(())
    }

    /// The field of the next key; none for a key to be passed over.
    #[inline]
    fn field_key<'m>(&mut self, message: &'m Message, guess: usize, but: Option<&[u8]>) -> Fallible<Option<&'m Field>> {
        // Whoever writes objects writes them in one order, most often the schema's, and without blanks before colons.
        if let Some(field) = message.fields.get(guess)
            && self.scan.rest().starts_with(&field.json_key[1..])
        {
            self.scan.at += field.json_key.len() - 1;
            return Ok(Some(field));
        }
        let at = self.scan.at;
        let raw = self.scan.key()?;
        let key = raw.unescape()?;
        if let Some(field) = message.by_name(&key)
            && but.is_none_or(|but| but != &*key)
        {
            return Ok(Some(field));
        }
        self.keys.push(Key { hash: names::hash_all(&key), at });
        if but.is_some_and(|but| but == &*key) || self.options.ignore_unknown {
            return Ok(None);
        }
        let key = String::from_utf8_lossy(&key);
        let reason = format!("{} has no field of this name", message.name);
        Err(Fault::new(ErrorKind::UnknownField, at, reason).under(&key))
    }

    fn member(&mut self, field: &Field, seen: &mut Seen, start: usize, depth: usize) -> Fallible {
        if !seen.insert(field.index) {
            return Err(Fault::new(ErrorKind::DuplicateKey, start, "the key is given twice"));
        }
        if self.scan.peek() == b'n' && !self.takes_null(field) {
            return self.scan.word("null");
        }
        if field.in_oneof && !seen.insert(field.slot) {
            return Err(Fault::new(ErrorKind::DuplicateOneof, start, "another field of the same oneof is given"));
        }
        match field.shape {
            Shape::One { presence } => self.one(field, presence, depth + 1),
            Shape::Many { packed } => self.list(field, packed, depth + 1),
            Shape::Map { key, value } => self.map(field, (key, value), depth + 1),
        }
    }

    /// `null` is no value, except for the two types that have it as one.
    fn takes_null(&self, field: &Field) -> bool {
        matches!(field.shape, Shape::One { .. }) && self.null_is_value(field.kind)
    }

    fn null_is_value(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(index) => self.tables.messages[index as usize].is_value(),
            Kind::Enum(index) => self.tables.enums[index as usize].null,
            _ => false,
        }
    }

    fn one(&mut self, field: &Field, presence: bool, depth: usize) -> Fallible {
        let start = self.out.len();
        self.out.extend_from_slice(field.tag.as_bytes());
        let value = self.out.len();
        let written = self.value(field.kind, field.number, &mut 1, depth)?;
        // A zero is one byte of a varint, one of a length, or all bytes of a fixed width.
        let zero = || self.out.len() - value <= 8 && self.out[value..].iter().all(|byte| *byte == 0);
        if !written || (!presence && zero()) {
            self.out.truncate(start);
        }
        Ok(())
    }

    fn list(&mut self, field: &Field, packed: bool, depth: usize) -> Fallible {
        if self.scan.peek() != b'[' {
            return Err(self.wrong_type("a list"));
        }
        let mut next = self.scan.open(b']', depth)?;
        if next == Next::End {
            return Ok(());
        }
        let start = self.out.len();
        let gap = packed.then(|| {
            self.out.extend_from_slice(field.list_tag.as_bytes());
            self.leave(1)
        });
        let first = self.out.len();
        let mut index = 0;
        let mut width = 1;
        while next == Next::More {
            let start = self.out.len();
            if !packed {
                self.out.extend_from_slice(field.tag.as_bytes());
            }
            let written = self.element(field, &mut width, depth + 1).map_err(|fault| fault.at_index(index))?;
            if !written {
                self.out.truncate(start);
            }
            index += 1;
            self.room()?;
            next = self.scan.next(b']')?;
        }
        match gap {
            Some(_) if self.out.len() == first => self.out.truncate(start),
            Some(gap) => drop(self.fill(gap)),
            None => {}
        }
        Ok(())
    }

    #[inline]
    fn element(&mut self, field: &Field, width: &mut usize, depth: usize) -> Fallible<bool> {
        if self.scan.peek() == b'n' && !self.null_is_value(field.kind) {
            return Err(self.wrong_type("a value"));
        }
        self.value(field.kind, field.number, width, depth)
    }

    fn map(&mut self, field: &Field, (key, value): (Kind, Kind), depth: usize) -> Fallible {
        if self.scan.peek() != b'{' {
            return Err(self.wrong_type("an object"));
        }
        let base = self.keys.len();
        let mut next = self.scan.open(b'}', depth)?;
        let mut widths = (1, 1);
        while next == Next::More {
            self.scan.peek();
            let at = self.scan.at;
            let raw = self.scan.key()?;
            let start = self.out.len();
            self.out.extend_from_slice(field.tag.as_bytes());
            let gap = self.leave(widths.0);
            let hash = self.map_key(key, &raw)?;
            self.keys.push(Key { hash, at });
            let written = self.map_value(value, &mut widths.1, depth + 1).map_err(|fault| under_key(fault, &raw))?;
            widths.0 = self.fill(gap);
            if !written {
                self.out.truncate(start);
            }
            self.room()?;
            next = self.scan.next(b'}')?;
        }
        if key == Kind::String { self.unique_texts(base) } else { self.unique_numbers(base) }
    }

    fn map_value(&mut self, kind: Kind, width: &mut usize, depth: usize) -> Fallible<bool> {
        self.out.extend_from_slice(Tag::new(2, kind.wire_type()).as_bytes());
        if self.scan.peek() == b'n' && !self.null_is_value(kind) {
            return Err(self.wrong_type("a value"));
        }
        self.value(kind, 2, width, depth)
    }

    /// Writes a key as the first field of an entry, and returns a number that is the same for equal keys.
    fn map_key(&mut self, kind: Kind, raw: &Raw<'a>) -> Fallible<u64> {
        self.out.extend_from_slice(Tag::new(1, kind.wire_type()).as_bytes());
        let bad = |()| Fault::new(ErrorKind::BadFormat, raw.start - 1, format!("the key is no {}", kind.name()));
        if kind == Kind::String {
            self.put_string(raw)?;
            return Ok(names::hash_all(&raw.unescape()?));
        }
        if kind == Kind::Bool {
            let value = match &*raw.unescape()? {
                b"true" => 1,
                b"false" => 0,
                _ => return Err(bad(())),
            };
            self.out.push(value);
            return Ok(value.into());
        }
        let number = number::quoted(raw).map_err(|_| bad(()))?;
        self.put_integer(kind, number, raw.start - 1)?;
        Ok(number as u64)
    }

    /// A value without its tag; false if it was passed over, which only options allow.
    fn value(&mut self, kind: Kind, number: u32, width: &mut usize, depth: usize) -> Fallible<bool> {
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
    fn put_integer(&mut self, kind: Kind, value: i128, at: usize) -> Fallible {
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

    /// A string with its length in front.
    #[inline]
    fn put_string(&mut self, raw: &Raw<'a>) -> Fallible {
        if !raw.escaped {
            put_varint(raw.text.len() as u64, self.out);
            self.out.extend_from_slice(raw.text);
            return Ok(());
        }
        let gap = self.leave(varint_width(raw.text.len()));
        raw.append_to(self.out)?;
        self.fill(gap);
        Ok(())
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

    #[inline]
    fn leave(&mut self, width: usize) -> Gap {
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 10][..width]);
        Gap { at, width }
    }

    /// Puts the length of what stands behind the gap into it; tells how wide it is.
    #[inline]
    fn fill(&mut self, gap: Gap) -> usize {
        let length = self.out.len() - gap.at - gap.width;
        let width = varint_width(length);
        if width != gap.width {
            self.widen(&gap, width);
        }
        let mut rest = length;
        for byte in &mut self.out[gap.at..gap.at + width] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.out[gap.at + width - 1] &= 0x7f;
        width
    }

    fn widen(&mut self, gap: &Gap, width: usize) {
        let from = gap.at + gap.width;
        let length = self.out.len() - from;
        if width > gap.width {
            self.out.resize(self.out.len() + width - gap.width, 0);
        }
        self.out.copy_within(from..from + length, gap.at + width);
        self.out.truncate(gap.at + width + length);
    }

    /// Passes over a value of an unknown field, by the same grammar as one that counts.
    fn skip(&mut self, depth: usize) -> Fallible {
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
    fn unique_texts(&mut self, base: usize) -> Fallible {
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
    fn unique_numbers(&mut self, base: usize) -> Fallible {
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

    #[inline]
    fn room(&self) -> Fallible {
        if self.out.len() > self.limit { Err(too_long()) } else { Ok(()) }
    }

    #[cold]
    fn wrong_type(&mut self, expected: &str) -> Box<Fault> {
        self.scan.wrong_type(expected)
    }

    #[cold]
    fn missing(&self, name: &str) -> Box<Fault> {
        Fault::new(ErrorKind::Required, self.scan.at, "a required field is absent").under(name)
    }
}

fn number_of<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cold]
fn key_twice(key: &Key, name: &[u8]) -> Box<Fault> {
    Fault::new(ErrorKind::DuplicateKey, key.at, "the key is given twice").under(&String::from_utf8_lossy(name))
}

#[cold]
fn under_key(fault: Box<Fault>, raw: &Raw<'_>) -> Box<Fault> {
    fault.under(&String::from_utf8_lossy(&raw.unescape().unwrap_or_default()))
}
