//! Events as a service stores and publishes them.

/// The closed set of events of one service, generated from the messages that carry the `event` option.
pub trait EventSet: Sized + Send + Clone + 'static {
    /// The short name of the service that records them.
    const SERVICE: &'static str;

    /// The full name of the event's message, `stoa.ordering.v1.OrderPlaced`.
    fn name(&self) -> &'static str;

    /// The version of the event's schema that is written today.
    fn schema(&self) -> u32;

    /// The event in protobuf wire format.
    fn encode(&self) -> Vec<u8>;

    /// Reads an event of this name and of any schema released so far.
    fn decode(name: &str, schema: u32, bytes: &[u8]) -> Result<Self, DecodeEventError>;

    /// Shows every personal text of the event, which the visitor may replace.
    fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut String));
}

/// A message that may hold personal texts.
pub trait Personal {
    /// Shows every personal text below this message, which the visitor may replace.
    fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut String));
}

/// Why stored bytes are no event of this service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeEventError {
    /// No event of the service has this name.
    #[error("{service} has no event {name}, as far as this release knows: a newer one may have written it")]
    UnknownName {
        /// The service that was asked.
        service: &'static str,
        /// The name it does not know.
        name: String,
    },
    /// The event was written by a newer release.
    #[error("{name} is known up to schema {newest}, not {schema}: a newer release wrote it")]
    UnknownSchema {
        /// The event's name.
        name: &'static str,
        /// The schema it was written with.
        schema: u32,
        /// The newest schema known here.
        newest: u32,
    },
    /// The bytes are not the message they are said to be.
    #[error("{name} cannot be decoded: {reason}")]
    Malformed {
        /// The event's name.
        name: &'static str,
        /// What the decoder found.
        reason: String,
    },
}

impl DecodeEventError {
    /// Whether a newer release may know what this is.
    pub fn is_newer(&self) -> bool {
        match self {
            Self::UnknownName { .. } | Self::UnknownSchema { .. } => true,
            Self::Malformed { .. } => false,
        }
    }
}
