//! A message as RabbitMQ carries it: CloudEvents in binary mode, attributes as headers with the prefix that the AMQP binding
//! of CloudEvents has.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::Envelope;
use crate::cloud_events::{self, CONTENT_TYPE, Malformed};

const PREFIX: &str = "cloudEvents:";
/// Kept on disk by queues that know the difference; quorum queues keep everything.
const PERSISTENT: u8 = 2;
/// The type of what proves that a queue works, and means nothing.
const MARK: &str = "stoa.mark";

pub(super) fn properties(envelope: &Envelope) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in cloud_events::attributes(envelope) {
        headers.insert(format!("{PREFIX}{name}").into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    // For people who look at queues; a name that is too long for it is in the headers all the same.
    let id = ShortString::try_new(format!("{}/{}", envelope.message.stream, envelope.message.version));
    match id {
        Ok(id) => properties.with_message_id(id),
        Err(_) => properties,
    }
}

pub(super) fn mark() -> BasicProperties {
    BasicProperties::default().with_type(MARK.into()).with_delivery_mode(PERSISTENT)
}

pub(super) fn is_mark(delivery: &Delivery) -> bool {
    delivery.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == MARK)
}

pub(super) fn read(producer: &str, delivery: &Delivery) -> Result<Envelope, Malformed> {
    let headers = delivery.properties.headers().as_ref().map(FieldTable::inner).into_iter().flatten();
    let attributes = headers.filter_map(|(name, value)| {
        let value = match value {
            AMQPValue::LongString(text) => text.as_bytes(),
            AMQPValue::ShortString(text) => text.as_str().as_bytes(),
            // A header of someone else, or a value no attribute of ours has: missed where it is needed.
            _ => return None,
        };
        Some((name.as_str().strip_prefix(PREFIX)?, value))
    });
    cloud_events::read(producer, attributes, &delivery.data)
}
