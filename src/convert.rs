//! The well-known types as the types the domain uses, and back.

use ::contract::{Money, MoneyError};
use jiff::Timestamp;

use crate::google::r#type;

impl From<Money> for r#type::Money {
    fn from(money: Money) -> Self {
        let (currency_code, units, nanos) = money.to_wire();
        Self { currency_code, units, nanos }
    }
}

impl TryFrom<&r#type::Money> for Money {
    type Error = MoneyError;

    fn try_from(money: &r#type::Money) -> Result<Self, MoneyError> {
        Self::from_wire(&money.currency_code, money.units, money.nanos)
    }
}

/// A time as `google.protobuf.Timestamp`.
pub fn timestamp(time: Timestamp) -> pbjson_types::Timestamp {
    // `Timestamp` counts forward from the second, jiff away from the epoch: before 1970 they differ.
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        return pbjson_types::Timestamp { seconds: seconds - 1, nanos: nanos + 1_000_000_000 };
    }
    pbjson_types::Timestamp { seconds, nanos }
}

/// A `google.protobuf.Timestamp` as a time, to the microsecond; nothing if it is out of range.
pub fn time(timestamp: &pbjson_types::Timestamp) -> Option<Timestamp> {
    let micros = i128::from(timestamp.seconds) * 1_000_000 + i128::from(timestamp.nanos / 1000);
    i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok())
}

/// A `google.protobuf.Duration` as a duration; nothing if it is negative or out of range.
pub fn duration(duration: &pbjson_types::Duration) -> Option<std::time::Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(std::time::Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_wire_to_the_microsecond() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, -62_000_000_000_000_001] {
            let before = Timestamp::from_microsecond(micros).unwrap();
            assert_eq!(time(&timestamp(before)), Some(before));
        }
        assert_eq!(time(&pbjson_types::Timestamp { seconds: i64::MAX, nanos: 0 }), None);
    }
}
