//! Visitors of the personal texts of events.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::check::Contract;
use crate::names;
use crate::options;
use crate::tree::{Package, Tree};

/// The full names of all messages that events are made of.
pub(crate) fn reachable(tree: &Tree, contract: &Contract) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<MessageDescriptor> =
        contract.events.values().flatten().map(|(message, _)| message.clone()).collect();
    while let Some(message) = open.pop() {
        if !names::is_own(tree, &message) || !seen.insert(message.full_name().to_owned()) {
            continue;
        }
        open.extend(message.fields().filter_map(|field| inner(&field)));
    }
    seen
}

/// The message that a field holds, be it singly, in a list or as the values of a map.
fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind().as_message().cloned(),
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

pub(crate) fn emit(tree: &Tree, package: &Package, reachable: &BTreeSet<String>, source: &mut String) {
    for message in package.messages.iter().filter(|message| reachable.contains(message.full_name())) {
        let mut body = String::new();
        for field in message.fields() {
            let visit = match inner(&field) {
                Some(inner) if reachable.contains(inner.full_name()) => "value.visit_personal(visit);",
                None if options::personal(tree, &field) => "visit(value);",
                Some(_) if options::personal(tree, &field) => "visit(value);",
                Some(_) | None => continue,
            };
            body.push_str(&each(&field, visit));
        }
        let (visit, rust) = (if body.is_empty() { "_visit" } else { "visit" }, names::message(message));
        let _ = write!(
            source,
            "
impl ::contract::Personal for {rust} {{
    fn visit_personal(&mut self, {visit}: &mut dyn FnMut(&mut ::std::string::String)) {{
{body}    }}
}}
"
        );
    }
}

/// Code that does `visit` with every `value: &mut T` of the field.
fn each(field: &FieldDescriptor, visit: &str) -> String {
    let name = names::snake(field.name());
    if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
        let (slot, variant) = (names::snake(oneof.name()), names::camel(field.name()));
        let oneof_type = format!("{}::{}", names::inside(field.parent_message()), names::camel(oneof.name()));
        return format!("        if let Some({oneof_type}::{variant}(value)) = &mut self.{slot} {{ {visit} }}\n");
    }
    if field.is_map() {
        format!("        for value in self.{name}.values_mut() {{ {visit} }}\n")
    } else if field.is_list() {
        format!("        for value in &mut self.{name} {{ {visit} }}\n")
    } else if field.supports_presence() {
        format!("        if let Some(value) = &mut self.{name} {{ {visit} }}\n")
    } else {
        format!("        {{ let value = &mut self.{name}; {visit} }}\n")
    }
}
