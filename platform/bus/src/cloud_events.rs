//! Messages as CloudEvents 1.0 in binary mode: attributes beside the data, so that a program that knows nothing of Stoa
//! can read them. How an attribute's name is written in a header is the protocol binding's (`ce_id` in Kafka,
//! `cloudEvents:id` in AMQP) and the adapter's.
//!
//! Whatever comes in is bad until checked: anyone may write to a broker.

use std::num::ParseIntError;

use jiff::Timestamp;

use crate::{Envelope, Message};

/// The `datacontenttype` of every event; bindings carry it as the content type, without a prefix.
pub const CONTENT_TYPE: &str = "application/protobuf";

/// The longest text of an attribute, in bytes.
pub const MAX_TEXT: usize = 2048;

/// The largest payload, in bytes.
pub const MAX_DATA: usize = 1 << 20;

/// The most attributes that are looked at.
pub const MAX_ATTRIBUTES: usize = 64;

const SPECVERSION: &str = "1.0";
const SOURCE: &str = "/services/";

/// Why something is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// An attribute is missing.
    #[error("it has no attribute {0}")]
    Missing(&'static str),
    /// An attribute is not what it must be.
    #[error("its attribute {0} is not what it must be")]
    Invalid(&'static str),
    /// It is larger than any message.
    #[error("it is larger than any message may be")]
    TooLarge,
    /// An event of someone else.
    #[error("it is an event of {0}")]
    Foreign(String),
}

/// The attributes of a message, but `datacontenttype`; those without a value are left out.
pub fn attributes(envelope: &Envelope) -> Vec<(&'static str, String)> {
    let Message {
        service,
        shard,
        position,
        stream,
        version,
        name,
        schema,
        occur_time,
        causation,
        correlation,
        traceparent,
        subject,
        payload: _,
    } = &envelope.message;
    let mut attributes = vec![
        ("specversion", SPECVERSION.to_owned()),
        ("id", format!("{stream}/{version}")),
        ("source", format!("{SOURCE}{service}")),
        ("type", name.clone()),
        ("subject", stream.clone()),
        ("time", occur_time.to_string()),
        ("dataschema", format!("urn:stoa:{name}:{schema}")),
        ("partitionkey", stream.clone()),
        ("shard", shard.to_string()),
        ("position", position.to_string()),
        ("streamversion", version.to_string()),
        ("schemaversion", schema.to_string()),
    ];
    let optional = [("causation", causation), ("correlation", correlation), ("traceparent", traceparent)];
    attributes
        .extend(optional.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, text.clone())));
    attributes.extend(subject.iter().map(|subject| ("person", subject.clone())));
    if envelope.sealed {
        attributes.push(("sealed", "true".to_owned()));
    }
    attributes
}

/// The message that these attributes (names without the binding's prefix) and this data are, if it is one of `producer`.
/// Unknown attributes are passed over, as CloudEvents asks.
pub fn read<'a>(
    producer: &str,
    attributes: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    data: &[u8],
) -> Result<Envelope, Malformed> {
    if data.len() > MAX_DATA {
        return Err(Malformed::TooLarge);
    }
    let mut found = Found(Vec::new());
    for (name, value) in attributes {
        if found.0.len() == MAX_ATTRIBUTES || value.len() > MAX_TEXT {
            return Err(Malformed::TooLarge);
        }
        found.0.push((name, value));
    }
    if found.text("specversion")? != SPECVERSION {
        return Err(Malformed::Invalid("specversion"));
    }
    let service = found.text("source")?.strip_prefix(SOURCE).ok_or(Malformed::Invalid("source"))?;
    if service != producer {
        return Err(Malformed::Foreign(service.chars().take(64).collect()));
    }
    let stream = found.text("subject")?;
    let version = found.number("streamversion")?;
    if version == 0 || found.text("id")? != format!("{stream}/{version}") {
        return Err(Malformed::Invalid("id"));
    }
    let position = found.number("position")?;
    if position == 0 {
        return Err(Malformed::Invalid("position"));
    }
    let message = Message {
        service: service.to_owned(),
        shard: found.number("shard")?.try_into().map_err(|_| Malformed::Invalid("shard"))?,
        position,
        stream: stream.to_owned(),
        version,
        name: found.text("type")?.to_owned(),
        schema: found.number("schemaversion")?.try_into().map_err(|_| Malformed::Invalid("schemaversion"))?,
        occur_time: found.text("time")?.parse::<Timestamp>().map_err(|_| Malformed::Invalid("time"))?,
        causation: found.optional("causation")?.unwrap_or_default().to_owned(),
        correlation: found.optional("correlation")?.unwrap_or_default().to_owned(),
        traceparent: found.optional("traceparent")?.unwrap_or_default().to_owned(),
        subject: found.optional("person")?.map(str::to_owned),
        payload: data.to_owned(),
    };
    let sealed = match found.optional("sealed")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Malformed::Invalid("sealed")),
    };
    Ok(Envelope { message, sealed })
}

struct Found<'a>(Vec<(&'a str, &'a [u8])>);

impl<'a> Found<'a> {
    /// An attribute that comes twice is none: who reads the first and who reads the last would see two events.
    fn optional(&self, name: &'static str) -> Result<Option<&'a str>, Malformed> {
        let mut values = self.0.iter().filter(|(found, _)| *found == name).map(|(_, value)| *value);
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(value), None) => value,
            (Some(_), Some(_)) => return Err(Malformed::Invalid(name)),
        };
        let text = std::str::from_utf8(value).map_err(|_| Malformed::Invalid(name))?;
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(Malformed::Invalid(name));
        }
        Ok(Some(text))
    }

    fn text(&self, name: &'static str) -> Result<&'a str, Malformed> {
        self.optional(name)?.ok_or(Malformed::Missing(name))
    }

    fn number(&self, name: &'static str) -> Result<u64, Malformed> {
        let number: Result<u64, ParseIntError> = self.text(name)?.parse();
        // Stores count in signed numbers.
        number.ok().filter(|number| i64::try_from(*number).is_ok()).ok_or(Malformed::Invalid(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            message: Message {
                service: "ordering".to_owned(),
                shard: 3,
                position: 17,
                stream: "orders/Zoë".to_owned(),
                version: 2,
                name: "stoa.ordering.v1.OrderPlaced".to_owned(),
                schema: 1,
                occur_time: Timestamp::from_microsecond(1_700_000_000_123_456).unwrap(),
                causation: String::new(),
                correlation: "requests/1".to_owned(),
                traceparent: "00-a-b-01".to_owned(),
                subject: Some("users/1".to_owned()),
                payload: vec![0, 159, 146, 150],
            },
            sealed: true,
        }
    }

    fn read_with(change: impl FnOnce(&mut Vec<(&'static str, String)>)) -> Result<Envelope, Malformed> {
        let (envelope, mut attributes) = (envelope(), attributes(&envelope()));
        change(&mut attributes);
        let bytes = attributes.iter().map(|(name, value)| (*name, value.as_bytes()));
        read("ordering", bytes, &envelope.message.payload)
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        assert_eq!(read_with(|_| ()), Ok(envelope()));
        assert_eq!(read_with(|attributes| attributes.push(("unknown", "x".to_owned()))), Ok(envelope()));
    }

    #[test]
    fn names_are_ones_that_cloud_events_allows() {
        for (name, value) in attributes(&envelope()) {
            assert!(name.len() <= 20 && name.chars().all(|c| c.is_ascii_lowercase()), "{name}");
            assert!(!value.is_empty(), "{name}");
        }
    }

    #[test]
    fn each_required_attribute_is_missed_and_checked() {
        let required = [
            "specversion",
            "id",
            "source",
            "type",
            "subject",
            "time",
            "shard",
            "position",
            "streamversion",
            "schemaversion",
        ];
        for name in required {
            let without = read_with(|attributes| attributes.retain(|(found, _)| *found != name));
            assert_eq!(without, Err(Malformed::Missing(name)));
            let twice = read_with(|attributes| attributes.push((name, "1".to_owned())));
            assert_eq!(twice, Err(Malformed::Invalid(name)));
            for bad in [String::new(), "\u{7}".to_owned(), "-1".to_owned(), i64::MIN.to_string(), u64::MAX.to_string()]
            {
                let changed = read_with(|attributes| {
                    attributes
                        .iter_mut()
                        .filter(|(found, _)| *found == name)
                        .for_each(|(_, value)| *value = bad.clone());
                });
                // A type may be any text; no text at all or a control character is none.
                assert!(changed.is_err() || (name == "type" && bad.len() > 1), "{name} {bad:?}: {changed:?}");
            }
        }
    }

    #[test]
    fn what_is_too_large_or_of_others_is_refused() {
        let long = read_with(|attributes| attributes.push(("unknown", "x".repeat(MAX_TEXT + 1))));
        assert_eq!(long, Err(Malformed::TooLarge));
        let many = read_with(|attributes| attributes.extend((0..MAX_ATTRIBUTES).map(|_| ("unknown", "x".to_owned()))));
        assert_eq!(many, Err(Malformed::TooLarge));
        assert_eq!(read("ordering", [], &vec![0; MAX_DATA + 1]), Err(Malformed::TooLarge));
        let attributes = attributes(&envelope());
        let bytes = attributes.iter().map(|(name, value)| (*name, value.as_bytes()));
        assert_eq!(read("payment", bytes, &[]), Err(Malformed::Foreign("ordering".to_owned())));
    }
}
