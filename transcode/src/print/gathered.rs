//! The second walk: the occurrences of a message's fields are collected, then each field is written once.
//!
//! What several occurrences mean is the protobuf specification's: the last scalar counts, messages are merged, elements
//! are appended, the last entry of a map's key counts, the last member of a oneof counts. Messages are merged by
//! walking their pieces one after the other, so nothing is copied.

use std::collections::HashMap;

use super::{Parts, Printer};
use crate::{
    error::Fallible,
    schema::{Field, Kind, Message, Shape},
    seen::Seen,
    wire::{Head, Wire},
};

/// Where a field's value begins on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occurrence<'a> {
    field: u16,
    head: Head,
    at: Wire<'a>,
}

/// The last key of an entry and everything that is its value.
struct Entry<'a> {
    key: Option<Wire<'a>>,
    values: Vec<Wire<'a>>,
}

#[derive(PartialEq, Eq, Hash)]
struct KeyText(Box<[u8]>);

impl<'a> Printer<'a> {
    pub(super) fn gathered_members(
        &mut self,
        message: &Message,
        parts: Parts<'_, 'a>,
        first: bool,
        depth: usize,
    ) -> Fallible {
        let occurrences = self.gather(message, parts)?;
        let mut seen = Seen::default();
        let mut first = first;
        for group in occurrences.chunk_by(|one, next| one.slot(message) == next.slot(message)) {
            let Some(last) = group.last() else { continue };
            let field = last.field(message);
            seen.insert(field.slot);
            self.gathered_field(field, group, &mut first, depth).map_err(|fault| fault.under(&field.name))?;
            self.room()?;
        }
        if self.options.emit_defaults { self.defaults(message, &seen, first) } else { Ok(()) }
    }

    /// Every occurrence of a field that the message has, sorted by slot, in their order within one.
    pub(super) fn gather(&self, message: &Message, parts: Parts<'_, 'a>) -> Fallible<Vec<Occurrence<'a>>> {
        let mut occurrences = Vec::new();
        for part in parts {
            let mut wire = Wire::new(part);
            while let Some(head) = wire.head()? {
                if let Some(field) = self.known_field(message, head, &wire) {
                    occurrences.push(Occurrence { field: field.index, head, at: wire });
                }
                wire.skip(head)?;
            }
        }
        occurrences.sort_by_key(|occurrence| occurrence.slot(message));
        Ok(occurrences)
    }

    fn gathered_field(&mut self, field: &Field, group: &[Occurrence<'a>], first: &mut bool, depth: usize) -> Fallible {
        let (start, was_first) = (self.out.len(), *first);
        let Shape::One { presence } = field.shape else {
            self.key(field, first);
            if self.gathered_many(field, group, depth)? == 0 {
                self.take_back(start, first, was_first);
            }
            return Ok(());
        };
        let Some(last) = group.last() else { return Ok(()) };
        if !presence && last.at.zero_next(field.kind) && !self.options.emit_defaults {
            return Ok(());
        }
        self.key(field, first);
        self.merged(field.kind, field.number, last_pieces(group), depth)
    }

    pub(super) fn gathered_alone(&mut self, message: &Message, field: &Field, wire: &'a [u8]) -> Fallible {
        let mut group = self.gather(message, &[wire])?;
        group.retain(|occurrence| occurrence.slot(message) == field.slot);
        match (field.shape, group.last()) {
            (Shape::One { .. }, Some(last)) if last.field == field.index => {
                self.merged(field.kind, field.number, last_pieces(&group), 0)
            }
            (Shape::Many { .. } | Shape::Map { .. }, Some(_)) => self.gathered_many(field, &group, 0).map(drop),
            _ => self.absent_alone(field),
        }
    }

    /// A list or a map, without its key; tells how much is in it.
    pub(super) fn gathered_many(&mut self, field: &Field, group: &[Occurrence<'a>], depth: usize) -> Fallible<usize> {
        if let Shape::Map { key, value } = field.shape {
            self.out.push(b'{');
            let count = self.gathered_entries(key, value, group, depth)?;
            self.out.push(b'}');
            return Ok(count);
        }
        self.out.push(b'[');
        let mut index = 0;
        for occurrence in group {
            self.elements(field, occurrence.head, &mut { occurrence.at }, &mut index, depth)?;
        }
        self.out.push(b']');
        Ok(index)
    }

    /// The last of several values, or all of them if they are pieces of a message.
    pub(super) fn merged(
        &mut self,
        kind: Kind,
        number: u32,
        mut pieces: impl DoubleEndedIterator<Item = Wire<'a>>,
        depth: usize,
    ) -> Fallible {
        match kind {
            Kind::Message(index) => {
                let parts = pieces.map(|mut piece| piece.bytes()).collect::<Fallible<Vec<_>>>()?;
                self.message(index, &parts, depth + 1)
            }
            Kind::Group(index) => {
                let parts = pieces.map(|mut piece| piece.group(number)).collect::<Fallible<Vec<_>>>()?;
                self.message(index, &parts, depth + 1)
            }
            _ => match pieces.next_back() {
                Some(mut last) => self.scalar_or_message(kind, number, &mut last, depth),
                None => self.absent(kind, depth),
            },
        }
    }

    /// Writes the last entry of each key and tells how many there are.
    fn gathered_entries(&mut self, key: Kind, value: Kind, group: &[Occurrence<'a>], depth: usize) -> Fallible<usize> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        let mut places: HashMap<KeyText, usize> = HashMap::new();
        for occurrence in group {
            let entry = self.gathered_entry(key, value, { occurrence.at }.bytes()?)?;
            if entry.values.last().is_some_and(|last| !self.has_name(value, *last)) {
                continue;
            }
            // The key's text is what must not stand twice, so it is also what is compared.
            let end = self.out.len();
            self.map_key(key, entry.key)?;
            let text = KeyText(self.out[end..].into());
            self.out.truncate(end);
            match places.get(&text) {
                Some(place) => entries[*place] = entry,
                None => {
                    places.insert(text, entries.len());
                    entries.push(entry);
                }
            }
        }
        let count = entries.len();
        for (at, entry) in entries.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            let start = self.out.len();
            self.map_key(key, entry.key)?;
            let end = self.out.len();
            self.out.push(b':');
            let result = match entry.values.is_empty() {
                true => self.absent(value, depth),
                false => self.merged(value, 2, entry.values.into_iter(), depth),
            };
            result.map_err(|fault| fault.under(String::from_utf8_lossy(&self.out[start + 1..end - 1]).as_ref()))?;
            self.room()?;
        }
        Ok(count)
    }

    fn gathered_entry(&self, key: Kind, value: Kind, entry: &'a [u8]) -> Fallible<Entry<'a>> {
        let mut found = Entry { key: None, values: Vec::new() };
        let mut wire = Wire::new(entry);
        while let Some(head) = wire.head()? {
            match head.number {
                1 if head.wire_type == key.wire_type() => found.key = Some(wire),
                2 if head.wire_type == value.wire_type() => found.values.push(wire),
                _ => {}
            }
            wire.skip(head)?;
        }
        Ok(found)
    }
}

impl Occurrence<'_> {
    pub(super) fn field<'m>(&self, message: &'m Message) -> &'m Field {
        &message.fields[usize::from(self.field)]
    }

    fn slot(&self, message: &Message) -> u16 {
        self.field(message).slot
    }
}

/// The pieces of what the last occurrence is of: those from before another member of the oneof was set are gone.
pub(super) fn last_pieces<'g, 'a>(
    group: &'g [Occurrence<'a>],
) -> impl DoubleEndedIterator<Item = Wire<'a>> + use<'g, 'a> {
    let last = group.last().map(|last| last.field);
    let same = group.iter().rev().take_while(|other| Some(other.field) == last).count();
    group[group.len() - same..].iter().map(|occurrence| occurrence.at)
}
