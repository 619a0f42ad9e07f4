//! The one error of the codec: what is wrong (a stable kind and a sentence), where in the text, and at which field.
//!
//! Invariant: an error costs nothing until it happens; its path is put together while the walk returns.

use std::{borrow::Cow, fmt};

/// What went wrong, as a name that does not change between releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The text is not JSON as RFC 8259 has it.
    Syntax,
    /// The text, or a string on the wire, is not UTF-8.
    Utf8,
    /// A key stands twice in one object.
    DuplicateKey,
    /// Two members of one oneof are given.
    DuplicateOneof,
    /// The message has no field of that name.
    UnknownField,
    /// A JSON value of another type than the field takes.
    WrongType,
    /// A number that the field cannot hold.
    OutOfRange,
    /// A string that does not have the form the field asks for: a timestamp, base64, a number in quotes.
    BadFormat,
    /// The enum has no value of that name.
    UnknownEnumValue,
    /// An `Any` names a type that the schema does not have.
    UnknownType,
    /// Nested deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
    TooDeep,
    /// The output is longer than the options allow.
    TooLong,
    /// The bytes are no protobuf message.
    Wire,
    /// A value on the wire that has no form in JSON.
    NoJson,
    /// A required field of proto2 is absent.
    Required,
    /// A field is given in a place of the request that is not the one the route names.
    BoundElsewhere,
    /// A field that a path or a query cannot hold: a message, a map.
    NotText,
    /// A `%` or the bytes behind it are no text.
    BadEscape,
}

impl ErrorKind {
    /// The kind in capitals, as reasons are written in `google.rpc.ErrorInfo`.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Syntax => "SYNTAX",
            ErrorKind::Utf8 => "UTF8",
            ErrorKind::DuplicateKey => "DUPLICATE_KEY",
            ErrorKind::DuplicateOneof => "DUPLICATE_ONEOF",
            ErrorKind::UnknownField => "UNKNOWN_FIELD",
            ErrorKind::WrongType => "WRONG_TYPE",
            ErrorKind::OutOfRange => "OUT_OF_RANGE",
            ErrorKind::BadFormat => "BAD_FORMAT",
            ErrorKind::UnknownEnumValue => "UNKNOWN_ENUM_VALUE",
            ErrorKind::UnknownType => "UNKNOWN_TYPE",
            ErrorKind::TooDeep => "TOO_DEEP",
            ErrorKind::TooLong => "TOO_LONG",
            ErrorKind::Wire => "WIRE",
            ErrorKind::NoJson => "NO_JSON",
            ErrorKind::Required => "REQUIRED",
            ErrorKind::BoundElsewhere => "BOUND_ELSEWHERE",
            ErrorKind::NotText => "NOT_TEXT",
            ErrorKind::BadEscape => "BAD_ESCAPE",
        }
    }
}

/// A text or a message that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Content>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    place: Option<Place>,
    field: String,
}

/// A place in a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The byte in the line, from 1.
    pub column: usize,
    /// The byte in the text, from 0.
    pub offset: usize,
}

impl Error {
    /// What is wrong, by its stable name.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong, as a sentence for whoever wrote the text.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Where in the text; none for bytes of the wire.
    pub fn place(&self) -> Option<Place> {
        self.0.place
    }

    /// The path of the value in question, `items[3].quantity`; empty at the top.
    pub fn field(&self) -> &str {
        &self.0.field
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.0.place {
            write!(f, "line {}, column {}: ", place.line, place.column)?;
        }
        if !self.0.field.is_empty() {
            write!(f, "{}: ", self.0.field)?;
        }
        f.write_str(&self.0.reason)
    }
}

impl std::error::Error for Error {}

/// An error on its way up: the path is still in pieces, the innermost first.
#[derive(Debug)]
pub(crate) struct Fault {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    offset: usize,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Name(Box<str>),
    Index(usize),
}

pub(crate) type Fallible<T = ()> = Result<T, Box<Fault>>;

impl Fault {
    #[cold]
    pub(crate) fn new(kind: ErrorKind, offset: usize, reason: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Fault { kind, reason: reason.into(), offset, steps: Vec::new() })
    }

    /// An error in bytes of the wire, which have no lines.
    #[cold]
    pub(crate) fn wire(reason: &'static str) -> Box<Self> {
        Fault::new(ErrorKind::Wire, 0, reason)
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn place_at(&mut self, offset: usize) {
        self.offset = offset;
    }

    /// The same error, seen from the object that has the field.
    #[cold]
    pub(crate) fn under(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.steps.push(Step::Name(name.into()));
        self
    }

    /// The same error, seen from the list that has the element.
    #[cold]
    pub(crate) fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.steps.push(Step::Index(index));
        self
    }

    /// The error as it leaves the crate; `text` is what offsets count in.
    #[cold]
    pub(crate) fn finish(self, text: Option<&[u8]>) -> Error {
        let mut field = String::new();
        for step in self.steps.iter().rev() {
            match step {
                Step::Name(name) => {
                    if !field.is_empty() {
                        field.push('.');
                    }
                    field.push_str(name);
                }
                Step::Index(index) => field.push_str(&format!("[{index}]")),
            }
        }
        let place = text.map(|text| place(text, self.offset));
        Error(Box::new(Content { kind: self.kind, reason: self.reason, place, field }))
    }
}

fn place(text: &[u8], offset: usize) -> Place {
    let before = &text[..offset.min(text.len())];
    let line = 1 + memchr::memchr_iter(b'\n', before).count();
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1) + 1;
    Place { line, column, offset: before.len() }
}
