//! A request put together from a path, a query and a body, as a rule of `google.api.http` says.
//!
//! Invariant: a field comes from one place. What the path names is not in the query; what the body is for is not in the
//! query; the body may repeat what the path says, and never say something else. The message is wire bytes appended to
//! wire bytes: what belongs to one nested message and comes from several places is merged by whoever decodes it.

use std::collections::{HashMap, HashSet};

use crate::{
    Codec, Error, ErrorKind, ParseOptions,
    error::{Fallible, Fault},
    known::Known,
    parse,
    percent::{self, EscapeError},
    schema::{Field, Kind, Message, Shape, Tables},
    wire::{Wire, put_field, put_varint, varint_width},
};

/// Where the parts of a request go, compiled once for each route.
#[derive(Debug, Clone)]
pub struct Binding {
    codec: Codec,
    variables: Vec<Path>,
    body: Body,
}

/// A rule that does not fit its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, `{field}`: {reason}")]
pub struct BindingError {
    /// The message's full name.
    pub message: String,
    /// The field as the rule writes it.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Whole,
    Field(u16),
}

/// The way from a message to one of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Path {
    name: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Step {
    message: u32,
    field: u16,
}

impl Step {
    fn field(self, tables: &Tables) -> &Field {
        &tables.messages[self.message as usize].fields[usize::from(self.field)]
    }
}

impl Binding {
    /// Compiles the variables of a template and the `body` of a rule: empty, `*`, or a field's name.
    pub fn new(codec: &Codec, variables: &[&str], body: &str) -> Result<Self, BindingError> {
        let tables = &*codec.tables;
        let wrong = |field: &str, reason: &str| BindingError {
            message: codec.name().to_owned(),
            field: field.to_owned(),
            reason: reason.to_owned(),
        };
        let mut paths = Vec::new();
        for name in variables {
            let path = Path::resolve(tables, codec.message, name).map_err(|fault| wrong(name, fault.reason()))?;
            if !matches!(path.last(tables).shape, Shape::One { .. }) {
                return Err(wrong(name, "a list cannot be in a path"));
            }
            paths.push(path);
        }
        let body = match body {
            "" => Body::None,
            "*" => Body::Whole,
            name => {
                let message = &tables.messages[codec.message as usize];
                let field = message.by_name(name.as_bytes());
                Body::Field(field.ok_or_else(|| wrong(name, "the message has no field of this name"))?.index)
            }
        };
        Ok(Binding { codec: codec.clone(), variables: paths, body })
    }

    /// Appends the message of a request: what the variables captured (decoded, in the order of the template), the
    /// query as it was sent, the body. Everything that is wrong with path and query is told at once, and the body's first
    /// error with it.
    pub fn bind(
        &self,
        captures: &[String],
        query: Option<&str>,
        body: &[u8],
        options: &ParseOptions,
        out: &mut Vec<u8>,
    ) -> Result<(), Vec<Error>> {
        match self.around(captures, query, options) {
            Ok(around) => self.message(&around, body, options, out).map_err(|error| vec![error]),
            Err(mut errors) => {
                let start = out.len();
                if let Err(fault) = self.body(body, options, out) {
                    errors.push(fault.finish(Some(body)));
                }
                out.truncate(start);
                Err(errors)
            }
        }
    }

    /// What path and query say, before a body is read. It serves for every message of a stream.
    pub fn around(
        &self,
        captures: &[String],
        query: Option<&str>,
        options: &ParseOptions,
    ) -> Result<Around, Vec<Error>> {
        let mut errors = Vec::new();
        let mut wire = Vec::new();
        let mut query_binder = Query { binding: self, options, leaves: HashSet::new(), members: HashMap::new() };
        for path in &self.variables {
            // Two variables that name one field are no fault of the request.
            let _ = query_binder.once(&self.codec.tables, path);
        }
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            if let Err(fault) = query_binder.part(part, &mut wire) {
                errors.push(fault.finish(None));
            }
        }
        let mut ends = vec![wire.len()];
        for (path, text) in self.variables.iter().zip(captures) {
            if let Err(fault) = path.put(&self.codec.tables, text, &mut wire) {
                errors.push(fault.under(&path.name).finish(None));
            }
            ends.push(wire.len());
        }
        if errors.is_empty() { Ok(Around { wire, ends }) } else { Err(errors) }
    }

    /// Appends a message of a JSON body (blank is an absent one) and what stands around it. After an error `out` is as it
    /// was.
    pub fn message(
        &self,
        around: &Around,
        body: &[u8],
        options: &ParseOptions,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let start = out.len();
        self.body(body, options, out).map_err(|fault| fault.finish(Some(body)))?;
        for (path, ends) in self.variables.iter().zip(around.ends.windows(2)) {
            if !path.agrees(&self.codec.tables, &out[start..], &around.wire[ends[0]..ends[1]]) {
                out.truncate(start);
                let reason = "the body says something else than the path";
                return Err(Fault::new(ErrorKind::BoundElsewhere, 0, reason).under(&path.name).finish(None));
            }
        }
        out.extend_from_slice(&around.wire);
        Ok(())
    }

    /// True if the body is bytes of any media type: a `google.api.HttpBody`.
    pub fn takes_bytes(&self) -> bool {
        self.bytes_message().is_some()
    }

    fn bytes_message(&self) -> Option<u32> {
        let tables = &*self.codec.tables;
        let index = match self.body {
            Body::None => return None,
            Body::Whole => self.codec.message,
            Body::Field(index) => match tables.messages[self.codec.message as usize].fields[usize::from(index)] {
                Field { kind: Kind::Message(inner), shape: Shape::One { .. }, .. } => inner,
                _ => return None,
            },
        };
        (&*tables.messages[index as usize].name == "google.api.HttpBody").then_some(index)
    }

    /// Appends a message whose body is bytes, where [`takes_bytes`](Self::takes_bytes), and what stands around it.
    pub fn bytes(&self, around: &Around, media_type: &str, data: &[u8], out: &mut Vec<u8>) {
        let media = if media_type.is_empty() { 0 } else { 1 + varint_width(media_type.len()) + media_type.len() };
        let length = media + 1 + varint_width(data.len()) + data.len();
        if let Body::Field(index) = self.body {
            let message = &self.codec.tables.messages[self.codec.message as usize];
            out.extend_from_slice(message.fields[usize::from(index)].tag.as_bytes());
            put_varint(length as u64, out);
        }
        out.reserve(length + around.wire.len());
        if !media_type.is_empty() {
            put_field(1, media_type.as_bytes(), out);
        }
        put_field(2, data, out);
        out.extend_from_slice(&around.wire);
    }

    fn body(&self, body: &[u8], options: &ParseOptions, out: &mut Vec<u8>) -> Fallible {
        // White space is no JSON; where no body belongs it is nothing either.
        if body.is_empty() || matches!(self.body, Body::None) && body.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let tables = &*self.codec.tables;
        match self.body {
            Body::None => Err(Fault::new(ErrorKind::BoundElsewhere, 0, "this method takes no body").under("body")),
            Body::Whole => parse::parse(tables, self.codec.message, body, options, out),
            Body::Field(index) => {
                let field = &tables.messages[self.codec.message as usize].fields[usize::from(index)];
                parse::parse_field(tables, field, body, options, out)
            }
        }
    }
}

/// What path and query say of a message, as wire bytes that go behind its body.
#[derive(Debug, Clone, Default)]
pub struct Around {
    wire: Vec<u8>,
    /// Where the query ends, and then each variable.
    ends: Vec<usize>,
}

impl Path {
    /// Finds a field that a text can fill, by names of either kind with dots between them.
    fn resolve(tables: &Tables, message: u32, name: &str) -> Fallible<Self> {
        let mut steps: Vec<Step> = Vec::new();
        let mut at = Some(message);
        for part in name.split('.') {
            let Some(index) = at else {
                return Err(Fault::new(ErrorKind::UnknownField, 0, "only fields of messages have fields"));
            };
            let message = &tables.messages[index as usize];
            let Some(field) = message.by_name(part.as_bytes()) else {
                let reason = format!("{} has no field of this name", message.name);
                return Err(Fault::new(ErrorKind::UnknownField, 0, reason));
            };
            steps.push(Step { message: index, field: field.index });
            at = match (field.kind, field.shape) {
                (Kind::Message(inner), Shape::One { .. }) if tables.messages[inner as usize].known.is_none() => {
                    Some(inner)
                }
                _ => None,
            };
        }
        let path = Path { name: name.to_owned(), steps };
        match path.not_text(tables) {
            Some(reason) => Err(Fault::new(ErrorKind::NotText, 0, reason)),
            None => Ok(path),
        }
    }

    fn not_text(&self, tables: &Tables) -> Option<&'static str> {
        let field = self.last(tables);
        match (field.shape, field.kind) {
            (Shape::Map { .. }, _) => Some("a map cannot be given as text"),
            (Shape::Many { .. }, Kind::Message(index)) if !is_text(&tables.messages[index as usize]) => {
                Some("a list of messages cannot be given as text")
            }
            (_, Kind::Message(index)) if !is_text(&tables.messages[index as usize]) => {
                Some("a message cannot be given as text: name its fields")
            }
            (_, Kind::Group(_)) => Some("a group cannot be given as text"),
            _ => None,
        }
    }

    fn last<'t>(&self, tables: &'t Tables) -> &'t Field {
        // A path has at least one step, because a name has at least one part.
        self.steps[self.steps.len() - 1].field(tables)
    }

    /// Appends the field with its value, inside the messages that hold it.
    fn put(&self, tables: &Tables, text: &str, out: &mut Vec<u8>) -> Fallible {
        let mut content = Vec::new();
        parse::parse_text(tables, self.last(tables), text, &mut content)?;
        for step in self.steps[..self.steps.len() - 1].iter().rev() {
            let mut outer = step.field(tables).tag.as_bytes().to_vec();
            put_varint(content.len() as u64, &mut outer);
            outer.append(&mut content);
            content = outer;
        }
        out.extend_from_slice(&content);
        Ok(())
    }

    /// True if a message says of this field nothing, or what another one says.
    fn agrees(&self, tables: &Tables, message: &[u8], other: &[u8]) -> bool {
        let given = self.find(tables, message);
        given.is_none() || given == self.find(tables, other)
    }

    /// The bytes of the field's value in a message that this crate wrote: it stands there once.
    fn find<'w>(&self, tables: &Tables, wire: &'w [u8]) -> Option<&'w [u8]> {
        let mut at = wire;
        for (depth, step) in self.steps.iter().enumerate() {
            let field = step.field(tables);
            let mut rest = Wire::new(at);
            let found = loop {
                let head = rest.head().ok()??;
                let before = rest.rest;
                if head.number == field.number {
                    break if depth + 1 == self.steps.len() {
                        rest.skip(head).ok()?;
                        &before[..before.len() - rest.rest.len()]
                    } else {
                        rest.bytes().ok()?
                    };
                }
                rest.skip(head).ok()?;
            };
            at = found;
        }
        Some(at)
    }
}

/// The messages whose JSON is a string, a number or a boolean.
fn is_text(message: &Message) -> bool {
    matches!(message.known, Some(Known::Timestamp | Known::Duration | Known::FieldMask | Known::Wrapper))
}

/// The parameters of one query.
struct Query<'a> {
    binding: &'a Binding,
    options: &'a ParseOptions,
    /// Fields that were given and cannot be again.
    leaves: HashSet<Vec<Step>>,
    /// Which member of a oneof was given, by the way to it and its slot.
    members: HashMap<(Vec<Step>, u16), u16>,
}

impl Query<'_> {
    fn part(&mut self, part: &str, out: &mut Vec<u8>) -> Fallible {
        let (name, text) = part.split_once('=').unwrap_or((part, ""));
        let name = percent::decode_query(name).map_err(|error| bad_escape(error).under(name))?;
        self.parameter(&name, text, out).map_err(|fault| fault.under(&name))
    }

    fn parameter(&mut self, name: &str, text: &str, out: &mut Vec<u8>) -> Fallible {
        let text = percent::decode_query(text).map_err(bad_escape)?;
        let binding = self.binding;
        let tables = &*binding.codec.tables;
        if binding.body == Body::Whole {
            return Err(Fault::new(
                ErrorKind::BoundElsewhere,
                0,
                "the body is the whole message, so a query cannot add to it",
            ));
        }
        let path = match Path::resolve(tables, binding.codec.message, name) {
            Err(fault) if fault.kind() == ErrorKind::UnknownField && self.options.ignore_unknown => return Ok(()),
            other => other?,
        };
        if binding.variables.iter().any(|variable| variable.steps == path.steps) {
            return Err(Fault::new(ErrorKind::BoundElsewhere, 0, "the path gives this field"));
        }
        if path.steps.first().is_some_and(|step| binding.body == Body::Field(step.field)) {
            return Err(Fault::new(ErrorKind::BoundElsewhere, 0, "the body gives this field"));
        }
        self.once(tables, &path)?;
        path.put(tables, &text, out)
    }

    /// Refuses a field that was given before, and another member of a oneof that was.
    fn once(&mut self, tables: &Tables, path: &Path) -> Fallible {
        for (depth, step) in path.steps.iter().enumerate() {
            let field = step.field(tables);
            if !field.in_oneof {
                continue;
            }
            let member = self.members.entry((path.steps[..depth].to_vec(), field.slot)).or_insert(field.index);
            if *member != field.index {
                return Err(Fault::new(ErrorKind::DuplicateOneof, 0, "another field of the same oneof is given"));
            }
        }
        let list = matches!(path.last(tables).shape, Shape::Many { .. });
        if !list && !self.leaves.insert(path.steps.clone()) {
            return Err(Fault::new(ErrorKind::DuplicateKey, 0, "the parameter is given twice"));
        }
        Ok(())
    }
}

fn bad_escape(error: EscapeError) -> Box<Fault> {
    Fault::new(ErrorKind::BadEscape, 0, error.to_string())
}
