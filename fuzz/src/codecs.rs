//! JSON into wire bytes and back, over a message with every shape a field can have.

use std::sync::LazyLock;

use serde_json::Value;
use transcode::{Codec, ParseOptions, PrintOptions, Schema};

use crate::schema;

static EVERYTHING: LazyLock<Codec> = LazyLock::new(|| {
    let pool = schema::pool("", "everything.proto");
    Schema::new(&pool).codec("transcode.test.Everything").expect("no message")
});

/// The longest output, give or take one value: as a bound of the gateway, only smaller.
const MOST: usize = 1 << 20;

/// Text is JSON, or refused with a place that is in it; what is accepted is written, read and written again as the same.
pub fn json(input: &[u8]) {
    let Some((flags, text)) = input.split_first() else { return };
    let options = ParseOptions { ignore_unknown: flags & 1 == 1, max_bytes: MOST };
    let mut wire = Vec::new();
    match EVERYTHING.json_to_wire(text, &options, &mut wire) {
        Ok(()) => settled(&wire, &print(*flags)),
        Err(error) => {
            assert!(wire.is_empty(), "something is left of what was refused");
            assert!(!error.reason().is_empty());
            if let Some(place) = error.place() {
                let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
                assert!(place.line <= lines, "line {} of {lines}", place.line);
            }
        }
    }
}

/// Bytes are a message, or refused; what is accepted is written as JSON that is read, and then written as the same.
pub fn wire(input: &[u8]) {
    if let Some((flags, wire)) = input.split_first() {
        settled(wire, &print(*flags));
    }
}

fn print(flags: u8) -> PrintOptions {
    PrintOptions {
        emit_defaults: flags & 2 == 2,
        proto_names: flags & 4 == 4,
        enums_as_numbers: flags & 8 == 8,
        int64_as_numbers: flags & 16 == 16,
        max_bytes: MOST,
    }
}

/// Whatever is written is JSON, is read again, and comes out again as it was.
fn settled(wire: &[u8], options: &PrintOptions) {
    let mut first = Vec::new();
    if EVERYTHING.wire_to_json(wire, options, &mut first).is_err() {
        assert!(first.is_empty(), "something is left of what was refused");
        return;
    }
    let text = String::from_utf8_lossy(&first);
    let value = value(&first);
    let mut again = Vec::new();
    let read = ParseOptions { ignore_unknown: false, max_bytes: 2 * MOST };
    if let Err(error) = EVERYTHING.json_to_wire(&first, &read, &mut again) {
        panic!("what was written cannot be read: {error}: {text}");
    }
    let mut second = Vec::new();
    if let Err(error) = EVERYTHING.wire_to_json(&again, options, &mut second) {
        panic!("what was read cannot be written: {error}: {text}");
    }
    // Defaults that stood on the wire may come out at another place.
    assert_eq!(value, self::value(&second), "it came out otherwise");
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("no JSON: {error}: {}", String::from_utf8_lossy(json)))
}
