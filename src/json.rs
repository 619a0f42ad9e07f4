//! The JSON of every message, for those who know a message only by its name.

use ::contract::{JsonMessage, JsonTable};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Every message of the tree and the well-known types, by full name.
pub static TABLE: JsonTable = JsonTable(include!(concat!(env!("OUT_DIR"), "/json.rs")));

const fn message<M>() -> JsonMessage
where
    M: Message + Default + Serialize + DeserializeOwned,
{
    JsonMessage { to_wire: to_wire::<M>, from_wire: from_wire::<M>, from_value: from_value::<M> }
}

fn to_wire<M: Message + DeserializeOwned>(json: &[u8]) -> Result<Vec<u8>, String> {
    serde_json::from_slice::<M>(json).map(|message| message.encode_to_vec()).map_err(|error| error.to_string())
}

fn from_wire<M: Message + Default + Serialize>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let message = M::decode(bytes).map_err(|error| error.to_string())?;
    serde_json::to_vec(&message).map_err(|error| error.to_string())
}

/// By way of text: a second reader of every message, for values, would cost every build more than it saves any request.
fn from_value<M: Message + DeserializeOwned>(value: serde_json::Value) -> Result<Vec<u8>, String> {
    to_wire::<M>(value.to_string().as_bytes())
}
