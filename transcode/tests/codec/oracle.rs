//! Both directions agree with prost-reflect on generated messages.

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage, SerializeOptions};
use serde_json::Value;
use transcode::PrintOptions;

use crate::{codec, everything, generate, parse, print, print_with};

fn reflect_json(message: &DynamicMessage, options: &SerializeOptions) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), options)?;
    Ok(String::from_utf8(out).unwrap())
}

fn reflect_read(descriptor: &MessageDescriptor, text: &str) -> Result<DynamicMessage, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new();
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &options)?;
    reader.end()?;
    Ok(message)
}

/// JSON without the difference between `1` and `1.0`.
fn plain(text: &str) -> Value {
    fn level(value: Value) -> Value {
        match value {
            Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
            Value::Array(list) => list.into_iter().map(level).collect(),
            Value::Object(map) => map.into_iter().map(|(key, value)| (key, level(value))).collect(),
            other => other,
        }
    }
    level(serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// Where two texts differ first.
pub(crate) fn difference(ours: &str, theirs: &str) -> Option<String> {
    fn level(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
        if let (Value::Object(one), Value::Object(other)) = (ours, theirs) {
            let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
            return keys.into_iter().find_map(|key| level(&format!("{path}.{key}"), &ours[key], &theirs[key]));
        }
        if let (Value::Array(one), Value::Array(other)) = (ours, theirs)
            && one.len() == other.len()
        {
            return one.iter().zip(other).find_map(|(one, other)| level(&format!("{path}[]"), one, other));
        }
        (ours != theirs).then(|| format!("{path}: {ours} is not {theirs}"))
    }
    level("", &plain(ours), &plain(theirs))
}

/// The same text with blanks wherever they may stand.
fn spaced(text: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for character in text.chars() {
        let blanks = !in_string && "{}[],:\"".contains(character);
        in_string ^= character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        out.push_str(if blanks { " \r\n\t" } else { "" });
        out.push(character);
        out.push_str(if blanks && !in_string { " \r\n\t" } else { "" });
    }
    out
}

/// Compared as JSON: the bytes in an `Any` have no order of maps, and a message that holds itself has no end in print.
pub(crate) fn changed(wire: &[u8], message: &DynamicMessage) -> Option<String> {
    let read = DynamicMessage::decode(message.descriptor(), wire).unwrap();
    let json = |message| reflect_json(message, &SerializeOptions::new()).unwrap();
    difference(&json(&read), &json(message))
}

fn generated(seed: u64) -> DynamicMessage {
    let message = generate::message(&everything(), &mut generate::Random(seed), 0);
    // As it comes from the wire: without the zeros that are not sent.
    DynamicMessage::decode(everything(), &*message.encode_to_vec()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_is_what_prost_reflect_prints(seed: u64) {
        let message = generated(seed);
        let ours = print(&codec("transcode.test.Everything"), &message.encode_to_vec()).unwrap();
        let theirs = reflect_json(&message, &SerializeOptions::new()).unwrap();
        prop_assert_eq!(difference(&ours, &theirs), None);
        let read = reflect_read(&everything(), &ours).unwrap().encode_to_vec();
        prop_assert_eq!(changed(&read, &message), None, "{}", ours);
    }

    #[test]
    fn what_is_parsed_is_what_was_printed(seed: u64) {
        let message = generated(seed);
        let codec = codec("transcode.test.Everything");
        let theirs = reflect_json(&message, &SerializeOptions::new()).unwrap();
        let ours = print(&codec, &message.encode_to_vec()).unwrap();
        let pretty = spaced(&ours);
        for text in [theirs, ours, pretty] {
            let wire = parse(&codec, &text).unwrap_or_else(|error| panic!("{error}: {text}"));
            prop_assert_eq!(changed(&wire, &message), None, "{}", text);
        }
    }

    #[test]
    fn options_mean_the_same(seed: u64, proto_names: bool, enums_as_numbers: bool, int64_as_numbers: bool) {
        let message = generated(seed);
        let codec = codec("transcode.test.Everything");
        let wire = message.encode_to_vec();
        let options = PrintOptions { proto_names, enums_as_numbers, int64_as_numbers, ..PrintOptions::default() };
        let ours = print_with(&codec, &wire, &options).unwrap();
        let theirs = SerializeOptions::new()
            .use_proto_field_name(proto_names)
            .use_enum_numbers(enums_as_numbers)
            .stringify_64_bit_integers(!int64_as_numbers);
        prop_assert_eq!(difference(&ours, &reflect_json(&message, &theirs).unwrap()), None);
        let all = print_with(&codec, &wire, &PrintOptions { emit_defaults: true, ..options }).unwrap();
        for text in [ours, all] {
            let wire = parse(&codec, &text).unwrap_or_else(|error| panic!("{error}: {text}"));
            prop_assert_eq!(changed(&wire, &message), None, "{}", text);
        }
    }
}
