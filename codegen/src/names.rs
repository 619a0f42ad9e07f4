//! How prost names things in Rust, so that generated code can name them too.

use heck::{ToSnakeCase as _, ToUpperCamelCase as _};
use prost_reflect::{EnumDescriptor, MessageDescriptor};

use crate::tree::Tree;

/// Well-known types that have a JSON form of their own in the contracts crate.
pub(crate) const OWN_WELL_KNOWN: [&str; 4] = ["Any", "Duration", "FieldMask", "Timestamp"];

const KEYWORDS: [&str; 48] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else", "enum",
    "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut",
    "override", "priv", "pub", "ref", "return", "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe",
    "unsized", "use", "virtual", "where", "while", "yield", "union",
];

fn escaped(ident: String) -> String {
    match ident.as_str() {
        "self" | "super" | "extern" | "crate" | "Self" => format!("{ident}_"),
        // `union` is a keyword only by context, and prost leaves it alone.
        "union" => ident,
        keyword if KEYWORDS.contains(&keyword) => format!("r#{ident}"),
        number if number.starts_with(|c: char| c.is_numeric()) => format!("_{ident}"),
        _ => ident,
    }
}

pub(crate) fn snake(name: &str) -> String {
    escaped(name.to_snake_case())
}

pub(crate) fn camel(name: &str) -> String {
    escaped(name.to_upper_camel_case())
}

/// The module of a package: `crate::stoa::ordering::v1`.
pub(crate) fn module(package: &str) -> String {
    package.split('.').fold("crate".to_owned(), |path, part| format!("{path}::{}", snake(part)))
}

/// The Rust type of a message from anywhere in the generated crate.
pub(crate) fn message(message: &MessageDescriptor) -> String {
    if message.package_name() == "google.protobuf" {
        return well_known(message.name());
    }
    match message.parent_message() {
        Some(parent) => format!("{}::{}", inside(&parent), camel(message.name())),
        None => format!("{}::{}", module(message.package_name()), camel(message.name())),
    }
}

/// The Rust type of a message of `google.protobuf`.
pub(crate) fn well_known(name: &str) -> String {
    if OWN_WELL_KNOWN.contains(&name) {
        format!("crate::wkt::{name}")
    } else {
        format!("::pbjson_types::{}", camel(name))
    }
}

/// The Rust type of an enum from anywhere in the generated crate.
pub(crate) fn enumeration(enumeration: &EnumDescriptor) -> String {
    match enumeration.parent_message() {
        Some(parent) => format!("{}::{}", inside(&parent), camel(enumeration.name())),
        None => format!("{}::{}", module(enumeration.package_name()), camel(enumeration.name())),
    }
}

/// The module that holds what is nested in a message.
pub(crate) fn inside(message: &MessageDescriptor) -> String {
    match message.parent_message() {
        Some(parent) => format!("{}::{}", inside(&parent), snake(message.name())),
        None => format!("{}::{}", module(message.package_name()), snake(message.name())),
    }
}

/// Whether the message is generated here, and so has rules and personal texts of its own.
pub(crate) fn is_own(tree: &Tree, message: &MessageDescriptor) -> bool {
    tree.generates(message.package_name())
}

/// The short name of the service that owns a package.
///
/// `stoa.ordering.v1` is owned by `ordering`; the packages that the edge composes are owned by `edge`.
pub(crate) fn owner(package: &str) -> &str {
    let part = package.split('.').rev().find(|part| !is_version(part)).unwrap_or(package);
    match part {
        "storefront" | "mobile" => "edge",
        other => other,
    }
}

fn is_version(part: &str) -> bool {
    part.strip_prefix('v').is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_owned_by_the_service_it_is_named_after() {
        assert_eq!(owner("stoa.ordering.v1"), "ordering");
        assert_eq!(owner("stoa.operations.v1"), "operations");
        assert_eq!(owner("stoa.storefront.v1"), "edge");
        assert_eq!(owner("stoa.mobile.v1beta1"), "edge");
    }

    #[test]
    fn keywords_become_raw_identifiers_as_prost_writes_them() {
        assert_eq!(snake("type"), "r#type");
        assert_eq!(snake("self"), "self_");
        assert_eq!(module("google.type"), "crate::google::r#type");
    }
}
