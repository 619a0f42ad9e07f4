//! The well-known types of protobuf. Those whose JSON pbjson does not write as ProtoJSON says are our own: `Any`, whose JSON
//! depends on the message inside, `FieldMask`, on case, `Timestamp` and `Duration`, on exact forms.

mod time;

use std::fmt;

pub use pbjson_types::{Empty, ListValue, NullValue, Struct, Value as JsonValue};
pub use time::{Duration, OutOfRange, Timestamp};

use prost::{DecodeError, Message, Name};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::json;

const TYPE_PREFIX: &str = "type.googleapis.com/";

/// `google.protobuf.Any`: a message with its type.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Any {
    /// The type as a URL, of which the part after the last slash counts.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message in wire format.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Name for Any {
    const NAME: &'static str = "Any";
    const PACKAGE: &'static str = "google.protobuf";
}

impl Any {
    /// Packs a message.
    pub fn pack<M: Message + Name>(message: &M) -> Self {
        Self { type_url: format!("{TYPE_PREFIX}{}", M::full_name()), value: message.encode_to_vec() }
    }

    /// The message, if it is of this type.
    pub fn unpack<M: Message + Name + Default>(&self) -> Option<Result<M, DecodeError>> {
        (self.type_name() == M::full_name()).then(|| M::decode(self.value.as_slice()))
    }

    /// The full name of the message inside.
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit_once('/').map_or(self.type_url.as_str(), |(_, name)| name)
    }
}

/// Whether the JSON of a type is no object of its fields, so that `Any` puts it under `value`.
fn has_special_json(name: &str) -> bool {
    name.starts_with("google.protobuf.")
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.type_url.is_empty() && self.value.is_empty() {
            return serializer.serialize_map(Some(0))?.end();
        }
        let name = self.type_name();
        let message = json::TABLE
            .get(name)
            .ok_or_else(|| S::Error::custom(format!("the type {name:?} of an Any is not known")))?;
        let text = (message.from_wire)(&self.value).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("@type", &self.type_url)?;
        if has_special_json(name) {
            let value: Value = serde_json::from_slice(&text).map_err(S::Error::custom)?;
            map.serialize_entry("value", &value)?;
        } else {
            let fields: Map<String, Value> = serde_json::from_slice(&text).map_err(S::Error::custom)?;
            for (key, value) in &fields {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Fields(mut fields) = Fields::deserialize(deserializer)?;
        if fields.is_empty() {
            return Ok(Self::default());
        }
        let Some(Value::String(type_url)) = fields.remove("@type") else {
            return Err(D::Error::custom("an Any must have an \"@type\" of text"));
        };
        if !type_url.contains('/') {
            return Err(D::Error::custom(format!("the \"@type\" {type_url:?} has no slash before the type's name")));
        }
        let mut any = Self { type_url, value: Vec::new() };
        let name = any.type_name();
        let message = json::TABLE
            .get(name)
            .ok_or_else(|| D::Error::custom(format!("the type {name:?} of an Any is not known")))?;
        let inner = if has_special_json(name) {
            let value = fields
                .remove("value")
                .ok_or_else(|| D::Error::custom(format!("an Any of {name} must have a \"value\"")))?;
            if let Some(key) = fields.keys().next() {
                return Err(D::Error::custom(format!("unknown field {key:?} in an Any of {name}")));
            }
            value
        } else {
            Value::Object(fields)
        };
        any.value = (message.from_value)(inner).map_err(D::Error::custom)?;
        Ok(any)
    }
}

/// An object in which no key stands twice.
struct Fields(Map<String, Value>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an \"@type\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Fields, A::Error> {
                let mut fields = Map::new();
                while let Some((key, value)) = access.next_entry::<String, Value>()? {
                    if fields.contains_key(&key) {
                        return Err(A::Error::custom(format!("duplicate field {key:?}")));
                    }
                    fields.insert(key, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// `google.protobuf.FieldMask`: the fields that an update is about.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct FieldMask {
    /// The fields, each as a dotted path of names as the contract writes them.
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

impl Name for FieldMask {
    const NAME: &'static str = "FieldMask";
    const PACKAGE: &'static str = "google.protobuf";
}

impl Serialize for FieldMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for (index, path) in self.paths.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            let camel =
                to_camel(path).ok_or_else(|| S::Error::custom(format!("the path {path:?} has no JSON form")))?;
            text.push_str(&camel);
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for FieldMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = FieldMask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("field paths joined by commas")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FieldMask, E> {
                if text.is_empty() {
                    return Ok(FieldMask::default());
                }
                let path = |path| {
                    to_snake(path).ok_or_else(|| E::custom(format!("{path:?} is no field path in lowerCamelCase")))
                };
                Ok(FieldMask { paths: text.split(',').map(path).collect::<Result<_, _>>()? })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// `unit_price.currency` to `unitPrice.currency`, if the way back leads to the same text.
fn to_camel(path: &str) -> Option<String> {
    let mut camel = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '_' => camel.push(chars.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase()),
            'A'..='Z' => return None,
            other => camel.push(other),
        }
    }
    Some(camel)
}

fn to_snake(path: &str) -> Option<String> {
    let mut snake = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        match c {
            'A'..='Z' => snake.extend(['_', c.to_ascii_lowercase()]),
            'a'..='z' | '0'..='9' | '.' => snake.push(c),
            _ => return None,
        }
    }
    (!snake.is_empty()).then_some(snake)
}
