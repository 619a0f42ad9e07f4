//! Stored events are decoded for ever: the check behind a corpus of golden events.

use contract::EventSet;

/// Why a golden event is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It can no longer be decoded.
    #[error(transparent)]
    Decode(#[from] contract::DecodeEventError),
    /// It decodes to an event of another name.
    #[error("{name} decodes to {found}")]
    Renamed {
        /// The stored name.
        name: String,
        /// What it became.
        found: &'static str,
    },
    /// It is of the schema written today, but would be written differently.
    #[error("{name} of schema {schema} is encoded differently today")]
    Changed {
        /// The stored name.
        name: String,
        /// The stored schema.
        schema: u32,
    },
}

/// Decodes an event as it was stored by some release; one of today's schema must also encode to the
/// very same bytes.
pub fn check<E: EventSet>(name: &str, schema: u32, bytes: &[u8]) -> Result<E, Broken> {
    let event = E::decode(name, schema, bytes)?;
    if event.name() != name {
        return Err(Broken::Renamed { name: name.to_owned(), found: event.name() });
    }
    if event.schema() == schema && event.encode() != bytes {
        return Err(Broken::Changed { name: name.to_owned(), schema });
    }
    Ok(event)
}
