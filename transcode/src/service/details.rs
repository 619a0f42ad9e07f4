//! The standard details of errors, `google/rpc/error_details.proto`, as descriptors.
//!
//! The file is stable and small, so it is written here as a table instead of being compiled into the crate.

use prost_reflect::{
    DescriptorPool,
    prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions,
        field_descriptor_proto::{Label, Type},
    },
};

const TEXTS: &str = "*string";
const MAP: &str = "*.google.rpc.ErrorInfo.MetadataEntry";
const DURATION: &str = ".google.protobuf.Duration";

/// Names and types.
type Fields = &'static [(&'static str, &'static str)];

/// Messages with the names and types of their fields, numbered from 1; a star is a list, a dot a message.
#[rustfmt::skip]
const MESSAGES: [(&str, Fields); 10] = [
    ("ErrorInfo", &[("reason", "string"), ("domain", "string"), ("metadata", MAP)]),
    ("RetryInfo", &[("retry_delay", DURATION)]),
    ("DebugInfo", &[("stack_entries", TEXTS), ("detail", "string")]),
    ("QuotaFailure", &[("violations", "*.google.rpc.QuotaFailure.Violation")]),
    ("PreconditionFailure", &[("violations", "*.google.rpc.PreconditionFailure.Violation")]),
    ("BadRequest", &[("field_violations", "*.google.rpc.BadRequest.FieldViolation")]),
    ("RequestInfo", &[("request_id", "string"), ("serving_data", "string")]),
    ("ResourceInfo", &[("resource_type", "string"), ("resource_name", "string"), ("owner", "string"), ("description", "string")]),
    ("Help", &[("links", "*.google.rpc.Help.Link")]),
    ("LocalizedMessage", &[("locale", "string"), ("message", "string")]),
];

/// The messages inside, by what they are in.
#[rustfmt::skip]
const NESTED: [(&str, &str, Fields); 5] = [
    ("ErrorInfo", "MetadataEntry", &[("key", "string"), ("value", "string")]),
    ("QuotaFailure", "Violation", &[("subject", "string"), ("description", "string")]),
    ("PreconditionFailure", "Violation", &[("type", "string"), ("subject", "string"), ("description", "string")]),
    ("BadRequest", "FieldViolation", &[("field", "string"), ("description", "string"), ("reason", "string"), ("localized_message", ".google.rpc.LocalizedMessage")]),
    ("Help", "Link", &[("description", "string"), ("url", "string")]),
];

/// A pool that knows them.
pub(crate) fn pool() -> DescriptorPool {
    let message_type = MESSAGES.iter().map(|(name, fields)| DescriptorProto {
        nested_type: NESTED
            .iter()
            .filter(|(outer, ..)| outer == name)
            .map(|(_, name, fields)| inner(name, fields))
            .collect(),
        ..message(name, fields)
    });
    let file = FileDescriptorProto {
        name: Some("google/rpc/error_details.proto".to_owned()),
        package: Some("google.rpc".to_owned()),
        dependency: vec!["google/protobuf/duration.proto".to_owned()],
        syntax: Some("proto3".to_owned()),
        message_type: message_type.collect(),
        ..Default::default()
    };
    // The global pool has the well-known types. A test sees to it that every message above is there.
    let mut pool = DescriptorPool::global();
    let _ = pool.add_file_descriptor_proto(file);
    pool
}

fn inner(name: &str, fields: &[(&str, &str)]) -> DescriptorProto {
    let map_entry = name.ends_with("Entry").then_some(true);
    let options = MessageOptions { map_entry, ..Default::default() };
    DescriptorProto { options: Some(options), ..message(name, fields) }
}

fn message(name: &str, fields: &[(&str, &str)]) -> DescriptorProto {
    let field = |(number, (name, kind)): (i32, &(&str, &str))| {
        let (label, kind) = match kind.strip_prefix('*') {
            Some(kind) => (Label::Repeated, kind),
            None => (Label::Optional, *kind),
        };
        let is_message = kind.starts_with('.');
        FieldDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(if is_message { Type::Message } else { Type::String }.into()),
            type_name: is_message.then(|| kind.to_owned()),
            ..Default::default()
        }
    };
    DescriptorProto { name: Some(name.to_owned()), field: (1..).zip(fields).map(field).collect(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_details_are_known() {
        let pool = pool();
        for (name, fields) in MESSAGES {
            let message = pool.get_message_by_name(&format!("google.rpc.{name}")).unwrap();
            assert_eq!(message.fields().len(), fields.len(), "{name}");
        }
        let metadata = pool.get_message_by_name("google.rpc.ErrorInfo").unwrap().get_field(3).unwrap();
        assert!(metadata.is_map());
    }
}
