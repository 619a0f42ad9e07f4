//! Answers protobuf's `conformance_test_runner`: `conformance FOLDER`, where the folder holds `conformance/` and
//! `google/protobuf/` with the test messages. Only JSON is answered, in both directions; the rest is skipped.

use std::io::{self, Read, Write};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use transcode::{Error, ErrorKind, ParseOptions, PrintOptions, Schema};

const PROTOBUF: i32 = 1;
const JSON: i32 = 2;
const IGNORE_UNKNOWN: i32 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder of the runner's .proto files")?;
    let mut compiler = protox::Compiler::new([folder])?;
    compiler.include_imports(true).open_files([
        "conformance/conformance.proto",
        "google/protobuf/test_messages_proto2.proto",
        "google/protobuf/test_messages_proto3.proto",
    ])?;
    let pool = compiler.descriptor_pool();
    let tester = Tester { schema: Schema::new(&pool), pool };
    while let Some(request) = read()? {
        let response = tester.answer(&request);
        let mut out = io::stdout().lock();
        out.write_all(&u32::try_from(response.len())?.to_le_bytes())?;
        out.write_all(&response)?;
        out.flush()?;
    }
    Ok(())
}

/// A length of four bytes and as many bytes; none at the end.
fn read() -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut input = io::stdin().lock();
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut bytes = Vec::new();
    input.take(u32::from_le_bytes(length).into()).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

struct Tester {
    pool: DescriptorPool,
    schema: Schema,
}

impl Tester {
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let (field, value) = match self.outcome(request) {
            Ok(found) => found,
            Err(reason) => ("runtime_error", Value::String(reason)),
        };
        let mut response = self.message("conformance.ConformanceResponse");
        response.set_field_by_name(field, value);
        response.encode_to_vec()
    }

    fn message(&self, name: &str) -> DynamicMessage {
        let descriptor = self.pool.get_message_by_name(name);
        DynamicMessage::new(descriptor.unwrap_or_else(|| panic!("{name} is not in the runner's files")))
    }

    fn outcome(&self, request: &[u8]) -> Result<(&'static str, Value), String> {
        let mut message = self.message("conformance.ConformanceRequest");
        message.merge(request).map_err(|error| error.to_string())?;
        let text = |name: &str| message.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned));
        let number = |name: &str| message.get_field_by_name(name).and_then(|value| value.as_enum_number());
        let name = text("message_type").unwrap_or_default();
        if name == "conformance.FailureSet" {
            return Ok(("protobuf_payload", Value::Bytes(Vec::new().into())));
        }
        let Some(codec) = self.schema.codec(&name) else {
            return Ok(("skipped", Value::String(format!("{name} is of an edition"))));
        };
        let format = number("requested_output_format");
        let is_json = message.has_field_by_name("json_payload");
        let wire = message.get_field_by_name("protobuf_payload").and_then(|value| value.as_bytes().cloned());
        let ignore_unknown = number("test_category") == Some(IGNORE_UNKNOWN);
        let wire = match wire.filter(|_| message.has_field_by_name("protobuf_payload")) {
            Some(wire) => wire.to_vec(),
            None if is_json => {
                let json = text("json_payload").unwrap_or_default();
                let options = ParseOptions { ignore_unknown, ..ParseOptions::default() };
                let mut wire = Vec::new();
                if let Err(error) = codec.json_to_wire(json.as_bytes(), &options, &mut wire) {
                    return Ok(("parse_error", Value::String(error.to_string())));
                }
                wire
            }
            None => return Ok(("skipped", Value::String("neither JSON nor protobuf".to_owned()))),
        };
        match format {
            Some(PROTOBUF) if is_json => Ok(("protobuf_payload", Value::Bytes(wire.into()))),
            Some(JSON) => {
                let mut json = Vec::new();
                Ok(match codec.wire_to_json(&wire, &PrintOptions::default(), &mut json) {
                    Ok(()) => {
                        ("json_payload", Value::String(String::from_utf8(json).map_err(|error| error.to_string())?))
                    }
                    Err(error) => (side(&error), Value::String(error.to_string())),
                })
            }
            _ => Ok(("skipped", Value::String("no JSON on either side".to_owned()))),
        }
    }
}

/// Whether the bytes were wrong, or right and without a form in JSON.
fn side(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::NoJson | ErrorKind::UnknownType => "serialize_error",
        _ => "parse_error",
    }
}
