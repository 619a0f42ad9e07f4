//! `Validate` for every message: field rules here, and below.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::check::Contract;
use crate::names;
use crate::rules::{self, FieldRules, Rule};
use crate::tree::{Package, Tree};

/// The full names of messages that have a rule in them or below them; the rest is not looked into.
pub(crate) fn ruled(tree: &Tree, contract: &Contract) -> BTreeSet<String> {
    let messages: Vec<&MessageDescriptor> = tree.packages.values().flat_map(|package| &package.messages).collect();
    let mut ruled = BTreeSet::new();
    // Rules spread upwards until nothing changes, because messages may contain each other.
    loop {
        let before = ruled.len();
        for message in &messages {
            let has_rules = contract.exclusive.contains_key(message.full_name())
                || message.oneofs().any(|oneof| rules::oneof_required(tree, &oneof))
                || message.fields().any(|field| {
                    let own = contract.rules.get(field.full_name());
                    own.is_some_and(|rules| !rules.is_empty())
                        || (!own.is_some_and(|rules| rules.ignore)
                            && below(&field).is_some_and(|inner| ruled.contains(inner.full_name())))
                });
            if has_rules {
                ruled.insert(message.full_name().to_owned());
            }
        }
        if ruled.len() == before {
            return ruled;
        }
    }
}

fn below(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind().as_message().cloned(),
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

pub(crate) fn emit(tree: &Tree, contract: &Contract, package: &Package, ruled: &BTreeSet<String>, source: &mut String) {
    for message in &package.messages {
        let rust = names::message(message);
        let mut body = String::new();
        if ruled.contains(message.full_name()) {
            let none = FieldRules::default();
            for field in message.fields() {
                let rules = contract.rules.get(field.full_name()).unwrap_or(&none);
                if !rules.ignore {
                    body.push_str(&Writer { ruled }.field(&field, rules));
                }
            }
            for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic() && rules::oneof_required(tree, oneof)) {
                let (slot, name) = (names::snake(oneof.name()), oneof.name());
                let _ = writeln!(
                    body,
                    "        if self.{slot}.is_none() {{ path.field({name:?}, |path| ::contract::rules::missing(path, violations)); }}"
                );
            }
            for group in contract.exclusive.get(message.full_name()).into_iter().flatten() {
                body.push_str(&exclusive(&group.fields, group.required));
            }
        }
        let (path, violations) = if body.is_empty() { ("_path", "_violations") } else { ("path", "violations") };
        let _ = write!(
            source,
            "
impl ::contract::Validate for {rust} {{
    fn validate(&self, {path}: &mut ::contract::FieldPath, {violations}: &mut ::std::vec::Vec<::contract::Violation>) {{
{body}    }}
}}
"
        );
    }
}

struct Writer<'a> {
    ruled: &'a BTreeSet<String>,
}

impl Writer<'_> {
    /// The checks of one field, with `path` at its message.
    fn field(&self, field: &FieldDescriptor, rules: &FieldRules) -> String {
        let (name, rust) = (field.name(), names::snake(field.name()));
        let mut inner = String::new();
        if field.is_map() {
            let entry = field.kind();
            let Some(entry) = entry.as_message() else {
                return inner;
            };
            inner.push_str(&counted(rules));
            let key = rules.keys.as_ref().map(|rules| self.value(&entry.map_entry_key_field().kind(), rules, "key"));
            let value = self.value(
                &entry.map_entry_value_field().kind(),
                rules.values.as_deref().unwrap_or(&FieldRules::default()),
                "value",
            );
            let each = key.unwrap_or_default() + &value;
            if !each.is_empty() {
                let _ = writeln!(
                    inner,
                    "for (key, value) in value {{ let _ = value; path.key(key, |path| {{ {each} }}); }}"
                );
            }
        } else if field.is_list() {
            inner.push_str(&counted(rules));
            if rules.unique {
                inner.push_str("::contract::rules::unique(value.iter(), path, violations);\n");
            }
            let each = self.value(&field.kind(), rules.items.as_deref().unwrap_or(&FieldRules::default()), "value");
            if !each.is_empty() {
                let _ = writeln!(
                    inner,
                    "for (index, value) in value.iter().enumerate() {{ path.index(index, |path| {{ {each} }}); }}"
                );
            }
        } else {
            inner.push_str(&self.value(&field.kind(), rules, "value"));
        }

        let missing = "::contract::rules::missing(path, violations)";
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            let variant = format!(
                "{}::{}::{}",
                names::inside(field.parent_message()),
                names::camel(oneof.name()),
                names::camel(name)
            );
            let slot = names::snake(oneof.name());
            if inner.is_empty() {
                return inner;
            }
            return format!(
                "        if let Some({variant}(value)) = &self.{slot} {{ path.field({name:?}, |path| {{ {inner} }}); }}\n"
            );
        }
        if field.supports_presence() {
            return match (inner.is_empty(), rules.required) {
                (true, false) => String::new(),
                (true, true) => {
                    format!("        if self.{rust}.is_none() {{ path.field({name:?}, |path| {missing}); }}\n")
                }
                (false, false) => format!(
                    "        if let Some(value) = &self.{rust} {{ path.field({name:?}, |path| {{ {inner} }}); }}\n"
                ),
                (false, true) => format!(
                    "        path.field({name:?}, |path| match &self.{rust} {{ Some(value) => {{ {inner} }} None => {missing} }});\n"
                ),
            };
        }
        let zero =
            if field.is_map() || field.is_list() { "value.is_empty()".to_owned() } else { is_zero(&field.kind()) };
        let checks = match (inner.is_empty(), rules.required, rules.ignore_zero) {
            (true, false, _) => return String::new(),
            (true, true, _) => format!("if {zero} {{ {missing}; }}"),
            (false, true, _) => format!("if {zero} {{ {missing}; }} else {{ {inner} }}"),
            (false, false, true) => format!("if !({zero}) {{ {inner} }}"),
            (false, false, false) => inner,
        };
        format!("        path.field({name:?}, |path| {{ let value = &self.{rust}; {checks} }});\n")
    }

    /// The checks of a single `&T` bound to the name `value`, with `path` at it.
    fn value(&self, kind: &Kind, rules: &FieldRules, value: &str) -> String {
        let mut code = String::new();
        if let Kind::Message(message) = kind
            && self.ruled.contains(message.full_name())
        {
            // Written as a method call, because that also reaches through the box of a message that contains itself.
            let _ = writeln!(code, "{value}.validate(path, violations);");
        }
        if let Some(rule) = &rules.value {
            let argument = match kind {
                Kind::String => format!("{value}.as_str()"),
                Kind::Bytes => format!("{value}.len()"),
                Kind::Message(_) => format!("({value}.seconds, {value}.nanos)"),
                _ => format!("*{value}"),
            };
            let _ = writeln!(code, "{{ {} RULES.check({argument}, path, violations); }}", statics(rule));
        }
        code
    }
}

fn counted(rules: &FieldRules) -> String {
    match &rules.count {
        Some(rule) => format!("{{ {} RULES.check(value.len(), path, violations); }}\n", statics(rule)),
        None => String::new(),
    }
}

fn statics(rule: &Rule) -> String {
    let Rule { rust_type, rust_value, pattern } = rule;
    let pattern = pattern.as_ref().map(|text| {
        format!("static PATTERN: ::contract::rules::Pattern = ::contract::rules::Pattern::new({text:?}); ")
    });
    format!("{}static RULES: {rust_type} = {rust_value};", pattern.unwrap_or_default())
}

fn is_zero(kind: &Kind) -> String {
    match kind {
        Kind::String | Kind::Bytes => "value.is_empty()".to_owned(),
        Kind::Bool => "!*value".to_owned(),
        Kind::Float | Kind::Double => "*value == 0.0".to_owned(),
        _ => "*value == 0".to_owned(),
    }
}

/// At most one of these fields may be set, or exactly one if that is asked for.
fn exclusive(fields: &[FieldDescriptor], required: bool) -> String {
    let set: Vec<String> = fields
        .iter()
        .map(|field| {
            let name = names::snake(field.name());
            let zero =
                if field.is_map() || field.is_list() { "value.is_empty()".to_owned() } else { is_zero(&field.kind()) };
            if field.supports_presence() {
                format!("self.{name}.is_some()")
            } else {
                format!("{{ let value = &self.{name}; !({zero}) }}")
            }
        })
        .collect();
    let names: Vec<_> = fields.iter().map(FieldDescriptor::name).collect();
    let (wrong, words) = if required { ("count != 1", "exactly one") } else { ("count > 1", "at most one") };
    let message = format!("must have {words} of {}", names.join(", "));
    format!(
        "        {{ let count = [{}].into_iter().filter(|set| *set).count(); if {wrong} {{ violations.push(::contract::Violation::at(path, \"message.oneof\", {message:?})); }} }}\n",
        set.join(", ")
    )
}
