//! The codec against prost-reflect, which knows the same rules in another way, and against the rules themselves.

#![allow(clippy::unwrap_used)]

mod bind;
mod generate;
mod oracle;
mod proto2;
mod rules;
mod strict;
mod untrusted;
mod wellknown;
mod wire;

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};
use transcode::{Codec, Error, ParseOptions, PrintOptions, Schema};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schema");
    let mut compiler = protox::Compiler::new([folder]).unwrap();
    compiler.include_imports(true).open_files(["everything.proto", "older.proto", "shelf.proto"]).unwrap();
    compiler.descriptor_pool()
});

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new(&POOL));

fn everything() -> MessageDescriptor {
    POOL.get_message_by_name("transcode.test.Everything").unwrap()
}

fn codec(name: &str) -> Codec {
    SCHEMA.codec(name).unwrap()
}

fn print_with(codec: &Codec, wire: &[u8], options: &PrintOptions) -> Result<String, Error> {
    let mut out = b"before".to_vec();
    let result = codec.wire_to_json(wire, options, &mut out);
    let out = String::from_utf8(out).unwrap();
    let out = out.strip_prefix("before").expect("what was there stays there").to_owned();
    assert!(result.is_ok() || out.is_empty(), "an error leaves nothing behind");
    result.map(|()| out)
}

fn print(codec: &Codec, wire: &[u8]) -> Result<String, Error> {
    print_with(codec, wire, &PrintOptions::default())
}

fn parse_with(codec: &Codec, text: &[u8], options: &ParseOptions) -> Result<Vec<u8>, Error> {
    let mut out = b"before".to_vec();
    let result = codec.json_to_wire(text, options, &mut out);
    let out = out.strip_prefix(b"before").expect("what was there stays there").to_vec();
    assert!(result.is_ok() || out.is_empty(), "an error leaves nothing behind");
    result.map(|()| out)
}

fn parse(codec: &Codec, text: &str) -> Result<Vec<u8>, Error> {
    parse_with(codec, text.as_bytes(), &ParseOptions::default())
}
