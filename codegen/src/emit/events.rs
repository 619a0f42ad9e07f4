//! The closed set of events of each package.

use std::fmt::Write as _;

use crate::check::Contract;
use crate::names;

pub(crate) fn emit(contract: &Contract, package: &str, source: &mut String) {
    let Some(events) = contract.events.get(package) else {
        return;
    };
    let owner = names::owner(package);
    let (mut variants, mut from, mut name, mut schema, mut encode, mut decode, mut personal) =
        (String::new(), String::new(), String::new(), String::new(), String::new(), String::new(), String::new());
    for (message, version) in events {
        let (variant, full) = (names::camel(message.name()), message.full_name());
        let rust = names::message(message);
        let _ = writeln!(variants, "    /// `{full}`\n    {variant}({rust}),");
        let _ = writeln!(
            from,
            "impl ::core::convert::From<{rust}> for Event {{ fn from(event: {rust}) -> Self {{ Self::{variant}(event) }} }}"
        );
        let _ = writeln!(name, "            Self::{variant}(_) => {full:?},");
        let _ = writeln!(schema, "            Self::{variant}(_) => {version},");
        let _ = writeln!(encode, "            Self::{variant}(event) => ::prost::Message::encode_to_vec(event),");
        let _ = writeln!(
            decode,
            "            {full:?} => decode::<{rust}>({full:?}, {version}, schema, bytes).map(Self::{variant}),"
        );
        let _ = writeln!(
            personal,
            "            Self::{variant}(event) => ::contract::Personal::visit_personal(event, visit),"
        );
    }
    let _ = write!(
        source,
        "
/// Every event that {owner} records.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Event {{
{variants}}}

{from}
impl ::contract::EventSet for Event {{
    const SERVICE: &'static str = {owner:?};

    fn name(&self) -> &'static str {{
        match self {{
{name}        }}
    }}

    fn schema(&self) -> u32 {{
        match self {{
{schema}        }}
    }}

    fn encode(&self) -> ::std::vec::Vec<u8> {{
        match self {{
{encode}        }}
    }}

    fn decode(name: &str, schema: u32, bytes: &[u8]) -> ::core::result::Result<Self, ::contract::DecodeEventError> {{
        fn decode<M: ::prost::Message + Default>(
            name: &'static str,
            newest: u32,
            schema: u32,
            bytes: &[u8],
        ) -> ::core::result::Result<M, ::contract::DecodeEventError> {{
            if schema == 0 || schema > newest {{
                return Err(::contract::DecodeEventError::UnknownSchema {{ name, schema, newest }});
            }}
            M::decode(bytes).map_err(|error| ::contract::DecodeEventError::Malformed {{ name, reason: error.to_string() }})
        }}
        match name {{
{decode}            _ => Err(::contract::DecodeEventError::UnknownName {{ service: <Self as ::contract::EventSet>::SERVICE, name: name.to_owned() }}),
        }}
    }}

    fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut ::std::string::String)) {{
        match self {{
{personal}        }}
    }}
}}

/// The names of all events of the package, with the version of their schema.
pub static EVENTS: &[(&str, u32)] = &{names:?};
",
        names = events.iter().map(|(message, version)| (message.full_name(), version)).collect::<Vec<_>>(),
    );
}
