//! The seam between a message's JSON and its wire form, for those who know the message only by name.

/// How one message is turned from JSON to wire format and back.
#[derive(Clone, Copy, Debug)]
pub struct JsonMessage {
    /// ProtoJSON text to wire format.
    pub to_wire: fn(&[u8]) -> Result<Vec<u8>, String>,
    /// Wire format to ProtoJSON text.
    pub from_wire: fn(&[u8]) -> Result<Vec<u8>, String>,
    /// A ProtoJSON value to wire format.
    pub from_value: fn(serde_json::Value) -> Result<Vec<u8>, String>,
}

/// The messages of a contract tree by full name, sorted by it.
#[derive(Clone, Copy, Debug)]
pub struct JsonTable(pub &'static [(&'static str, JsonMessage)]);

impl JsonTable {
    /// The message of this full name, `stoa.ordering.v1.Order`.
    pub fn get(&self, name: &str) -> Option<&'static JsonMessage> {
        let index = self.0.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        self.0.get(index).map(|(_, message)| message)
    }

    /// Every message with its full name.
    pub fn iter(&self) -> std::slice::Iter<'static, (&'static str, JsonMessage)> {
        self.0.iter()
    }
}
