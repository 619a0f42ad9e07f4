//! Timestamps and durations as ProtoJSON writes them.
//!
//! Days are counted by Howard Hinnant's algorithms (`days_from_civil` and its inverse, "chrono-Compatible Low-Level
//! Date Algorithms"), in the proleptic Gregorian calendar.

/// 0001-01-01T00:00:00Z
const FIRST: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z
const LAST: i64 = 253_402_300_799;
/// About 10,000 years.
const LONGEST: i64 = 315_576_000_000;
const BILLION: i32 = 1_000_000_000;

/// Appends `"2026-11-30T04:05:06.789Z"`; false if the time is none that ProtoJSON knows.
pub(crate) fn put_timestamp(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> bool {
    if !(FIRST..=LAST).contains(&seconds) || !(0..BILLION).contains(&nanos) {
        return false;
    }
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
    let (year, month, day) = civil_from_days(days);
    let two = |value: u32| [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8];
    let [[a, b], [c, d]] = [two(year / 100), two(year)];
    let [[e, f], [g, h]] = [two(month), two(day)];
    let [[i, j], [k, l], [m, n]] = [two(second / 3600), two(second / 60 % 60), two(second % 60)];
    out.extend_from_slice(&[b'"', a, b, c, d, b'-', e, f, b'-', g, h, b'T', i, j, b':', k, l, b':', m, n]);
    put_fraction(nanos.unsigned_abs(), out);
    out.extend_from_slice(b"Z\"");
    true
}

/// Appends `"1.5s"`; false if the duration is none that ProtoJSON knows.
pub(crate) fn put_duration(seconds: i64, nanos: i32, out: &mut Vec<u8>) -> bool {
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if seconds.unsigned_abs() > LONGEST.unsigned_abs() || nanos.unsigned_abs() >= BILLION.unsigned_abs() || mixed {
        return false;
    }
    out.push(b'"');
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    crate::text::put_integer(seconds.unsigned_abs(), out);
    put_fraction(nanos.unsigned_abs(), out);
    out.extend_from_slice(b"s\"");
    true
}

/// 0, 3, 6 or 9 digits, as many as are needed.
fn put_fraction(nanos: u32, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let (mut value, digits) = match nanos {
        nanos if nanos % 1_000_000 == 0 => (nanos / 1_000_000, 3),
        nanos if nanos % 1_000 == 0 => (nanos / 1_000, 6),
        nanos => (nanos, 9),
    };
    let mut text = [b'.'; 10];
    for at in (1..=digits).rev() {
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text[..=digits]);
}

/// Reads RFC 3339 with up to nine digits of a second and any offset.
pub(crate) fn timestamp(text: &[u8]) -> Option<(i64, i32)> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let [a, b, c, d, b'-', e, f, b'-', g, h, b'T', i, j, b':', k, l, b':', m, n] = *date else { return None };
    let (year, month, day) = (digits(&[a, b, c, d])?, digits(&[e, f])?, digits(&[g, h])?);
    let (hour, minute, second) = (digits(&[i, j])?, digits(&[k, l])?, digits(&[m, n])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || day == 0 || day > longest || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = fraction(rest)?;
    let offset = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d] => {
            let (hours, minutes) = (digits(&[*a, *b])?, digits(&[*c, *d])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = i64::from(hours * 3600 + minutes * 60);
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let clock = i64::from(hour * 3600 + minute * 60 + second);
    let seconds = days_from_civil(year, month, day) * 86_400 + clock - offset;
    (FIRST..=LAST).contains(&seconds).then_some((seconds, nanos as i32))
}

/// Reads `-1.5s`.
pub(crate) fn duration(text: &[u8]) -> Option<(i64, i32)> {
    let text = text.strip_suffix(b"s")?;
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let whole = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(whole);
    if whole.is_empty() || whole.len() > 12 {
        return None;
    }
    let seconds = whole.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (nanos, rest) = fraction(rest)?;
    if !rest.is_empty() || seconds > LONGEST {
        return None;
    }
    let sign = if negative { -1 } else { 1 };
    Some((seconds * sign, nanos as i32 * sign as i32))
}

/// Reads `.` and up to nine digits, if they are there.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else { return Some((0, text)) };
    let count = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    if count == 0 || count > 9 {
        return None;
    }
    let (fraction, rest) = text.split_at(count);
    Some((digits(fraction)? * 10u32.pow(9 - count as u32), rest))
}

/// At most nine digits.
fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
}

fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = i64::from((153 * ((month + 9) % 12) + 2) / 5 + day - 1);
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (u32, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097) as u32;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + i64::from(year_of_era) + i64::from(month <= 2);
    (year as u32, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(seconds: i64, nanos: i32) -> String {
        let mut out = Vec::new();
        assert!(put_timestamp(seconds, nanos, &mut out));
        String::from_utf8(out).unwrap().trim_matches('"').to_owned()
    }

    #[test]
    fn times_that_are_known_by_heart() {
        assert_eq!(written(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(written(951_782_400, 10_000_000), "2000-02-29T00:00:00.010Z");
        assert_eq!(written(FIRST, 1), "0001-01-01T00:00:00.000000001Z");
        assert_eq!(written(LAST, 999_999_000), "9999-12-31T23:59:59.999999Z");
        assert_eq!(timestamp(b"1970-01-01T01:00:00.5+01:00"), Some((0, 500_000_000)));
        assert_eq!(timestamp(b"1969-12-31T16:00:00-08:00"), Some((0, 0)));
    }

    #[test]
    fn every_day_comes_back() {
        for day in (-719_162..2_932_896).step_by(97) {
            let (year, month, date) = civil_from_days(day);
            assert_eq!(days_from_civil(year, month, date), day);
            assert_eq!(timestamp(written(day * 86_400 + 3_723, 0).as_bytes()), Some((day * 86_400 + 3_723, 0)));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01t00:00:00Z",
            "1970-01-01T00:00:00z",
            "1970-02-30T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.0000000001Z",
            "1970-01-01T00:00:00+1:00",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "1970-01-01 00:00:00Z",
            "1900-02-29T00:00:00Z",
        ] {
            assert_eq!(timestamp(bad.as_bytes()), None, "{bad}");
        }
        for bad in ["", "s", "1", "-s", "1.s", "+1s", ".5s", "1.0000000001s", "315576000001s", "1 s", "--1s", "1.5.5s"]
        {
            assert_eq!(duration(bad.as_bytes()), None, "{bad}");
        }
        assert!(!put_timestamp(FIRST - 1, 0, &mut Vec::new()) && !put_timestamp(0, -1, &mut Vec::new()));
        assert!(!put_duration(1, -1, &mut Vec::new()) && !put_duration(LONGEST + 1, 0, &mut Vec::new()));
    }

    #[test]
    fn durations_come_back() {
        for (seconds, nanos, text) in
            [(0, 0, "0s"), (1, 500_000_000, "1.500s"), (-1, -1, "-1.000000001s"), (0, -1_000, "-0.000001s")]
        {
            let mut out = Vec::new();
            assert!(put_duration(seconds, nanos, &mut out));
            assert_eq!(out, format!("\"{text}\"").into_bytes());
            assert_eq!(duration(text.as_bytes()), Some((seconds, nanos)));
        }
    }
}
