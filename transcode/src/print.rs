//! From the wire to JSON, in one pass: a field is written when it is met.
//!
//! The wire may hold a field of a message in several places, while JSON has each key once. Encoders do not do that, so
//! the first walk trusts that they do not: it remembers which fields of each open message it has met, and when one
//! comes again it gives up, and the whole is begun anew by the walk of `gathered`, which collects the occurrences of a
//! message's fields first. A message is therefore walked at most twice.
//!
//! Memory: the output, which `max_bytes` bounds; a hash for each key of the maps that are open (eight bytes); in the
//! second walk 32 bytes for each field of the messages that are open, and about 200 for each key of their maps. A field
//! takes at least two bytes of input and a key four, so that is at most some fifty times the input, and none of it for
//! input as encoders write it.

mod gathered;
mod known;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    MAX_DEPTH, PrintOptions,
    error::{ErrorKind, Fallible, Fault},
    names,
    schema::{Enum, Field, Kind, Message, Shape, Tables, WireType},
    seen::Seen,
    text::{put_float, put_integer, quote, quote_wire},
    wire::{Head, Wire, too_deep, zigzag32, zigzag64},
};

/// Appends the JSON of a message.
pub(crate) fn print(tables: &Tables, message: u32, wire: &[u8], options: &PrintOptions, out: &mut Vec<u8>) -> Fallible {
    // Most answers need no more room than this.
    out.reserve(wire.len().saturating_mul(2).min(options.max_bytes));
    walk(tables, options, out, |printer| printer.message(message, &[wire], 0))
}

/// Appends the JSON of one field of a message, alone.
pub(crate) fn print_field(
    tables: &Tables,
    (message, field): (&Message, &Field),
    wire: &[u8],
    options: &PrintOptions,
    out: &mut Vec<u8>,
) -> Fallible {
    walk(tables, options, out, |printer| {
        printer.alone(message, field, wire).map_err(|fault| fault.under(&field.name))?;
        printer.room()
    })
}

/// Walks once, and once more if a field stood in several places.
fn walk<'a>(
    tables: &'a Tables,
    options: &'a PrintOptions,
    out: &'a mut Vec<u8>,
    visit: impl Fn(&mut Printer<'a>) -> Fallible,
) -> Fallible {
    let start = out.len();
    let limit = start.saturating_add(options.max_bytes);
    let mut printer = Printer { tables, options, out, limit, keys: Vec::new(), gathers: false, again: false };
    let mut result = visit(&mut printer);
    if printer.again {
        printer.out.truncate(start);
        printer.keys.clear();
        (printer.gathers, printer.again) = (true, false);
        result = visit(&mut printer);
    }
    if result.is_err() {
        printer.out.truncate(start);
    }
    result
}

struct Printer<'a> {
    tables: &'a Tables,
    options: &'a PrintOptions,
    out: &'a mut Vec<u8>,
    limit: usize,
    /// Hashes of the keys of open maps, those of the innermost last.
    keys: Vec<u64>,
    /// The second walk.
    gathers: bool,
    /// The first walk met a field again.
    again: bool,
}

/// A message on the wire: one piece, or the pieces that are to be merged, in their order.
type Parts<'p, 'a> = &'p [&'a [u8]];

impl<'a> Printer<'a> {
    fn message(&mut self, index: u32, parts: Parts<'_, 'a>, depth: usize) -> Fallible {
        if depth >= MAX_DEPTH {
            return Err(too_deep());
        }
        let tables = self.tables;
        let message = &tables.messages[index as usize];
        if let Some(known) = message.known {
            return self.known(known, message, parts, depth);
        }
        self.out.push(b'{');
        self.members(message, parts, true, depth)?;
        self.out.push(b'}');
        Ok(())
    }

    /// The value of one field; `null` for a field with presence that is absent.
    fn alone(&mut self, message: &Message, field: &Field, wire: &'a [u8]) -> Fallible {
        if self.gathers {
            return self.gathered_alone(message, field, wire);
        }
        let mut met = false;
        let mut wire = Wire::new(wire);
        while let Some(head) = wire.head()? {
            let found = self.known_field(message, head, &wire).filter(|found| found.slot == field.slot);
            let Some(found) = found else {
                wire.skip(head)?;
                continue;
            };
            if std::mem::replace(&mut met, true) || found.index != field.index {
                return Err(self.begin_anew());
            }
            match field.shape {
                Shape::One { .. } => self.value(field, &mut wire, 0)?,
                Shape::Many { .. } => self.bare_list(field, head, &mut wire, 0).map(drop)?,
                Shape::Map { key, value } => self.bare_map(field, (key, value), &mut wire, 0).map(drop)?,
            }
        }
        if met { Ok(()) } else { self.absent_alone(field) }
    }

    fn absent_alone(&mut self, field: &Field) -> Fallible {
        match field.shape {
            Shape::One { presence: true } => self.out.extend_from_slice(b"null"),
            Shape::One { presence: false } => self.absent(field.kind, 0)?,
            Shape::Many { .. } => self.out.extend_from_slice(b"[]"),
            Shape::Map { .. } => self.out.extend_from_slice(b"{}"),
        }
        Ok(())
    }

    /// What stands between the braces of a message.
    fn members(&mut self, message: &Message, parts: Parts<'_, 'a>, first: bool, depth: usize) -> Fallible {
        if self.gathers {
            return self.gathered_members(message, parts, first, depth);
        }
        let mut seen = Seen::default();
        let mut first = first;
        for part in parts {
            let mut wire = Wire::new(part);
            while let Some(head) = wire.head()? {
                let Some(field) = self.known_field(message, head, &wire) else {
                    wire.skip(head)?;
                    continue;
                };
                if !seen.insert(field.slot) {
                    return Err(self.begin_anew());
                }
                self.field(field, head, &mut wire, &mut first, depth).map_err(|fault| fault.under(&field.name))?;
                self.room()?;
            }
        }
        if self.options.emit_defaults { self.defaults(message, &seen, first) } else { Ok(()) }
    }

    /// The field of a head, if it comes in a form that the field has.
    #[inline]
    fn known_field<'t>(&self, message: &'t Message, head: Head, wire: &Wire<'a>) -> Option<&'t Field> {
        let field = message.by_number(head.number)?;
        if !field.accepts(head.wire_type) {
            return None;
        }
        // A number that a closed enum does not have counts as an unknown field.
        if field.closed && head.wire_type == WireType::Varint && !self.has_name(field.kind, *wire) {
            return None;
        }
        Some(field)
    }

    /// False if the number that comes next is none of a closed enum.
    fn has_name(&self, kind: Kind, mut wire: Wire<'a>) -> bool {
        let Kind::Enum(index) = kind else { return true };
        let kind = &self.tables.enums[index as usize];
        kind.open || wire.varint().is_ok_and(|number| kind.name(number as i32).is_some())
    }

    fn field(&mut self, field: &Field, head: Head, wire: &mut Wire<'a>, first: &mut bool, depth: usize) -> Fallible {
        match field.shape {
            Shape::One { presence } => {
                if !presence && wire.zero_next(field.kind) && !self.options.emit_defaults {
                    return wire.skip(head);
                }
                self.key(field, first);
                self.value(field, wire, depth)
            }
            Shape::Many { .. } => self.list(field, head, wire, first, depth),
            Shape::Map { key, value } => self.map(field, (key, value), wire, first, depth),
        }
    }

    fn list(&mut self, field: &Field, head: Head, wire: &mut Wire<'a>, first: &mut bool, depth: usize) -> Fallible {
        let (start, was_first) = (self.out.len(), *first);
        self.key(field, first);
        if self.bare_list(field, head, wire, depth)? == 0 {
            self.take_back(start, first, was_first);
        }
        Ok(())
    }

    /// A list whose elements stand next to each other, packed or not; tells how many there are.
    fn bare_list(&mut self, field: &Field, mut head: Head, wire: &mut Wire<'a>, depth: usize) -> Fallible<usize> {
        self.out.push(b'[');
        let mut index = 0;
        loop {
            self.elements(field, head, wire, &mut index, depth)?;
            let mut ahead = *wire;
            match ahead.head()? {
                Some(next) if next.number == field.number => head = next,
                Some(_) | None => break,
            }
            *wire = ahead;
        }
        self.out.push(b']');
        Ok(index)
    }

    /// A key whose value turned out to be empty is not written, unless defaults are.
    fn take_back(&mut self, start: usize, first: &mut bool, was_first: bool) {
        if !self.options.emit_defaults {
            self.out.truncate(start);
            *first = was_first;
        }
    }

    /// The elements behind one head, each with a comma in front but the first of the list.
    fn elements(
        &mut self,
        field: &Field,
        head: Head,
        wire: &mut Wire<'a>,
        index: &mut usize,
        depth: usize,
    ) -> Fallible {
        if head.wire_type == field.kind.wire_type() {
            return self.element(field, wire, index, depth);
        }
        if head.wire_type != WireType::Bytes || !field.kind.packable() {
            return wire.skip(head);
        }
        let mut packed = Wire::new(wire.bytes()?);
        while !packed.rest.is_empty() {
            self.element(field, &mut packed, index, depth)?;
        }
        Ok(())
    }

    #[inline]
    fn element(&mut self, field: &Field, wire: &mut Wire<'a>, index: &mut usize, depth: usize) -> Fallible {
        if field.closed && !self.has_name(field.kind, *wire) {
            return wire.varint().map(drop);
        }
        if *index > 0 {
            self.out.push(b',');
        }
        self.value(field, wire, depth).map_err(|fault| fault.at_index(*index))?;
        *index += 1;
        self.room()
    }

    fn map(
        &mut self,
        field: &Field,
        (key, value): (Kind, Kind),
        wire: &mut Wire<'a>,
        first: &mut bool,
        depth: usize,
    ) -> Fallible {
        let (start, was_first) = (self.out.len(), *first);
        self.key(field, first);
        if self.bare_map(field, (key, value), wire, depth)? == 0 {
            self.take_back(start, first, was_first);
        }
        Ok(())
    }

    /// A map whose entries stand next to each other; tells how many there are.
    fn bare_map(
        &mut self,
        field: &Field,
        (key, value): (Kind, Kind),
        wire: &mut Wire<'a>,
        depth: usize,
    ) -> Fallible<usize> {
        self.out.push(b'{');
        let base = self.keys.len();
        loop {
            self.entry(key, value, wire.bytes()?, self.keys.len() == base, depth)?;
            self.room()?;
            let mut ahead = *wire;
            match ahead.head()? {
                Some(Head { number, wire_type: WireType::Bytes }) if number == field.number => *wire = ahead,
                Some(_) | None => break,
            }
        }
        let keys = &mut self.keys[base..];
        keys.sort_unstable();
        let count = keys.len();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.begin_anew());
        }
        self.keys.truncate(base);
        self.out.push(b'}');
        Ok(count)
    }

    fn entry(&mut self, key: Kind, value: Kind, entry: &'a [u8], first: bool, depth: usize) -> Fallible {
        let mut wire = Wire::new(entry);
        let (mut at_key, mut at_value) = (None, None);
        while let Some(head) = wire.head()? {
            let place = match head.number {
                1 if head.wire_type == key.wire_type() => &mut at_key,
                2 if head.wire_type == value.wire_type() => &mut at_value,
                _ => {
                    wire.skip(head)?;
                    continue;
                }
            };
            if place.replace(wire).is_some() {
                return Err(self.begin_anew());
            }
            wire.skip(head)?;
        }
        if at_value.is_some_and(|at| !self.has_name(value, at)) {
            return Ok(());
        }
        if !first {
            self.out.push(b',');
        }
        let start = self.out.len();
        let hash = self.map_key(key, at_key)?;
        self.keys.push(hash);
        let end = self.out.len();
        self.out.push(b':');
        let result = match at_value {
            Some(mut wire) => self.scalar_or_message(value, 2, &mut wire, depth),
            None => self.absent(value, depth),
        };
        result.map_err(|fault| fault.under(String::from_utf8_lossy(&self.out[start + 1..end - 1]).as_ref()))
    }

    /// A key in quotes, and a number that is the same for equal keys.
    fn map_key(&mut self, kind: Kind, at: Option<Wire<'a>>) -> Fallible<u64> {
        let mut wire = at.unwrap_or(Wire::new(match kind.wire_type() {
            WireType::Fixed64 | WireType::Fixed32 => &[0; 8],
            _ => &[0],
        }));
        if kind == Kind::String {
            let text = wire.bytes()?;
            quote_wire(text, self.out)?;
            return Ok(names::hash_all(text));
        }
        self.out.push(b'"');
        let number = match kind {
            Kind::Int32 => i64::from(wire.varint()? as i32),
            Kind::Sint32 => i64::from(zigzag32(wire.varint()? as u32)),
            Kind::Uint32 => i64::from(wire.varint()? as u32),
            Kind::Int64 => wire.varint()? as i64,
            Kind::Sint64 => zigzag64(wire.varint()?),
            Kind::Fixed32 => i64::from(wire.fixed32()?),
            Kind::Sfixed32 => i64::from(wire.fixed32()? as i32),
            Kind::Sfixed64 => wire.fixed64()? as i64,
            Kind::Bool => {
                let value = wire.varint()? != 0;
                self.out.extend_from_slice(if value { b"true\"" } else { b"false\"" });
                return Ok(u64::from(value));
            }
            Kind::Uint64 | Kind::Fixed64 => {
                let value = if kind == Kind::Uint64 { wire.varint()? } else { wire.fixed64()? };
                put_integer(value, self.out);
                self.out.push(b'"');
                return Ok(value);
            }
            _ => return Err(Fault::wire("a map has keys of a kind that no map has")),
        };
        put_integer(number, self.out);
        self.out.push(b'"');
        Ok(number as u64)
    }

    /// A value of the field, whose head has been read.
    #[inline]
    fn value(&mut self, field: &Field, wire: &mut Wire<'a>, depth: usize) -> Fallible {
        self.scalar_or_message(field.kind, field.number, wire, depth)
    }

    fn scalar_or_message(&mut self, kind: Kind, number: u32, wire: &mut Wire<'a>, depth: usize) -> Fallible {
        match kind {
            Kind::Double => put_float(f64::from_bits(wire.fixed64()?), self.out),
            Kind::Float => put_float(f32::from_bits(wire.fixed32()?), self.out),
            Kind::Int32 => put_integer(wire.varint()? as i32, self.out),
            Kind::Uint32 => put_integer(wire.varint()? as u32, self.out),
            Kind::Sint32 => put_integer(zigzag32(wire.varint()? as u32), self.out),
            Kind::Fixed32 => put_integer(wire.fixed32()?, self.out),
            Kind::Sfixed32 => put_integer(wire.fixed32()? as i32, self.out),
            Kind::Int64 => self.wide(wire.varint()? as i64),
            Kind::Uint64 => self.wide(wire.varint()?),
            Kind::Sint64 => self.wide(zigzag64(wire.varint()?)),
            Kind::Fixed64 => self.wide(wire.fixed64()?),
            Kind::Sfixed64 => self.wide(wire.fixed64()? as i64),
            Kind::Bool => self.out.extend_from_slice(if wire.varint()? != 0 { b"true" } else { b"false" }),
            Kind::String => return quote_wire(wire.bytes()?, self.out),
            Kind::Bytes => self.base64(wire.bytes()?),
            Kind::Enum(index) => self.enum_value(&self.tables.enums[index as usize], wire.varint()? as i32),
            Kind::Message(index) => return self.message(index, &[wire.bytes()?], depth + 1),
            Kind::Group(index) => return self.message(index, &[wire.group(number)?], depth + 1),
        }
        Ok(())
    }

    /// An integer of 64 bits, which JavaScript cannot hold as a number.
    #[inline]
    fn wide(&mut self, value: impl itoa::Integer) {
        if self.options.int64_as_numbers {
            put_integer(value, self.out);
            return;
        }
        self.out.push(b'"');
        put_integer(value, self.out);
        self.out.push(b'"');
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + bytes.len().div_ceil(3) * 4, b'=');
        // The room is exact, so this cannot fail; if it did, an empty string is what would be written.
        let written = STANDARD.encode_slice(bytes, &mut self.out[start..]).unwrap_or(0);
        self.out.truncate(start + written);
        self.out.push(b'"');
    }

    fn enum_value(&mut self, kind: &Enum, number: i32) {
        if kind.null {
            self.out.extend_from_slice(b"null");
        } else if let (false, Some(name)) = (self.options.enums_as_numbers, kind.name(number)) {
            self.out.push(b'"');
            self.out.extend_from_slice(name.as_bytes());
            self.out.push(b'"');
        } else {
            put_integer(number, self.out);
        }
    }

    #[inline]
    fn key(&mut self, field: &Field, first: &mut bool) {
        let key = if self.options.proto_names { &field.proto_key } else { &field.json_key };
        self.out.extend_from_slice(&key[usize::from(*first)..]);
        *first = false;
    }

    /// The fields without presence that were not met.
    fn defaults(&mut self, message: &Message, seen: &Seen, mut first: bool) -> Fallible {
        for field in message.fields.iter().filter(|field| !seen.contains(field.slot)) {
            let text = match field.shape {
                Shape::One { presence: true } => continue,
                Shape::One { presence: false } => None,
                Shape::Many { .. } => Some(b"[]"),
                Shape::Map { .. } => Some(b"{}"),
            };
            self.key(field, &mut first);
            match text {
                Some(text) => self.out.extend_from_slice(text),
                None => self.absent(field.kind, 0)?,
            }
        }
        self.room()
    }

    /// The value that an absent one stands for.
    fn absent(&mut self, kind: Kind, depth: usize) -> Fallible {
        match kind {
            Kind::Message(index) | Kind::Group(index) => self.message(index, &[&[]], depth + 1)?,
            Kind::Enum(index) => {
                let kind = &self.tables.enums[index as usize];
                self.enum_value(kind, kind.first);
            }
            Kind::String | Kind::Bytes => quote("", self.out),
            Kind::Bool => self.out.extend_from_slice(b"false"),
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 => self.wide(0u8),
            Kind::Double | Kind::Float | Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Fixed32 | Kind::Sfixed32 => {
                self.out.push(b'0')
            }
        }
        Ok(())
    }

    #[inline]
    fn room(&self) -> Fallible {
        if self.out.len() > self.limit { Err(too_long()) } else { Ok(()) }
    }

    /// Ends the first walk.
    #[cold]
    fn begin_anew(&mut self) -> Box<Fault> {
        self.again = true;
        Fault::wire("a field stands in several places")
    }
}

#[cold]
pub(crate) fn too_long() -> Box<Fault> {
    Fault::new(ErrorKind::TooLong, 0, "the output is longer than allowed")
}
