//! How a gRPC call ended: a code, a text, details; read from trailers and written into them.

use std::fmt;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::body::BoxError;
use crate::wire::{Wire, put_field, put_varint};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Metadata is written without padding and read with or without it.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The codes of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// In the order of their numbers, with the names that Connect gives them.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "ok"),
    (Code::Cancelled, "canceled"),
    (Code::Unknown, "unknown"),
    (Code::InvalidArgument, "invalid_argument"),
    (Code::DeadlineExceeded, "deadline_exceeded"),
    (Code::NotFound, "not_found"),
    (Code::AlreadyExists, "already_exists"),
    (Code::PermissionDenied, "permission_denied"),
    (Code::ResourceExhausted, "resource_exhausted"),
    (Code::FailedPrecondition, "failed_precondition"),
    (Code::Aborted, "aborted"),
    (Code::OutOfRange, "out_of_range"),
    (Code::Unimplemented, "unimplemented"),
    (Code::Internal, "internal"),
    (Code::Unavailable, "unavailable"),
    (Code::DataLoss, "data_loss"),
    (Code::Unauthenticated, "unauthenticated"),
];

impl Code {
    /// The code of a number; what no code has is unknown.
    pub fn from_number(number: i32) -> Self {
        usize::try_from(number).ok().and_then(|number| CODES.get(number)).map_or(Code::Unknown, |(code, _)| *code)
    }

    /// The number on the wire, 0 to 16.
    pub fn number(self) -> i32 {
        self as i32
    }

    /// The name in small letters, as Connect writes it.
    pub fn name(self) -> &'static str {
        CODES[self as usize].1
    }

    /// The status of HTTP, as `google/rpc/code.proto` maps them.
    pub fn http(self) -> StatusCode {
        match self {
            Code::Ok => StatusCode::OK,
            // 499 is nginx's "client closed request", which google.rpc.Code names for CANCELLED.
            Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// One detail of an error: the type it claims and its wire bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// `type.googleapis.com/google.rpc.BadRequest`.
    pub type_url: String,
    /// The message.
    pub value: Bytes,
}

impl Detail {
    /// The full name of the type: what follows the last slash.
    pub fn name(&self) -> &str {
        self.type_url.rsplit_once('/').map_or(self.type_url.as_str(), |(_, name)| name)
    }
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text for a developer.
    pub message: String,
    /// What a program may want to know.
    pub details: Vec<Detail>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    /// An end without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Status { code, message: message.into(), details: Vec::new() }
    }

    /// The end that headers or trailers tell of; none if they tell of none. Details that cannot be read are left out and
    /// take nothing with them.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get(STATUS)?;
        let code = code.to_str().ok().and_then(|code| code.parse().ok()).map_or(Code::Unknown, Code::from_number);
        let message = headers.get(MESSAGE).map(|text| percent_decode(text.as_bytes())).unwrap_or_default();
        let details = headers.get(DETAILS).and_then(|value| BASE64.decode(value.as_bytes()).ok());
        let details = details.map(|encoded| read_details(&Bytes::from(encoded))).unwrap_or_default();
        Some(Status { code, message, details })
    }

    /// Writes the end into headers or trailers.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(STATUS, HeaderValue::from(self.code.number()));
        if !self.message.is_empty()
            && let Ok(text) = HeaderValue::from_bytes(&percent_encode(&self.message))
        {
            headers.insert(MESSAGE, text);
        }
        if !self.details.is_empty()
            && let Ok(details) = HeaderValue::try_from(BASE64.encode(self.encode()))
        {
            headers.insert(DETAILS, details);
        }
    }

    /// The end as an encoded `google.rpc.Status`.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(1 << 3, &mut out);
        put_varint(self.code.number() as u64, &mut out);
        put_field(2, self.message.as_bytes(), &mut out);
        for detail in &self.details {
            let mut any = Vec::new();
            put_field(1, detail.type_url.as_bytes(), &mut any);
            put_field(2, &detail.value, &mut any);
            put_field(3, &any, &mut out);
        }
        out
    }

    /// What a failed connection or a broken body means: the status that caused it, or that nobody is there.
    pub(crate) fn from_error(error: &BoxError, otherwise: &str) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
        while let Some(error) = cause {
            if let Some(status) = error.downcast_ref::<Status>() {
                return status.clone();
            }
            cause = error.source();
        }
        Status::new(Code::Unavailable, otherwise)
    }
}

/// The details of an encoded `google.rpc.Status`; none if it cannot be read.
fn read_details(encoded: &Bytes) -> Vec<Detail> {
    let mut details = Vec::new();
    let mut rest = Wire::new(encoded);
    while let Ok(Some(head)) = rest.head() {
        if head.number != 3 {
            if rest.skip(head).is_err() {
                return Vec::new();
            }
            continue;
        }
        let Ok(any) = rest.bytes() else { return Vec::new() };
        let text = crate::wire::find_bytes(any, &[1]).unwrap_or_default();
        let value = crate::wire::find_bytes(any, &[2]).unwrap_or_default();
        let Ok(type_url) = std::str::from_utf8(text) else { return Vec::new() };
        let value = if value.is_empty() { Bytes::new() } else { encoded.slice_ref(value) };
        details.push(Detail { type_url: type_url.to_owned(), value });
    }
    details
}

/// As gRPC has it: bytes from space to tilde but the percent sign stay, all others are escaped.
fn percent_encode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(byte);
        } else {
            let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 15)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        }
    }
    out
}

/// What is no escape stays as it is: an error's text is never lost for its form.
fn percent_decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, more)) = rest.split_first() {
        let digit = |at: usize| more.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                rest = &more[2..];
            }
            _ => {
                out.push(*byte);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_google_gives_it_and_its_own_number() {
        let statuses: Vec<u16> = (0..=16).map(|code| Code::from_number(code).http().as_u16()).collect();
        assert_eq!(statuses, [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]);
        assert!((0..=16).all(|number| Code::from_number(number).number() == number));
        assert_eq!((Code::from_number(17), Code::from_number(-1)), (Code::Unknown, Code::Unknown));
    }

    #[test]
    fn what_is_written_reads_back() {
        let detail = Detail { type_url: "type.googleapis.com/a.B".to_owned(), value: Bytes::from_static(b"\x08\x01") };
        for details in [vec![], vec![detail.clone(), detail]] {
            let status = Status { code: Code::Aborted, message: "50 % ü\r\nX: y".to_owned(), details };
            let mut headers = HeaderMap::new();
            status.write(&mut headers);
            assert_eq!(Status::read(&headers), Some(status));
        }
        assert_eq!(Status::read(&HeaderMap::new()), None);
    }

    #[test]
    fn broken_trailers_keep_what_can_be_read() {
        let headers = |status: &str, message: &str, details: &str| {
            let texts = [(STATUS, status), (MESSAGE, message), (DETAILS, details)];
            HeaderMap::from_iter(texts.map(|(name, text)| (name, HeaderValue::try_from(text).unwrap())))
        };
        let read = |status, message, details| Status::read(&headers(status, message, details)).unwrap();
        assert_eq!(read("5", "a%zzb%4", "!!"), Status::new(Code::NotFound, "a%zzb%4"));
        assert_eq!(read("x", "%ff", "//8="), Status::new(Code::Unknown, "\u{fffd}"));
    }
}
