//! `Timestamp` and `Duration`, in JSON exactly as ProtoJSON writes them: UTC with a `Z`, and 0, 3, 6 or 9 digits.

use std::fmt;

use prost::{Message, Name};
use serde::de::Visitor;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS_PER_SECOND: u32 = 1_000_000_000;
/// The beginning of year 1 and the end of year 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;

/// `google.protobuf.Timestamp`: an instant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct Timestamp {
    /// Seconds since 1970, before it negative.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after that second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Duration`: a span of time, of one sign.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds besides, of the same sign.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Name for Timestamp {
    const NAME: &'static str = "Timestamp";
    const PACKAGE: &'static str = "google.protobuf";
}

impl Name for Duration {
    const NAME: &'static str = "Duration";
    const PACKAGE: &'static str = "google.protobuf";
}

/// A time on the wire that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time is out of range")
    }
}

impl std::error::Error for OutOfRange {}

impl From<jiff::Timestamp> for Timestamp {
    fn from(instant: jiff::Timestamp) -> Self {
        // jiff counts nanoseconds towards 1970; on the wire they count forward from the second before.
        let (seconds, nanos) = (instant.as_second(), instant.subsec_nanosecond());
        if nanos < 0 {
            Self { seconds: seconds - 1, nanos: nanos + NANOS_PER_SECOND as i32 }
        } else {
            Self { seconds, nanos }
        }
    }
}

impl TryFrom<Timestamp> for jiff::Timestamp {
    type Error = OutOfRange;

    fn try_from(wire: Timestamp) -> Result<Self, OutOfRange> {
        let valid = TIMESTAMP_SECONDS.contains(&wire.seconds) && (0..NANOS_PER_SECOND as i32).contains(&wire.nanos);
        if !valid {
            return Err(OutOfRange);
        }
        Self::new(wire.seconds, wire.nanos).map_err(|_| OutOfRange)
    }
}

impl From<std::time::Duration> for Duration {
    fn from(span: std::time::Duration) -> Self {
        Self { seconds: span.as_secs().min(MAX_DURATION_SECONDS as u64) as i64, nanos: span.subsec_nanos() as i32 }
    }
}

/// Negative spans are out of the range of the standard library's.
impl TryFrom<Duration> for std::time::Duration {
    type Error = OutOfRange;

    fn try_from(wire: Duration) -> Result<Self, OutOfRange> {
        let seconds = u64::try_from(wire.seconds).map_err(|_| OutOfRange)?;
        let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < NANOS_PER_SECOND).ok_or(OutOfRange)?;
        Ok(Self::new(seconds, nanos))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instant = jiff::Timestamp::try_from(*self).map_err(S::Error::custom)?;
        let civil = jiff::tz::Offset::UTC.to_datetime(instant);
        let (year, month, day) = (civil.year(), civil.month(), civil.day());
        let (hour, minute, second) = (civil.hour(), civil.minute(), civil.second());
        let fraction = Fraction(self.nanos.unsigned_abs());
        serializer
            .collect_str(&format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let one_sign = self.seconds == 0 || self.nanos == 0 || (self.seconds < 0) == (self.nanos < 0);
        if !one_sign
            || self.seconds.unsigned_abs() > MAX_DURATION_SECONDS as u64
            || self.nanos.unsigned_abs() >= NANOS_PER_SECOND
        {
            return Err(S::Error::custom(OutOfRange));
        }
        let sign = if self.seconds < 0 || self.nanos < 0 { "-" } else { "" };
        serializer.collect_str(&format_args!(
            "{sign}{}{}s",
            self.seconds.unsigned_abs(),
            Fraction(self.nanos.unsigned_abs())
        ))
    }
}

/// A fraction of a second in 0, 3, 6 or 9 digits.
struct Fraction(u32);

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            nanos if nanos % 1_000_000 == 0 => write!(f, ".{:03}", nanos / 1_000_000),
            nanos if nanos % 1_000 == 0 => write!(f, ".{:06}", nanos / 1_000),
            nanos => write!(f, ".{nanos:09}"),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("an RFC 3339 time such as \"2026-01-31T09:30:00Z\"", parse_timestamp))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text("a span of seconds such as \"1.5s\"", parse_duration))
    }
}

struct Text<T>(&'static str, fn(&str) -> Option<T>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // jiff reads more than RFC 3339 in ProtoJSON's sense, so the shape is looked at first.
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits = |byte: u8, shape: u8| {
        if shape == b'd' { byte.is_ascii_digit() } else { byte == shape }
    };
    if bytes.len() <= shape.len()
        || !bytes.iter().zip(shape).all(|(byte, shape)| fits(*byte, *shape))
        || &bytes[17..19] == b"60"
    {
        return None;
    }
    let mut rest = &text[shape.len()..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        rest = &fraction[digits..];
    }
    let offset = rest.as_bytes();
    let numeric = offset.len() == 6
        && matches!(offset[0], b'+' | b'-')
        && offset[1..].iter().zip(b"dd:dd").all(|(byte, shape)| fits(*byte, *shape));
    if rest != "Z" && !numeric {
        return None;
    }
    let wire = Timestamp::from(text.parse::<jiff::Timestamp>().ok()?);
    TIMESTAMP_SECONDS.contains(&wire.seconds).then_some(wire)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.strip_suffix('s')?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: i64 = whole.parse().ok().filter(|seconds| *seconds <= MAX_DURATION_SECONDS)?;
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration { seconds: sign * seconds, nanos: sign as i32 * nanos })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json<T: Serialize>(value: T) -> Option<String> {
        serde_json::to_string(&value).ok()
    }

    #[test]
    fn times_are_written_in_utc_with_0_3_6_or_9_digits() {
        let time = |seconds, nanos| json(Timestamp { seconds, nanos });
        assert_eq!(time(0, 0).unwrap(), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(time(-1, 500_000_000).unwrap(), "\"1969-12-31T23:59:59.500Z\"");
        assert_eq!(time(0, 1_000).unwrap(), "\"1970-01-01T00:00:00.000001Z\"");
        assert_eq!(time(-62_135_596_800, 1).unwrap(), "\"0001-01-01T00:00:00.000000001Z\"");
        assert_eq!((time(0, -1), time(253_402_300_800, 0)), (None, None));
    }

    #[test]
    fn times_that_are_none_are_refused() {
        let parse = |text: &str| serde_json::from_value::<Timestamp>(text.into()).ok();
        assert_eq!(parse("1970-01-01T01:00:00.5+01:00"), Some(Timestamp { seconds: 0, nanos: 500_000_000 }));
        for bad in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00z",
            "1970-13-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for bad in [
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00+01",
            "1970-01-01T00:00:00Z[UTC]",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn spans_are_written_with_one_sign_and_refused_with_two() {
        let span = |seconds, nanos| json(Duration { seconds, nanos });
        assert_eq!(span(0, -500_000_000).unwrap(), "\"-0.500s\"");
        assert_eq!(span(3, 0).unwrap(), "\"3s\"");
        assert_eq!((span(1, -1), span(i64::MIN, 0), span(0, 1_000_000_000)), (None, None, None));
        let parse = |text: &str| serde_json::from_value::<Duration>(text.into()).ok();
        for bad in ["", "s", "1", "--1s", "+1s", "1.s", ".5s", "1.+5s", "1.0000000001s", "1e3s", "315576000001s"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_and_span_survives_json(seconds in -62_135_596_800_i64..253_300_000_000, nanos in 0..1_000_000_000_i32) {
            let time = Timestamp { seconds, nanos };
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json(time).unwrap()).unwrap(), time);
            prop_assert_eq!(Timestamp::from(jiff::Timestamp::try_from(time).unwrap()), time);
            let span = Duration { seconds, nanos: if seconds < 0 { -nanos } else { nanos } };
            prop_assert_eq!(serde_json::from_str::<Duration>(&json(span).unwrap()).unwrap(), span);
        }
    }
}
