//! One text of a path or a query as one field on the wire, in the form ProtoJSON gives that type.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use super::{
    codec::{Codec as _, Reflected},
    wire::{self, Raw},
};

/// Appends `field` with the value that `text` spells; the error says what was expected.
pub(crate) fn put_text(out: &mut Vec<u8>, field: &FieldDescriptor, text: &str) -> Result<(), String> {
    put_kind(out, field.number(), &field.kind(), text)
}

/// True for message types that a single text can spell: wrappers, Timestamp, Duration, FieldMask.
pub(crate) fn is_text_message(message: &MessageDescriptor) -> bool {
    is_wrapper(message.full_name())
        || matches!(
            message.full_name(),
            "google.protobuf.Timestamp" | "google.protobuf.Duration" | "google.protobuf.FieldMask"
        )
}

fn is_wrapper(name: &str) -> bool {
    matches!(
        name.strip_prefix("google.protobuf."),
        Some(
            "DoubleValue"
                | "FloatValue"
                | "Int64Value"
                | "UInt64Value"
                | "Int32Value"
                | "UInt32Value"
                | "BoolValue"
                | "StringValue"
                | "BytesValue"
        )
    )
}

fn put_kind(out: &mut Vec<u8>, number: u32, kind: &Kind, text: &str) -> Result<(), String> {
    match kind {
        Kind::Double => wire::put(out, number, Raw::Fixed64(double(text)?.to_le_bytes())),
        Kind::Float => {
            let wide = double(text)?;
            let narrow = wide as f32;
            if narrow.is_infinite() && wide.is_finite() {
                return Err(format!("{text:?} is out of range for a float"));
            }
            wire::put(out, number, Raw::Fixed32(narrow.to_le_bytes()));
        }
        // A negative int32 is sign-extended to ten bytes on the wire.
        Kind::Int32 => wire::put(out, number, Raw::Varint(i64::from(integer::<i32>(text)?) as u64)),
        Kind::Int64 => wire::put(out, number, Raw::Varint(integer::<i64>(text)? as u64)),
        Kind::Uint32 => wire::put(out, number, Raw::Varint(u64::from(integer::<u32>(text)?))),
        Kind::Uint64 => wire::put(out, number, Raw::Varint(integer::<u64>(text)?)),
        Kind::Sint32 => {
            let value = i64::from(integer::<i32>(text)?);
            wire::put(out, number, Raw::Varint(((value << 1) ^ (value >> 63)) as u64));
        }
        Kind::Sint64 => {
            let value = integer::<i64>(text)?;
            wire::put(out, number, Raw::Varint(((value << 1) ^ (value >> 63)) as u64));
        }
        Kind::Fixed32 => wire::put(out, number, Raw::Fixed32(integer::<u32>(text)?.to_le_bytes())),
        Kind::Fixed64 => wire::put(out, number, Raw::Fixed64(integer::<u64>(text)?.to_le_bytes())),
        Kind::Sfixed32 => wire::put(out, number, Raw::Fixed32(integer::<i32>(text)?.to_le_bytes())),
        Kind::Sfixed64 => wire::put(out, number, Raw::Fixed64(integer::<i64>(text)?.to_le_bytes())),
        Kind::Bool => match text {
            "true" => wire::put(out, number, Raw::Varint(1)),
            "false" => wire::put(out, number, Raw::Varint(0)),
            _ => return Err(format!("expected `true` or `false`, not {text:?}")),
        },
        Kind::String => wire::put(out, number, Raw::Len(text.as_bytes())),
        Kind::Bytes => wire::put(out, number, Raw::Len(&base64_bytes(text)?)),
        Kind::Enum(descriptor) => wire::put(out, number, Raw::Varint(i64::from(enum_number(descriptor, text)?) as u64)),
        Kind::Message(message) => {
            let inner = message_wire(message, text)?;
            wire::put(out, number, Raw::Len(&inner));
        }
    }
    Ok(())
}

fn message_wire(message: &MessageDescriptor, text: &str) -> Result<Vec<u8>, String> {
    if is_wrapper(message.full_name()) {
        let value = message.get_field(1).ok_or_else(|| "not a wrapper".to_owned())?;
        let mut inner = Vec::new();
        put_text(&mut inner, &value, text)?;
        return Ok(inner);
    }
    if !is_text_message(message) {
        return Err("a message cannot be given as text".to_owned());
    }
    let json = serde_json::Value::from(text).to_string();
    let short = message.name();
    Reflected.json_to_wire(message, json.as_bytes()).map_err(|_| format!("{text:?} is not a {short}"))
}

fn integer<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("expected an integer in base 10, not {text:?}"));
    }
    text.parse().map_err(|_| format!("{text} is out of range"))
}

fn double(text: &str) -> Result<f64, String> {
    match text {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => return Ok(f64::INFINITY),
        "-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    let error = || format!("expected a number, not {text:?}");
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) {
        return Err(error());
    }
    let value: f64 = text.parse().map_err(|_| error())?;
    if value.is_finite() { Ok(value) } else { Err(format!("{text} is out of range")) }
}

fn enum_number(descriptor: &EnumDescriptor, text: &str) -> Result<i32, String> {
    if let Some(value) = descriptor.get_value_by_name(text) {
        return Ok(value.number());
    }
    integer::<i32>(text).map_err(|_| format!("{text:?} is no value of {}", descriptor.name()))
}

fn base64_bytes(text: &str) -> Result<Vec<u8>, String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &base64::alphabet::URL_SAFE } else { &base64::alphabet::STANDARD };
    GeneralPurpose::new(alphabet, config).decode(text).map_err(|_| "expected base64".to_owned())
}
