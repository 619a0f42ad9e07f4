//! From JSON to the wire, in one pass: a field is written when its key is read.
//!
//! The length of a nested message stands in front of it and is known only behind it: room of one byte, or of what the
//! sibling before needed, is left open, filled in afterwards, and the message is moved where the guess was wrong.
//!
//! Memory: the output, which is not longer than a small multiple of the text and which `max_bytes` bounds; 16 bytes for
//! each key of the maps, `Struct`s and unknown objects that are open.

mod keys;
mod known;
mod number;
mod scan;
mod value;

use keys::Key;
use scan::{Next, Raw, Scan};

use crate::{
    ParseOptions,
    error::{ErrorKind, Fallible, Fault},
    names,
    print::too_long,
    schema::{Field, Kind, Message, Shape, Tables, Tag},
    seen::Seen,
    text::quote,
    wire::{put_varint, varint_width},
};

/// Appends the encoding of a message given as JSON.
pub(crate) fn parse(tables: &Tables, message: u32, text: &[u8], options: &ParseOptions, out: &mut Vec<u8>) -> Fallible {
    if let Err(error) = simdutf8::compat::from_utf8(text) {
        return Err(Fault::new(ErrorKind::Utf8, error.valid_up_to(), "the text is not UTF-8"));
    }
    let start = out.len();
    let limit = start.saturating_add(options.max_bytes);
    out.reserve((text.len() / 2).min(options.max_bytes));
    let mut parser = Parser { tables, options, scan: Scan::new(text), out, limit, keys: Vec::new() };
    let result = parser.whole(message);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends a field whose value is the whole text.
pub(crate) fn parse_field(
    tables: &Tables,
    field: &Field,
    text: &[u8],
    options: &ParseOptions,
    out: &mut Vec<u8>,
) -> Fallible {
    if let Err(error) = simdutf8::compat::from_utf8(text) {
        return Err(Fault::new(ErrorKind::Utf8, error.valid_up_to(), "the text is not UTF-8"));
    }
    let start = out.len();
    let limit = start.saturating_add(options.max_bytes);
    let mut parser = Parser { tables, options, scan: Scan::new(text), out, limit, keys: Vec::new() };
    let result = parser.member(field, &mut Seen::default(), 0, 0).map_err(|fault| fault.under(&field.name));
    let result = result.and_then(|()| parser.end());
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// The keys of an object with the texts of their values; none if the text is no object. The text must be JSON, which whoever
/// parsed it has found out.
pub(crate) fn keys_of(text: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    let mut scan = Scan::new(text);
    let mut next = if scan.peek() == b'{' { scan.open(b'}', 0).ok() } else { None };
    std::iter::from_fn(move || {
        if next? != Next::More {
            return None;
        }
        let key = scan.key().ok()?.unescape().ok()?;
        let value = scan.pass()?;
        next = scan.next(b'}').ok();
        Some((String::from_utf8(key.into_owned()).ok()?, value))
    })
}

/// Appends a field, or one element of a list, whose value stands in a path or a query.
pub(crate) fn parse_text(tables: &Tables, field: &Field, text: &str, out: &mut Vec<u8>) -> Fallible {
    let mut json = Vec::with_capacity(text.len() + 2);
    let text = if value::is_integer(tables, field.kind) { decimal(text)? } else { text };
    if value::is_bare(tables, field.kind, text.as_bytes()) {
        json.extend_from_slice(text.as_bytes());
    } else {
        quote(text, &mut json);
    }
    let options = ParseOptions::default();
    let start = out.len();
    let mut parser =
        Parser { tables, options: &options, scan: Scan::new(&json), out, limit: usize::MAX, keys: Vec::new() };
    let presence = field.shape != Shape::One { presence: false };
    let result = parser.one(field, presence, 0).and_then(|()| parser.end());
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// An integer as people write one: digits in base 10, zeros in front or not. JSON's own ways to write one, `1e2` and `1.0`, are
/// not taken for it where no JSON is.
fn decimal(text: &str) -> Fallible<&str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new(ErrorKind::BadFormat, 0, "expected an integer in base 10"));
    }
    // Zeros in front are only passed over where no sign would be lost.
    let zeros = text.bytes().take_while(|byte| *byte == b'0').count();
    Ok(&text[zeros.min(text.len() - 1)..])
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

/// Room for a length that is not yet known.
struct Gap {
    at: usize,
    width: usize,
}

impl<'a> Parser<'a> {
    fn whole(&mut self, message: u32) -> Fallible {
        self.message(message, 0)?;
        self.end()
    }

    fn end(&mut self) -> Fallible {
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
                return Err(absent(self.scan.at).under(&message.fields[usize::from(*index)].name));
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
            self.scan.word("null")?;
            return if field.required { Err(absent(start)) } else { Ok(()) };
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

    #[inline]
    fn room(&self) -> Fallible {
        if self.out.len() > self.limit { Err(too_long()) } else { Ok(()) }
    }

    #[cold]
    fn wrong_type(&mut self, expected: &str) -> Box<Fault> {
        self.scan.wrong_type(expected)
    }
}

#[cold]
fn absent(at: usize) -> Box<Fault> {
    Fault::new(ErrorKind::Required, at, "a required field is absent")
}

#[cold]
fn under_key(fault: Box<Fault>, raw: &Raw<'_>) -> Box<Fault> {
    fault.under(&String::from_utf8_lossy(&raw.unescape().unwrap_or_default()))
}
