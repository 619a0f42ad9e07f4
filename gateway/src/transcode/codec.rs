//! The seam to the JSON codec: wire bytes to ProtoJSON and back, a message at a time, by the message's descriptor.
//!
//! [`Tables`] is given one pair of functions a message at build time and falls back to [`Reflected`], which knows any message
//! its descriptor describes. [`Codecs`] puts the checks in front that every codec needs, and turns its errors into answers.

use std::sync::{Arc, OnceLock};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::de::DeserializeSeed as _;

use super::{
    json::{self, Fault},
    problem::Problem,
};

/// Turns one message from JSON to wire format and back.
pub trait Codec: Send + Sync + 'static {
    /// ProtoJSON to wire format; the text has passed [`json::check`]. Errors end with serde's ` at line L column C` where known.
    fn json_to_wire(&self, message: &MessageDescriptor, text: &[u8]) -> Result<Vec<u8>, String>;
    /// Wire format to ProtoJSON.
    fn wire_to_json(&self, message: &MessageDescriptor, wire: &[u8]) -> Result<Vec<u8>, String>;
}

/// The codec over generated functions, found by the message's full name.
pub struct Tables {
    table: contract::JsonTable,
}

impl Tables {
    /// A codec over this table.
    pub fn new(table: contract::JsonTable) -> Self {
        Tables { table }
    }
}

impl Codec for Tables {
    fn json_to_wire(&self, message: &MessageDescriptor, text: &[u8]) -> Result<Vec<u8>, String> {
        match self.table.get(message.full_name()) {
            Some(functions) => (functions.to_wire)(text),
            None => Reflected.json_to_wire(message, text),
        }
    }

    fn wire_to_json(&self, message: &MessageDescriptor, wire: &[u8]) -> Result<Vec<u8>, String> {
        match self.table.get(message.full_name()) {
            Some(functions) => (functions.from_wire)(wire),
            None => Reflected.wire_to_json(message, wire),
        }
    }
}

/// The codec over dynamic messages: slower, and right for any message.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reflected;

impl Codec for Reflected {
    fn json_to_wire(&self, message: &MessageDescriptor, text: &[u8]) -> Result<Vec<u8>, String> {
        let mut source = serde_json::Deserializer::from_slice(text);
        let dynamic = message.clone().deserialize(&mut source).map_err(|error| error.to_string())?;
        source.end().map_err(|error| error.to_string())?;
        Ok(dynamic.encode_to_vec())
    }

    fn wire_to_json(&self, message: &MessageDescriptor, wire: &[u8]) -> Result<Vec<u8>, String> {
        let dynamic = DynamicMessage::decode(message.clone(), wire).map_err(|error| error.to_string())?;
        let mut text = Vec::with_capacity(wire.len() * 2);
        let mut target = serde_json::Serializer::new(&mut text);
        dynamic.serialize_with_options(&mut target, &SerializeOptions::new()).map_err(|error| error.to_string())?;
        Ok(text)
    }
}

/// A codec with the strict checks in front, and with the descriptors to find a message by name.
#[derive(Clone)]
pub struct Codecs {
    codec: Arc<dyn Codec>,
    pool: DescriptorPool,
}

impl Codecs {
    /// A codec for the messages of `pool`.
    pub fn new(codec: Arc<dyn Codec>, pool: DescriptorPool) -> Self {
        Codecs { codec, pool }
    }

    /// Checks a JSON text and turns it into wire format.
    pub fn json_to_wire(&self, message: &MessageDescriptor, text: &[u8]) -> Result<Vec<u8>, Problem> {
        json::check(text).map_err(Problem::json)?;
        self.codec.json_to_wire(message, text).map_err(|error| Problem::json(locate(text, &error)))
    }

    /// Turns a message into JSON; a failure is the upstream's fault, so it is told as an internal error.
    pub fn wire_to_json(&self, message: &MessageDescriptor, wire: &[u8]) -> Result<Vec<u8>, Problem> {
        self.codec.wire_to_json(message, wire).map_err(|error| {
            tracing::error!(message = message.full_name(), error, "an answer does not fit its contract");
            Problem::new(tonic::Code::Internal, "the service's answer could not be read")
        })
    }

    /// JSON of a message known by name only; `None` if the name or the bytes are unknown.
    pub fn by_name(&self, name: &str, wire: &[u8]) -> Option<Vec<u8>> {
        match self.pool.get_message_by_name(name) {
            Some(message) => self.codec.wire_to_json(&message, wire).ok(),
            None => Reflected.wire_to_json(&rpc_pool().get_message_by_name(name)?, wire).ok(),
        }
    }
}

/// The standard error details, known even to a gateway in front of contracts that never import them.
fn rpc_pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(pb_descriptors()).unwrap_or_default())
}

fn pb_descriptors() -> &'static [u8] {
    tonic_types::pb::FILE_DESCRIPTOR_SET
}

/// Takes serde's position off the end of an error text and finds the field there.
fn locate(text: &[u8], error: &str) -> Fault {
    let position = error.rfind(" at line ").and_then(|at| {
        let (line, column) = error[at + " at line ".len()..].split_once(" column ")?;
        Some((at, line.parse().ok()?, column.parse().ok()?))
    });
    match position {
        Some((at, line, column)) => {
            Fault { reason: plain(&error[..at]), line, column, field: json::field_at(text, line, column) }
        }
        None => Fault { reason: plain(error), line: 1, column: 1, field: String::new() },
    }
}

/// Says in words what the libraries say in the names of their types.
fn plain(reason: &str) -> String {
    if reason.contains("did not match any variant of untagged enum Content") {
        "not a number of this field's type, or out of its range".to_owned()
    } else if reason.contains("number too large to fit")
        || reason.contains("number too small to fit")
        || reason.contains("invalid digit found")
    {
        format!("not a number of this field's type: {reason}")
    } else {
        reason.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_details_are_known() {
        for name in [
            "google.rpc.BadRequest",
            "google.rpc.ErrorInfo",
            "google.rpc.RetryInfo",
            "google.rpc.QuotaFailure",
            "google.rpc.Help",
        ] {
            assert!(rpc_pool().get_message_by_name(name).is_some(), "{name}");
        }
    }

    #[test]
    fn an_error_text_loses_its_position_and_gains_a_field() {
        let fault = locate(br#"{"a":{"b":"x"}}"#, "invalid type: string, expected i32 at line 1 column 13");
        assert_eq!(
            (fault.reason.as_str(), fault.line, fault.column, fault.field.as_str()),
            ("invalid type: string, expected i32", 1, 13, "a.b")
        );
    }
}
