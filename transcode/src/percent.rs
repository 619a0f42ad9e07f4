//! Percent-decoding of path segments and query parts; a bad escape and invalid UTF-8 are errors, never guesses.

use std::borrow::Cow;

/// Why a text cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EscapeError {
    /// `%` without two hexadecimal digits behind it.
    #[error("a `%` without two hexadecimal digits")]
    Escape,
    /// The decoded bytes are not UTF-8.
    #[error("the decoded text is not UTF-8")]
    Utf8,
}

/// Decodes every escape.
pub fn decode(text: &str) -> Result<Cow<'_, str>, EscapeError> {
    decode_but(text, b"", false)
}

/// Decodes every escape but `%2F`, which stays as written: in a value of several segments it is data, not a separator.
pub fn decode_keeping_slash(text: &str) -> Result<Cow<'_, str>, EscapeError> {
    decode_but(text, b"/", false)
}

/// Decodes every escape but those of the characters that RFC 6570 reserves, which stay as written.
pub fn decode_keeping_reserved(text: &str) -> Result<Cow<'_, str>, EscapeError> {
    decode_but(text, b":/?#[]@!$&'()*+,;=", false)
}

/// Decodes one part of a query: escapes, and `+` as a space.
pub fn decode_query(text: &str) -> Result<Cow<'_, str>, EscapeError> {
    decode_but(text, b"", true)
}

fn decode_but<'a>(text: &'a str, kept: &[u8], plus_is_space: bool) -> Result<Cow<'a, str>, EscapeError> {
    let special = memchr::memchr2(b'%', if plus_is_space { b'+' } else { b'%' }, text.as_bytes());
    let Some(first) = special else { return Ok(Cow::Borrowed(text)) };
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    decoded.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let high = bytes.get(at + 1).and_then(|digit| hex(*digit)).ok_or(EscapeError::Escape)?;
                let low = bytes.get(at + 2).and_then(|digit| hex(*digit)).ok_or(EscapeError::Escape)?;
                let byte = high << 4 | low;
                if kept.contains(&byte) {
                    decoded.extend_from_slice(&bytes[at..at + 3]);
                } else {
                    decoded.push(byte);
                }
                at += 3;
            }
            b'+' if plus_is_space => {
                decoded.push(b' ');
                at += 1;
            }
            byte => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| EscapeError::Utf8)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_decode_and_a_slash_may_stay() {
        assert_eq!(decode("a%2Fb%20c").unwrap(), "a/b c");
        assert_eq!(decode_keeping_slash("a%2fb%20c").unwrap(), "a%2fb c");
        assert_eq!(decode_query("a+b%2B").unwrap(), "a b+");
        assert_eq!(decode("a+b").unwrap(), "a+b");
        assert_eq!(decode_keeping_reserved("a%3A%2f%20%c3%bc%25").unwrap(), "a%3A%2f ü%");
    }

    #[test]
    fn bad_escapes_and_bad_utf8_are_errors() {
        for bad in ["%", "%4", "%zz", "a%g0"] {
            assert_eq!(decode(bad), Err(EscapeError::Escape), "{bad}");
        }
        assert_eq!(decode("%ff"), Err(EscapeError::Utf8));
        assert_eq!(decode("%c3%28"), Err(EscapeError::Utf8));
    }
}
