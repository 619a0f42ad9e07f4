//! Texts of JSON for a message: right ones in all the spellings that the mapping of protobuf allows, and wrong ones.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use prost_reflect::{Cardinality, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use super::Odd;
use super::dice::Dice;

/// Messages inside of each other.
const DEPTH: usize = 3;

const WORDS: [&str; 10] = [
    "",
    "Still life",
    "Ἀττικός Ζένων",
    "quote \" and backslash \\",
    "line\nbreak\tand tab",
    "𝄞 a clef",
    "null",
    "a/b:c",
    "</script>",
    "x",
];

/// A number as a decimal text that is in the range of the kind.
pub(super) fn whole(dice: &mut Dice, kind: &Kind) -> String {
    let small = dice.below(1000) as i64;
    let extremes: [&str; 2] = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => ["-2147483648", "2147483647"],
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => ["-9223372036854775808", "9223372036854775807"],
        Kind::Uint32 | Kind::Fixed32 => ["0", "4294967295"],
        _ => ["0", "18446744073709551615"],
    };
    let negative = !matches!(kind, Kind::Uint32 | Kind::Fixed32 | Kind::Uint64 | Kind::Fixed64);
    match dice.below(6) {
        0 => extremes[dice.below(2)].to_owned(),
        1 if negative => (-small).to_string(),
        _ => small.to_string(),
    }
}

/// The JSON of a text; sometimes with escapes where none are needed.
fn text(dice: &mut Dice, text: &str) -> String {
    let plain = Value::from(text).to_string();
    if dice.one_in(4) {
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        return format!("\"{escaped}\"");
    }
    plain
}

/// An object for a message, with some of its fields.
pub(super) fn object(dice: &mut Dice, message: &MessageDescriptor, depth: usize) -> String {
    let mut members = Vec::new();
    let mut chosen = Vec::new();
    for field in message.fields() {
        let share = if depth == 0 { 2 } else { 4 };
        if !dice.one_in(share) {
            continue;
        }
        // One field of a choice at most.
        if let Some(choice) = field.containing_oneof().filter(|choice| !choice.is_synthetic()) {
            if chosen.contains(&choice.full_name().to_owned()) {
                continue;
            }
            chosen.push(choice.full_name().to_owned());
        }
        if let Some(value) = member(dice, &field, depth) {
            let name = if dice.one_in(3) { field.name() } else { field.json_name() };
            members.push(format!("\"{name}\":{value}"));
        }
    }
    dice.shuffle(&mut members);
    let space = dice.pick(&["", "", " ", "\n\t"]);
    format!("{{{space}{}{space}}}", members.join(&format!("{space},")))
}

fn member(dice: &mut Dice, field: &FieldDescriptor, depth: usize) -> Option<String> {
    if let Kind::Message(entry) = field.kind()
        && field.is_map()
    {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        let keys = match key.kind() {
            Kind::Bool => vec!["true", "false"],
            Kind::String => vec!["", "one", "Ä", "a.b"],
            _ => vec!["-1", "0", "1999"],
        };
        let entries: Vec<String> = keys
            .into_iter()
            .filter_map(|key| Some(format!("{}:{}", Value::from(key), single(dice, &value, depth)?)))
            .collect();
        return Some(format!("{{{}}}", entries.join(",")));
    }
    if field.cardinality() == Cardinality::Repeated {
        let count = dice.below(4);
        let items: Option<Vec<String>> = (0..count).map(|_| single(dice, field, depth)).collect();
        return Some(format!("[{}]", items?.join(",")));
    }
    // A field of `Value` is set by null, the others are left out by it.
    if dice.one_in(12) && field.containing_oneof().is_none() && !is(field, "google.protobuf.Value") {
        return Some("null".to_owned());
    }
    single(dice, field, depth)
}

fn is(field: &FieldDescriptor, name: &str) -> bool {
    matches!(field.kind(), Kind::Message(message) if message.full_name() == name)
}

/// One value of a field; nothing where the messages would lie too deep in each other.
fn single(dice: &mut Dice, field: &FieldDescriptor, depth: usize) -> Option<String> {
    Some(match field.kind() {
        Kind::Double | Kind::Float => match dice.below(6) {
            0 => "\"NaN\"".to_owned(),
            1 => "\"-Infinity\"".to_owned(),
            2 => "\"2.5\"".to_owned(),
            3 => "0".to_owned(),
            4 => "-12.75e-3".to_owned(),
            _ => "1.5".to_owned(),
        },
        Kind::Bool => dice.pick(&["true", "false"]).to_owned(),
        Kind::String => {
            let word = dice.pick(&WORDS);
            text(dice, word)
        }
        Kind::Bytes => {
            let count = dice.below(5);
            let bytes: Vec<u8> = (0..count).map(|_| dice.next() as u8).collect();
            let encoded = match dice.below(3) {
                0 => STANDARD_NO_PAD.encode(bytes),
                1 => URL_SAFE.encode(bytes),
                _ => STANDARD.encode(bytes),
            };
            format!("\"{encoded}\"")
        }
        Kind::Enum(kind) => {
            let values: Vec<_> = kind.values().collect();
            let value = &values[dice.below(values.len())];
            if dice.one_in(3) { value.number().to_string() } else { format!("\"{}\"", value.name()) }
        }
        Kind::Message(message) => return known(dice, &message, depth),
        kind => {
            let number = whole(dice, &kind);
            if dice.one_in(3) { format!("\"{number}\"") } else { number }
        }
    })
}

fn known(dice: &mut Dice, message: &MessageDescriptor, depth: usize) -> Option<String> {
    let picked = |dice: &mut Dice, all: &[&str]| Some(dice.pick(all).to_owned());
    match message.full_name() {
        "google.protobuf.Timestamp" => picked(
            dice,
            &[
                "\"1972-01-01T10:00:20.021Z\"",
                "\"0001-01-01T00:00:00Z\"",
                "\"9999-12-31T23:59:59.999999999Z\"",
                "\"2026-02-28T12:00:00+01:30\"",
            ],
        ),
        "google.protobuf.Duration" => {
            picked(dice, &["\"3s\"", "\"-1.5s\"", "\"0.000000001s\"", "\"315576000000s\"", "\"0s\""])
        }
        "google.protobuf.FieldMask" => picked(dice, &["\"\"", "\"title\"", "\"title,size.width\"", "\"onLoan\""]),
        "google.protobuf.Struct" => picked(dice, &["{}", "{\"a\":1.5,\"b\":[null,true,\"x\"],\"c\":{\"d\":{}}}"]),
        "google.protobuf.Value" => picked(dice, &["null", "true", "\"text\"", "-7.25", "[1,[2]]", "{\"k\":null}"]),
        "google.protobuf.StringValue" => picked(dice, &["\"\"", "\"Mona\""]),
        "google.protobuf.Int64Value" => picked(dice, &["\"9007199254740993\"", "0", "-5"]),
        "google.protobuf.BoolValue" => picked(dice, &["true", "false"]),
        _ if depth < DEPTH => Some(object(dice, message, depth + 1)),
        _ => None,
    }
}

/// Another body in which one thing is odd; a body that is right and an object of a picture, not empty.
pub(super) fn spoilt(dice: &mut Dice, odd: Odd) -> Vec<u8> {
    let one = |text: &str| text.as_bytes().to_vec();
    match odd {
        Odd::Cut => one(dice.pick(&["{\"title\":\"a", "{\"title\":", "{", "{\"tags\":[\"a\"", "{\"year\":1"])),
        Odd::TrailingComma => one(dice.pick(&["{\"title\":\"a\",}", "{\"tags\":[\"a\",]}"])),
        Odd::SingleQuotes => one("{'title':'a'}"),
        Odd::Comment => one(dice.pick(&["{/* a */\"title\":\"a\"}", "{\"title\":\"a\"}// end"])),
        Odd::UnquotedName => one("{title:\"a\"}"),
        Odd::DuplicateName => one(dice.pick(&["{\"year\":1,\"year\":2}", "{\"onLoan\":true,\"on_loan\":false}"])),
        Odd::UnknownField => one(dice.pick(&["{\"colour\":1}", "{\"size\":{\"depth\":1}}", "{\"Title\":\"a\"}"])),
        Odd::WrongType => one(dice.pick(&[
            "{\"title\":1}",
            "{\"year\":true}",
            "{\"onLoan\":\"yes\"}",
            "{\"tags\":{}}",
            "{\"size\":[]}",
            "{\"size\":7}",
            "{\"labels\":[]}",
            "{\"technique\":{}}",
            "{\"year\":\"\"}",
            "{\"year\":\"abc\"}",
        ])),
        Odd::ScalarForList => one(dice.pick(&["{\"tags\":\"a\"}", "{\"loans\":1}"])),
        Odd::WordForFlag => one(dice.pick(&["{\"onLoan\":\"true\"}", "{\"onLoan\":\"false\"}"])),
        Odd::NumberForFlag => one(dice.pick(&["{\"onLoan\":1}", "{\"onLoan\":0}"])),
        Odd::OutOfRange => one(dice.pick(&[
            "{\"year\":2147483648}",
            "{\"inventoryNumber\":-1}",
            "{\"visitors\":\"9223372036854775808\"}",
            "{\"barcode\":4294967296}",
            "{\"humidity\":1e39}",
            "{\"weightKg\":1e400}",
        ])),
        Odd::NumberForm => one(dice.pick(&[
            "{\"year\":1e2}",
            "{\"year\":1.0}",
            "{\"year\":\"1e2\"}",
            "{\"visitors\":5e0}",
            "{\"inventoryNumber\":10.00}",
        ])),
        Odd::Fraction => one(dice.pick(&["{\"year\":1.5}", "{\"visitors\":\"0.5\"}"])),
        Odd::BadNumber => one(dice.pick(&[
            "{\"year\":01}",
            "{\"year\":+1}",
            "{\"year\":0x10}",
            "{\"weightKg\":.5}",
            "{\"weightKg\":1.}",
            "{\"weightKg\":NaN}",
            "{\"weightKg\":Infinity}",
            "{\"weightKg\":1e}",
        ])),
        Odd::SpaceInNumber => one(dice.pick(&["{\"year\":\" 1\"}", "{\"year\":\"1 \"}"])),
        Odd::BadBase64 => one(dice.pick(&["{\"thumbnail\":\"a\"}", "{\"thumbnail\":\"$$$$\"}"])),
        Odd::UnknownEnum => one(dice.pick(&["{\"technique\":\"TECHNIQUE_WAX\"}", "{\"layers\":[\"TECHNIQUE_WAX\"]}"])),
        Odd::EnumSpelling => one(dice.pick(&["{\"technique\":\"technique_oil\"}", "{\"technique\":\"techniqueOil\"}"])),
        Odd::EnumNumber => one("{\"technique\":99}"),
        Odd::BadTime => one(dice.pick(&[
            "{\"finishTime\":\"1972-01-01\"}",
            "{\"finishTime\":\"1972-13-01T00:00:00Z\"}",
            "{\"finishTime\":\"0000-01-01T00:00:00Z\"}",
            "{\"finishTime\":5}",
            "{\"exposure\":\"1\"}",
            "{\"exposure\":\"1m\"}",
            "{\"exposure\":\"315576000001s\"}",
            "{\"finishTime\":\"1972-01-01 00:00:00Z\"}",
        ])),
        Odd::NotUtf8 => [b"{\"title\":\"", &[0xff, 0xfe][..], b"\"}"].concat(),
        Odd::LoneSurrogate => one(dice.pick(&["{\"title\":\"\\ud800\"}", "{\"title\":\"\\udc00x\"}"])),
        Odd::BadEscape => one(dice.pick(&["{\"title\":\"\\x41\"}", "{\"title\":\"\\u12\"}"])),
        Odd::ControlCharacter => one("{\"title\":\"a\u{1}b\"}"),
        Odd::NotAnObject => one(dice.pick(&["[]", "1", "\"text\"", "true", "[{\"title\":\"a\"}]"])),
        Odd::Null => one("null"),
        Odd::Garbage => one(dice.pick(&["{\"title\":\"a\"}}", "{\"title\":\"a\"} x", "{} {}", "nothing"])),
        Odd::ByteOrderMark => one("\u{feff}{\"title\":\"a\"}"),
        Odd::Blank => one(dice.pick(&[" ", "\n\n"])),
        Odd::Deep => format!("{{\"anything\":{}1{}}}", "[".repeat(200), "]".repeat(200)).into_bytes(),
        // Not as a map's value: Envoy 1.40 takes it, and ends with a segmentation fault when the message comes back.
        Odd::NullInList => one(dice.pick(&["{\"tags\":[null]}", "{\"frames\":[null]}"])),
        Odd::TwoOfAChoice => one("{\"painter\":\"a\",\"found\":{}}"),
        _ => one("{}"),
    }
}
