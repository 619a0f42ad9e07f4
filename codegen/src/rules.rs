//! Field rules of `buf.validate`: read, checked against the field's type, and turned into values of `contract::rules`.
//!
//! A rule that this compiler cannot keep is a fault of the contract; no rule is dropped in silence.

use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::names;
use crate::options::{extension, set, span, strings};
use crate::tree::Tree;

/// The rules of one field, or of the elements, keys or values of one.
#[derive(Default)]
pub(crate) struct FieldRules {
    pub(crate) required: bool,
    /// Whether a zero value is left alone.
    pub(crate) ignore_zero: bool,
    /// Whether nothing is checked, not even below.
    pub(crate) ignore: bool,
    /// The rule of a single value.
    pub(crate) value: Option<Rule>,
    /// The rule of the number of elements or entries.
    pub(crate) count: Option<Rule>,
    pub(crate) unique: bool,
    pub(crate) items: Option<Box<FieldRules>>,
    pub(crate) keys: Option<Box<FieldRules>>,
    pub(crate) values: Option<Box<FieldRules>>,
}

/// A static of the generated code.
pub(crate) struct Rule {
    pub(crate) rust_type: String,
    pub(crate) rust_value: String,
    pub(crate) pattern: Option<String>,
}

/// A group of fields of which at most one may be set.
pub(crate) struct Exclusive {
    pub(crate) fields: Vec<FieldDescriptor>,
    pub(crate) required: bool,
}

const RULES: &str = "::contract::rules";

impl FieldRules {
    pub(crate) fn is_empty(&self) -> bool {
        !self.required
            && self.value.is_none()
            && self.count.is_none()
            && !self.unique
            && self.items.is_none()
            && self.keys.is_none()
            && self.values.is_none()
    }
}

/// Reads the rules of a field; adds what is wrong with them to `faults`.
pub(crate) fn of_field(tree: &Tree, field: &FieldDescriptor, faults: &mut Vec<String>) -> FieldRules {
    let Some(value) = extension(tree, &field.options(), "buf.validate.field") else {
        return FieldRules::default();
    };
    let Some(rules) = value.as_message() else {
        return FieldRules::default();
    };
    let shape = if field.is_map() {
        Shape::Map
    } else if field.cardinality() == Cardinality::Repeated {
        Shape::List
    } else {
        Shape::Single
    };
    read(rules, shape, &field.kind(), faults)
}

/// Reads the rules that a message has over several of its fields.
pub(crate) fn exclusive(tree: &Tree, message: &MessageDescriptor, faults: &mut Vec<String>) -> Vec<Exclusive> {
    let Some(value) = extension(tree, &message.options(), "buf.validate.message") else {
        return Vec::new();
    };
    let Some(rules) = value.as_message() else {
        return Vec::new();
    };
    let mut groups = Vec::new();
    for (descriptor, value) in rules.fields() {
        if descriptor.name() != "oneof" {
            faults.push(format!("the message rule {:?} is not supported", descriptor.name()));
            continue;
        }
        for group in value.as_list().unwrap_or_default().iter().filter_map(Value::as_message) {
            let names = set(group, "fields").map(|value| strings(&value)).unwrap_or_default();
            let required = set(group, "required").and_then(|value| value.as_bool()).unwrap_or(false);
            let mut fields = Vec::new();
            for name in names {
                match message.get_field_by_name(&name) {
                    Some(field) => fields.push(field),
                    None => faults.push(format!("the oneof rule names {name:?}, which is no field")),
                }
            }
            groups.push(Exclusive { fields, required });
        }
    }
    groups
}

/// Whether the schema's own `oneof` must have one of its fields set.
pub(crate) fn oneof_required(tree: &Tree, oneof: &prost_reflect::OneofDescriptor) -> bool {
    let Some(value) = extension(tree, &oneof.options(), "buf.validate.oneof") else {
        return false;
    };
    value.as_message().and_then(|rules| set(rules, "required")).and_then(|value| value.as_bool()).unwrap_or(false)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    List,
    Map,
}

fn read(rules: &DynamicMessage, shape: Shape, kind: &Kind, faults: &mut Vec<String>) -> FieldRules {
    let mut result = FieldRules::default();
    for (descriptor, value) in rules.fields() {
        match (descriptor.name(), value) {
            ("required", value) => result.required = value.as_bool().unwrap_or(false),
            ("ignore", value) => match value.as_enum_number() {
                Some(3) => result.ignore = true,
                Some(1 | 2) => result.ignore_zero = true,
                _ => {}
            },
            (group, Value::Message(group_rules)) => {
                let fits = match shape {
                    Shape::Single => group == group_of(kind),
                    Shape::List => group == "repeated",
                    Shape::Map => group == "map",
                };
                if fits {
                    apply(&mut result, group, group_rules, kind, faults);
                } else {
                    faults.push(format!("rules for {group} do not fit a field of type {}", describe(shape, kind)));
                }
            }
            (other, _) => faults.push(format!("the rule {other:?} is not supported")),
        }
    }
    result
}

/// The group of rules that fits a single value of this kind.
fn group_of(kind: &Kind) -> &str {
    match kind {
        Kind::Double => "double",
        Kind::Float => "float",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Uint32 => "uint32",
        Kind::Uint64 => "uint64",
        Kind::Sint32 => "sint32",
        Kind::Sint64 => "sint64",
        Kind::Fixed32 => "fixed32",
        Kind::Fixed64 => "fixed64",
        Kind::Sfixed32 => "sfixed32",
        Kind::Sfixed64 => "sfixed64",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Enum(_) => "enum",
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Duration" => "duration",
            "google.protobuf.Timestamp" => "timestamp",
            _ => "",
        },
    }
}

fn describe(shape: Shape, kind: &Kind) -> String {
    let single = match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(enumeration) => enumeration.full_name().to_owned(),
        scalar => group_of(scalar).to_owned(),
    };
    match shape {
        Shape::Single => single,
        Shape::List => format!("repeated {single}"),
        Shape::Map => "map".to_owned(),
    }
}

fn apply(result: &mut FieldRules, group: &str, rules: &DynamicMessage, kind: &Kind, faults: &mut Vec<String>) {
    match group {
        "string" => result.value = text(rules, faults),
        "bool" => {
            let equal = set(rules, "const").and_then(|value| value.as_bool());
            result.value = equal.map(|equal| rule("Flag", format!("{RULES}::Flag {{ equal: {equal} }}")));
        }
        "bytes" => result.value = count("Bytes", rules, ["len", "min_len", "max_len"], faults),
        "enum" => result.value = choice(rules, kind, faults),
        "duration" | "timestamp" => result.value = bounds(group, rules, faults),
        "repeated" => list(result, rules, kind, faults),
        "map" => map(result, rules, kind, faults),
        _ => result.value = number(rules, kind, faults),
    }
}

fn rule(rust_type: &str, rust_value: String) -> Rule {
    Rule { rust_type: format!("{RULES}::{rust_type}"), rust_value, pattern: None }
}

fn unsupported(group: &str, name: &str, faults: &mut Vec<String>) {
    faults.push(format!("the rule {:?} is not supported", format!("{group}.{name}")));
}

fn text(rules: &DynamicMessage, faults: &mut Vec<String>) -> Option<Rule> {
    let (mut fields, mut pattern) = (Vec::new(), None);
    for (descriptor, value) in rules.fields() {
        match descriptor.name() {
            "const" => fields.push(format!("equal: Some({:?})", value.as_str().unwrap_or_default())),
            name @ ("len" | "min_len" | "max_len" | "max_bytes") => {
                fields.push(format!("{name}: Some({})", value.as_u64().unwrap_or_default()))
            }
            name @ ("prefix" | "suffix" | "contains" | "not_contains") => {
                fields.push(format!("{name}: Some({:?})", value.as_str().unwrap_or_default()))
            }
            "in" => fields.push(format!("one_of: &{:?}", strings(value))),
            "not_in" => fields.push(format!("none_of: &{:?}", strings(value))),
            "pattern" => {
                let text = value.as_str().unwrap_or_default();
                if let Err(error) = regex::Regex::new(text) {
                    let reason = error.to_string();
                    faults.push(format!(
                        "the pattern {text:?} is no regular expression: {}",
                        reason.lines().last().unwrap_or_default()
                    ));
                }
                pattern = Some(text.to_owned());
                fields.push("pattern: Some(&PATTERN)".to_owned());
            }
            name @ ("email" | "uuid" | "uri" | "hostname") => {
                if value.as_bool() == Some(true) {
                    fields.push(format!("format: Some({RULES}::Format::{})", names::camel(name)));
                }
            }
            other => unsupported("string", other, faults),
        }
    }
    let least = set(rules, "min_len").and_then(|value| value.as_u64());
    let most = set(rules, "max_len").and_then(|value| value.as_u64());
    ordered("string", least, most, faults);
    let mut rule = rule("Text", format!("{RULES}::Text {{ {}, ..{RULES}::Text::ANY }}", fields.join(", ")));
    rule.pattern = pattern;
    (!fields.is_empty()).then_some(rule)
}

fn ordered(group: &str, least: Option<u64>, most: Option<u64>, faults: &mut Vec<String>) {
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        faults.push(format!("the rules of {group} ask for at least {least} and at most {most}"));
    }
}

/// The Rust type of a numeric kind.
fn numeric(kind: &Kind) -> &'static str {
    match kind {
        Kind::Double => "f64",
        Kind::Float => "f32",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "i64",
        Kind::Uint32 | Kind::Fixed32 => "u32",
        Kind::Uint64 | Kind::Fixed64 => "u64",
        Kind::Int32
        | Kind::Sint32
        | Kind::Sfixed32
        | Kind::Bool
        | Kind::String
        | Kind::Bytes
        | Kind::Message(_)
        | Kind::Enum(_) => "i32",
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::F32(number) => format!("{number:?}"),
        Value::F64(number) => format!("{number:?}"),
        Value::EnumNumber(number) => number.to_string(),
        _ => String::new(),
    }
}

fn as_float(value: &Value) -> f64 {
    literal(value).parse().unwrap_or(f64::NAN)
}

fn number(rules: &DynamicMessage, kind: &Kind, faults: &mut Vec<String>) -> Option<Rule> {
    let mut fields = Vec::new();
    for (descriptor, value) in rules.fields() {
        match descriptor.name() {
            "const" => fields.push(format!("equal: Some({})", literal(value))),
            name @ ("gt" | "gte" | "lt" | "lte") => fields.push(format!("{name}: Some({})", literal(value))),
            name @ ("in" | "not_in") => {
                let list: Vec<_> = value.as_list().unwrap_or_default().iter().map(literal).collect();
                fields.push(format!("{}: &[{}]", if name == "in" { "one_of" } else { "none_of" }, list.join(", ")));
            }
            other => unsupported(group_of(kind), other, faults),
        }
    }
    let lower = set(rules, "gt").or_else(|| set(rules, "gte"));
    let upper = set(rules, "lt").or_else(|| set(rules, "lte"));
    if let (Some(lower), Some(upper)) = (lower, upper)
        && as_float(&lower) > as_float(&upper)
    {
        faults.push(format!(
            "the rules of {} leave no value: above {} and below {}",
            group_of(kind),
            literal(&lower),
            literal(&upper)
        ));
    }
    let rust_type = format!("Number<{}>", numeric(kind));
    (!fields.is_empty())
        .then(|| rule(&rust_type, format!("{RULES}::Number {{ {}, ..{RULES}::Number::ANY }}", fields.join(", "))))
}

fn choice(rules: &DynamicMessage, kind: &Kind, faults: &mut Vec<String>) -> Option<Rule> {
    let enumeration = kind.as_enum()?;
    let mut fields = Vec::new();
    for (descriptor, value) in rules.fields() {
        match descriptor.name() {
            "const" => fields.push(format!("equal: Some({})", literal(value))),
            "defined_only" => {
                if value.as_bool() == Some(true) {
                    fields.push(format!("defined: Some({}::is_valid)", names::enumeration(enumeration)));
                }
            }
            name @ ("in" | "not_in") => {
                let list: Vec<_> = value.as_list().unwrap_or_default().iter().map(literal).collect();
                for number in value.as_list().unwrap_or_default().iter().filter_map(Value::as_i32) {
                    if enumeration.get_value(number).is_none() {
                        faults.push(format!(
                            "enum.{name} names {number}, which {} does not define",
                            enumeration.full_name()
                        ));
                    }
                }
                fields.push(format!("{}: &[{}]", if name == "in" { "one_of" } else { "none_of" }, list.join(", ")));
            }
            other => unsupported("enum", other, faults),
        }
    }
    (!fields.is_empty())
        .then(|| rule("Choice", format!("{RULES}::Choice {{ {}, ..{RULES}::Choice::ANY }}", fields.join(", "))))
}

fn bounds(group: &str, rules: &DynamicMessage, faults: &mut Vec<String>) -> Option<Rule> {
    let mut fields = Vec::new();
    for (descriptor, value) in rules.fields() {
        match (descriptor.name(), value.as_message()) {
            (name @ ("gt" | "gte" | "lt" | "lte"), Some(bound)) => {
                fields.push(format!("{name}: Some({:?})", span(bound)))
            }
            (other, _) => unsupported(group, other, faults),
        }
    }
    let every = group.to_uppercase();
    (!fields.is_empty())
        .then(|| rule("Span", format!("{RULES}::Span {{ {}, ..{RULES}::Span::{every} }}", fields.join(", "))))
}

/// A rule of how many there are; fields of other meaning are left to the caller.
fn count(of: &str, rules: &DynamicMessage, [exactly, min, max]: [&str; 3], faults: &mut Vec<String>) -> Option<Rule> {
    for (descriptor, _) in rules.fields() {
        let name = descriptor.name();
        if ![exactly, min, max, "unique", "items", "keys", "values"].contains(&name) {
            unsupported(&of.to_lowercase(), name, faults);
        }
    }
    let number = |name: &str| {
        if name.is_empty() { None } else { set(rules, name).and_then(|value| value.as_u64()) }
    };
    let (exactly, min, max) = (number(exactly), number(min), number(max));
    ordered(&of.to_lowercase(), min, max, faults);
    let any = exactly.is_some() || min.is_some() || max.is_some();
    any.then(|| {
        rule(
            "Count",
            format!(
                "{RULES}::Count {{ of: {RULES}::Counted::{of}, exactly: {exactly:?}, min: {min:?}, max: {max:?} }}"
            ),
        )
    })
}

fn list(result: &mut FieldRules, rules: &DynamicMessage, kind: &Kind, faults: &mut Vec<String>) {
    result.count = count("Items", rules, ["", "min_items", "max_items"], faults);
    result.unique = set(rules, "unique").and_then(|value| value.as_bool()).unwrap_or(false);
    if result.unique && matches!(kind, Kind::Message(_) | Kind::Float | Kind::Double) {
        faults.push(format!(
            "the rule \"repeated.unique\" does not fit elements of type {}",
            describe(Shape::Single, kind)
        ));
    }
    result.items = nested(rules, "items", kind, faults);
}

fn map(result: &mut FieldRules, rules: &DynamicMessage, kind: &Kind, faults: &mut Vec<String>) {
    result.count = count("Pairs", rules, ["", "min_pairs", "max_pairs"], faults);
    if let Some(entry) = kind.as_message() {
        result.keys = nested(rules, "keys", &entry.map_entry_key_field().kind(), faults);
        result.values = nested(rules, "values", &entry.map_entry_value_field().kind(), faults);
    }
}

fn nested(rules: &DynamicMessage, name: &str, kind: &Kind, faults: &mut Vec<String>) -> Option<Box<FieldRules>> {
    let value = set(rules, name)?;
    let rules = read(value.as_message()?, Shape::Single, kind, faults);
    (!rules.is_empty()).then(|| Box::new(rules))
}
