//! The contract tables: methods, and the JSON of every message by name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::check::{Contract, Method};
use crate::names;
use crate::tree::Tree;

/// Well-known types that a method may take or give, or an `Any` hold.
const WELL_KNOWN: [&str; 17] = [
    "Any",
    "BoolValue",
    "BytesValue",
    "DoubleValue",
    "Duration",
    "Empty",
    "FieldMask",
    "FloatValue",
    "Int32Value",
    "Int64Value",
    "ListValue",
    "StringValue",
    "Struct",
    "Timestamp",
    "UInt32Value",
    "UInt64Value",
    "Value",
];

/// The table of all methods, sorted by path, so that each package's methods are one slice of it.
pub(crate) fn methods(contract: &Contract) -> String {
    let mut source = format!("pub(crate) static ALL: [::contract::Method; {}] = [\n", contract.methods.len());
    for method in &contract.methods {
        source.push_str(&entry(method));
    }
    source.push_str("];\n");
    source
}

/// The package's own view of that table.
pub(crate) fn package(contract: &Contract, name: &str, source: &mut String) {
    let of_package = |method: &Method| method.descriptor.parent_service().package_name() == name;
    let Some(start) = contract.methods.iter().position(of_package) else {
        return;
    };
    let count = contract.methods.iter().filter(|method| of_package(method)).count();
    let _ = write!(
        source,
        "
/// The methods of this package.
pub static METHODS: &[::contract::Method] = crate::methods::ALL.split_at({start}).1.split_at({count}).0;
"
    );
}

fn entry(method: &Method) -> String {
    let descriptor = &method.descriptor;
    let service = descriptor.parent_service();
    let mut http = String::new();
    for rule in &method.http {
        let (verb, template, body, response_body) =
            (names::camel(&rule.verb), &rule.template, &rule.body, &rule.response_body);
        let _ = write!(
            http,
            "::contract::HttpRule {{ verb: ::contract::Verb::{verb}, template: {template:?}, body: {body:?}, response_body: {response_body:?} }}, "
        );
    }
    format!(
        "    ::contract::Method {{
        service: {service:?}, name: {name:?}, path: {path:?}, owner: {owner:?}, input: {input:?}, output: {output:?},
        client_streaming: {client_streaming}, server_streaming: {server_streaming},
        policy: ::contract::Policy {{ access: ::contract::Access::{access}, owner: {owner_checked}, callers: &{callers:?} }},
        idempotency: ::contract::Idempotency::{idempotency}, deadline: ::core::time::Duration::new({seconds}, {nanos}),
        request_id: {request_id}, secret_reply: {secret_reply}, max_request_bytes: {max_request_bytes},
        stale_for: ::core::time::Duration::new({stale_seconds}, {stale_nanos}), http: &[{http}],
    }},
",
        service = service.full_name(),
        name = descriptor.name(),
        path = method.path,
        owner = names::owner(service.package_name()),
        input = descriptor.input().full_name(),
        output = descriptor.output().full_name(),
        client_streaming = descriptor.is_client_streaming(),
        server_streaming = descriptor.is_server_streaming(),
        access = method.access,
        owner_checked = method.owner_checked,
        callers = method.callers,
        idempotency = method.idempotency,
        seconds = method.deadline.0,
        nanos = method.deadline.1,
        request_id = method.request_id,
        secret_reply = method.secret_reply,
        max_request_bytes = method.max_request_bytes,
        stale_seconds = method.stale_for.0,
        stale_nanos = method.stale_for.1,
    )
}

/// The table of messages by full name, as an expression.
pub(crate) fn json(tree: &Tree) -> String {
    let own = tree
        .packages
        .values()
        .flat_map(|package| &package.messages)
        .map(|message| (message.full_name().to_owned(), names::message(message)));
    let well_known = WELL_KNOWN.iter().map(|name| (format!("google.protobuf.{name}"), names::well_known(name)));
    let messages: BTreeMap<String, String> = own.chain(well_known).collect();
    let mut source = "&[\n".to_owned();
    for (name, rust) in messages {
        let _ = writeln!(source, "    ({name:?}, message::<{rust}>()),");
    }
    source.push_str("]\n");
    source
}
