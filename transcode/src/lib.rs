//! Protobuf and JSON, one into the other, by descriptors alone; and around that a [`service`] that answers REST, gRPC-Web and
//! Connect in front of any gRPC service.
//!
//! A [`Schema`] compiles descriptors into tables. A [`Codec`] is one message of it and writes JSON from wire bytes, and
//! wire bytes from JSON, in one pass each: there are no message structs, nothing is allocated for a field, and the
//! output is one buffer that grows.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let schema = transcode::Schema::new(&prost_reflect::DescriptorPool::global());
//! let codec = schema.codec("google.protobuf.Duration").ok_or("no such message")?;
//! let mut wire = Vec::new();
//! codec.json_to_wire(br#""1.5s""#, &transcode::ParseOptions::default(), &mut wire)?;
//! assert_eq!(wire, [0x08, 1, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01]);
//! # Ok(())
//! # }
//! ```
//!
//! JSON is ProtoJSON, strictly: an unknown field, a key given twice, a comma at the end, a comment, a lone surrogate, a
//! number that does not fit are errors, and an [`Error`] says where and at which field.
//!
//! Bounds: messages and JSON nest at most [`MAX_DEPTH`] levels; the output is at most `max_bytes` and one value long.
//! Beside the output a call holds eight bytes a key of the open maps, and for input no encoder writes what
//! the module `print` says. Bytes of the wire are trusted as little as text.

mod bind;
mod error;
mod known;
mod names;
mod parse;
pub mod percent;
mod print;
pub mod route;
pub mod rule;
mod schema;
mod seen;
pub mod service;
pub mod template;
mod text;
mod time;
mod wire;

use std::sync::Arc;

pub use bind::{Around, Binding, BindingError};
use error::Fault;
pub use error::{Error, ErrorKind, Place};
pub use schema::{Schema, SchemaError};

/// How deep messages, and objects and lists of JSON, may nest.
pub const MAX_DEPTH: usize = 100;

/// The output that is allowed when nothing else is said: 64 MiB.
pub const DEFAULT_MAX_BYTES: usize = 64 << 20;

/// How JSON is written.
#[derive(Debug, Clone)]
pub struct PrintOptions {
    /// Fields without presence are written also when they hold their default.
    pub emit_defaults: bool,
    /// Keys are the names of the `.proto` file instead of lower camel case.
    pub proto_names: bool,
    /// Enum values are numbers instead of names.
    pub enums_as_numbers: bool,
    /// Integers of 64 bits are numbers instead of strings, which JavaScript rounds.
    pub int64_as_numbers: bool,
    /// The longest output, give or take one value.
    pub max_bytes: usize,
}

impl Default for PrintOptions {
    fn default() -> Self {
        PrintOptions {
            emit_defaults: false,
            proto_names: false,
            enums_as_numbers: false,
            int64_as_numbers: false,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

/// How JSON is read.
#[derive(Debug, Clone)]
pub struct ParseOptions {
    /// Unknown fields and unknown names of enum values are passed over instead of refused.
    pub ignore_unknown: bool,
    /// The longest output, give or take one value.
    pub max_bytes: usize,
}

impl Default for ParseOptions {
    fn default() -> Self {
        ParseOptions { ignore_unknown: false, max_bytes: DEFAULT_MAX_BYTES }
    }
}

/// The text of a field at the top of an encoded message, the last one if it stands there several times.
pub fn find_text(message: &[u8], number: u32) -> Option<&str> {
    wire::find_bytes(message, &[number]).and_then(|text| std::str::from_utf8(text).ok())
}

/// One message of a schema, to be written and read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Codec {
    tables: Arc<schema::Tables>,
    message: u32,
}

impl Codec {
    /// The message's full name.
    pub fn name(&self) -> &str {
        &self.table().name
    }

    fn table(&self) -> &schema::Message {
        &self.tables.messages[self.message as usize]
    }

    /// The full name of the message in a field that holds one, by either of the field's names.
    pub(crate) fn message_in(&self, field: &str) -> Option<&str> {
        match self.table().by_name(field.as_bytes())? {
            schema::Field { kind: schema::Kind::Message(inner), shape: schema::Shape::One { .. }, .. } => {
                Some(&self.tables.messages[*inner as usize].name)
            }
            _ => None,
        }
    }

    /// The number of a field that holds one string.
    pub(crate) fn string_field(&self, name: &str) -> Option<u32> {
        let field = self.table().by_name(name.as_bytes())?;
        let is_string = field.kind == schema::Kind::String && matches!(field.shape, schema::Shape::One { .. });
        is_string.then_some(field.number)
    }

    /// Appends the JSON of an encoded message. After an error `out` is as it was.
    pub fn wire_to_json(&self, wire: &[u8], options: &PrintOptions, out: &mut Vec<u8>) -> Result<(), Error> {
        print::print(&self.tables, self.message, wire, options, out).map_err(|fault| fault.finish(None))
    }

    /// Appends the JSON of one field of an encoded message, by either of its names: what a rule with a `response_body`
    /// answers with. A field with presence that is absent is `null`.
    pub fn field_to_json(
        &self,
        field: &str,
        wire: &[u8],
        options: &PrintOptions,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let message = &self.tables.messages[self.message as usize];
        let Some(found) = message.by_name(field.as_bytes()) else {
            let reason = format!("{} has no field of this name", message.name);
            return Err(Fault::new(ErrorKind::UnknownField, 0, reason).under(field).finish(None));
        };
        print::print_field(&self.tables, (message, found), wire, options, out).map_err(|fault| fault.finish(None))
    }

    /// Appends the encoding of a message given as JSON. After an error `out` is as it was.
    pub fn json_to_wire(&self, json: &[u8], options: &ParseOptions, out: &mut Vec<u8>) -> Result<(), Error> {
        parse::parse(&self.tables, self.message, json, options, out).map_err(|fault| fault.finish(Some(json)))
    }
}
