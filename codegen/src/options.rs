//! Reads the options of the contract: policy, deadline, HTTP rules, event and personal marks.
//!
//! They are read by name through reflection, so this crate needs no generated code of its own.

use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage as _, Value};

use crate::tree::Tree;

/// An extension's value on an element's options, if it is set there.
pub(crate) fn extension(tree: &Tree, options: &DynamicMessage, name: &str) -> Option<Value> {
    let extension = tree.pool.get_extension_by_name(name)?;
    options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())
}

/// A field's value, if it is set.
pub(crate) fn set(message: &DynamicMessage, field: &str) -> Option<Value> {
    let descriptor = message.descriptor().get_field_by_name(field)?;
    message.has_field(&descriptor).then(|| message.get_field(&descriptor).into_owned())
}

pub(crate) fn text(message: &DynamicMessage, field: &str) -> String {
    set(message, field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The policy of a method as its `.proto` says it.
pub(crate) struct Policy {
    /// The name of the access value, `ACCESS_PUBLIC`; empty if it is not specified.
    pub(crate) access: String,
    pub(crate) owner: bool,
    pub(crate) callers: Vec<String>,
}

pub(crate) fn policy(tree: &Tree, method: &MethodDescriptor) -> Option<Policy> {
    let value = extension(tree, &method.options(), "stoa.contract.v1.policy")?;
    let message = value.as_message()?;
    let number = set(message, "access").and_then(|value| value.as_enum_number()).unwrap_or(0);
    let kind = message.descriptor().get_field_by_name("access")?.kind();
    let access = kind.as_enum().and_then(|access| access.get_value(number).map(|value| value.name().to_owned()));
    let callers = set(message, "callers").map(|value| strings(&value)).unwrap_or_default();
    let owner = set(message, "owner").and_then(|value| value.as_bool()).unwrap_or(false);
    Some(Policy { access: if number == 0 { String::new() } else { access.unwrap_or_default() }, owner, callers })
}

/// The deadline in seconds and nanos.
pub(crate) fn deadline(tree: &Tree, method: &MethodDescriptor) -> Option<(i64, i32)> {
    let value = extension(tree, &method.options(), "stoa.contract.v1.deadline")?;
    value.as_message().map(span)
}

/// How long an answer may stand in for another, in seconds and nanos.
pub(crate) fn stale_for(tree: &Tree, method: &MethodDescriptor) -> Option<(i64, i32)> {
    let value = extension(tree, &method.options(), "stoa.contract.v1.stale_for")?;
    value.as_message().map(span)
}

/// Seconds and nanos of a `Duration` or a `Timestamp`.
pub(crate) fn span(message: &DynamicMessage) -> (i64, i32) {
    let seconds = set(message, "seconds").and_then(|value| value.as_i64()).unwrap_or(0);
    let nanos = set(message, "nanos").and_then(|value| value.as_i32()).unwrap_or(0);
    (seconds, nanos)
}

pub(crate) fn secret_reply(tree: &Tree, method: &MethodDescriptor) -> bool {
    extension(tree, &method.options(), "stoa.contract.v1.secret_reply")
        .and_then(|value| value.as_bool())
        .unwrap_or(false)
}

pub(crate) fn max_request_bytes(tree: &Tree, method: &MethodDescriptor) -> Option<u32> {
    extension(tree, &method.options(), "stoa.contract.v1.max_request_bytes").and_then(|value| value.as_u32())
}

/// The schema version of an event, if the message is one.
pub(crate) fn event_schema(tree: &Tree, message: &MessageDescriptor) -> Option<u32> {
    let value = extension(tree, &message.options(), "stoa.contract.v1.event")?;
    let schema = value.as_message().and_then(|event| set(event, "schema")).and_then(|value| value.as_u32());
    Some(schema.unwrap_or(0))
}

pub(crate) fn personal(tree: &Tree, field: &prost_reflect::FieldDescriptor) -> bool {
    extension(tree, &field.options(), "stoa.contract.v1.personal").and_then(|value| value.as_bool()).unwrap_or(false)
}

/// One HTTP binding as it is written.
pub(crate) struct Http {
    /// `get`, `post`, ..., `custom`; empty if no pattern is given.
    pub(crate) verb: String,
    pub(crate) template: String,
    pub(crate) body: String,
    pub(crate) response_body: String,
}

/// The principal binding of a method and its additional ones.
pub(crate) fn http(tree: &Tree, method: &MethodDescriptor) -> Vec<Http> {
    let Some(value) = extension(tree, &method.options(), "google.api.http") else {
        return Vec::new();
    };
    let Some(rule) = value.as_message() else {
        return Vec::new();
    };
    let mut bindings = vec![binding(rule)];
    if let Some(Value::List(additional)) = set(rule, "additional_bindings") {
        bindings.extend(additional.iter().filter_map(Value::as_message).map(binding));
    }
    bindings
}

fn binding(rule: &DynamicMessage) -> Http {
    let pattern =
        ["get", "put", "post", "delete", "patch", "custom"].into_iter().find_map(|verb| Some((verb, set(rule, verb)?)));
    let (verb, template) = pattern.unwrap_or(("", Value::String(String::new())));
    Http {
        verb: verb.to_owned(),
        template: template.as_str().unwrap_or_default().to_owned(),
        body: text(rule, "body"),
        response_body: text(rule, "response_body"),
    }
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    let list = value.as_list().unwrap_or_default();
    list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
