//! What headers say of a request's message: a request id, an etag; and the mask of a PATCH that names none.
//!
//! The message has been put together already; a field is filled by appending it, or found to be given and compared.

use http::{HeaderMap, header};
use prost_reflect::{Cardinality, FieldDescriptor, MessageDescriptor, MethodDescriptor};

use super::problem::Problem;
use crate::{
    parse::keys_of,
    rule::Target,
    wire::{find_bytes, put_field},
};

/// The header web developers know for [`request_id`](https://google.aip.dev/155).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What a route fills.
#[derive(Debug)]
pub(crate) struct Fill {
    request_id: Option<u32>,
    /// The way to the field that `If-Match` fills.
    etag: Option<Vec<u32>>,
    mask: Option<Mask>,
}

/// The mask of a PATCH.
#[derive(Debug)]
struct Mask {
    number: u32,
    /// What the body is, and under which field of the request.
    resource: MessageDescriptor,
    whole: bool,
    /// The fields that the path names, as mask paths of the resource.
    fixed: Vec<String>,
    request_id: Option<u32>,
}

/// What the headers of one request say.
#[derive(Debug, Default)]
pub(crate) struct Given {
    request_id: Option<String>,
    etag: Option<String>,
}

impl Fill {
    pub(crate) fn new(target: &Target, method: &MethodDescriptor) -> Self {
        let input = method.input();
        let request_id = target.input.string_field("request_id");
        let inner = input.get_field_by_name(&target.body).filter(|field| !field.is_list());
        let inner = inner.and_then(|field| Some((field.number(), field.kind().as_message()?.clone())));
        let etag = target.input.string_field("etag").map(|number| vec![number]).or_else(|| {
            let (outer, message) = inner.as_ref()?;
            let field = message.get_field_by_name("etag").filter(is_one_string)?;
            Some(vec![*outer, field.number()])
        });
        let mask = (target.verb == Some(http::Method::PATCH))
            .then(|| Mask::new(target, &input, inner.map(|(_, message)| message), request_id));
        Fill { request_id, etag, mask: mask.flatten() }
    }

    /// Reads the headers that fill something.
    pub(crate) fn given(&self, headers: &HeaderMap) -> Result<Given, Problem> {
        let mut given = Given::default();
        if self.request_id.is_some() {
            given.request_id = text(headers, IDEMPOTENCY_KEY).map_err(|reason| Problem::field("request_id", reason))?;
        }
        if self.etag.is_some() {
            let etag = text(headers, header::IF_MATCH.as_str()).map_err(|reason| Problem::field("etag", reason))?;
            given.etag = etag.filter(|etag| etag != "*");
        }
        Ok(given)
    }

    /// Appends what the message that stands in `out` from `start` on does not have yet. `body` is the JSON it was made of.
    pub(crate) fn fill(&self, given: &Given, body: &[u8], start: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
        if let (Some(number), Some(key)) = (self.request_id, &given.request_id) {
            let conflict = "the header Idempotency-Key says something else";
            put(&[number], key, start, out).map_err(|Conflict| Problem::field("request_id", conflict))?;
        }
        if let (Some(path), Some(etag)) = (&self.etag, &given.etag) {
            let conflict = "the header If-Match says something else";
            put(path, etag, start, out).map_err(|Conflict| Problem::field("etag", conflict))?;
        }
        if let Some(mask) = &self.mask
            && find_bytes(&out[start..], &[mask.number]).is_none_or(<[u8]>::is_empty)
        {
            mask.put(body, out);
        }
        Ok(())
    }
}

/// The field says something else.
struct Conflict;

fn put(path: &[u32], text: &str, start: usize, out: &mut Vec<u8>) -> Result<(), Conflict> {
    match find_bytes(&out[start..], path) {
        Some(given) if given == text.as_bytes() => return Ok(()),
        Some(given) if !given.is_empty() => return Err(Conflict),
        Some(_) | None => {}
    }
    match path {
        [number] => put_field(*number, text.as_bytes(), out),
        [outer, number] => {
            let mut inner = Vec::with_capacity(text.len() + 8);
            put_field(*number, text.as_bytes(), &mut inner);
            put_field(*outer, &inner, out);
        }
        _ => {}
    }
    Ok(())
}

impl Mask {
    fn new(
        target: &Target,
        input: &MessageDescriptor,
        inner: Option<MessageDescriptor>,
        request_id: Option<u32>,
    ) -> Option<Self> {
        let mut masks = input.fields().filter(|field| {
            let kind = field.kind();
            !field.is_list()
                && kind.as_message().is_some_and(|message| message.full_name() == "google.protobuf.FieldMask")
        });
        let (number, None) = (masks.next()?.number(), masks.next()) else { return None };
        let whole = target.body == "*";
        let resource = if whole { input.clone() } else { inner? };
        let prefix = format!("{}.", target.body);
        let fixed = target
            .variables
            .iter()
            .filter_map(|name| if whole { Some(name.clone()) } else { name.strip_prefix(&prefix).map(str::to_owned) });
        Some(Mask { number, resource, whole, fixed: fixed.collect(), request_id })
    }

    /// [AIP-134](https://google.aip.dev/134) lets a client leave the mask out; then it is what the body names.
    fn put(&self, body: &[u8], out: &mut Vec<u8>) {
        let mut paths = Vec::new();
        self.collect(&self.resource, body, "", &mut paths);
        let mut mask = Vec::new();
        paths.iter().for_each(|path| put_field(1, path.as_bytes(), &mut mask));
        put_field(self.number, &mask, out);
    }

    /// The fields present in an object, as mask paths: into messages, not into well-known types, maps and lists; without
    /// what the path names, the etag, and what only the server sets.
    fn collect(&self, message: &MessageDescriptor, object: &[u8], prefix: &str, out: &mut Vec<String>) {
        for (key, value) in keys_of(object) {
            let found = message.get_field_by_json_name(&key).or_else(|| message.get_field_by_name(&key));
            let Some(field) = found else { continue };
            let path = format!("{prefix}{}", field.name());
            let of_request = self.whole
                && prefix.is_empty()
                && (field.number() == self.number || Some(field.number()) == self.request_id);
            if of_request || path == "etag" || self.fixed.contains(&path) || is_set_by_server(&field) {
                continue;
            }
            let kind = field.kind();
            let inner = kind.as_message().filter(|inner| {
                field.cardinality() != Cardinality::Repeated && !inner.full_name().starts_with("google.")
            });
            match inner {
                Some(inner) if keys_of(value).next().is_some() => self.collect(inner, value, &format!("{path}."), out),
                Some(_) | None => out.push(path),
            }
        }
    }
}

fn is_one_string(field: &FieldDescriptor) -> bool {
    field.kind() == prost_reflect::Kind::String && !field.is_list()
}

fn is_set_by_server(field: &FieldDescriptor) -> bool {
    /// OUTPUT_ONLY and IDENTIFIER of `google.api.FieldBehavior`.
    const SET_BY_SERVER: [i32; 2] = [3, 8];
    let pool = field.parent_message().parent_pool().clone();
    let Some(extension) = pool.get_extension_by_name("google.api.field_behavior") else { return false };
    let options = field.options();
    let value = options.get_extension(&extension);
    let mut behaviours = value.as_list().unwrap_or_default().iter();
    behaviours.any(|behaviour| behaviour.as_enum_number().is_some_and(|number| SET_BY_SERVER.contains(&number)))
}

/// The one value of a header, without the quotes of a structured string or entity tag.
fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("the header {name} is given twice"));
    }
    let text = value.to_str().map_err(|_| format!("the header {name} is not ASCII text"))?.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}
