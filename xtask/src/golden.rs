//! The golden corpus: one file for each type and version of event that was ever stored.
//!
//! A stored event is read for ever, so its bytes are kept here for ever: each file holds the wire bytes
//! as they were written and the JSON they meant, and every change of the contracts must still read the
//! one into the other. Files are written once, by `cargo xtask golden`, and never again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use serde::{Deserialize, Serialize};

use crate::paths;
use crate::workspace::files;

/// The option that makes a message a stored event.
const EVENT_OPTION: &str = "stoa.contract.v1.event";

/// How deep a sample nests a message within itself.
const DEPTH: usize = 4;

#[derive(Serialize, Deserialize)]
struct Golden {
    event: String,
    schema: u32,
    /// The bytes as stored, in base64.
    wire: String,
    /// What they mean.
    json: serde_json::Value,
}

/// What is wrong with the corpus.
pub(crate) fn problems() -> Result<Vec<String>> {
    let Some(pool) = pool()? else {
        return Ok(vec!["there are no contracts in proto/".to_owned()]);
    };
    let mut problems = Vec::new();
    let mut present = BTreeSet::new();
    for source in files(&folder(), &["json"])? {
        let name = source.path.display().to_string();
        let golden: Golden = match serde_json::from_str(&source.text) {
            Ok(golden) => golden,
            Err(error) => {
                problems.push(format!("{name}: {error}"));
                continue;
            }
        };
        if let Err(error) = read(&pool, &golden) {
            problems.push(format!("{name}: {error:#}"));
        }
        present.insert((golden.event, golden.schema));
    }
    for (event, schema) in events(&pool) {
        if !present.contains(&(event.full_name().to_owned(), schema)) {
            problems.push(format!(
                "{} version {schema} has no golden file; `cargo xtask golden` writes it",
                event.full_name()
            ));
        }
    }
    Ok(problems)
}

/// Writes a file for each event and version without one.
pub(crate) fn write_missing() -> Result<bool> {
    let pool = pool()?.context("there are no contracts in proto/")?;
    fs::create_dir_all(folder())?;
    let mut written = 0;
    for (event, schema) in events(&pool) {
        let path = folder().join(format!("{}.v{schema}.json", event.full_name()));
        if path.exists() {
            continue;
        }
        let sample = sample(&event, 0);
        let golden = Golden {
            event: event.full_name().to_owned(),
            schema,
            wire: BASE64.encode(sample.encode_to_vec()),
            json: serde_json::to_value(&sample)?,
        };
        fs::write(&path, serde_json::to_string_pretty(&golden)? + "\n")?;
        written += 1;
    }
    println!("{written} golden files written to {}", folder().display());
    Ok(true)
}

fn folder() -> PathBuf {
    paths::root().join("integration/golden")
}

/// The contracts as descriptors, options included; `None` while there are none.
pub(crate) fn pool() -> Result<Option<DescriptorPool>> {
    let proto = paths::root().join("proto");
    let sources = files(&proto, &["proto"])?;
    if sources.is_empty() {
        return Ok(None);
    }
    let mut compiler = protox::Compiler::new([&proto])?;
    compiler.include_imports(true);
    for source in &sources {
        compiler
            .open_file(paths::root().join(&source.path))
            .map_err(|error| anyhow!("{}: {error}", source.path.display()))?;
    }
    Ok(Some(DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice())?))
}

/// Every stored event with its current version.
fn events(pool: &DescriptorPool) -> Vec<(MessageDescriptor, u32)> {
    let Some(option) = pool.get_extension_by_name(EVENT_OPTION) else {
        return Vec::new();
    };
    pool.all_messages()
        .filter_map(|message| {
            let options = message.options();
            if !options.has_extension(&option) {
                return None;
            }
            let event = options.get_extension(&option).as_message()?.clone();
            let schema = event.get_field_by_name("schema")?.as_u32()?;
            Some((message, schema))
        })
        .collect()
}

/// The bytes must still decode, completely, to what they meant when they were written.
fn read(pool: &DescriptorPool, golden: &Golden) -> Result<()> {
    let descriptor = pool
        .get_message_by_name(&golden.event)
        .with_context(|| format!("the contracts no longer know {}", golden.event))?;
    let wire = BASE64.decode(&golden.wire)?;
    let message = DynamicMessage::decode(descriptor, wire.as_slice())?;
    if let Some(number) = message.unknown_fields().map(|field| field.number()).next() {
        return Err(anyhow!("field {number} is no longer known"));
    }
    let json = serde_json::to_value(&message)?;
    if json != golden.json {
        return Err(anyhow!("now means {json}, was written as {}", golden.json));
    }
    Ok(())
}

/// A message with every field set to something recognisable.
fn sample(descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            message.set_field_by_name("seconds", Value::I64(1_767_225_600));
            message.set_field_by_name("nanos", Value::I32(250_000_000));
            return message;
        }
        "google.protobuf.Duration" => {
            message.set_field_by_name("seconds", Value::I64(900));
            return message;
        }
        "google.type.Money" => {
            message.set_field_by_name("currency_code", Value::String("EUR".to_owned()));
            message.set_field_by_name("units", Value::I64(12));
            message.set_field_by_name("nanos", Value::I32(340_000_000));
            return message;
        }
        _ => {}
    }
    let mut chosen = BTreeSet::new();
    for field in descriptor.fields() {
        let group = field.containing_oneof().filter(|group| !group.is_synthetic());
        if group.is_some_and(|group| !chosen.insert(group.name().to_owned())) {
            continue;
        }
        if let Some(value) = sample_field(&field, depth) {
            message.set_field(&field, value);
        }
    }
    message
}

fn sample_field(field: &FieldDescriptor, depth: usize) -> Option<Value> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            return None;
        };
        let value = sample_value(&entry.map_entry_value_field(), depth)?;
        let key = match entry.map_entry_key_field().kind() {
            Kind::String => MapKey::String("key".to_owned()),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(1),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(1),
            Kind::Uint32 | Kind::Fixed32 => MapKey::U32(1),
            Kind::Uint64 | Kind::Fixed64 => MapKey::U64(1),
            Kind::Bool => MapKey::Bool(true),
            Kind::Bytes | Kind::Float | Kind::Double | Kind::Message(_) | Kind::Enum(_) => {
                return None;
            }
        };
        return Some(Value::Map([(key, value)].into_iter().collect()));
    }
    let value = sample_value(field, depth)?;
    Some(match field.cardinality() {
        Cardinality::Repeated => Value::List(vec![value]),
        Cardinality::Optional | Cardinality::Required => value,
    })
}

fn sample_value(field: &FieldDescriptor, depth: usize) -> Option<Value> {
    let number = field.number();
    Some(match field.kind() {
        Kind::String => Value::String(format!("{} {number}", field.name().replace('_', " "))),
        Kind::Bytes => Value::Bytes(vec![0, u8::try_from(number).unwrap_or(255), 255].into()),
        Kind::Bool => Value::Bool(true),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number.cast_signed()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(i64::from(number)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(u64::from(number)),
        Kind::Float => Value::F32(0.5),
        Kind::Double => Value::F64(0.5),
        Kind::Enum(kind) => Value::EnumNumber(kind.values().map(|value| value.number()).max()?),
        Kind::Message(kind) if kind.full_name() == "google.protobuf.Any" => return None,
        Kind::Message(kind) if depth < DEPTH => Value::Message(sample(&kind, depth + 1)),
        Kind::Message(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pool_of(text: &str) -> DescriptorPool {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("t.proto"), text).unwrap();
        let set = protox::compile(["t.proto"], [folder.path()]).unwrap();
        DescriptorPool::from_file_descriptor_set(set).unwrap()
    }

    fn golden_of(pool: &DescriptorPool) -> Golden {
        let sample = sample(&pool.get_message_by_name("t.Happened").unwrap(), 0);
        Golden {
            event: "t.Happened".to_owned(),
            schema: 1,
            wire: BASE64.encode(sample.encode_to_vec()),
            json: serde_json::to_value(&sample).unwrap(),
        }
    }

    #[test]
    fn bytes_written_before_a_field_was_added_still_read() {
        let old = golden_of(&pool_of("syntax=\"proto3\"; package t; message Happened { string a = 1; }"));
        let new = pool_of("syntax=\"proto3\"; package t; message Happened { string a = 1; string b = 2; }");
        read(&new, &old).unwrap();
    }

    #[test]
    fn a_field_that_changed_its_meaning_is_found() {
        let old = golden_of(&pool_of("syntax=\"proto3\"; package t; message Happened { string a = 1; int64 n = 2; }"));
        for changed in ["string a = 1;", "string a = 1; sint64 n = 2;", "string b = 1; int64 n = 2;"] {
            let new = pool_of(&format!("syntax=\"proto3\"; package t; message Happened {{ {changed} }}"));
            assert!(read(&new, &old).is_err(), "{changed}");
        }
    }

    #[test]
    fn samples_set_every_field() {
        let pool = pool_of(
            "syntax=\"proto3\"; package t; enum E { A = 0; B = 1; } message Happened { string a = 1; E e = 2; \
             repeated Happened more = 3; map<string, int32> counts = 4; oneof one { bool x = 5; bool y = 6; } }",
        );
        let json: BTreeMap<String, serde_json::Value> = serde_json::from_value(golden_of(&pool).json).unwrap();
        assert_eq!(json.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "counts", "e", "more", "x"]);
    }
}
