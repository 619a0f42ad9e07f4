//! Every message of the tree, filled at random, is turned to JSON and back by us and by prost-reflect: both must agree.

use proptest::prelude::*;
use proptest::test_runner::{TestRng, TestRunner};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::{DESCRIPTOR_SET, json};

const DEPTH: u32 = 3;

struct Filler {
    rng: TestRng,
    pool: DescriptorPool,
}

impl Filler {
    fn below(&mut self, bound: u32) -> u32 {
        self.rng.random_range(0..bound)
    }

    fn text(&mut self) -> String {
        let letters = ["a", "Z", "0", "ä", "\"", "\\", "\n", "\u{1F600}", " ", "/"];
        (0..self.below(6)).map(|_| letters[self.below(10) as usize]).collect()
    }

    fn message(&mut self, descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        match descriptor.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
                message.set_field_by_name("seconds", Value::I64(i64::from(self.below(2_000_000_000))));
                message.set_field_by_name("nanos", Value::I32(self.below(1_000_000_000) as i32));
            }
            "google.protobuf.FieldMask" => {
                let paths = ["name", "unit_price", "unit_price.currency_code", "a.b_c"];
                let chosen =
                    (0..self.below(3)).map(|_| Value::String(paths[self.below(4) as usize].to_owned())).collect();
                message.set_field_by_name("paths", Value::List(chosen));
            }
            "google.protobuf.Any" => {
                let names = [
                    "google.rpc.ErrorInfo",
                    "google.rpc.BadRequest",
                    "google.protobuf.Duration",
                    "google.protobuf.Timestamp",
                    "google.type.Money",
                ];
                let name = names[self.below(5) as usize];
                let inner = self.pool.get_message_by_name(name).unwrap();
                let inner = self.message(&inner, 0);
                message.set_field_by_name("type_url", Value::String(format!("type.googleapis.com/{name}")));
                message.set_field_by_name("value", Value::Bytes(inner.encode_to_vec().into()));
            }
            "google.protobuf.Value" => message.set_field_by_name("string_value", Value::String(self.text())),
            _ => {
                for field in descriptor.fields() {
                    if self.below(3) > 0 {
                        self.fill(&mut message, &field, depth);
                    }
                }
            }
        }
        message
    }

    fn fill(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor, depth: u32) {
        if depth == 0 && matches!(field.kind(), Kind::Message(_)) {
            return;
        }
        let value = if field.is_map() {
            let kind = field.kind();
            let entry = kind.as_message().unwrap();
            let value = entry.map_entry_value_field();
            let pairs = (0..self.below(3)).filter_map(|_| {
                let key = match self.single(&entry.map_entry_key_field().kind(), depth) {
                    Value::String(key) => MapKey::String(key),
                    Value::I32(key) => MapKey::I32(key),
                    Value::I64(key) => MapKey::I64(key),
                    _ => return None,
                };
                Some((key, self.single(&value.kind(), depth)))
            });
            Value::Map(pairs.collect())
        } else if field.is_list() {
            Value::List((0..self.below(3)).map(|_| self.single(&field.kind(), depth)).collect())
        } else {
            self.single(&field.kind(), depth)
        };
        message.set_field(field, value);
    }

    fn single(&mut self, kind: &Kind, depth: u32) -> Value {
        let bits = u64::from(self.rng.next_u32()) << 32 | u64::from(self.rng.next_u32());
        let bits = if self.below(4) == 0 { u64::from(self.below(3)) } else { bits };
        match kind {
            Kind::Double => Value::F64(bits as i64 as f64 / 1024.0),
            Kind::Float => Value::F32(f32::from(bits as i16) / 8.0),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(bits as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(bits as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(bits as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(bits),
            Kind::Bool => Value::Bool(bits & 1 == 1),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(self.text().into_bytes().into()),
            Kind::Message(message) => Value::Message(self.message(message, depth.saturating_sub(1))),
            Kind::Enum(enumeration) => {
                let values: Vec<_> = enumeration.values().map(|value| value.number()).collect();
                Value::EnumNumber(values[self.below(values.len() as u32) as usize])
            }
        }
    }
}

fn filler() -> Filler {
    let rng = TestRunner::deterministic().new_rng();
    Filler { rng, pool: DescriptorPool::decode(DESCRIPTOR_SET).unwrap() }
}

#[test]
fn the_json_of_every_message_is_what_prost_reflect_makes_of_it() {
    let mut filler = filler();
    for (name, message) in json::TABLE.iter().filter(|(name, _)| !name.starts_with("google.protobuf.")) {
        let descriptor = filler.pool.get_message_by_name(name).unwrap();
        for _ in 0..20 {
            // Once over the wire, so that an empty text that was set and one that was not are the same.
            let wire = filler.message(&descriptor, DEPTH).encode_to_vec();
            let dynamic = DynamicMessage::decode(descriptor.clone(), wire.as_slice()).unwrap();
            let text = (message.from_wire)(&wire).unwrap_or_else(|error| panic!("{name}: {error}: {dynamic:?}"));
            let ours: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let theirs = serde_json::to_value(&dynamic).unwrap();
            assert_eq!(ours, theirs, "{name}");
            for wire in [(message.to_wire)(&text), (message.from_value)(theirs)] {
                let back = DynamicMessage::decode(
                    descriptor.clone(),
                    wire.unwrap_or_else(|error| panic!("{name}: {error}: {ours}")).as_slice(),
                )
                .unwrap();
                assert_eq!(back, dynamic, "{name}");
            }
        }
    }
}

#[test]
fn json_that_is_no_message_of_the_contract_is_refused() {
    let refused = [
        ("google.type.Money", r#"{"unknown": 1}"#),
        ("google.type.Money", r#"{"units": "1", "units": "2"}"#),
        ("google.type.Money", r#"{"units": "9223372036854775808"}"#),
        ("google.type.Money", r#"{"units": 1.5}"#),
        ("google.type.Money", r#"{"units": "1",}"#),
        ("google.type.Money", r#"{"currencyCode": 5}"#),
        ("google.type.Money", r#"{"nanos": 2147483648}"#),
        ("google.type.Money", r#"{} x"#),
        ("google.api.HttpBody", r#"{"data": "???"}"#),
        ("google.rpc.Status", r#"{"details": [{"@type": "type.googleapis.com/nobody.Knows"}]}"#),
        ("google.rpc.Status", r#"{"details": [{"reason": "x"}]}"#),
        ("google.rpc.Status", r#"{"details": [{"@type": "google.rpc.ErrorInfo"}]}"#),
        ("google.rpc.Status", r#"{"details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "x": 1}]}"#),
        (
            "google.rpc.Status",
            r#"{"details": [{"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s", "x": 1}]}"#,
        ),
        ("google.protobuf.FieldMask", r#""unit_price""#),
        ("google.protobuf.FieldMask", r#""a,,b""#),
    ];
    for (name, text) in refused {
        let message = json::TABLE.get(name).unwrap();
        assert!((message.to_wire)(text.as_bytes()).is_err(), "{name}: {text}");
    }
}

#[test]
fn an_any_and_a_field_mask_are_written_as_protojson_says() {
    use crate::google::rpc::{ErrorInfo, Status};
    use crate::wkt::{Any, FieldMask};

    let error = ErrorInfo { reason: "OUT_OF_STOCK".into(), domain: "stoa".into(), ..ErrorInfo::default() };
    let span = crate::wkt::Duration { seconds: 3, nanos: 0 };
    let packed = Any { type_url: "type.googleapis.com/google.protobuf.Duration".into(), value: span.encode_to_vec() };
    let status = Status { code: 9, message: "no".into(), details: vec![Any::pack(&error), packed] };
    assert_eq!(
        serde_json::to_string(&status).unwrap(),
        r#"{"code":9,"message":"no","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"stoa","reason":"OUT_OF_STOCK"},{"@type":"type.googleapis.com/google.protobuf.Duration","value":"3s"}]}"#
    );
    let mask = FieldMask { paths: vec!["unit_price.currency_code".into(), "name".into()] };
    assert_eq!(serde_json::to_string(&mask).unwrap(), r#""unitPrice.currencyCode,name""#);
    for without_json in ["unitPrice", "unit__price", "unit_", "unit_1"] {
        assert!(serde_json::to_string(&FieldMask { paths: vec![without_json.into()] }).is_err(), "{without_json}");
    }
}

#[test]
fn the_descriptor_set_carries_the_options_of_the_contract() {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    for option in ["google.api.http", "stoa.contract.v1.policy"] {
        let extension = pool.get_extension_by_name(option).unwrap();
        let carried = pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(|method| method.options().has_extension(&extension));
        assert!(carried.count() > 0, "{option}");
    }
}

#[test]
fn every_method_is_in_the_table_under_its_path_with_messages_that_have_json() {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).unwrap();
    let methods: Vec<_> = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    assert_eq!(methods.len(), crate::METHODS.iter().count());
    for method in methods {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let entry = crate::METHODS.by_path(&path).unwrap();
        assert_eq!((entry.input, entry.output), (method.input().full_name(), method.output().full_name()));
        assert!(json::TABLE.get(entry.input).is_some() && json::TABLE.get(entry.output).is_some(), "{path}");
    }
}
