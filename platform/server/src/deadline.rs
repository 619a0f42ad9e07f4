//! How long a caller over the network says it waits.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

/// The time in `grpc-timeout`, if there is one; a malformed or repeated one is refused, because a call whose deadline is
/// misread holds what it should have let go.
pub fn requested(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let mut values = headers.get_all("grpc-timeout").iter();
    let (Some(value), another) = (values.next(), values.next()) else {
        return Ok(None);
    };
    match (value.to_str().ok().and_then(parse), another) {
        (Some(timeout), None) => Ok(Some(timeout)),
        _ => Err(Status::invalid_argument("grpc-timeout is malformed: one to eight digits and one of H M S m u n")),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, duration) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(duration), "{text}");
        }
    }

    #[test]
    fn a_malformed_timeout_is_refused() {
        for text in ["", "S", "1", "1s", "+1S", "-1S", "1.5S", "100000000S", " 1S", "1S ", "1SS", "\u{661}S"] {
            let headers = HeaderMap::from_iter([(
                "grpc-timeout".parse().unwrap(),
                http::HeaderValue::from_str(text).or(http::HeaderValue::from_bytes(text.as_bytes())).unwrap(),
            )]);
            assert_eq!(requested(&headers).unwrap_err().code(), tonic::Code::InvalidArgument, "{text:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append("grpc-timeout", "1S".parse().unwrap());
        twice.append("grpc-timeout", "2S".parse().unwrap());
        assert!(requested(&twice).is_err());
        assert_eq!(requested(&HeaderMap::new()).unwrap(), None);
    }
}
