//! A request is put together from path, query and body, each field from one place.

use transcode::{Binding, ErrorKind, ParseOptions};

use crate::{codec, print};

const EVERYTHING: &str = "transcode.test.Everything";

struct Request<'a> {
    variables: &'a [(&'a str, &'a str)],
    query: &'a str,
    rule: &'a str,
    body: &'a str,
}

impl Request<'_> {
    fn bound(&self) -> Result<String, Vec<(ErrorKind, String)>> {
        let codec = codec(EVERYTHING);
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| *name).collect();
        let captures: Vec<String> = self.variables.iter().map(|(_, text)| (*text).to_owned()).collect();
        let binding = Binding::new(&codec, &names, self.rule).unwrap();
        let mut wire = b"before".to_vec();
        let query = Some(self.query).filter(|query| !query.is_empty());
        let result = binding.bind(&captures, query, self.body.as_bytes(), &ParseOptions::default(), &mut wire);
        let wire = wire.strip_prefix(b"before").expect("what was there stays there");
        assert!(result.is_ok() || wire.is_empty(), "an error leaves nothing behind");
        let told = |errors: Vec<transcode::Error>| {
            errors.iter().map(|error| (error.kind(), error.field().to_owned())).collect()
        };
        result.map(|()| print(&codec, wire).unwrap()).map_err(told)
    }
}

fn query(query: &str) -> Result<String, Vec<(ErrorKind, String)>> {
    Request { variables: &[], query, rule: "", body: "" }.bound()
}

#[test]
fn a_query_fills_fields_of_every_kind_that_text_can() {
    for (text, json) in [
        (
            "int32Value=-7&uint64_value=18446744073709551615",
            "{\"int32Value\":-7,\"uint64Value\":\"18446744073709551615\"}",
        ),
        (
            "doubleValue=1.5e3&floatValue=NaN&boolValue=true",
            "{\"doubleValue\":1500,\"floatValue\":\"NaN\",\"boolValue\":true}",
        ),
        ("int32Value=007&uint32Value=00&sint32Value=-1", "{\"int32Value\":7,\"sint32Value\":-1}"),
        ("stringValue=a+b%2B%26%C3%BC", "{\"stringValue\":\"a b+&ü\"}"),
        ("stringValue=%22%5C%0A", "{\"stringValue\":\"\\\"\\\\\\n\"}"),
        ("bytesValue=-_8", "{\"bytesValue\":\"+/8=\"}"),
        ("colour=COLOUR_RED&maybeColour=-3", "{\"colour\":\"COLOUR_RED\",\"maybeColour\":\"COLOUR_NEGATIVE\"}"),
        ("colours=COLOUR_RED&colours=77&int32s=1&int32s=2", "{\"colours\":[\"COLOUR_RED\",77],\"int32s\":[1,2]}"),
        (
            "self.self.int32Value=1&self.strings=a&self.strings=b",
            "{\"self\":{\"self\":{\"int32Value\":1},\"strings\":[\"a\",\"b\"]}}",
        ),
        (
            "timestamp=2026-11-30T04:05:06Z&duration=1.5s",
            "{\"timestamp\":\"2026-11-30T04:05:06Z\",\"duration\":\"1.500s\"}",
        ),
        ("fieldMask=a.bC,d&boolWrapper=false", "{\"fieldMask\":\"a.bC,d\",\"boolWrapper\":false}"),
        (
            "int64Wrapper=5&stringWrapper=&doubleWrapper=2",
            "{\"int64Wrapper\":\"5\",\"stringWrapper\":\"\",\"doubleWrapper\":2}",
        ),
        ("maybeString&stringValue=&&int32Value=0", "{\"maybeString\":\"\"}"),
        (
            "wrappers=1&wrappers=2&timestamps=1970-01-01T00:00:00Z",
            "{\"wrappers\":[1,2],\"timestamps\":[\"1970-01-01T00:00:00Z\"]}",
        ),
        ("choiceLeaf.name=a&choiceLeaf.count=2", "{\"choiceLeaf\":{\"name\":\"a\",\"count\":2}}"),
    ] {
        let bound = query(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        assert_eq!(crate::oracle::difference(&bound, json), None, "{text}");
    }
}

#[test]
fn what_a_query_gets_wrong_is_told_all_at_once() {
    for (text, errors) in [
        ("int32Value=1&int32Value=1", &[(ErrorKind::DuplicateKey, "int32Value")][..]),
        ("int32Value=1&int32_value=2", &[(ErrorKind::DuplicateKey, "int32_value")]),
        ("self.int32Value=1&self.int32Value=2", &[(ErrorKind::DuplicateKey, "self.int32Value")]),
        ("choiceInt32=1&choiceString=a", &[(ErrorKind::DuplicateOneof, "choiceString")]),
        ("choiceLeaf.name=a&choiceInt32=1", &[(ErrorKind::DuplicateOneof, "choiceInt32")]),
        (
            "nope=1&self.nope=2&int32Value.x=3",
            &[
                (ErrorKind::UnknownField, "nope"),
                (ErrorKind::UnknownField, "self.nope"),
                (ErrorKind::UnknownField, "int32Value.x"),
            ],
        ),
        (
            "self=1&leaves=2&byString=3&struct=4&value=5&any=6&leaves.name=7",
            &[
                (ErrorKind::NotText, "self"),
                (ErrorKind::NotText, "leaves"),
                (ErrorKind::NotText, "byString"),
                (ErrorKind::NotText, "struct"),
                (ErrorKind::NotText, "value"),
                (ErrorKind::NotText, "any"),
                (ErrorKind::UnknownField, "leaves.name"),
            ],
        ),
        (
            "int32Value=0x10&int64Value=1e2&uint32Value=&sint32Value=1.0&fixed32Value=-",
            &[
                (ErrorKind::BadFormat, "int32Value"),
                (ErrorKind::BadFormat, "int64Value"),
                (ErrorKind::BadFormat, "uint32Value"),
                (ErrorKind::BadFormat, "sint32Value"),
                (ErrorKind::BadFormat, "fixed32Value"),
            ],
        ),
        (
            "int32Value=3000000000&boolValue=1&colour=NONE&int32s=null",
            &[
                (ErrorKind::OutOfRange, "int32Value"),
                (ErrorKind::WrongType, "boolValue"),
                (ErrorKind::UnknownEnumValue, "colour"),
                (ErrorKind::BadFormat, "int32s"),
            ],
        ),
        (
            "stringValue=%zz&%ff=1&bytesValue=%C3%28",
            &[
                (ErrorKind::BadEscape, "stringValue"),
                (ErrorKind::BadEscape, "%ff"),
                (ErrorKind::BadEscape, "bytesValue"),
            ],
        ),
    ] {
        let expected: Vec<_> = errors.iter().map(|(kind, field)| (*kind, (*field).to_owned())).collect();
        assert_eq!(query(text), Err(expected), "{text}");
    }
}

#[test]
fn a_field_comes_from_one_place() {
    let request = |query, rule, body| Request { variables: &[("self.string_value", "a b")], query, rule, body }.bound();
    let here = |kind, field: &str| Err(vec![(kind, field.to_owned())]);
    assert_eq!(request("", "", ""), Ok("{\"self\":{\"stringValue\":\"a b\"}}".to_owned()));
    assert_eq!(request("self.stringValue=x", "", ""), here(ErrorKind::BoundElsewhere, "self.stringValue"));
    assert_eq!(
        request("self.int32Value=1", "", "\n"),
        Ok("{\"self\":{\"int32Value\":1,\"stringValue\":\"a b\"}}".to_owned())
    );
    assert_eq!(request("", "", "{}"), here(ErrorKind::BoundElsewhere, "body"));
    assert!(request("", "*", "\n").is_err_and(|faults| faults.len() == 1), "white space is no JSON");
    assert_eq!(request("int32Value=1", "*", "{}"), here(ErrorKind::BoundElsewhere, "int32Value"));
    assert_eq!(request("self.int32Value=1", "self", "{}"), here(ErrorKind::BoundElsewhere, "self.int32Value"));
    for body in [
        "{\"boolValue\":true}",
        "{\"boolValue\":true,\"self\":{\"stringValue\":\"a b\"}}",
        "{\"boolValue\":true,\"self\":null}",
    ] {
        let bound = request("", "*", body).unwrap();
        assert_eq!(
            crate::oracle::difference(&bound, "{\"boolValue\":true,\"self\":{\"stringValue\":\"a b\"}}"),
            None,
            "{body}"
        );
    }
    assert_eq!(
        request("", "*", "{\"self\":{\"stringValue\":\"c\"}}"),
        here(ErrorKind::BoundElsewhere, "self.string_value")
    );
    assert_eq!(
        request("boolValue=true", "self", "{\"int32Value\":1}"),
        Ok("{\"boolValue\":true,\"self\":{\"int32Value\":1,\"stringValue\":\"a b\"}}".to_owned())
    );
}

#[test]
fn a_query_does_not_choose_another_member_of_a_oneof_than_the_path() {
    let request = Request { variables: &[("choice_string", "a")], query: "choiceInt32=1", rule: "", body: "" };
    assert_eq!(request.bound(), Err(vec![(ErrorKind::DuplicateOneof, "choiceInt32".to_owned())]));
}

#[test]
fn a_body_may_be_one_field_of_any_kind() {
    for (rule, body, json) in [
        ("leaves", "[{\"name\":\"a\"}]", "{\"leaves\":[{\"name\":\"a\"}]}"),
        ("by_string", "{\"a\":\"b\"}", "{\"byString\":{\"a\":\"b\"}}"),
        ("stringValue", " \"x\" ", "{\"stringValue\":\"x\"}"),
        ("value", "null", "{\"value\":null}"),
        ("self", "null", "{}"),
        ("self", "", "{}"),
    ] {
        assert_eq!(Request { variables: &[], query: "", rule, body }.bound().as_deref(), Ok(json), "{rule}");
    }
    let wrong = Request { variables: &[], query: "nope=1", rule: "self", body: "{\"int32Value\":x}" }.bound();
    let expected = [(ErrorKind::UnknownField, "nope"), (ErrorKind::Syntax, "self.int32Value")];
    assert_eq!(wrong, Err(expected.map(|(kind, field)| (kind, field.to_owned())).to_vec()));
    assert!(Request { variables: &[], query: "", rule: "self", body: "{} {}" }.bound().is_err());
}

#[test]
fn a_rule_that_does_not_fit_its_message_is_refused() {
    let codec = codec(EVERYTHING);
    for (variables, body, field) in [
        (&["nope"][..], "", "nope"),
        (&["self"], "", "self"),
        (&["int32s"], "", "int32s"),
        (&["by_string"], "", "by_string"),
        (&["int32_value.x"], "", "int32_value.x"),
        (&["value"], "*", "value"),
        (&[], "nope", "nope"),
    ] {
        assert_eq!(Binding::new(&codec, variables, body).unwrap_err().field, field);
    }
    let error = Binding::new(&codec, &["self.nope"], "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "transcode.test.Everything, `self.nope`: transcode.test.Everything has no field of this name"
    );
}
