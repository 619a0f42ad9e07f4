//! What is refused, with its kind, its place and its field; and what the options let pass.

use transcode::{ErrorKind, ParseOptions, PrintOptions};

use crate::{codec, parse, parse_with, print, print_with};

const EVERYTHING: &str = "transcode.test.Everything";

fn refused(text: &str) -> (ErrorKind, usize, usize, String) {
    match parse(&codec(EVERYTHING), text) {
        Ok(wire) => panic!("{text} was taken as {wire:?}"),
        Err(error) => {
            let place = error.place().unwrap();
            (error.kind(), place.line, place.column, error.field().to_owned())
        }
    }
}

/// The text in and out again.
fn through(text: &str) -> String {
    let wire = parse(&codec(EVERYTHING), text).unwrap_or_else(|error| panic!("{error}: {text}"));
    print(&codec(EVERYTHING), &wire).unwrap()
}

#[test]
fn everything_outside_the_grammar_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "{\"int32Value\":1,}",
        "{'int32Value':1}",
        "{int32Value:1}",
        "// x\n{}",
        "{} {}",
        "{}x",
        "/**/{}",
        "{\"int32s\":[1,]}",
        "{\"int32s\":[,1]}",
        "{\"int32s\":[1 2]}",
        "{\"int32s\":[1",
        "{\"int32Value\" 1}",
        "{\"int32Value\":}",
        "{\"int32Value\":01}",
        "{\"int32Value\":+1}",
        "{\"int32Value\":1.}",
        "{\"int32Value\":.5}",
        "{\"int32Value\":1e}",
        "{\"int32Value\":0x1}",
        "{\"int32Value\":--1}",
        "{\"int32Value\":1]",
        "{\"boolValue\":tru}",
        "{\"boolValue\":truee}",
        "{\"doubleValue\":NaN}",
        "{\"doubleValue\":Infinity}",
        "{\"stringValue\":\"a\nb\"}",
        "{\"stringValue\":\"\\x\"}",
        "{\"stringValue\":\"\\u12\"}",
        "{\"stringValue\":\"\\u00zz\"}",
        "{\"stringValue\":\"a",
        "{\"stringValue\":\"a\\",
        "\u{feff}{}",
        "{\"stringValue\":'a'}",
        "{\"self\":nul}",
        "{\"value\":01}",
        "{\"value\":[1,]}",
        "{\"value\":tru}",
        "{,}",
        "{\"a\"}",
    ] {
        assert_eq!(refused(text).0, ErrorKind::Syntax, "{text}");
    }
    for lone in ["\\ud800", "\\udc00", "\\ud800\\u0041", "\\ud800x", "\\udc00\\ud800"] {
        assert_eq!(refused(&format!("{{\"stringValue\":\"{lone}\"}}")).0, ErrorKind::Syntax, "{lone}");
        assert_eq!(refused(&format!("{{\"value\":{{\"{lone}\":1}}}}")).0, ErrorKind::Syntax, "{lone}");
    }
    let error = codec(EVERYTHING).json_to_wire(b"{\"a\":\n\"\xff\"}", &ParseOptions::default(), &mut Vec::new());
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.place().unwrap().line, error.place().unwrap().column), (ErrorKind::Utf8, 2, 2));
}

#[test]
fn an_error_names_line_column_and_field() {
    use ErrorKind::{DuplicateKey, DuplicateOneof, OutOfRange, Syntax, UnknownField, WrongType};
    for (text, kind, line, column, field) in [
        ("{\n  \"leaves\": [{}, {\"count\": \"x\"}]\n}", ErrorKind::BadFormat, 2, 28, "leaves[1].count"),
        ("{\"leaves\": [{\"count\": 3000000000}]}", OutOfRange, 1, 23, "leaves[0].count"),
        ("{\"self\": {\n\"nope\": 1}}", UnknownField, 2, 1, "self.nope"),
        ("{\"boolValue\": true,\n \"bool_value\": false}", DuplicateKey, 2, 2, "boolValue"),
        ("{\"boolValue\": true, \"boolValue\": null}", DuplicateKey, 1, 21, "boolValue"),
        ("{\"choiceInt32\": 1, \"choiceString\": \"\"}", DuplicateOneof, 1, 20, "choiceString"),
        ("{\"byString\": {\"a\": \"1\", \"b\": \"\", \"\\u0061\": \"2\"}}", DuplicateKey, 1, 34, "byString.a"),
        ("{\"byInt32\": {\"1\": \"\", \"1\": \"\"}}", DuplicateKey, 1, 23, "byInt32.1"),
        ("{\"struct\": {\"a\": {\"b\": 1, \"b\": 2}}}", DuplicateKey, 1, 27, "struct.a.b"),
        ("{\"leafByString\": {\"x y\": {\"name\": 1}}}", WrongType, 1, 35, "leafByString.x y.name"),
        ("{\"int32s\": [1, 2, null]}", WrongType, 1, 19, "int32s[2]"),
        ("{\"int32s\": 1}", WrongType, 1, 12, "int32s"),
        ("{\"self\": []}", WrongType, 1, 10, "self"),
        ("{\"stringValue\": \"a\\q\"}", Syntax, 1, 19, "stringValue"),
        ("{\"self\": {\"self\": 1 x}}", WrongType, 1, 19, "self.self"),
        ("[]", WrongType, 1, 1, ""),
        ("null", WrongType, 1, 1, ""),
    ] {
        assert_eq!(refused(text), (kind, line, column, field.to_owned()), "{text}");
    }
    let error = parse(&codec(EVERYTHING), "{\"self\":\n {\"int32Value\": true}}").unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 17: self.int32Value: expected a number, not a boolean");
}

#[test]
fn numbers_keep_to_their_range() {
    for text in [
        "{\"int32Value\":2147483648}",
        "{\"int32Value\":-2147483649}",
        "{\"int32Value\":0.5}",
        "{\"int32Value\":1e10}",
        "{\"uint32Value\":-1}",
        "{\"uint32Value\":4294967296}",
        "{\"uint64Value\":\"18446744073709551616\"}",
        "{\"uint64Value\":-1}",
        "{\"int64Value\":9223372036854775808}",
        "{\"int64Value\":\"-9223372036854775809\"}",
        "{\"floatValue\":3.5e38}",
        "{\"doubleValue\":1e309}",
        "{\"doubleValue\":\"-1e309\"}",
        "{\"colour\":2147483648}",
        "{\"colour\":0.5}",
    ] {
        assert_eq!(refused(text).0, ErrorKind::OutOfRange, "{text}");
    }
    for text in [
        "{\"int32Value\":\"\"}",
        "{\"int64Value\":\" 1\"}",
        "{\"doubleValue\":\"inf\"}",
        "{\"doubleValue\":\"nan\"}",
        "{\"int32Value\":\"0x1\"}",
    ] {
        assert_eq!(refused(text).0, ErrorKind::BadFormat, "{text}");
    }
    assert_eq!(
        through("{\"int32Value\":\"1e2\",\"int64Value\":7.0,\"uint64Value\":18446744073709551615}"),
        "{\"int32Value\":100,\"int64Value\":\"7\",\"uint64Value\":\"18446744073709551615\"}"
    );
    assert_eq!(
        through("{\"doubleValue\":\"-Infinity\",\"floatValue\":\"NaN\"}"),
        "{\"doubleValue\":\"-Infinity\",\"floatValue\":\"NaN\"}"
    );
    assert_eq!(
        through("{\"doubleValue\":\"1.5\",\"floatValue\":3.4028235e38}"),
        "{\"doubleValue\":1.5,\"floatValue\":3.4028235e+38}"
    );
}

#[test]
fn other_types_are_refused() {
    for text in [
        "{\"boolValue\":\"true\"}",
        "{\"boolValue\":1}",
        "{\"stringValue\":1}",
        "{\"stringValue\":{}}",
        "{\"bytesValue\":1}",
        "{\"colour\":true}",
        "{\"byString\":[]}",
        "{\"leaves\":{}}",
        "{\"timestamp\":0}",
        "{\"duration\":1}",
        "{\"fieldMask\":[]}",
        "{\"any\":1}",
        "{\"struct\":[]}",
        "{\"listValue\":{}}",
        "{\"int32Value\":[]}",
        "{\"empty\":1}",
        "{\"int64Wrapper\":{}}",
    ] {
        assert_eq!(refused(text).0, ErrorKind::WrongType, "{text}");
    }
    for text in [
        "{\"bytesValue\":\"a\"}",
        "{\"bytesValue\":\"a-b+\"}",
        "{\"bytesValue\":\"====\"}",
        "{\"byInt32\":{\"x\":\"\"}}",
        "{\"byBool\":{\"1\":\"\"}}",
        "{\"byBool\":{\"tru\\u0065\":\"\",\"x\":\"\"}}",
    ] {
        assert_eq!(refused(text).0, ErrorKind::BadFormat, "{text}");
    }
    assert_eq!(refused("{\"colour\":\"COLOUR_NONE\"}").0, ErrorKind::UnknownEnumValue);
}

#[test]
fn null_is_an_absent_value_except_where_it_is_one() {
    assert_eq!(
        through("{\"int32Value\":null,\"self\":null,\"int32s\":null,\"byString\":null,\"int64Wrapper\":null}"),
        "{}"
    );
    assert_eq!(through("{\"value\":null,\"choiceNull\":null}"), "{\"value\":null,\"choiceNull\":null}");
    assert_eq!(through("{\"choiceInt32\":null,\"choiceString\":\"\"}"), "{\"choiceString\":\"\"}");
    assert_eq!(
        through("{\"values\":[null],\"valueByString\":{\"\":null}}"),
        "{\"values\":[null],\"valueByString\":{\"\":null}}"
    );
    for text in ["{\"leaves\":[null]}", "{\"byString\":{\"a\":null}}", "{\"wrappers\":[null]}"] {
        assert_eq!(refused(text).0, ErrorKind::WrongType, "{text}");
    }
}

#[test]
fn zeros_are_not_sent_and_not_written_unless_asked_for() {
    let text = "{\"int32Value\":0,\"doubleValue\":0,\"fixed64Value\":\"0\",\"stringValue\":\"\",\"colour\":0,\"int32s\":[],\"byString\":{}}";
    assert_eq!(parse(&codec(EVERYTHING), text).unwrap(), b"");
    assert_eq!(
        through("{\"maybeInt32\":0,\"choiceInt32\":0,\"self\":{}}"),
        "{\"maybeInt32\":0,\"choiceInt32\":0,\"self\":{}}"
    );
    let all = PrintOptions { emit_defaults: true, ..PrintOptions::default() };
    let leaf = codec("transcode.test.Leaf");
    assert_eq!(print_with(&leaf, b"", &all).unwrap(), "{\"name\":\"\",\"count\":0,\"numbers\":[],\"leaves\":{}}");
    assert_eq!(
        print_with(&leaf, &[0x10, 0], &all).unwrap(),
        "{\"count\":0,\"name\":\"\",\"numbers\":[],\"leaves\":{}}"
    );
}

#[test]
fn a_minus_zero_is_not_the_default() {
    assert_eq!(through("{\"doubleValue\":-0.0}"), "{\"doubleValue\":-0}");
}

#[test]
fn unknown_things_are_passed_over_if_asked_for_but_must_be_json() {
    let lenient = ParseOptions { ignore_unknown: true, ..ParseOptions::default() };
    let codec = codec(EVERYTHING);
    let read = |text: &str| {
        let wire = parse_with(&codec, text.as_bytes(), &lenient)?;
        Ok::<_, transcode::Error>(print(&codec, &wire).unwrap())
    };
    for (text, kept) in [
        ("{\"x\":{\"y\":[1,\"a\",true,false,null,{}]},\"int32Value\":1}", "{\"int32Value\":1}"),
        ("{\"colour\":\"NONE\",\"maybeColour\":\"NONE\",\"choiceColour\":\"NONE\"}", "{}"),
        (
            "{\"colours\":[\"NONE\",\"COLOUR_RED\",\"NONE\"],\"bySint64\":{\"1\":\"NONE\",\"2\":\"COLOUR_FAR\"}}",
            "{\"colours\":[\"COLOUR_RED\"],\"bySint64\":{\"2\":\"COLOUR_FAR\"}}",
        ),
        ("{\"colours\":[\"NONE\"]}", "{}"),
    ] {
        assert_eq!(read(text).unwrap(), kept);
    }
    for (text, kind) in [
        ("{\"x\":1,\"x\":2}", ErrorKind::DuplicateKey),
        ("{\"x\":{\"y\":1,\"\\u0079\":2}}", ErrorKind::DuplicateKey),
        ("{\"x\":[1,]}", ErrorKind::Syntax),
        ("{\"x\":\"\\ud800\"}", ErrorKind::Syntax),
        ("{\"x\":01}", ErrorKind::Syntax),
    ] {
        assert_eq!(read(text).unwrap_err().kind(), kind, "{text}");
    }
}

#[test]
fn nesting_ends_at_a_hundred_levels() {
    let nested = |open: &str, close: &str, count: usize| format!("{}{}", open.repeat(count), close.repeat(count));
    let codec = codec(EVERYTHING);
    let lenient = ParseOptions { ignore_unknown: true, ..ParseOptions::default() };
    for (before, open, close) in [
        ("{\"self\":", "{\"self\":", "}"),
        ("{\"value\":", "[", "]"),
        ("{\"value\":", "{\"\":", "}"),
        ("{\"x\":", "[", "]"),
    ] {
        let text = |count| format!("{before}{}}}", nested(open, close, count).replacen(":}", ":null}", 1));
        parse_with(&codec, text(99).as_bytes(), &lenient).unwrap_or_else(|error| panic!("{error}"));
        for count in [100, 101, 100_000] {
            let error = parse_with(&codec, text(count).as_bytes(), &lenient).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooDeep, "{before}{open}");
        }
    }
}

#[test]
fn the_output_is_bounded() {
    let codec = codec(EVERYTHING);
    let options = ParseOptions { max_bytes: 1_000, ..ParseOptions::default() };
    let text = format!("{{\"strings\":[{}\"\"]}}", "\"\",".repeat(2_000));
    assert_eq!(parse_with(&codec, text.as_bytes(), &options).unwrap_err().kind(), ErrorKind::TooLong);
    let wire = parse(&codec, &text).unwrap();
    let options = PrintOptions { max_bytes: 1_000, ..PrintOptions::default() };
    assert_eq!(print_with(&codec, &wire, &options).unwrap_err().kind(), ErrorKind::TooLong);
}
