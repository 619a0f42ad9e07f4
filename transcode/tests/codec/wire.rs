//! Wire bytes as no encoder writes them, but as the specification lets them be: in any order, several times, in pieces.

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor};

use transcode::PrintOptions;

use crate::{codec, everything, generate, oracle, parse, print};

fn everything_of(wire: &[u8]) -> String {
    print(&codec("transcode.test.Everything"), wire).unwrap_or_else(|error| panic!("{error}: {wire:?}"))
}

#[test]
fn a_field_that_comes_again_is_merged_as_the_specification_says() {
    for (wire, text) in [
        (&b"\x18\x01\x18\x02"[..], "{\"int32Value\":2}"),
        (b"\x18\x01\x18\x00", "{}"),
        (b"\x88\x02\x01\x18\x05\x88\x02\x02", "{\"int32Value\":5,\"int32s\":[1,2]}"),
        (
            b"\x8a\x01\x02\x18\x01\x18\x07\x8a\x01\x02\x20\x02",
            "{\"int32Value\":7,\"self\":{\"int32Value\":1,\"int64Value\":\"2\"}}",
        ),
        (b"\x8a\x02\x01\x01\x88\x02\x02\x18\x01\x8a\x02\x02\x03\x04", "{\"int32Value\":1,\"int32s\":[1,2,3,4]}"),
        (b"\xb8\x04\x01\xc2\x04\x01a", "{\"choiceString\":\"a\"}"),
        (b"\xca\x04\x02\x10\x01\xca\x04\x03\x0a\x01a", "{\"choiceLeaf\":{\"count\":1,\"name\":\"a\"}}"),
        (b"\xca\x04\x02\x10\x01\xb8\x04\x01\xca\x04\x03\x0a\x01a", "{\"choiceLeaf\":{\"name\":\"a\"}}"),
        (b"\xf2\x03\x06\x0a\x01a\x12\x01b\xf2\x03\x06\x0a\x01a\x12\x01c", "{\"byString\":{\"a\":\"c\"}}"),
        (b"\xf2\x03\x06\x12\x01b\x0a\x01a", "{\"byString\":{\"a\":\"b\"}}"),
        (b"\xf2\x03\x00", "{\"byString\":{\"\":\"\"}}"),
        (b"\xfa\x03\x09\x12\x02\x10\x01\x12\x03\x0a\x01a", "{\"leafByString\":{\"\":{\"count\":1,\"name\":\"a\"}}}"),
    ] {
        let theirs = serde_json::to_string(&DynamicMessage::decode(everything(), wire).unwrap()).unwrap();
        for text in [text, &theirs] {
            assert_eq!(oracle::difference(&everything_of(wire), text), None);
        }
    }
}

#[test]
fn an_unknown_field_is_passed_over_in_every_wire_type() {
    let wire = b"\xf8\x7f\x01\xf9\x7f12345678\xfa\x7f\x01a\xfd\x7f1234\xfb\x7f\x08\x01\xfb\x7f\xfc\x7f\xfc\x7f\x18\x01";
    assert_eq!(everything_of(wire), "{\"int32Value\":1}");
    // A known number in a wire type that is not the field's is unknown too.
    assert_eq!(everything_of(b"\x1a\x01a\x18\x01\x70\x01"), "{\"int32Value\":1}");
}

#[test]
fn numbers_are_cut_to_their_width() {
    assert_eq!(everything_of(b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "{\"int32Value\":-1}");
    assert_eq!(everything_of(b"\x18\x81\x80\x80\x80\x10"), "{\"int32Value\":1}");
    assert_eq!(everything_of(b"\x68\x80\x80\x80\x80\x10"), "{\"boolValue\":true}");
    assert_eq!(everything_of(b"\x18\x80\x00"), "{}");
}

#[test]
fn what_is_cut_short_is_refused() {
    let whole = b"\x18\x01\x8a\x01\x02\x18\x01\x72\x01a\x09\0\0\0\0\0\0\xf0\x3f\x8a\x02\x02\x01\x02\xf2\x03\x06\x0a\x01a\x12\x01c";
    let ends = [0, 2, 7, 10, 19, 24, 33];
    for end in 0..=whole.len() {
        let result = print(&codec("transcode.test.Everything"), &whole[..end]);
        assert_eq!(result.is_ok(), ends.contains(&end), "{end} {result:?}");
    }
    let error = print(&codec("transcode.test.Everything"), b"\x8a\x01\x04\x72\x02\xff\xff").unwrap_err();
    assert_eq!(error.to_string(), "self.stringValue: a string on the wire is not UTF-8");
}

#[test]
fn a_message_nests_a_hundred_levels() {
    let leaf = codec("transcode.test.Leaf");
    let mut wire = Vec::new();
    for depth in 1..=101 {
        assert_eq!(print(&leaf, &wire).is_ok(), depth <= 100, "{depth}");
        let mut outer = vec![0x22];
        prost::encoding::encode_varint(wire.len() as u64, &mut outer);
        outer.extend_from_slice(&wire);
        wire = outer;
    }
}

#[test]
fn a_field_is_printed_alone_as_it_is_among_others() {
    let codec = codec("transcode.test.Everything");
    let alone = |field: &str, wire: &[u8]| {
        let mut out = Vec::new();
        codec.field_to_json(field, wire, &PrintOptions::default(), &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    for (field, wire, json) in [
        ("int32Value", &b"\x70\x01\x18\x07\x20\x01"[..], "7"),
        ("int32_value", b"\x18\x07\x20\x01\x18\x08", "8"),
        ("int32Value", b"\x20\x01", "0"),
        ("maybeInt32", b"\x20\x01", "null"),
        ("self", b"", "null"),
        ("self", b"\x8a\x01\x02\x18\x01\x18\x07\x8a\x01\x02\x20\x02", "{\"int32Value\":1,\"int64Value\":\"2\"}"),
        ("int32s", b"", "[]"),
        ("int32s", b"\x8a\x02\x02\x01\x02", "[1,2]"),
        ("int32s", b"\x88\x02\x01\x18\x05\x88\x02\x02", "[1,2]"),
        ("byString", b"", "{}"),
        ("byString", b"\xf2\x03\x06\x0a\x01a\x12\x01b\xf2\x03\x06\x0a\x01a\x12\x01c", "{\"a\":\"c\"}"),
        ("choiceInt32", b"\xb8\x04\x01", "1"),
        ("choiceInt32", b"\xb8\x04\x01\xc2\x04\x01a", "null"),
        ("choiceString", b"\xb8\x04\x01\xc2\x04\x01a", "\"a\""),
    ] {
        assert_eq!(alone(field, wire).unwrap(), json, "{field} {wire:?}");
    }
    assert_eq!(
        alone("nope", b"").unwrap_err().to_string(),
        "nope: transcode.test.Everything has no field of this name"
    );
    assert_eq!(alone("stringValue", b"\x72\x01\xff").unwrap_err().field(), "stringValue");
}

#[test]
fn places_in_every_level_do_not_double_the_work_of_each() {
    // Two to the power of 98 steps if each level were begun anew on its own.
    let mut wire = b"\x10\x01\x0a\x01a\x10\x02".to_vec();
    for _ in 0..98 {
        let mut outer = b"\x10\x01\x22".to_vec();
        prost::encoding::encode_varint(wire.len() as u64, &mut outer);
        outer.extend_from_slice(&wire);
        outer.extend_from_slice(b"\x10\x02");
        wire = outer;
    }
    let text = print(&codec("transcode.test.Leaf"), &wire).unwrap();
    assert_eq!(text.matches("\"count\":2").count(), 99);
}

/// The fields of a message as they stand, each with its head.
fn pieces(wire: &[u8]) -> Vec<&[u8]> {
    let mut rest = wire;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let before = rest;
        let (tag, wire_type) = prost::encoding::decode_key(&mut rest).unwrap();
        prost::encoding::skip_field(wire_type, tag, &mut rest, prost::encoding::DecodeContext::default()).unwrap();
        pieces.push(&before[..before.len() - rest.len()]);
    }
    pieces
}

/// The fields of all messages shuffled, and those of nested messages too.
fn scrambled(descriptor: &MessageDescriptor, wires: &[Vec<u8>], random: &mut generate::Random) -> Vec<u8> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for piece in wires.iter().flat_map(|wire| pieces(wire)) {
        let mut rest = piece;
        let (tag, _) = prost::encoding::decode_key(&mut rest).unwrap();
        let field = descriptor.get_field(tag);
        let nested = field.filter(|field| !field.is_map() && !field.kind().as_message().is_none_or(keeps_order));
        let Some(Kind::Message(inner)) = nested.map(|field| field.kind()) else {
            all.push(piece.to_vec());
            continue;
        };
        prost::encoding::decode_varint(&mut rest).unwrap();
        let content = scrambled(&inner, &[rest.to_vec()], random);
        let mut whole = Vec::new();
        prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut whole);
        prost::encoding::encode_varint(content.len() as u64, &mut whole);
        whole.extend_from_slice(&content);
        all.push(whole);
    }
    for at in (1..all.len()).rev() {
        all.swap(at, random.below(at as u64 + 1) as usize);
    }
    all.concat()
}

/// What means something else, or nothing, when pieces of two are mixed.
fn keeps_order(message: &MessageDescriptor) -> bool {
    message.full_name().starts_with("google.protobuf.")
}

/// Without the fields whose mixture has no JSON: a duration of two signs, an `Any` of one type with another's content.
fn mixable(mut message: DynamicMessage) -> DynamicMessage {
    for name in ["any", "duration", "choice_duration", "timestamp"] {
        message.clear_field_by_name(name);
    }
    message
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fields_in_any_order_and_several_times_mean_what_prost_reflect_reads(seed: u64, count in 1usize..4) {
        let mut random = generate::Random(seed);
        let wires: Vec<Vec<u8>> = (0..count)
            .map(|_| mixable(generate::message(&everything(), &mut random, 1)).encode_to_vec())
            .collect();
        let wire = scrambled(&everything(), &wires, &mut random);
        let codec = codec("transcode.test.Everything");
        let theirs = DynamicMessage::decode(everything(), &*wire).unwrap();
        let ours = print(&codec, &wire).unwrap_or_else(|error| panic!("{error}"));
        prop_assert_eq!(oracle::difference(&ours, &serde_json::to_string(&theirs).unwrap()), None);
        prop_assert_eq!(oracle::changed(&parse(&codec, &ours).unwrap(), &theirs), None);
    }
}
