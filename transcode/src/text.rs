//! JSON strings and numbers as bytes: written with the escapes that RFC 8259 demands and no others, found by eight
//! bytes at a time.
//!
//! The tests for a byte in a word are the usual ones (Warren, *Hacker's Delight*, 6-1): a borrow can only spoil what
//! lies above a true match, so the lowest match is always right.

use crate::error::{ErrorKind, Fallible, Fault};

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes of a word that end a run of plain text: `"`, `\` and control characters.
#[inline]
fn stops(word: u64) -> u64 {
    let equal = |byte: u8| {
        let word = word ^ (ONES * u64::from(byte));
        word.wrapping_sub(ONES) & !word
    };
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (equal(b'"') | equal(b'\\') | control) & HIGH
}

/// The offset of the first `"`, `\` or control character.
#[inline]
pub(crate) fn plain_run(text: &[u8]) -> usize {
    let mut at = 0;
    let mut rest = text;
    while let Some((chunk, more)) = rest.split_first_chunk::<8>() {
        let stops = stops(u64::from_le_bytes(*chunk));
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 8;
        rest = more;
    }
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

/// True if the text needs neither an escape nor a check of its encoding.
#[inline]
fn is_plain_ascii(text: &[u8]) -> bool {
    let odd = |word: u64| (stops(word) | (word & HIGH)) != 0;
    let Some(tail) = text.last_chunk::<8>() else {
        return text.iter().all(|byte| matches!(byte, 0x20..0x80) && *byte != b'"' && *byte != b'\\');
    };
    let mut rest = text;
    while let Some((chunk, more)) = rest.split_first_chunk::<8>() {
        if odd(u64::from_le_bytes(*chunk)) {
            return false;
        }
        rest = more;
    }
    rest.is_empty() || !odd(u64::from_le_bytes(*tail))
}

/// Appends a string from the wire, which may not be one.
#[inline]
pub(crate) fn quote_wire(text: &[u8], out: &mut Vec<u8>) -> Fallible {
    if is_plain_ascii(text) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return Ok(());
    }
    let text = simdutf8::basic::from_utf8(text)
        .map_err(|_| Fault::new(ErrorKind::Utf8, 0, "a string on the wire is not UTF-8"))?;
    quote(text, out);
    Ok(())
}

/// Appends a string in quotes.
pub(crate) fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, more) = rest.split_at(plain_run(rest));
        out.extend_from_slice(plain);
        let [byte, more @ ..] = more else { break };
        escape(*byte, out);
        rest = more;
    }
    out.push(b'"');
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' => b'"',
        b'\\' => b'\\',
        8 => b'b',
        12 => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends an integer.
#[inline]
pub(crate) fn put_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the shortest number that reads back as the same one, or the name of what is none.
pub(crate) fn put_float(value: impl zmij::Float + Into<f64>, out: &mut Vec<u8>) {
    let wide: f64 = value.into();
    if wide.is_finite() {
        let mut buffer = zmij::Buffer::new();
        let digits = buffer.format_finite(value);
        out.extend_from_slice(digits.strip_suffix(".0").unwrap_or(digits).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else {
        out.extend_from_slice(if wide > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_special_byte_wherever_it_stands() {
        for length in 0..40 {
            for at in 0..length {
                for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
                    let mut text = vec![0xc3; length];
                    text[at] = special;
                    assert_eq!(plain_run(&text), at);
                    text.fill(b'a');
                    text[at] = special;
                    assert!(!is_plain_ascii(&text), "{text:?}");
                    text[at] = 0xff;
                    assert!(!is_plain_ascii(&text), "{text:?}");
                }
            }
            assert!(is_plain_ascii(&vec![b' '; length]) && is_plain_ascii(&vec![0x7f; length]));
        }
    }

    #[test]
    fn numbers_read_back_as_the_same_bits() {
        let mut bits = 1u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (wide, narrow) = (f64::from_bits(bits), f32::from_bits((bits >> 32) as u32));
            let mut out = Vec::new();
            put_float(wide, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(!wide.is_finite() || text.parse::<f64>().unwrap().to_bits() == bits, "{text}");
            let mut out = Vec::new();
            put_float(narrow, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(!narrow.is_finite() || text.parse::<f32>().unwrap().to_bits() == narrow.to_bits(), "{text}");
        }
    }

    #[test]
    fn what_is_quoted_reads_back() {
        let all: String = (0..300).filter_map(char::from_u32).collect();
        for text in ["", "a", "\u{1f600}\"\\", "\u{7f}\u{80}", &all] {
            let mut out = Vec::new();
            quote(text, &mut out);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            let mut wire = Vec::new();
            quote_wire(text.as_bytes(), &mut wire).unwrap();
            assert_eq!(wire, out);
        }
        assert!(quote_wire(b"\xff", &mut Vec::new()).is_err());
    }
}
