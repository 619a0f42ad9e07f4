//! The well-known types, one by one.

use transcode::ErrorKind;

use crate::{codec, parse, print};

fn through(name: &str, text: &str) -> Result<String, ErrorKind> {
    let wire = parse(&codec(name), text).map_err(|error| error.kind())?;
    print(&codec(name), &wire).map_err(|error| error.kind())
}

#[test]
fn each_has_the_json_of_its_own() {
    for (name, text, written) in [
        ("Timestamp", "\"2026-11-30T05:06:07.120+01:00\"", "\"2026-11-30T04:06:07.120Z\""),
        ("Duration", "\"-0.5s\"", "\"-0.500s\""),
        ("FieldMask", "\"a,shippingAddress.cityName\"", "\"a,shippingAddress.cityName\""),
        ("FieldMask", "\"\"", "\"\""),
        ("Struct", "{\"b\":[1,{\"c\":null}],\"a\":\"x\"}", "{\"b\":[1,{\"c\":null}],\"a\":\"x\"}"),
        ("Struct", "{}", "{}"),
        ("ListValue", "[]", "[]"),
        ("ListValue", "[[],{},\"\",0,false,null]", "[[],{},\"\",0,false,null]"),
        ("Value", " null ", "null"),
        ("Value", "-1.5e3", "-1500"),
        ("Int64Value", "7", "\"7\""),
        ("Int64Value", "\"0\"", "\"0\""),
        ("BytesValue", "\"-_8\"", "\"+/8=\""),
        ("StringValue", "\"\\ud83d\\ude00\"", "\"\u{1f600}\""),
        ("BoolValue", "false", "false"),
        ("DoubleValue", "\"NaN\"", "\"NaN\""),
        ("Empty", "{}", "{}"),
    ] {
        assert_eq!(through(&format!("google.protobuf.{name}"), text).as_deref(), Ok(written), "{name}");
    }
}

#[test]
fn what_does_not_fit_them_is_refused() {
    for (name, text, kind) in [
        ("Timestamp", "\"yesterday\"", ErrorKind::BadFormat),
        ("Duration", "\"1\"", ErrorKind::BadFormat),
        ("FieldMask", "\"a_b\"", ErrorKind::BadFormat),
        ("Struct", "null", ErrorKind::WrongType),
        ("Value", "", ErrorKind::Syntax),
        ("Value", "1e400", ErrorKind::OutOfRange),
        ("Int32Value", "2147483648", ErrorKind::OutOfRange),
        ("Empty", "{\"a\":1}", ErrorKind::UnknownField),
        ("Any", "{\"@type\":\"x/nobody.Knows\"}", ErrorKind::UnknownType),
        ("Any", "{\"@type\":\"no slash\"}", ErrorKind::UnknownType),
        ("Any", "{\"name\":\"a\"}", ErrorKind::BadFormat),
        ("Any", "{\"@type\":1}", ErrorKind::WrongType),
        ("Any", "{\"@type\":\"t/google.protobuf.Duration\"}", ErrorKind::BadFormat),
        ("Any", "{\"@type\":\"t/google.protobuf.Duration\",\"value\":\"1s\",\"x\":1}", ErrorKind::UnknownField),
        (
            "Any",
            "{\"@type\":\"t/google.protobuf.Duration\",\"value\":\"1s\",\"value\":\"1s\"}",
            ErrorKind::DuplicateKey,
        ),
        ("Any", "{\"@type\":\"t/transcode.test.Leaf\",\"nope\":1}", ErrorKind::UnknownField),
        ("Any", "{\"@type\":\"t/transcode.test.Leaf\",\"@type\":\"t/transcode.test.Leaf\"}", ErrorKind::DuplicateKey),
    ] {
        assert_eq!(through(&format!("google.protobuf.{name}"), text), Err(kind), "{name} {text}");
    }
}

#[test]
fn an_any_is_read_wherever_its_type_stands() {
    let leaf = "{\"@type\":\"t/transcode.test.Leaf\",\"name\":\"a\",\"leaf\":{\"count\":1}}";
    for (text, written) in [
        ("{}", "{}"),
        (leaf, leaf),
        ("{\"name\":\"a\",\"leaf\":{\"count\":1},\"@type\":\"t/transcode.test.Leaf\"}", leaf),
        ("{\"@type\":\"t/transcode.test.Leaf\"}", "{\"@type\":\"t/transcode.test.Leaf\"}"),
        (
            "{\"value\":\"1s\",\"@type\":\"t/google.protobuf.Duration\"}",
            "{\"@type\":\"t/google.protobuf.Duration\",\"value\":\"1s\"}",
        ),
        ("{\"@type\":\"t/google.protobuf.Empty\"}", "{\"@type\":\"t/google.protobuf.Empty\",\"value\":{}}"),
        (
            "{\"@type\":\"t/google.protobuf.Empty\",\"value\":{}}",
            "{\"@type\":\"t/google.protobuf.Empty\",\"value\":{}}",
        ),
        (
            "{\"@type\":\"t/google.protobuf.Any\",\"value\":{\"@type\":\"t/google.protobuf.Value\",\"value\":null}}",
            "{\"@type\":\"t/google.protobuf.Any\",\"value\":{\"@type\":\"t/google.protobuf.Value\",\"value\":null}}",
        ),
    ] {
        assert_eq!(through("google.protobuf.Any", text).as_deref(), Ok(written), "{text}");
    }
}

#[test]
fn what_has_no_json_is_an_error_of_its_own() {
    for (name, wire) in [
        ("Timestamp", &b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..]),
        ("Duration", b"\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("FieldMask", b"\x0a\x03a_B"),
        ("FieldMask", b"\x0a\x02a_"),
        ("FieldMask", b"\x0a\x06fooBar"),
        ("Value", b""),
        ("Value", b"\x11\0\0\0\0\0\0\xf0\x7f"),
    ] {
        let error = print(&codec(&format!("google.protobuf.{name}")), wire).unwrap_err();
        assert_eq!((error.kind(), error.place()), (ErrorKind::NoJson, None), "{name}");
    }
    let error = print(&codec("google.protobuf.Any"), b"\x0a\x03t/x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownType);
}
