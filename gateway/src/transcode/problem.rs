//! What went wrong, in the one shape every error leaves in: `google.rpc.Status` as JSON, with its details.
//!
//! Invariant: a detail that cannot be shown never takes code and message with it.

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use prost::Message as _;
use tonic::Code;
use tonic_types::pb;

use super::{codec::Codecs, json::Fault};

/// One detail: the type it claims and its wire bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// `type.googleapis.com/google.rpc.BadRequest`.
    pub type_url: String,
    /// The message.
    pub value: Bytes,
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The gRPC code in the body.
    pub code: Code,
    /// The text for a developer.
    pub message: String,
    /// What a program may want to know.
    pub details: Vec<Detail>,
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

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Violation { field: field.into(), description: description.into() }
    }
}

/// The HTTP status of a gRPC code, as `google/rpc/code.proto` maps them.
pub fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // 499 is nginx's "client closed request", which google.rpc.Code names for CANCELLED.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Problem {
    /// An error with the usual HTTP status of its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Problem { status: http_status(code), code, message: message.into(), details: Vec::new(), headers: Vec::new() }
    }

    /// The same error with another HTTP status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same error with a header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same error with a `google.rpc.BadRequest` behind the details.
    pub fn with_violations(mut self, violations: Vec<Violation>) -> Self {
        let field_violations = violations
            .into_iter()
            .map(|violation| pb::bad_request::FieldViolation {
                field: violation.field,
                description: violation.description,
                ..Default::default()
            })
            .collect();
        let value = Bytes::from(pb::BadRequest { field_violations }.encode_to_vec());
        self.details.push(Detail { type_url: "type.googleapis.com/google.rpc.BadRequest".to_owned(), value });
        self
    }

    /// 400 for the fields named.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let message = match violations.as_slice() {
            [one] if one.field.is_empty() => one.description.clone(),
            [one] => format!("{}: {}", one.field, one.description),
            many => format!(
                "{} fields of the request are invalid: {}",
                many.len(),
                many.iter().map(|one| one.field.as_str()).collect::<Vec<_>>().join(", ")
            ),
        };
        Problem::new(Code::InvalidArgument, message).with_violations(violations)
    }

    /// 400 for one field.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Problem::invalid(vec![Violation::new(field, description)])
    }

    /// 400 for a JSON text, with line, column and field.
    pub fn json(fault: Fault) -> Self {
        let place = format!("line {}, column {}", fault.line, fault.column);
        let message = if fault.field.is_empty() {
            format!("{}: {}", place, fault.reason)
        } else {
            format!("{}: {}: {}", place, fault.field, fault.reason)
        };
        Problem::new(Code::InvalidArgument, message)
            .with_violations(vec![Violation::new(fault.field, format!("{} ({place})", fault.reason))])
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        Problem::new(Code::ResourceExhausted, format!("the request body is larger than {limit} bytes"))
            .with_status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// What an upstream said.
    pub fn from_status(status: &tonic::Status) -> Self {
        let mut problem = Problem::new(status.code(), status.message());
        if let Ok(rich) = pb::Status::decode(status.details()) {
            problem.details = rich
                .details
                .into_iter()
                .map(|any| Detail { type_url: any.type_url, value: Bytes::from(any.value) })
                .collect();
        }
        problem
    }

    /// The body: `google.rpc.Status` as JSON.
    pub fn json_body(&self, codecs: &Codecs) -> Vec<u8> {
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(format!("{{\"code\":{},\"message\":", i32::from(self.code)).as_bytes());
        body.extend_from_slice(quoted(&self.message).as_bytes());
        body.extend_from_slice(b",\"details\":[");
        let mut first = true;
        for detail in &self.details {
            let Some(text) = detail.json(codecs) else {
                continue;
            };
            if !first {
                body.push(b',');
            }
            first = false;
            body.extend_from_slice(&text);
        }
        body.extend_from_slice(b"]}");
        body
    }

    /// The headers of the answer: content type, `Retry-After`, `WWW-Authenticate`, and what the error carries.
    pub fn answer_headers(&self) -> HeaderMap {
        let mut headers: HeaderMap = self.headers.iter().cloned().collect();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            // Never the error's own text: it may carry what a client must not see or a header must not hold.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"stoa\""));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers
    }

    /// The error as a gRPC status, for callers who speak gRPC.
    pub fn to_status(&self) -> tonic::Status {
        if self.details.is_empty() {
            return tonic::Status::new(self.code, &self.message);
        }
        let details = self
            .details
            .iter()
            .map(|detail| prost_types::Any { type_url: detail.type_url.clone(), value: detail.value.to_vec() })
            .collect();
        let rich = pb::Status { code: i32::from(self.code), message: self.message.clone(), details };
        tonic::Status::with_details(self.code, &self.message, Bytes::from(rich.encode_to_vec()))
    }

    fn retry_after(&self) -> Option<u64> {
        let detail = self.details.iter().find(|detail| detail.name() == "google.rpc.RetryInfo")?;
        let delay = pb::RetryInfo::decode(detail.value.clone()).ok()?.retry_delay?;
        let seconds = u64::try_from(delay.seconds).ok()?;
        Some(if delay.nanos > 0 { seconds + 1 } else { seconds.max(1) })
    }
}

impl Detail {
    fn name(&self) -> &str {
        self.type_url.rsplit_once('/').map_or(self.type_url.as_str(), |(_, name)| name)
    }

    /// The detail as a ProtoJSON `Any`; `None` for what must not leave.
    fn json(&self, codecs: &Codecs) -> Option<Vec<u8>> {
        // Stack traces are for the log.
        if self.name() == "google.rpc.DebugInfo" {
            return None;
        }
        let mut text = format!("{{\"@type\":{}", quoted(&self.type_url)).into_bytes();
        match codecs.by_name(self.name(), &self.value) {
            Some(inner) if inner.first() == Some(&b'{') && !self.name().starts_with("google.protobuf.") => {
                if inner.len() > 2 {
                    text.push(b',');
                }
                text.extend_from_slice(&inner[1..]);
            }
            Some(inner) => {
                text.extend_from_slice(b",\"value\":");
                text.extend_from_slice(&inner);
                text.push(b'}');
            }
            None => {
                let value = base64::engine::general_purpose::STANDARD.encode(&self.value);
                text.extend_from_slice(format!(",\"value\":\"{value}\"}}").as_bytes());
            }
        }
        Some(text)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_google_gives_it() {
        let statuses: Vec<u16> = (0..=16).map(|code| http_status(Code::from_i32(code)).as_u16()).collect();
        assert_eq!(statuses, [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]);
    }

    #[test]
    fn an_unauthenticated_answer_carries_a_fixed_challenge() {
        let problem = Problem::new(Code::Unauthenticated, "token of \"eve\"\r\nX: y");
        assert_eq!(problem.answer_headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"stoa\"");
    }

    #[test]
    fn a_retry_delay_becomes_a_header_in_whole_seconds() {
        let info = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 1, nanos: 1 }) };
        let mut problem = Problem::new(Code::ResourceExhausted, "slow down");
        problem.details.push(Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: Bytes::from(info.encode_to_vec()),
        });
        assert_eq!(problem.answer_headers()[header::RETRY_AFTER], "2");
    }
}
