//! One answer message as JSON: the whole of it, or the one field the binding names.

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, MessageDescriptor, SerializeOptions};
use tonic::Code;

use super::{codec::Codecs, problem::Problem, table::message_of, wire};

/// The JSON text of `message`, or of its `field`.
pub(crate) fn json(
    codecs: &Codecs,
    output: &MessageDescriptor,
    field: Option<&FieldDescriptor>,
    message: &[u8],
) -> Result<Vec<u8>, Problem> {
    let Some(field) = field else {
        return codecs.wire_to_json(output, message);
    };
    match message_of(field).filter(|_| field.cardinality() != Cardinality::Repeated) {
        Some(inner) => match wire::find_message(message, field.number()) {
            Some(inner_wire) => codecs.wire_to_json(&inner, &inner_wire),
            None => Ok(b"null".to_vec()),
        },
        None => plain_field(output, field, message)
            .ok_or_else(|| Problem::new(Code::Internal, "the service's answer could not be read")),
    }
}

/// Scalars, lists and maps: read from the JSON of a message that says also what it leaves empty.
fn plain_field(output: &MessageDescriptor, field: &FieldDescriptor, message: &[u8]) -> Option<Vec<u8>> {
    let dynamic = DynamicMessage::decode(output.clone(), message).ok()?;
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut value = dynamic.serialize_with_options(serde_json::value::Serializer, &options).ok()?;
    let part = value.get_mut(field.json_name())?.take();
    serde_json::to_vec(&part).ok()
}
