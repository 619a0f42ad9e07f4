//! Messages made from a seed: every kind of field, the well-known types with values that have JSON.

use std::collections::HashMap;

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// Often small, often at the edge, sometimes anything.
    fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(3),
            1 => *self.pick(&[u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 32, 1 << 31, (1 << 31) - 1, 127, 128, 1 << 53]),
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 12] = [
            "",
            "a",
            "shop",
            "\"",
            "\\",
            "\n",
            "\u{1}",
            "\u{7f}",
            "ü",
            "\u{1f600}",
            "/ a longer piece of text ",
            "\u{2028}",
        ];
        (0..self.below(6)).map(|_| *self.pick(&PIECES)).collect()
    }

    /// Numbers of few digits: serde_json reads others inexactly, which is tested elsewhere.
    fn double(&mut self) -> f64 {
        match self.below(4) {
            0 => *self.pick(&[f64::INFINITY, f64::NEG_INFINITY, 1e21, 1e-7]),
            1 => self.below(1000) as f64 / 8.0 + 0.125,
            _ => format!("{}{}e{}", self.pick(&["", "-"]), self.below(1 << 20) + 1, self.below(30) as i64 - 15)
                .parse()
                .unwrap(),
        }
    }

    /// Without the largest, which prost-reflect prints and refuses to read.
    fn float(&mut self) -> f32 {
        match self.below(3) {
            0 => *self.pick(&[f32::INFINITY, f32::NEG_INFINITY, 3.4e38, f32::MIN_POSITIVE, 1e-45, 0.1]),
            _ => Some(f32::from_bits(self.next() as u32)).filter(|v| !v.is_nan() && *v != 0.0).unwrap_or(1.5),
        }
    }
}

/// A message with about a quarter of its fields, or fewer where it is nested.
pub(crate) fn message(descriptor: &MessageDescriptor, random: &mut Random, depth: u64) -> DynamicMessage {
    if let Some(known) = well_known(descriptor, random, depth) {
        return known;
    }
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        if random.below(4 + 8 * depth) == 0 {
            message.set_field(&field, field_value(&field, random, depth));
        }
    }
    message
}

fn field_value(field: &FieldDescriptor, random: &mut Random, depth: u64) -> Value {
    let count = if random.below(8) == 0 { 40 } else { random.below(5) };
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let (key, content) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let entries = (0..count).map(|_| (map_key(&key, random), value(&content, random, depth)));
        return Value::Map(entries.collect::<HashMap<_, _>>());
    }
    if field.is_list() {
        return Value::List((0..count).map(|_| value(&field.kind(), random, depth)).collect());
    }
    value(&field.kind(), random, depth)
}

fn map_key(kind: &Kind, random: &mut Random) -> MapKey {
    match value(kind, random, 0) {
        Value::Bool(value) => MapKey::Bool(value),
        Value::I32(value) => MapKey::I32(value),
        Value::I64(value) => MapKey::I64(value),
        Value::U32(value) => MapKey::U32(value),
        Value::U64(value) => MapKey::U64(value),
        Value::String(value) => MapKey::String(value),
        other => unreachable!("{other:?} is no key"),
    }
}

fn value(kind: &Kind, random: &mut Random, depth: u64) -> Value {
    match kind {
        Kind::Double => Value::F64(random.double()),
        Kind::Float => Value::F32(random.float()),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(random.bits() as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(random.bits() as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(random.bits() as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(random.bits()),
        Kind::Bool => Value::Bool(random.below(2) == 0),
        Kind::String => Value::String(random.text()),
        Kind::Bytes => Value::Bytes((0..random.below(20)).map(|_| random.next() as u8).collect::<Vec<_>>().into()),
        Kind::Enum(descriptor) if descriptor.full_name() == "google.protobuf.NullValue" => Value::EnumNumber(0),
        Kind::Enum(_) => Value::EnumNumber(*random.pick(&[0, 1, 1_000_000, -3, 77, i32::MAX, i32::MIN])),
        Kind::Message(descriptor) => Value::Message(message(descriptor, random, depth + 1)),
    }
}

fn well_known(descriptor: &MessageDescriptor, random: &mut Random, depth: u64) -> Option<DynamicMessage> {
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let seconds = random.below(253_402_300_799 + 62_135_596_800 + 1) as i64 - 62_135_596_800;
            let nanos = *random.pick(&[0, 1, 999_999_999, 120_000_000, 5_000]);
            message.set_field_by_number(1, Value::I64(seconds));
            message.set_field_by_number(2, Value::I32(nanos));
        }
        "google.protobuf.Duration" => {
            let sign = *random.pick(&[1, -1]);
            message.set_field_by_number(1, Value::I64(sign * random.below(315_576_000_000) as i64));
            let nanos = *random.pick(&[0, 1, 999_999_999, 120_000_000, 5_000]);
            message.set_field_by_number(2, Value::I32(sign as i32 * nanos));
        }
        "google.protobuf.FieldMask" => {
            let paths = ["name", "shipping_address.city", "a_b_c", "x1.y2"];
            let paths = (0..random.below(4)).map(|_| Value::String((*random.pick(&paths)).to_owned())).collect();
            message.set_field_by_number(1, Value::List(paths));
        }
        "google.protobuf.Any" => {
            let names =
                ["transcode.test.Leaf", "google.protobuf.Duration", "google.protobuf.Value", "google.protobuf.Empty"];
            let name = *random.pick(&names);
            let content = descriptor.parent_pool().get_message_by_name(name).unwrap();
            let content = self::message(&content, random, depth + 1);
            message.set_field_by_number(1, Value::String(format!("type.googleapis.com/{name}")));
            message.set_field_by_number(2, Value::Bytes(content.encode_to_vec().into()));
        }
        "google.protobuf.Value" => {
            let kind = if depth > 4 { random.below(4) } else { random.below(6) } as u32 + 1;
            let field = descriptor.get_field(kind).unwrap();
            let content = match kind {
                2 => Value::F64(Some(random.double()).filter(|value| value.is_finite()).unwrap_or(0.25)),
                _ => value(&field.kind(), random, depth),
            };
            message.set_field(&field, content);
        }
        "google.protobuf.Struct" | "google.protobuf.ListValue" => {
            let field = descriptor.get_field(1).unwrap();
            message.set_field(&field, field_value(&field, random, depth));
        }
        // prost-reflect prints an infinite one as null.
        "google.protobuf.DoubleValue" => {
            message.set_field_by_number(1, Value::F64(random.below(100) as f64));
        }
        _ => return None,
    }
    Some(message)
}
