//! What the client sends and what it takes: media types and content codings.

use http::{HeaderMap, StatusCode, header};

use super::{problem::Problem, status::Code};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON value.
    Json,
    /// A JSON value a line.
    Lines,
    /// Server-sent events.
    Events,
    /// One JSON array, written element by element.
    Array,
}

impl Format {
    /// The media type of the answer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Json | Format::Array => "application/json",
            Format::Lines => "application/x-ndjson",
            Format::Events => "text/event-stream",
        }
    }
}

/// The media types of JSON lines; they have never been agreed upon.
const LINES: [&str; 4] = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonl"];

/// The format of a single answer; `None` if the client takes no JSON.
pub(crate) fn unary(headers: &HeaderMap) -> Option<Format> {
    (quality(headers, "application/json").0 > 0).then_some(Format::Json)
}

/// The format of a stream: what the client prefers, and lines when it does not say.
pub(crate) fn stream(headers: &HeaderMap) -> Option<Format> {
    let lines = LINES.iter().map(|media| quality(headers, media)).max().unwrap_or((0, 0));
    let events = quality(headers, "text/event-stream");
    let array = quality(headers, "application/json");
    [(array, Format::Array), (events, Format::Events), (lines, Format::Lines)]
        .into_iter()
        .filter(|((q, _), _)| *q > 0)
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, format)| format)
}

/// True if the client takes this media type.
pub(crate) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let media = media.split(';').next().unwrap_or(media).trim().to_ascii_lowercase();
    quality(headers, &media).0 > 0
}

/// The weight (in thousandths) that `Accept` gives a media type, and how exactly it names it.
fn quality(headers: &HeaderMap, media: &str) -> (u32, u8) {
    let mut best: Option<(u8, u32)> = None;
    let mut any = false;
    for range in headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        if name.is_empty() {
            continue;
        }
        any = true;
        let exact = match name.as_str() {
            "*/*" | "*" => 0,
            name if name == media => 2,
            name if name.strip_suffix("/*").is_some_and(|kind| media.split('/').next() == Some(kind)) => 1,
            _ => continue,
        };
        let weight = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1000, thousandths);
        if best.is_none_or(|(rank, _)| exact >= rank) {
            best = Some((exact, weight));
        }
    }
    match best {
        Some((exact, weight)) => (weight, exact),
        None if any => (0, 0),
        None => (1000, 0),
    }
}

fn thousandths(text: &str) -> u32 {
    text.trim().parse::<f32>().map_or(0, |weight| (weight.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// What the request's `Content-Type` says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// JSON, or nothing said.
    Json,
    /// JSON lines.
    Lines,
    /// Something else.
    Other,
}

/// Reads the request's media type; only UTF-8 is JSON.
pub(crate) fn content(headers: &HeaderMap) -> Content {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = values.next() else {
        return Content::Json;
    };
    let Some(text) = value.to_str().ok().filter(|_| values.next().is_none()) else {
        return Content::Other;
    };
    let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media = parts.next().unwrap_or_default();
    let utf8 = parts
        .filter_map(|part| part.strip_prefix("charset=").map(|charset| charset.trim_matches('"').to_owned()))
        .all(|charset| charset == "utf-8" || charset == "utf8");
    if !utf8 {
        Content::Other
    } else if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        Content::Json
    } else if LINES.contains(&media.as_str()) {
        Content::Lines
    } else {
        Content::Other
    }
}

/// The coding of the request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is.
    Identity,
    /// gzip.
    Gzip,
}

/// Reads `Content-Encoding`; `None` for one the gateway does not know.
pub(crate) fn coding(headers: &HeaderMap) -> Option<Coding> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else {
        return Some(Coding::Identity);
    };
    if values.next().is_some() {
        return None;
    }
    match value.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Some(Coding::Identity),
        "gzip" | "x-gzip" => Some(Coding::Gzip),
        _ => None,
    }
}

/// True if the client asks for gzip.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut wildcard = false;
    for coding in headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            return weight > 0;
        }
        wildcard |= name == "*" && weight > 0;
    }
    wildcard
}

/// 406.
pub(crate) fn not_acceptable() -> Problem {
    Problem::new(Code::InvalidArgument, "the answer has no form that the header Accept allows")
        .with_http(StatusCode::NOT_ACCEPTABLE)
}

/// 415, for what this header says.
pub(crate) fn unsupported(header: &str) -> Problem {
    let reason = format!("the request body is in no form this method takes: see the header {header}");
    Problem::new(Code::InvalidArgument, reason).with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// The request's media type as it was sent; empty if it is none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_stream_takes_the_format_the_client_prefers() {
        let ask = |accept: &str| stream(&headers(header::ACCEPT, accept));
        assert_eq!(stream(&HeaderMap::new()), Some(Format::Lines));
        assert_eq!(ask("*/*"), Some(Format::Lines));
        assert_eq!(ask("text/event-stream"), Some(Format::Events));
        assert_eq!(ask("application/json, text/plain, */*"), Some(Format::Array));
        assert_eq!(ask("application/json;q=0.5, application/x-ndjson"), Some(Format::Lines));
        assert_eq!(ask("text/html"), None);
    }

    #[test]
    fn a_single_answer_is_json_or_nothing() {
        let ask = |accept: &str| unary(&headers(header::ACCEPT, accept)).is_some();
        assert!(unary(&HeaderMap::new()).is_some());
        for good in
            ["*/*", "application/*", "application/json", "text/html, application/json;q=0.1", "APPLICATION/JSON"]
        {
            assert!(ask(good), "{good}");
        }
        for bad in ["text/html", "application/json;q=0", "application/json;q=0, */*", "image/*"] {
            assert!(!ask(bad), "{bad}");
        }
    }

    #[test]
    fn the_content_type_is_looked_at() {
        let say = |value: &str| content(&headers(header::CONTENT_TYPE, value));
        assert_eq!(content(&HeaderMap::new()), Content::Json);
        assert_eq!(say("application/json; charset=UTF-8"), Content::Json);
        assert_eq!(say("application/merge-patch+json"), Content::Json);
        assert_eq!(say("application/x-ndjson"), Content::Lines);
        assert_eq!(say("application/json; charset=latin1"), Content::Other);
        assert_eq!(say("application/x-www-form-urlencoded"), Content::Other);
    }

    #[test]
    fn codings_are_gzip_or_nothing() {
        assert_eq!(coding(&headers(header::CONTENT_ENCODING, "gzip")), Some(Coding::Gzip));
        assert_eq!(coding(&headers(header::CONTENT_ENCODING, "br")), None);
        assert!(takes_gzip(&headers(header::ACCEPT_ENCODING, "br, gzip;q=0.5")));
        assert!(!takes_gzip(&headers(header::ACCEPT_ENCODING, "gzip;q=0, *")));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
