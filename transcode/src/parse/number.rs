//! Integers as JSON may write them: `7`, `7.0`, `70e-1`, and each of them in quotes.

use super::scan::{Raw, Scan};
use crate::error::{ErrorKind, Fallible, Fault};

/// An integer; a number or a string is next. No value of a field is longer than 64 bits, so the range is checked by
/// whoever asks.
#[inline]
pub(super) fn integer(scan: &mut Scan<'_>) -> Fallible<i128> {
    let quoted = scan.peek() == b'"';
    let start = scan.at + usize::from(quoted);
    if let Some((value, length)) = short(scan.text.get(start..).unwrap_or_default()) {
        let end = start + length;
        let closed = scan.text.get(end) == Some(&b'"');
        if closed == quoted {
            scan.at = end + usize::from(quoted);
            return Ok(i128::from(value));
        }
    }
    long(scan)
}

/// At most 18 digits that end where the number ends.
#[inline]
fn short(text: &[u8]) -> Option<(i64, usize)> {
    let negative = text.first() == Some(&b'-');
    let digits = text.get(usize::from(negative)..)?;
    let mut value = 0;
    let mut count = 0;
    while let Some(digit) = digits.get(count).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        if count == 18 {
            return None;
        }
        value = value * 10 + i64::from(digit);
        count += 1;
    }
    let ends = !matches!(digits.get(count), Some(b'.' | b'e' | b'E'));
    let plain = count > 0 && (count == 1 || digits[0] != b'0');
    (ends && plain).then(|| (if negative { -value } else { value }, count + usize::from(negative)))
}

#[cold]
fn long(scan: &mut Scan<'_>) -> Fallible<i128> {
    let start = scan.at;
    let text = match scan.peek() {
        b'"' => {
            let raw = scan.string()?;
            return quoted(&raw);
        }
        b'-' | b'0'..=b'9' => scan.number()?,
        _ => return Err(scan.wrong_type("a number")),
    };
    exact(text).ok_or_else(|| out_of_range(start))
}

/// The integer that stands in a string.
pub(super) fn quoted(raw: &Raw<'_>) -> Fallible<i128> {
    let text = raw.unescape()?;
    if !is_number(&text) {
        return Err(Fault::new(ErrorKind::BadFormat, raw.start - 1, "the string is not a number"));
    }
    exact(&text).ok_or_else(|| out_of_range(raw.start - 1))
}

/// True for a number in quotes, which has the grammar of one without.
pub(super) fn is_number(text: &[u8]) -> bool {
    let mut scan = Scan::new(text);
    scan.number().is_ok() && scan.at == text.len()
}

#[cold]
fn out_of_range(at: usize) -> Box<Fault> {
    Fault::new(ErrorKind::OutOfRange, at, "not an integer of 64 bits")
}

/// The value of a number if it is whole and not much longer than 64 bits.
fn exact(text: &[u8]) -> Option<i128> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |text| (true, text));
    let split = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = split.map_or((text, &[][..]), |at| (&text[..at], &text[at + 1..]));
    let digits = mantissa.iter().filter(|byte| **byte != b'.');
    let fraction = mantissa.iter().position(|byte| *byte == b'.').map_or(0, |at| mantissa.len() - at - 1);
    let trailing = digits.clone().rev().take_while(|digit| **digit == b'0').count();
    let count = digits.clone().count();
    if trailing == count {
        return Some(0);
    }
    let significant = digits.clone().take(count - trailing).skip_while(|digit| **digit == b'0');
    if significant.clone().count() > 20 {
        return None;
    }
    let value = significant.fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let exponent = if exponent.is_empty() { 0 } else { std::str::from_utf8(exponent).ok()?.parse::<i64>().ok()? };
    let scale = exponent.checked_sub(i64::try_from(fraction).ok()?)?.checked_add(i64::try_from(trailing).ok()?)?;
    let value = value.checked_mul(10i128.checked_pow(u32::try_from(scale).ok().filter(|scale| *scale <= 20)?)?)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<i128> {
        let mut scan = Scan::new(text.as_bytes());
        integer(&mut scan).ok().filter(|_| scan.at == text.len())
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("7", 7),
            ("-7", -7),
            ("7.0", 7),
            ("70e-1", 7),
            ("0.7E+1", 7),
            ("\"7\"", 7),
            ("\"1e2\"", 100),
            ("9223372036854775807", i64::MAX.into()),
            ("18446744073709551615", u64::MAX.into()),
            ("1.00e0", 1),
            ("-9223372036854775808", i64::MIN.into()),
            ("123456789012345678", 123_456_789_012_345_678),
            ("0e99999", 0),
            ("\"-9.223372036854775808e18\"", i64::MIN.into()),
            ("100000000000000000000e-2", 1_000_000_000_000_000_000),
        ] {
            assert_eq!(read(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_is_refused() {
        for text in [
            "",
            "-",
            "01",
            "-01",
            "\"01\"",
            "0.5",
            "1e-1",
            "1e",
            "1.",
            ".5",
            "+1",
            "\"\"",
            "\" 1\"",
            "\"1 \"",
            "\"0x1\"",
            "1e40",
            "1e99999999999999999999",
            "true",
            "null",
            "\"1",
            "1\"",
            "NaN",
            "1e-99999999999999999999",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
