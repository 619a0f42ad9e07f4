//! The well-known types, whose JSON is not that of their fields.

use prost_reflect::{Kind, MessageDescriptor};

/// Which well-known type a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// `google.protobuf.StringValue` and its kin: the JSON of their only field.
    Wrapper,
}

impl Known {
    /// By name, and only if the fields are those the name promises.
    pub(crate) fn of(descriptor: &MessageDescriptor) -> Option<Self> {
        let has = |number: u32, kind: &str| {
            descriptor.get_field(number).is_some_and(|field| match field.kind() {
                Kind::Message(message) => message.full_name() == kind || (kind == "map" && message.is_map_entry()),
                Kind::Int64 => kind == "int64",
                Kind::Int32 => kind == "int32",
                Kind::String => kind == "string",
                Kind::Bytes => kind == "bytes",
                _ => false,
            })
        };
        let (known, complete) = match descriptor.full_name().strip_prefix("google.protobuf.")? {
            "Any" => (Known::Any, has(1, "string") && has(2, "bytes")),
            "Timestamp" => (Known::Timestamp, has(1, "int64") && has(2, "int32")),
            "Duration" => (Known::Duration, has(1, "int64") && has(2, "int32")),
            "FieldMask" => (Known::FieldMask, has(1, "string")),
            "Struct" => (Known::Struct, has(1, "map")),
            "Value" => (Known::Value, has(5, "google.protobuf.Struct") && has(6, "google.protobuf.ListValue")),
            "ListValue" => (Known::ListValue, has(1, "google.protobuf.Value")),
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => {
                (Known::Wrapper, descriptor.fields().len() == 1 && descriptor.get_field(1).is_some())
            }
            _ => return None,
        };
        complete.then_some(known)
    }
}
