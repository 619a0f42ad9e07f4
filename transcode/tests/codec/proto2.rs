//! Proto2: groups, extensions, required fields, enums that are closed.

use prost_reflect::DynamicMessage;
use transcode::{ErrorKind, PrintOptions};

use crate::{POOL, codec, oracle, parse, print, print_with};

const ORDER: &str = "transcode.test2.Order";

/// The bytes as prost-reflect prints them.
fn reflected(wire: &[u8]) -> String {
    let descriptor = POOL.get_message_by_name(ORDER).unwrap();
    serde_json::to_string(&DynamicMessage::decode(descriptor, wire).unwrap()).unwrap()
}

#[test]
fn what_is_written_comes_back() {
    for text in [
        "{\"id\":\"\"}",
        "{\"id\":\"a\",\"count\":0,\"numbers\":[1,2],\"packedNumbers\":[3,4]}",
        "{\"id\":\"a\",\"size\":\"SIZE_LARGE\",\"sizes\":[\"SIZE_SMALL\"],\"sizeByName\":{\"x\":\"SIZE_LARGE\"}}",
        "{\"id\":\"a\",\"label\":{\"text\":\"t\",\"line\":[{\"width\":1},{},{\"width\":2}]}}",
        "{\"id\":\"a\",\"[transcode.test2.note]\":\"n\",\"[transcode.test2.related]\":[{\"id\":\"b\"}]}",
        "{\"id\":\"a\",\"[transcode.test2.Scope.weight]\":\"5\"}",
    ] {
        let wire = parse(&codec(ORDER), text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(print(&codec(ORDER), &wire).unwrap(), text);
        assert_eq!(oracle::difference(text, &reflected(&wire)), None);
    }
}

#[test]
fn lists_are_packed_only_where_the_schema_says_so() {
    let wire = parse(&codec(ORDER), "{\"id\":\"\",\"numbers\":[1,2],\"packedNumbers\":[3,4]}").unwrap();
    assert_eq!(wire, b"\x0a\x00\x18\x01\x18\x02\x22\x02\x03\x04");
    let other = b"\x0a\x00\x1a\x02\x01\x02\x20\x03\x20\x04";
    assert_eq!(print(&codec(ORDER), other).unwrap(), "{\"id\":\"\",\"numbers\":[1,2],\"packedNumbers\":[3,4]}");
}

#[test]
fn a_required_field_is_asked_for() {
    for (text, field) in [("{}", "id"), ("{\"id\":\"a\",\"inner\":{}}", "inner.id"), ("{\"id\":null}", "id")] {
        let error = parse(&codec(ORDER), text).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::Required, field), "{text}");
    }
}

#[test]
fn numbers_that_a_closed_enum_does_not_have_are_unknown_fields() {
    for (wire, text) in [
        (&b"\x28\x09"[..], "{}"),
        (b"\x28\x02\x28\x09", "{\"size\":\"SIZE_LARGE\"}"),
        (b"\x30\x01\x30\x09\x30\x02", "{\"sizes\":[\"SIZE_SMALL\",\"SIZE_LARGE\"]}"),
        (b"\x32\x03\x09\x01\x09", "{\"sizes\":[\"SIZE_SMALL\"]}"),
        (b"\x3a\x05\x0a\x01a\x10\x09\x3a\x05\x0a\x01b\x10\x01", "{\"sizeByName\":{\"b\":\"SIZE_SMALL\"}}"),
        (b"\x5a\x01a\x50\x09", "{\"choiceText\":\"a\"}"),
    ] {
        assert_eq!(print(&codec(ORDER), wire).unwrap(), text);
    }
}

#[test]
fn groups_are_merged_like_messages() {
    let wire = b"\x43\x0a\x01a\x44\x08\x01\x43\x13\x08\x01\x14\x44";
    assert_eq!(print(&codec(ORDER), wire).unwrap(), "{\"label\":{\"text\":\"a\",\"line\":[{\"width\":1}]}}");
    assert!(print(&codec(ORDER), b"\x43\x0a\x01a").is_err());
    assert!(print(&codec(ORDER), b"\x43\x0a\x01a\x4c").is_err());
}

#[test]
fn fields_with_presence_have_no_default_to_emit() {
    let all = PrintOptions { emit_defaults: true, ..PrintOptions::default() };
    let text = print_with(&codec(ORDER), b"", &all).unwrap();
    let lists = "{\"numbers\":[],\"packedNumbers\":[],\"sizes\":[],\"sizeByName\":{},\"[transcode.test2.related]\":[]}";
    assert_eq!(text, lists);
}
