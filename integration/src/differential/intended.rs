//! Where the two differ on purpose: what decides it is a sentence of a specification.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Case, Odd, Outcome};

/// What one gateway made of a request, for whoever judges a difference.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The class of the status.
    pub class: Option<u16>,
    /// What reached the service, as JSON.
    pub message: Option<Value>,
}

impl Seen {
    /// As it came out, with what the message means.
    pub fn new(outcome: &Outcome, message: Option<Value>) -> Self {
        Self { class: outcome.class(), message }
    }

    fn is_refused(&self) -> bool {
        self.class == Some(4) && self.message.is_none()
    }

    fn is_taken(&self) -> bool {
        self.class == Some(2) && self.message.is_some()
    }
}

/// A difference that is meant.
pub struct Difference {
    /// What ours does.
    pub what: &'static str,
    /// The sentence that decides it, and where it stands.
    pub decided_by: &'static str,
    /// In which odd requests it shows; in any, where there are none.
    odd: &'static [Odd],
    /// Whether what ours and Envoy did is this.
    shows: fn(&Case, ours: &Seen, envoy: &Seen) -> bool,
}

impl Difference {
    /// Whether it is this one.
    pub fn is(&self, case: &Case, ours: &Seen, envoy: &Seen) -> bool {
        let here = self.odd.is_empty() || case.odd.is_some_and(|odd| self.odd.contains(&odd));
        here && (self.shows)(case, ours, envoy)
    }
}

/// Ours refuses what Envoy hands on, whatever the service thinks of that.
fn refused(_: &Case, ours: &Seen, envoy: &Seen) -> bool {
    ours.is_refused() && envoy.message.is_some()
}

/// Ours hands on what Envoy refuses.
fn taken(_: &Case, ours: &Seen, envoy: &Seen) -> bool {
    ours.is_taken() && envoy.is_refused()
}

/// Texts without the escapes that Envoy leaves in them.
fn decoded(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(percent_decode_str(text).decode_utf8_lossy()),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), decoded(value))).collect(),
        other => other.clone(),
    }
}

/// The same text but for escapes that Envoy leaves as they are.
fn unescaped(_: &Case, ours: &Seen, envoy: &Seen) -> bool {
    ours.class == envoy.class && ours.message == envoy.message.as_ref().map(decoded)
}

/// The same message but for a mask that only ours has.
fn masked(case: &Case, ours: &Seen, envoy: &Seen) -> bool {
    let mut bare = ours.clone();
    let mask = bare.message.as_mut().and_then(Value::as_object_mut).and_then(|fields| fields.remove("updateMask"));
    case.verb == "PATCH" && !case.target.contains("mask") && mask.is_some() && unescaped(case, &bare, envoy)
}

/// Envoy makes an empty message of a body that is not there.
fn unset(_: &Case, ours: &Seen, envoy: &Seen) -> bool {
    let mut other = envoy.message.clone();
    let made = other.as_mut().and_then(Value::as_object_mut).and_then(|fields| fields.remove("picture"));
    ours.class == envoy.class
        && made.is_some_and(|made| made == Value::Object(Default::default()))
        && ours.message == other
}

/// Ours reads `+` as a blank.
fn blank(_: &Case, ours: &Seen, envoy: &Seen) -> bool {
    let text = |seen: &Seen| seen.message.as_ref()?.get("pageToken")?.as_str().map(str::to_owned);
    text(ours).is_some_and(|ours| ours == "a b") && text(envoy).is_some_and(|envoy| envoy == "a+b")
}

/// All of them.
pub const INTENDED: [Difference; 15] = [
    Difference {
        what: "a variable of several segments is decoded but for %2F",
        decided_by: "google/api/http.proto: \"The server side does the reverse decoding, except \"%2F\" and \"%2f\" are left unchanged.\"",
        odd: &[],
        shows: unescaped,
    },
    Difference {
        what: "a PATCH without a mask has one of the fields in its body",
        decided_by: "AIP-134: \"the service must treat an omitted field mask as an implied field mask equivalent to all fields that are populated\"",
        odd: &[],
        shows: masked,
    },
    Difference {
        what: "what is no JSON, or says it is something else, is refused",
        decided_by: "RFC 8259, 10: \"The resulting text MUST strictly conform to the JSON grammar.\" RFC 9110, 15.5.16: \"the content is in a format not supported by this method on the target resource\"",
        odd: &[
            Odd::BadEscape,
            Odd::BadNumber,
            Odd::ControlCharacter,
            Odd::FormContentType,
            Odd::OtherContentType,
            Odd::SingleQuotes,
            Odd::TrailingComma,
            Odd::UnquotedName,
        ],
        shows: refused,
    },
    Difference {
        what: "a name given twice is refused, in both spellings",
        decided_by: "RFC 8259, 4: \"The names within an object SHOULD be unique.\" protobuf's conformance suite requires the refusal: FieldNameDuplicate",
        odd: &[Odd::DuplicateName],
        shows: refused,
    },
    Difference {
        what: "a value is one of its type",
        decided_by: "protobuf.dev, ProtoJSON, the table of types: bool is \"true, false\", repeated \"array\"; integers as RFC 8259, 6 has them: no \"+\"",
        odd: &[
            Odd::FlagSpelling,
            Odd::NoEqualsSign,
            Odd::NullInList,
            Odd::NumberFormInQuery,
            Odd::PlusInPath,
            Odd::ScalarForList,
            Odd::WordForFlag,
            Odd::WrongType,
        ],
        shows: refused,
    },
    Difference {
        what: "numbers of enums and integers with an exponent are read",
        decided_by: "protobuf.dev, ProtoJSON: \"Parsers accept both enum names and integer values\", \"Exponent notation (such as 1e2) is accepted in both quoted and unquoted forms.\"",
        odd: &[Odd::EnumNumberInQuery, Odd::NumberForm],
        shows: taken,
    },
    Difference {
        what: "a field that the message does not have is refused",
        decided_by: "protobuf.dev, ProtoJSON: \"The protobuf JSON parser should reject unknown fields by default\"",
        odd: &[Odd::UnknownField],
        shows: refused,
    },
    Difference {
        what: "% without two hexadecimal digits is refused",
        decided_by: "RFC 3986, 2.1: \"the percent character \"%\" followed by the two hexadecimal digits representing that octet's numeric value\"",
        odd: &[Odd::BadPathEscape, Odd::BadQueryEscape],
        shows: refused,
    },
    Difference {
        what: "escapes that are no UTF-8 are refused",
        decided_by: "protobuf.dev, proto3: \"A string must always contain UTF-8 encoded or 7-bit ASCII text\"",
        odd: &[Odd::PathNotUtf8, Odd::QueryNotUtf8],
        shows: refused,
    },
    Difference {
        what: "HEAD is answered where GET is",
        decided_by: "RFC 9110, 9.1: \"All general-purpose servers MUST support the methods GET and HEAD.\"",
        odd: &[Odd::Head],
        shows: |_, ours, envoy| ours.is_taken() && envoy.is_refused(),
    },
    Difference {
        what: "a field has one value, from one place",
        decided_by: "google/api/http.proto: \"Any fields in the request message which are not bound by the path template automatically become HTTP query parameters if there is no HTTP request body.\"",
        odd: &[Odd::BodySaysThePath, Odd::ParameterOfTheBody, Odd::ParameterOfThePath, Odd::RepeatedScalar],
        shows: refused,
    },
    Difference {
        what: "a body where the rule has none is refused",
        decided_by: "google/api/http.proto, body: \"or omitted for not having any HTTP request body\"",
        odd: &[Odd::BodyWhereNone],
        shows: refused,
    },
    Difference {
        what: "without a body the field that it stands for is not set",
        decided_by: "google/api/http.proto, body: \"The name of the request field whose value is mapped to the HTTP request body\"",
        odd: &[Odd::NoBody],
        shows: unset,
    },
    Difference {
        what: "an empty segment is one, and matches nothing",
        decided_by: "RFC 3986, 3.3: \"A path consists of a sequence of path segments separated by a slash (\"/\") character\", and segment = *pchar",
        odd: &[Odd::EmptySegment, Odd::TrailingSlash],
        shows: refused,
    },
    Difference {
        what: "+ in a query is a blank",
        decided_by: "URL Standard, 5.1: \"Replace any 0x2B (+) in name and value with 0x20 (SP).\"",
        odd: &[Odd::PlusForSpace],
        shows: blank,
    },
];
