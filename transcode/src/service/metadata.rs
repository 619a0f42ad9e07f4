//! Which headers pass, and how long a call may take.
//!
//! Invariant: what belongs to the connection, to the body's form or to the protocol never passes as metadata, in either
//! direction, and no spelling gets around that.

use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    problem::{Problem, Violation},
    status::BASE64,
};

/// Which headers pass as metadata.
#[derive(Debug, Clone, Default)]
pub enum Passing {
    /// None.
    #[default]
    Nothing,
    /// Those of these names.
    Named(Vec<HeaderName>),
    /// Those whose names begin so.
    Prefixed(&'static str),
    /// All that are not HTTP's or a protocol's own; credentials pass.
    Custom,
}

/// What is of HTTP, of a browser, or of one of the protocols.
#[rustfmt::skip]
const OWN: [&str; 44] = [
    "accept", "accept-charset", "accept-encoding", "accept-ranges", "age", "allow", "alt-svc", "cache-control",
    "connection", "content-encoding", "content-language", "content-length", "content-location", "content-range",
    "content-type", "cookie", "date", "etag", "expect", "expires", "forwarded", "host", "http2-settings", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "keep-alive", "last-modified", "origin",
    "pragma", "proxy-authenticate", "proxy-authorization", "proxy-connection", "range", "referer", "set-cookie", "te",
    "trailer", "transfer-encoding", "upgrade", "user-agent", "vary",
];

/// The same by how they begin.
const OWN_PREFIXES: [&str; 7] = ["access-control-", "connect-", "grpc-", "sec-", "trailer-", "x-forwarded-", ":"];

impl Passing {
    /// True if a header of this name passes.
    pub fn passes(&self, name: &HeaderName) -> bool {
        match self {
            Passing::Nothing => false,
            Passing::Named(names) => names.contains(name),
            Passing::Prefixed(prefix) => name.as_str().starts_with(prefix) && !is_own(name.as_str()),
            Passing::Custom => !is_own(name.as_str()),
        }
    }

    /// The request headers that go on as metadata; binary ones must be base64.
    pub(crate) fn inward(&self, headers: &HeaderMap) -> Result<HeaderMap, Problem> {
        let mut passed = HeaderMap::new();
        let mut violations = Vec::new();
        for (name, value) in headers.iter().filter(|(name, _)| self.passes(name)) {
            // Several values may stand in one, with commas between them.
            let is_bad = |part: &[u8]| BASE64.decode(part.trim_ascii()).is_err();
            if name.as_str().ends_with("-bin") && value.as_bytes().split(|byte| *byte == b',').any(is_bad) {
                let description = "the value of a binary header is not base64".to_owned();
                violations.push(Violation { field: name.as_str().to_owned(), description });
            }
            passed.append(name.clone(), value.clone());
        }
        if violations.is_empty() { Ok(passed) } else { Err(Problem::invalid(&violations)) }
    }

    /// The metadata that becomes headers of an answer, apart from the one key that means a status.
    pub(crate) fn outward<'a>(
        &'a self,
        metadata: &'a HeaderMap,
        but: &'a HeaderName,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        metadata.iter().filter(move |(name, _)| *name != but && self.passes(name))
    }
}

/// True for what is not metadata; an underscore is no way around, since some servers read it as a hyphen.
fn is_own(name: &str) -> bool {
    let hyphened;
    let name = if name.contains('_') {
        hyphened = name.replace('_', "-");
        hyphened.as_str()
    } else {
        name
    };
    OWN.binary_search(&name).is_ok() || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");

/// The time a client gives, by gRPC's header or by Connect's; none if it does not say.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let given = one(headers, &GRPC_TIMEOUT)?;
    let grpc = given.map(|text| grpc_timeout(text).ok_or_else(|| bad_timeout(&GRPC_TIMEOUT))).transpose()?;
    let given = one(headers, &CONNECT_TIMEOUT)?;
    let connect = given.map(|text| {
        let millis = digits(text, 10).ok_or_else(|| bad_timeout(&CONNECT_TIMEOUT))?;
        Ok::<_, Problem>(Duration::from_millis(millis))
    });
    Ok(grpc.or(connect.transpose()?))
}

/// How the rest of the time is told to the service behind.
pub(crate) fn grpc_timeout_of(left: Duration) -> HeaderValue {
    // At most eight digits: what is more than a day is told in seconds.
    let millis = left.as_millis();
    let text = if millis <= 99_999_999 { format!("{millis}m") } else { format!("{}S", left.as_secs().min(99_999_999)) };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("0m"))
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| bad_timeout(name)),
        (Some(_), Some(_)) => Err(bad_timeout(name)),
    }
}

fn bad_timeout(name: &HeaderName) -> Problem {
    Problem::field(name.as_str(), "the header is no time as its protocol writes it")
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits(number, 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn digits(text: &str, most: usize) -> Option<u64> {
    let right = !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    if right { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> HeaderName {
        name.parse().unwrap()
    }

    #[test]
    fn the_list_is_sorted_as_the_search_needs_it() {
        assert!(OWN.is_sorted());
    }

    #[test]
    fn what_is_not_metadata_passes_in_no_spelling() {
        for own in [
            "Connection",
            "HOST",
            "te",
            "grpc-status",
            "Transfer_Encoding",
            "grpc_timeout",
            "cookie",
            "x-forwarded_for",
        ] {
            assert!(!Passing::Custom.passes(&name(own)), "{own}");
        }
        for custom in ["authorization", "x-request-id", "trace-bin"] {
            assert!(Passing::Custom.passes(&name(custom)), "{custom}");
            assert!(!Passing::Nothing.passes(&name(custom)) && !Passing::Prefixed("stoa-").passes(&name(custom)));
        }
        assert!(Passing::Prefixed("stoa-").passes(&name("stoa-stale")));
        assert!(
            Passing::Named(vec![name("a")]).passes(&name("A")) && !Passing::Named(vec![name("a")]).passes(&name("b"))
        );
    }

    #[test]
    fn a_binary_header_is_base64_or_a_mistake_that_is_named() {
        let headers = |value: &str| HeaderMap::from_iter([(name("a-bin"), HeaderValue::try_from(value).unwrap())]);
        for good in ["AAE=", "AAE", "AAE, AAE=", ""] {
            assert_eq!(Passing::Custom.inward(&headers(good)).unwrap()["a-bin"], good);
        }
        for bad in ["!", "A", "AAE=,!"] {
            assert_eq!(Passing::Custom.inward(&headers(bad)).unwrap_err().http, 400, "{bad}");
        }
    }

    #[test]
    fn times_are_read_strictly_and_told_within_eight_digits() {
        let read = |header: &str, value: &str| {
            timeout(&HeaderMap::from_iter([(name(header), HeaderValue::try_from(value).unwrap())]))
        };
        for (header, value, time) in [
            ("grpc-timeout", "5S", Duration::from_secs(5)),
            ("grpc-timeout", "99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("grpc-timeout", "0n", Duration::ZERO),
            ("connect-timeout-ms", "1500", Duration::from_millis(1500)),
        ] {
            assert_eq!(read(header, value).unwrap(), Some(time));
            assert!(grpc_timeout_of(time).len() <= 9);
        }
        for (header, value) in [
            ("grpc-timeout", "soon"),
            ("grpc-timeout", "S"),
            ("grpc-timeout", ""),
            ("grpc-timeout", "123456789S"),
            ("grpc-timeout", "-1S"),
            ("grpc-timeout", "1s"),
            ("connect-timeout-ms", "1.5"),
            ("connect-timeout-ms", "12345678901"),
        ] {
            assert_eq!(read(header, value).unwrap_err().http, 400, "{header}: {value}");
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }
}
