//! Bytes that nobody meant: no panic, nothing left behind, and nothing taken that others refuse.

use proptest::prelude::*;
use prost::Message as _;
use transcode::{ParseOptions, PrintOptions};

use crate::{codec, everything, generate, parse_with, print_with};

const NAMES: [&str; 5] = [
    "transcode.test.Everything",
    "transcode.test.Leaf",
    "google.protobuf.Value",
    "google.protobuf.Any",
    "google.protobuf.Struct",
];

/// Some bytes changed, taken out or doubled.
fn damaged(mut bytes: Vec<u8>, random: &mut generate::Random) -> Vec<u8> {
    for _ in 0..random.below(4) + 1 {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(4) {
            0 => bytes[at] = random.next() as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, *random.pick(b"{}[],:\"\\0e.-n\n\x00\x80\xff")),
            _ => {
                let end = (at + random.below(20) as usize).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn print_all(wire: &[u8], options: &PrintOptions) {
    for name in NAMES {
        if let Ok(text) = print_with(&codec(name), wire, options) {
            serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        }
    }
}

fn parse_all(text: &[u8], options: &ParseOptions) {
    for name in NAMES {
        if let Ok(wire) = parse_with(&codec(name), text, options) {
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok(), "{}", String::from_utf8_lossy(text));
            print_with(&codec(name), &wire, &PrintOptions::default()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_of_the_wire_are_json_or_an_error(wire: Vec<u8>, emit_defaults: bool) {
        print_all(&wire, &PrintOptions { emit_defaults, ..PrintOptions::default() });
    }

    #[test]
    fn damaged_messages_are_json_or_an_error(seed: u64, emit_defaults: bool) {
        let mut random = generate::Random(seed);
        let wire = generate::message(&everything(), &mut random, 1).encode_to_vec();
        print_all(&damaged(wire, &mut random), &PrintOptions { emit_defaults, ..PrintOptions::default() });
    }

    #[test]
    fn arbitrary_text_is_a_message_or_an_error(text: Vec<u8>, ignore_unknown: bool) {
        parse_all(&text, &ParseOptions { ignore_unknown, ..ParseOptions::default() });
    }

    #[test]
    fn text_that_looks_like_json_is_a_message_or_an_error(
        text in "([\\[\\]{},:]|\"(self|value|any|@type|int32s|t/transcode.test.Leaf|a)?\"|null|true|-?[0-9]{1,3}|\\PC){0,40}",
        ignore_unknown: bool,
    ) {
        parse_all(text.as_bytes(), &ParseOptions { ignore_unknown, ..ParseOptions::default() });
    }

    #[test]
    fn damaged_text_is_a_message_or_an_error(seed: u64, ignore_unknown: bool) {
        let mut random = generate::Random(seed);
        let wire = generate::message(&everything(), &mut random, 1).encode_to_vec();
        let text = print_with(&codec(NAMES[0]), &wire, &PrintOptions::default()).unwrap();
        parse_all(&damaged(text.into_bytes(), &mut random), &ParseOptions { ignore_unknown, ..ParseOptions::default() });
    }
}
