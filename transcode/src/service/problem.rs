//! What went wrong, on its way to the client in the form its protocol has: `google.rpc.Status` as JSON, trailers, or Connect's.
//!
//! Invariant: a detail that cannot be shown never takes code and message with it.

use std::sync::OnceLock;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    body::{self, Body},
    details,
    status::{Code, Detail, Status},
};
use crate::{
    Error, PrintOptions, Schema,
    text::quote,
    wire::{Wire, find_bytes, put_field},
};

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status of HTTP.
    pub http: StatusCode,
    /// Code, text and details.
    pub status: Status,
    /// Headers that belong to the answer, such as `Allow`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// One violated rule of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field path as the client wrote it.
    pub field: String,
    /// What is wrong.
    pub description: String,
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Problem { http: status.code.http(), status, headers: Vec::new() }
    }
}

impl Problem {
    /// An error without details; the status of HTTP follows the code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status::new(code, message).into()
    }

    /// The same error with another status of HTTP.
    #[must_use]
    pub fn with_http(mut self, http: StatusCode) -> Self {
        self.http = http;
        self
    }

    /// The same error with a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 400 for the fields named, all of them in one `google.rpc.BadRequest`.
    pub fn invalid(violations: &[Violation]) -> Self {
        let message = match violations {
            [one] if one.field.is_empty() => one.description.clone(),
            [one] => format!("{}: {}", one.field, one.description),
            many => format!(
                "{} fields of the request are invalid: {}",
                many.len(),
                many.iter().map(|one| one.field.as_str()).collect::<Vec<_>>().join(", ")
            ),
        };
        let mut problem = Problem::new(Code::InvalidArgument, message);
        problem.status.details.push(bad_request(violations));
        problem
    }

    /// 400 for one field.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Problem::invalid(&[Violation { field: field.into(), description: description.into() }])
    }

    /// 400 for a text, with line, column and field.
    pub fn text(error: &Error) -> Self {
        let place = error.place().map(|place| format!("line {}, column {}", place.line, place.column));
        let description = match &place {
            Some(place) => format!("{} ({place})", error.reason()),
            None => error.reason().to_owned(),
        };
        let mut problem = Problem::new(Code::InvalidArgument, error.to_string());
        problem.status.details.push(bad_request(&[Violation { field: error.field().to_owned(), description }]));
        problem
    }

    /// 400 for everything that is wrong with path and query.
    pub fn texts(errors: &[Error]) -> Self {
        match errors {
            [one] => Problem::text(one),
            many => Problem::invalid(
                &many
                    .iter()
                    .map(|error| Violation { field: error.field().to_owned(), description: error.reason().to_owned() })
                    .collect::<Vec<_>>(),
            ),
        }
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Problem::new(Code::ResourceExhausted, format!("the request body is larger than {limit} bytes"))
            .with_http(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// The headers of the answer: `Retry-After`, `WWW-Authenticate`, and what the error carries.
    fn answer_headers(&self, challenge: &HeaderValue) -> HeaderMap {
        let mut headers: HeaderMap = self.headers.iter().cloned().collect();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.http == StatusCode::UNAUTHORIZED {
            // Never the error's own text: it may carry what a client must not see or a header must not hold.
            headers.insert(header::WWW_AUTHENTICATE, challenge.clone());
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers
    }

    /// Whole seconds, rounded up.
    fn retry_after(&self) -> Option<u64> {
        let detail = self.status.details.iter().find(|detail| detail.name() == "google.rpc.RetryInfo")?;
        let mut rest = Wire::new(find_bytes(&detail.value, &[1])?);
        let (mut seconds, mut nanos) = (0, 0);
        while let Ok(Some(head)) = rest.head() {
            match head.number {
                1 => seconds = rest.varint().ok()?,
                2 => nanos = rest.varint().ok()?,
                _ => rest.skip(head).ok()?,
            }
        }
        // A negative time is one that nobody has to wait for.
        let is_time = seconds <= i64::MAX as u64;
        is_time.then(|| if nanos > 0 { seconds + 1 } else { seconds.max(1) })
    }
}

fn bad_request(violations: &[Violation]) -> Detail {
    let mut value = Vec::new();
    for violation in violations {
        let mut one = Vec::new();
        put_field(1, violation.field.as_bytes(), &mut one);
        put_field(2, violation.description.as_bytes(), &mut one);
        put_field(1, &one, &mut value);
    }
    Detail { type_url: "type.googleapis.com/google.rpc.BadRequest".to_owned(), value: Bytes::from(value) }
}

/// Writes errors: it knows the types of their details.
#[derive(Debug, Clone)]
pub(crate) struct Scribe {
    pub(crate) schema: Schema,
    pub(crate) print: PrintOptions,
    pub(crate) challenge: HeaderValue,
}

impl Scribe {
    /// The answer of REST.
    pub(crate) fn answer(&self, problem: &Problem) -> Response<Body> {
        let mut text = Vec::with_capacity(128);
        self.json(&problem.status, &mut text);
        self.with_body(problem, text)
    }

    /// The answer of a unary call of Connect.
    pub(crate) fn connect(&self, problem: &Problem) -> Response<Body> {
        let mut text = Vec::with_capacity(128);
        self.connect_json(&problem.status, &mut text);
        self.with_body(problem, text)
    }

    fn with_body(&self, problem: &Problem, text: Vec<u8>) -> Response<Body> {
        let length = HeaderValue::from(text.len());
        let mut response = Response::new(body::full(text));
        *response.status_mut() = problem.http;
        *response.headers_mut() = problem.answer_headers(&self.challenge);
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
        response
    }

    /// Appends `google.rpc.Status` as JSON.
    pub(crate) fn json(&self, status: &Status, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{{\"code\":{},\"message\":", status.code.number()).as_bytes());
        quote(&status.message, out);
        out.extend_from_slice(b",\"details\":[");
        for (at, detail) in shown(status).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.detail(detail, out);
        }
        out.extend_from_slice(b"]}");
    }

    /// Appends the error as Connect writes it.
    pub(crate) fn connect_json(&self, status: &Status, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{{\"code\":\"{}\",\"message\":", status.code.name()).as_bytes());
        quote(&status.message, out);
        for (at, detail) in shown(status).enumerate() {
            out.extend_from_slice(if at == 0 { b",\"details\":[{\"type\":" } else { b",{\"type\":" });
            quote(detail.name(), out);
            let value = super::status::BASE64.encode(&detail.value);
            out.extend_from_slice(format!(",\"value\":\"{value}\"").as_bytes());
            if let Some(debug) = self.content(detail) {
                out.extend_from_slice(b",\"debug\":");
                out.extend_from_slice(&debug);
            }
            out.push(b'}');
        }
        if shown(status).next().is_some() {
            out.push(b']');
        }
        out.push(b'}');
    }

    /// Appends the detail as the JSON of an `Any`; one that is not known keeps its bytes.
    fn detail(&self, detail: &Detail, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"@type\":");
        quote(&detail.type_url, out);
        match self.content(detail) {
            Some(inner) if inner.first() == Some(&b'{') && !detail.name().starts_with("google.protobuf.") => {
                if inner.len() > 2 {
                    out.push(b',');
                }
                out.extend_from_slice(&inner[1..]);
            }
            Some(inner) => {
                out.extend_from_slice(b",\"value\":");
                out.extend_from_slice(&inner);
                out.push(b'}');
            }
            None => out.extend_from_slice(format!(",\"value\":\"{}\"}}", BASE64.encode(&detail.value)).as_bytes()),
        }
    }

    /// The JSON of a detail's message; none if its type is unknown or its bytes are no such message.
    fn content(&self, detail: &Detail) -> Option<Vec<u8>> {
        let codec = self.schema.codec(detail.name()).or_else(|| standard().codec(detail.name()))?;
        let mut text = Vec::new();
        codec.wire_to_json(&detail.value, &self.print, &mut text).ok()?;
        Some(text)
    }
}

/// The details that leave: stack traces are for the log.
fn shown(status: &Status) -> impl Iterator<Item = &Detail> {
    status.details.iter().filter(|detail| detail.name() != "google.rpc.DebugInfo")
}

/// The standard details, known even in front of contracts that never import them.
fn standard() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| Schema::new(&details::pool()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scribe() -> Scribe {
        let schema = Schema::new(&prost_reflect::DescriptorPool::global());
        Scribe { schema, print: PrintOptions::default(), challenge: HeaderValue::from_static("Bearer") }
    }

    #[test]
    fn an_unauthenticated_answer_carries_a_fixed_challenge() {
        let answer = scribe().answer(&Problem::new(Code::Unauthenticated, "token of \"eve\"\r\nX: y"));
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[header::WWW_AUTHENTICATE]),
            (401, &"Bearer".parse().unwrap())
        );
    }

    #[test]
    fn a_retry_delay_becomes_a_header_in_whole_seconds() {
        for (delay, seconds) in [(&[8, 1, 16, 1][..], "2"), (&[8, 3], "3"), (&[16, 1], "1"), (&[8, 0xff], "")] {
            let mut value = Vec::new();
            put_field(1, delay, &mut value);
            let mut problem = Problem::new(Code::ResourceExhausted, "slow down");
            let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
            problem.status.details.push(Detail { type_url, value: Bytes::from(value) });
            let answer = scribe().answer(&problem);
            let header = answer.headers().get(header::RETRY_AFTER).map_or("", |value| value.to_str().unwrap());
            assert_eq!(header, seconds);
        }
    }

    #[test]
    fn violations_read_back_as_json() {
        let problem = Problem::field("a.b", "not \"so\"");
        let mut text = Vec::new();
        scribe().json(&problem.status, &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"code":3,"message":"a.b: not \"so\"","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"a.b","description":"not \"so\""}]}]}"#
        );
    }
}
