//! A contract that is wrong does not build, and says which method or field is at fault.

#![allow(clippy::unwrap_used)]

mod sandbox;

use sandbox::Sandbox;

const POLICY: &str = "option (stoa.contract.v1.policy) = { access: ACCESS_CUSTOMER };";

/// The faults of a service whose one method has these options, on requests with these fields.
fn method(fields: &str, options: &str) -> Vec<String> {
    service(
        &format!("message TestRequest {{ {fields} }}"),
        &format!("rpc Test(TestRequest) returns (TestResponse) {{ {options} }}"),
    )
}

fn service(messages: &str, methods: &str) -> Vec<String> {
    faults(&format!("{messages} message TestResponse {{ string note = 1; }} service TestService {{ {methods} }}"))
}

fn field(field: &str) -> Vec<String> {
    faults(&format!("enum Colour {{ COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; }} message Thing {{ {field} }}"))
}

fn faults(body: &str) -> Vec<String> {
    let sandbox = Sandbox::new(body);
    match sandbox.compile() {
        Ok(()) => Vec::new(),
        Err(errors) => errors.problems().iter().map(ToString::to_string).collect(),
    }
}

const METHOD: &str = "stoa/test/v1/test.proto: stoa.test.v1.TestService.Test: ";
const FIELD: &str = "stoa/test/v1/test.proto: stoa.test.v1.Thing.it: ";

#[track_caller]
fn assert_fault(faults: &[String], place: &str, text: &str) {
    assert_eq!(faults, [format!("{place}{text}")]);
}

#[test]
fn a_method_with_everything_it_needs_has_no_fault() {
    let faults = method(
        "string name = 1; string request_id = 2;",
        &format!("{POLICY} option (google.api.http) = {{ post: \"/v1/{{name=things/*}}:test\" body: \"*\" }};"),
    );
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn a_method_without_policy() {
    let faults = method("string request_id = 1;", "");
    assert_fault(&faults, METHOD, "has no policy: say who may call it with (stoa.contract.v1.policy)");
}

#[test]
fn a_policy_without_access() {
    let faults = method("string request_id = 1;", "option (stoa.contract.v1.policy) = { owner: true };");
    assert_fault(&faults, METHOD, "has a policy without access");
}

#[test]
fn two_routes_that_collide() {
    let faults = service(
        "message TestRequest { string name = 1; } message OtherRequest { string other = 1; }",
        &format!(
            "rpc Other(OtherRequest) returns (TestResponse) {{ {POLICY} option idempotency_level = NO_SIDE_EFFECTS;
               option (google.api.http) = {{ get: \"/v1/things/{{other}}\" }}; }}
             rpc Test(TestRequest) returns (TestResponse) {{ {POLICY} option idempotency_level = NO_SIDE_EFFECTS;
               option (google.api.http) = {{ get: \"/v1/{{name=things/*}}\" }}; }}"
        ),
    );
    assert_fault(
        &faults,
        METHOD,
        "has the route GET /v1/{name=things/*}, which collides with that of stoa.test.v1.TestService.Other",
    );
}

#[test]
fn a_route_that_collides_only_as_an_additional_binding() {
    let faults = method(
        "string request_id = 1;",
        &format!(
            "{POLICY} option (google.api.http) = {{ post: \"/v1/things\" body: \"*\" additional_bindings {{ post: \"/v1/things\" body: \"*\" }} }};"
        ),
    );
    assert_fault(
        &faults,
        METHOD,
        "has the route POST /v1/things, which collides with that of stoa.test.v1.TestService.Test",
    );
}

#[test]
fn a_path_variable_that_is_no_field() {
    let faults = method(
        "string request_id = 1;",
        &format!("{POLICY} option (google.api.http) = {{ post: \"/v1/{{thing=things/*}}\" body: \"*\" }};"),
    );
    assert_fault(&faults, METHOD, "binds the path variable \"thing\", which is no field of stoa.test.v1.TestRequest");
}

#[test]
fn a_path_variable_that_is_no_single_text() {
    for fields in
        ["string request_id = 1; repeated string thing = 2;", "string request_id = 1; TestResponse thing = 2;"]
    {
        let faults = method(
            fields,
            &format!("{POLICY} option (google.api.http) = {{ post: \"/v1/{{thing=things/*}}\" body: \"*\" }};"),
        );
        assert_fault(
            &faults,
            METHOD,
            "binds the path variable \"thing\", which is not a single string, number, bool or enum",
        );
    }
}

#[test]
fn a_body_on_get() {
    let faults = method(
        "string request_id = 1;",
        &format!("{POLICY} option (google.api.http) = {{ get: \"/v1/things\" body: \"*\" }};"),
    );
    assert_fault(&faults, METHOD, "has a body on GET");
}

#[test]
fn a_body_that_is_no_field() {
    let faults = method(
        "string request_id = 1;",
        &format!("{POLICY} option (google.api.http) = {{ post: \"/v1/things\" body: \"thing\" }};"),
    );
    assert_fault(&faults, METHOD, "binds the body to \"thing\", which is no field of stoa.test.v1.TestRequest");
}

#[test]
fn a_reply_body_that_is_no_field() {
    let faults = method(
        "string request_id = 1;",
        &format!(
            "{POLICY} option (google.api.http) = {{ post: \"/v1/things\" body: \"*\" response_body: \"thing\" }};"
        ),
    );
    assert_fault(&faults, METHOD, "answers with \"thing\", which is no field of stoa.test.v1.TestResponse");
}

#[test]
fn a_path_that_is_no_template() {
    let faults = method(
        "string request_id = 1;",
        &format!("{POLICY} option (google.api.http) = {{ post: \"v1/things\" body: \"*\" }};"),
    );
    assert_fault(&faults, METHOD, "path \"v1/things\" must begin with a slash");
}

#[test]
fn a_method_with_effects_that_cannot_be_repeated() {
    let faults = method("string name = 1;", POLICY);
    assert_fault(
        &faults,
        METHOD,
        "has effects, and can be repeated neither by idempotency_level nor by a request_id in stoa.test.v1.TestRequest",
    );
}

#[test]
fn a_method_with_effects_may_be_idempotent_or_have_a_secret_reply_instead() {
    for option in ["option idempotency_level = IDEMPOTENT;", "option (stoa.contract.v1.secret_reply) = true;"] {
        let faults = method("string name = 1;", &format!("{POLICY} {option}"));
        assert!(faults.is_empty(), "{faults:?}");
    }
}

#[test]
fn a_caller_that_is_no_service() {
    let faults = method(
        "string request_id = 1;",
        "option (stoa.contract.v1.policy) = { access: ACCESS_INTERNAL callers: \"test\" callers: \"nobody\" };",
    );
    assert_fault(&faults, METHOD, "may be called by \"nobody\", which is no service");
}

#[test]
fn an_internal_method_without_callers() {
    let faults = method("string request_id = 1;", "option (stoa.contract.v1.policy) = { access: ACCESS_INTERNAL };");
    assert_fault(&faults, METHOD, "is internal and names no callers");
}

#[test]
fn an_internal_method_with_an_http_binding() {
    let faults = method(
        "string request_id = 1;",
        "option (stoa.contract.v1.policy) = { access: ACCESS_INTERNAL callers: \"test\" };
         option (google.api.http) = { post: \"/v1/things\" body: \"*\" };",
    );
    assert_fault(&faults, METHOD, "is internal and has an HTTP binding");
}

#[test]
fn a_deadline_of_no_time() {
    let faults =
        method("string request_id = 1;", &format!("{POLICY} option (stoa.contract.v1.deadline) = {{ seconds: 0 }};"));
    assert_fault(&faults, METHOD, "has a deadline that is not positive");
}

#[test]
fn a_field_rule_that_does_not_fit_the_type() {
    let cases = [
        (
            "int32 it = 1 [(buf.validate.field).string.min_len = 1];",
            "rules for string do not fit a field of type int32",
        ),
        ("string it = 1 [(buf.validate.field).int32.gt = 1];", "rules for int32 do not fit a field of type string"),
        (
            "repeated string it = 1 [(buf.validate.field).string.min_len = 1];",
            "rules for string do not fit a field of type repeated string",
        ),
        (
            "repeated int32 it = 1 [(buf.validate.field).repeated.items.string.min_len = 1];",
            "rules for string do not fit a field of type int32",
        ),
        (
            "map<string, int32> it = 1 [(buf.validate.field).repeated.min_items = 1];",
            "rules for repeated do not fit a field of type map",
        ),
        (
            "map<string, int32> it = 1 [(buf.validate.field).map.values.string.min_len = 1];",
            "rules for string do not fit a field of type int32",
        ),
        (
            "Thing it = 1 [(buf.validate.field).duration.gt = { seconds: 1 }];",
            "rules for duration do not fit a field of type stoa.test.v1.Thing",
        ),
        (
            "string it = 1 [(buf.validate.field).enum.defined_only = true];",
            "rules for enum do not fit a field of type string",
        ),
        (
            "repeated Thing it = 1 [(buf.validate.field).repeated.unique = true];",
            "the rule \"repeated.unique\" does not fit elements of type stoa.test.v1.Thing",
        ),
    ];
    for (text, fault) in cases {
        assert_fault(&field(text), FIELD, fault);
    }
}

#[test]
fn a_field_rule_that_nothing_can_keep() {
    let cases = [
        (
            "int32 it = 1 [(buf.validate.field).int32 = { gt: 9 lt: 3 }];",
            "the rules of int32 leave no value: above 9 and below 3",
        ),
        (
            "string it = 1 [(buf.validate.field).string = { min_len: 9 max_len: 3 }];",
            "the rules of string ask for at least 9 and at most 3",
        ),
        (
            "string it = 1 [(buf.validate.field).string.pattern = \"(\"];",
            "the pattern \"(\" is no regular expression: error: unclosed group",
        ),
        (
            "Colour it = 1 [(buf.validate.field).enum.not_in = 7];",
            "enum.not_in names 7, which stoa.test.v1.Colour does not define",
        ),
    ];
    for (text, fault) in cases {
        assert_fault(&field(text), FIELD, fault);
    }
}

#[test]
fn a_personal_mark_on_what_is_no_text() {
    assert_fault(
        &field("Thing it = 1 [(stoa.contract.v1.personal) = true];"),
        FIELD,
        "is marked personal and is no text: mark the text fields below it",
    );
}

#[test]
fn an_event_without_a_schema() {
    let faults = faults("message Happened { option (stoa.contract.v1.event) = {}; }");
    assert_fault(&faults, "stoa/test/v1/test.proto: stoa.test.v1.Happened: ", "is an event without a schema version");
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = method(
        "string it = 1 [(buf.validate.field).int32.gt = 1];",
        "option (google.api.http) = { get: \"/v1/{a}\" body: \"b\" };",
    );
    assert_eq!(faults.len(), 5, "{faults:#?}");
}

#[test]
fn a_file_that_does_not_parse_is_named() {
    let faults = faults("message {");
    assert!(faults[0].starts_with("stoa/test/v1/test.proto: "), "{faults:?}");
}
