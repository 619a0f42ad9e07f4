//! Query parameters: right ones for every kind of field, and wrong ones.

use std::fmt::Write as _;

use prost_reflect::{Cardinality, Kind, MessageDescriptor};

use super::Odd;
use super::bodies::whole;
use super::dice::Dice;

/// A text with everything escaped that is not unreserved (RFC 3986, 2.3).
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // A String takes everything.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

/// Right parameters for some fields of a message, in the order of the fields.
pub(super) fn parameters(dice: &mut Dice, message: &MessageDescriptor) -> Vec<String> {
    let mut all = Vec::new();
    for field in message.fields() {
        if !dice.one_in(4) {
            continue;
        }
        let name = if dice.one_in(3) { field.json_name() } else { field.name() };
        let times = if field.cardinality() == Cardinality::Repeated { 1 + dice.below(3) } else { 1 };
        for _ in 0..times {
            let Some((name, value)) = parameter(dice, name, &field.kind()) else { continue };
            all.push(format!("{name}={}", escaped(&value)));
        }
    }
    all
}

fn parameter(dice: &mut Dice, name: &str, kind: &Kind) -> Option<(String, String)> {
    let plain = |value: &str| Some((name.to_owned(), value.to_owned()));
    match kind {
        Kind::Double | Kind::Float => plain(dice.pick(&["0", "1.5", "-2", "2.5e3", "NaN", "Infinity"])),
        Kind::Bool => plain(dice.pick(&["true", "false"])),
        Kind::String => plain(dice.pick(&["a", "two words", "Ä&=?", "100%", "next/page"])),
        Kind::Bytes => plain(dice.pick(&["", "AAEC", "_-8=", "/+8="])),
        Kind::Enum(_) => plain(dice.pick(&["TECHNIQUE_OIL", "TECHNIQUE_LOST", "2"])),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => plain("2026-02-28T12:00:00.5Z"),
            "google.protobuf.Duration" => plain(dice.pick(&["3s", "-1.5s"])),
            "google.protobuf.FieldMask" => plain(dice.pick(&["title", "title,size.width"])),
            "google.protobuf.StringValue" => plain("Mona"),
            "google.protobuf.Int64Value" => plain("9007199254740993"),
            "gallery.v1.Size" => Some((
                format!("{name}.{}", dice.pick(&["width", "height", "layers"])),
                dice.pick(&["0", "12"]).to_owned(),
            )),
            _ => None,
        },
        kind => plain(&whole(dice, kind)),
    }
}

/// One odd parameter for the list of pictures.
pub(super) fn odd(dice: &mut Dice, odd: Odd) -> &'static str {
    match odd {
        Odd::UnknownParameter => dice.pick(&["colour=1", "size.depth=1", "page_size.x=1", "PageSize=1"]),
        Odd::RepeatedScalar => {
            dice.pick(&["page_size=1&page_size=2", "page_token=a&page_token=b", "pageSize=1&page_size=1"])
        }
        Odd::BadParameter => dice.pick(&[
            "page_size=abc",
            "page_size=1.5",
            "page_size=2147483648",
            "inventory_number=-1",
            "on_loan=perhaps",
            "technique=TECHNIQUE_WAX",
            "since=yesterday",
            "exposure=1",
            "min_weight_kg=heavy",
            "fingerprint_prefix=$$$$",
            "price_cents=abc",
        ]),
        Odd::EmptyParameter => dice.pick(&["page_size=", "on_loan=", "technique=", "min_visitors="]),
        Odd::EmptyText => "page_token=",
        Odd::NoEqualsSign => dice.pick(&["page_token", "on_loan", "page_size"]),
        Odd::BareAmpersands => dice.pick(&["&", "page_token=a&", "&&page_token=a"]),
        Odd::PlusForSpace => "page_token=a+b",
        Odd::FlagSpelling => dice.pick(&["on_loan=1", "on_loan=0", "on_loan=True", "on_loan=TRUE", "on_loan=t"]),
        Odd::MessageParameter => dice.pick(&["size=1", "size={}"]),
        Odd::ListByComma => dice.pick(&["years=1,2", "tags=a,b"]),
        Odd::BadQueryEscape => dice.pick(&["page_token=%zz", "page_token=%4", "page_token=100%"]),
        Odd::QueryNotUtf8 => "page_token=%ff",
        Odd::NumberFormInQuery => {
            dice.pick(&["page_size=1e2", "page_size=1.0", "page_size=0x10", "page_size=010", "page_size=+5"])
        }
        Odd::EnumNumberInQuery => "technique=99",
        Odd::EnumSpellingInQuery => dice.pick(&["technique=technique_oil", "technique=techniqueOil"]),
        _ => "",
    }
}
