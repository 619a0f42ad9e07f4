//! A request bound to one message: path, body, query and headers, each field from one place only.
//!
//! The message is built as wire bytes, each source appended behind the one before (see [`wire`]); no message types are needed.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, header};
use prost_reflect::{Cardinality, FieldDescriptor, MessageDescriptor};
use serde_json::Value;

use super::{
    codec::Codecs,
    percent,
    problem::{Problem, Violation},
    table::{Body, Route, is_message, is_raw, message_of},
    value,
    wire::{self, Raw},
};

/// The header web developers know for [`request_id`](https://google.aip.dev/155).
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Everything but the body, bound before the body is read: so a bad query costs no upload.
#[derive(Debug)]
pub(crate) struct Frame {
    route: Arc<Route>,
    /// Path variables and query parameters as wire bytes.
    around: Vec<u8>,
    /// The field path and value of each path variable, to compare with the body.
    fixed: Vec<(Vec<u32>, String, Vec<u8>)>,
    request_id: Option<String>,
    etag: Option<String>,
}

impl Frame {
    /// Binds path, query and headers.
    pub(crate) fn new(
        route: &Arc<Route>,
        captures: &[String],
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let mut violations = Vec::new();
        let mut around = Vec::new();
        let mut fixed = Vec::new();
        for (fields, text) in route.variables.iter().zip(captures) {
            let name = path_text(fields);
            let numbers: Vec<u32> = fields.iter().map(FieldDescriptor::number).collect();
            let mut leaf = Vec::new();
            match fields.last().map(|field| value::put_text(&mut leaf, field, text)) {
                Some(Ok(())) => {
                    let mut nested = Vec::new();
                    wire::put_nested(&mut nested, &numbers[..numbers.len() - 1], &leaf);
                    around.extend_from_slice(&nested);
                    fixed.push((numbers, name, nested));
                }
                Some(Err(reason)) => violations.push(Violation::new(name, reason)),
                None => {}
            }
        }
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            Query {
                route,
                seen: BTreeMap::new(),
                oneofs: BTreeMap::new(),
                out: &mut around,
                violations: &mut violations,
            }
            .bind(query);
        }
        let request_id = match route.method.request_id {
            Some(_) => header_text(headers, IDEMPOTENCY_KEY).unwrap_or_else(|reason| {
                violations.push(Violation::new("request_id", reason));
                None
            }),
            None => None,
        };
        let etag = match route.etag_in {
            Some(_) => header_text(headers, header::IF_MATCH.as_str()).unwrap_or_else(|reason| {
                violations.push(Violation::new("etag", reason));
                None
            }),
            None => None,
        };
        if !violations.is_empty() {
            return Err(Problem::invalid(violations));
        }
        Ok(Frame { route: route.clone(), around, fixed, request_id, etag: etag.filter(|etag| etag != "*") })
    }

    /// Binds a JSON body (blank is an absent one) and puts the message together.
    pub(crate) fn json(&self, codecs: &Codecs, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let blank = body.iter().all(u8::is_ascii_whitespace);
        let mut message = match &self.route.body {
            Body::None if blank => Vec::new(),
            Body::None => return Err(Problem::field("body", "this method takes no body")),
            Body::Whole | Body::Field(_) if blank => Vec::new(),
            Body::Whole => codecs.json_to_wire(&self.route.method.input, body)?,
            Body::Field(field) => match message_of(field).filter(|_| field.cardinality() != Cardinality::Repeated) {
                Some(inner) => {
                    let inner = codecs.json_to_wire(&inner, body)?;
                    let mut message = Vec::with_capacity(inner.len() + self.around.len() + 48);
                    wire::put(&mut message, field.number(), Raw::Len(&inner));
                    message
                }
                None => codecs.json_to_wire(
                    &self.route.method.input,
                    &[b"{\"", field.json_name().as_bytes(), b"\":", body, b"}"].concat(),
                )?,
            },
        };
        self.compare(&message)?;
        message.extend_from_slice(&self.around);
        self.fill_headers(&mut message)?;
        self.fill_mask(&mut message, body)?;
        Ok(message)
    }

    /// Puts raw bytes into the `google.api.HttpBody` the route's body is.
    pub(crate) fn raw(&self, content_type: &str, data: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut inner = Vec::with_capacity(content_type.len() + data.len() + 16);
        if !content_type.is_empty() {
            wire::put(&mut inner, 1, Raw::Len(content_type.as_bytes()));
        }
        wire::put(&mut inner, 2, Raw::Len(data));
        let mut message = match &self.route.body {
            Body::Field(field) => {
                let mut message = Vec::with_capacity(inner.len() + 16);
                wire::put(&mut message, field.number(), Raw::Len(&inner));
                message
            }
            Body::None | Body::Whole => inner,
        };
        message.extend_from_slice(&self.around);
        self.fill_headers(&mut message)?;
        Ok(message)
    }

    /// A body may repeat what the path says, and never say something else.
    fn compare(&self, body: &[u8]) -> Result<(), Problem> {
        for (numbers, name, encoded) in &self.fixed {
            if let Some(given) = wire::find(body, numbers)
                && wire::find(encoded, numbers) != Some(given)
            {
                return Err(Problem::field(name, "the body says something else than the path"));
            }
        }
        Ok(())
    }

    fn fill_headers(&self, message: &mut Vec<u8>) -> Result<(), Problem> {
        if let (Some(number), Some(key)) = (self.route.method.request_id, &self.request_id) {
            fill(message, &[number], key, "request_id", "the header Idempotency-Key says something else")?;
        }
        if let (Some(numbers), Some(etag)) = (&self.route.etag_in, &self.etag) {
            fill(message, numbers, etag, "etag", "the header If-Match says something else")?;
        }
        Ok(())
    }

    /// AIP-134 lets a client of PATCH leave the mask out; then it is what the body names.
    fn fill_mask(&self, message: &mut Vec<u8>, body: &[u8]) -> Result<(), Problem> {
        let (true, Some(mask)) = (self.route.patch, &self.route.method.mask) else {
            return Ok(());
        };
        if wire::find(message, &[mask.number()]).is_some_and(|given| given != Raw::Len(b"")) {
            return Ok(());
        }
        let (resource, prefix) = match &self.route.body {
            Body::Field(field) => (message_of(field), vec![field.number()]),
            Body::Whole => (Some(self.route.method.input.clone()), Vec::new()),
            Body::None => return Ok(()),
        };
        let Some(resource) = resource else {
            return Ok(());
        };
        let Ok(Value::Object(given)) = serde_json::from_slice(body) else {
            return Ok(());
        };
        let mut paths = Vec::new();
        collect_paths(&resource, &given, &prefix, "", self, mask.number(), &mut paths);
        let mut inner = Vec::new();
        for path in &paths {
            wire::put(&mut inner, 1, Raw::Len(path.as_bytes()));
        }
        wire::put(message, mask.number(), Raw::Len(&inner));
        Ok(())
    }

    fn is_fixed(&self, numbers: &[u32]) -> bool {
        self.fixed.iter().any(|(path, ..)| path == numbers)
    }
}

/// The fields present in a JSON object, as mask paths: into messages, not into well-known types, maps and lists; without what
/// the path binds, the etag, and what only the server sets.
fn collect_paths(
    message: &MessageDescriptor,
    given: &serde_json::Map<String, Value>,
    at: &[u32],
    prefix: &str,
    frame: &Frame,
    mask: u32,
    out: &mut Vec<String>,
) {
    for (key, value) in given {
        let Some(field) = field_named(message, key) else {
            continue;
        };
        let numbers = [at, &[field.number()]].concat();
        let whole_request = prefix.is_empty() && matches!(frame.route.body, Body::Whole);
        let skipped = frame.is_fixed(&numbers)
            || (prefix.is_empty() && field.name() == "etag")
            || (whole_request && (field.number() == mask || Some(field.number()) == frame.route.method.request_id))
            || is_set_by_server(&field);
        if skipped {
            continue;
        }
        let path = if prefix.is_empty() { field.name().to_owned() } else { format!("{prefix}.{}", field.name()) };
        let inner = message_of(&field)
            .filter(|inner| field.cardinality() != Cardinality::Repeated && !inner.full_name().starts_with("google."));
        match (inner, value) {
            (Some(inner), Value::Object(nested)) if !nested.is_empty() => {
                collect_paths(&inner, nested, &numbers, &path, frame, mask, out)
            }
            _ => out.push(path),
        }
    }
}

fn is_set_by_server(field: &FieldDescriptor) -> bool {
    /// OUTPUT_ONLY and IDENTIFIER of `google.api.FieldBehavior`.
    const SET_BY_SERVER: [i32; 2] = [3, 8];
    let Some(extension) = field.parent_message().parent_pool().get_extension_by_name("google.api.field_behavior")
    else {
        return false;
    };
    let options = field.options();
    let value = options.get_extension(&extension);
    value
        .as_list()
        .unwrap_or_default()
        .iter()
        .any(|behavior| behavior.as_enum_number().is_some_and(|number| SET_BY_SERVER.contains(&number)))
}

fn fill(message: &mut Vec<u8>, numbers: &[u32], text: &str, name: &str, conflict: &str) -> Result<(), Problem> {
    match wire::find_text(message, numbers) {
        Some(given) if given == text => Ok(()),
        Some(_) => Err(Problem::field(name, conflict)),
        None => {
            let (Some(last), parents) = (numbers.last(), &numbers[..numbers.len().saturating_sub(1)]) else {
                return Ok(());
            };
            let mut leaf = Vec::new();
            wire::put(&mut leaf, *last, Raw::Len(text.as_bytes()));
            wire::put_nested(message, parents, &leaf);
            Ok(())
        }
    }
}

/// The one value of a header, without the quotes of a structured string or entity tag.
fn header_text(headers: &HeaderMap, name: &str) -> Result<Option<String>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(format!("the header {name} is given twice"));
    }
    let text = value.to_str().map_err(|_| format!("the header {name} is not ASCII text"))?.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

struct Query<'a> {
    route: &'a Route,
    /// The singular fields given so far.
    seen: BTreeMap<Vec<u32>, String>,
    oneofs: BTreeMap<String, Vec<u32>>,
    out: &'a mut Vec<u8>,
    violations: &'a mut Vec<Violation>,
}

impl Query<'_> {
    fn bind(&mut self, query: &str) {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent::decode_query(key).and_then(|key| Ok((key, percent::decode_query(text)?)));
            let outcome = match &decoded {
                Ok((key, text)) => self.parameter(key, text).map_err(|reason| Violation::new(key.as_ref(), reason)),
                Err(error) => Err(Violation::new(key, error.to_string())),
            };
            if let Err(violation) = outcome {
                self.violations.push(violation);
            }
        }
    }

    fn parameter(&mut self, key: &str, text: &str) -> Result<(), String> {
        if matches!(self.route.body, Body::Whole) {
            return Err("the body is the whole request, so a query parameter binds nothing".to_owned());
        }
        let fields = self.fields(key)?;
        let numbers: Vec<u32> = fields.iter().map(FieldDescriptor::number).collect();
        if let Body::Field(body) = &self.route.body
            && numbers.first() == Some(&body.number())
        {
            return Err("the field is bound by the body".to_owned());
        }
        for variable in &self.route.variables {
            let bound: Vec<u32> = variable.iter().map(FieldDescriptor::number).collect();
            if bound.starts_with(&numbers) || numbers.starts_with(&bound) {
                return Err("the field is bound by the path".to_owned());
            }
        }
        let Some(field) = fields.last() else {
            return Err("no field".to_owned());
        };
        if field.cardinality() != Cardinality::Repeated && self.seen.insert(numbers.clone(), key.to_owned()).is_some() {
            return Err("the field is given twice".to_owned());
        }
        self.check_oneofs(&fields)?;
        let mut leaf = Vec::new();
        value::put_text(&mut leaf, field, text)?;
        wire::put_nested(self.out, &numbers[..numbers.len() - 1], &leaf);
        Ok(())
    }

    fn fields(&self, key: &str) -> Result<Vec<FieldDescriptor>, String> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        let mut message = Some(self.route.method.input.clone());
        for part in key.split('.') {
            let parent = message.take().ok_or_else(|| "no such field: the path goes into a value".to_owned())?;
            let field = field_named(&parent, part).ok_or_else(|| "no such field".to_owned())?;
            message = message_of(&field).filter(|inner| !value::is_text_message(inner));
            if message.is_some() && field.cardinality() == Cardinality::Repeated {
                return Err("a map or a list of messages cannot be given in the query".to_owned());
            }
            if message.as_ref().is_some_and(|inner| inner.full_name().starts_with("google.protobuf.")) {
                return Err("this type cannot be given in the query".to_owned());
            }
            fields.push(field);
        }
        if message.is_some() {
            return Err("a message cannot be given as text; name a field in it".to_owned());
        }
        if fields.last().is_some_and(|field| field.is_list() && message_of(field).is_some()) {
            return Err("a list of messages cannot be given in the query".to_owned());
        }
        Ok(fields)
    }

    fn check_oneofs(&mut self, fields: &[FieldDescriptor]) -> Result<(), String> {
        let mut numbers = Vec::new();
        for field in fields {
            let before = numbers.clone();
            numbers.push(field.number());
            let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) else {
                continue;
            };
            let key = format!("{before:?}{}", oneof.full_name());
            let given = self.oneofs.entry(key).or_insert_with(|| numbers.clone());
            if *given != numbers {
                return Err(format!("another field of `{}` is given too", oneof.name()));
            }
        }
        Ok(())
    }
}

fn field_named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

fn path_text(fields: &[FieldDescriptor]) -> String {
    fields.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

/// True if the route takes bytes that are no JSON.
pub(crate) fn takes_raw(route: &Route) -> bool {
    match &route.body {
        Body::None => false,
        Body::Whole => is_raw(&route.method.input),
        Body::Field(field) => is_message(field, "google.api.HttpBody"),
    }
}
