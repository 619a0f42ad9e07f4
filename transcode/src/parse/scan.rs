//! The tokens of JSON, exactly as RFC 8259 has them.
//!
//! Invariant: the text is UTF-8 (who makes a [`Scan`] has checked it), so only ASCII needs to be looked at.

use std::borrow::Cow;

use crate::{
    MAX_DEPTH,
    error::{ErrorKind, Fallible, Fault},
    text::plain_run,
    wire::too_deep,
};

/// A place in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
}

/// A string as it is written, without its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) text: &'a [u8],
    /// Where its first byte is.
    pub(super) start: usize,
    pub(super) escaped: bool,
}

/// What comes after a member or an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    More,
    End,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Scan { text, at: 0 }
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no blank; zero, which no token begins with, at the end.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        match self.text.get(self.at) {
            Some(byte) if *byte > b' ' => *byte,
            _ => {
                self.blanks();
                self.text.get(self.at).copied().unwrap_or(0)
            }
        }
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    #[cold]
    pub(super) fn fault(&self, reason: &'static str) -> Box<Fault> {
        if self.at >= self.text.len() {
            return Fault::new(ErrorKind::Syntax, self.at, "the text ends where more is expected");
        }
        Fault::new(ErrorKind::Syntax, self.at, reason)
    }

    /// Goes past `{` or `[`; tells whether something is in it.
    pub(super) fn open(&mut self, close: u8, depth: usize) -> Fallible<Next> {
        if depth >= MAX_DEPTH {
            let mut fault = too_deep();
            fault.place_at(self.at);
            return Err(fault);
        }
        self.at += 1;
        if self.peek() == close {
            self.at += 1;
            return Ok(Next::End);
        }
        Ok(Next::More)
    }

    /// Goes past `,` or the closing bracket.
    #[inline]
    pub(super) fn next(&mut self, close: u8) -> Fallible<Next> {
        let byte = self.peek();
        if byte == b',' {
            self.at += 1;
            return Ok(Next::More);
        }
        if byte == close {
            self.at += 1;
            return Ok(Next::End);
        }
        Err(self.fault(if close == b'}' { "expected `,` or `}`" } else { "expected `,` or `]`" }))
    }

    /// A key and the colon behind it.
    pub(super) fn key(&mut self) -> Fallible<Raw<'a>> {
        if self.peek() != b'"' {
            return Err(self.fault("expected a key in double quotes"));
        }
        let key = self.string()?;
        if self.peek() != b':' {
            return Err(self.fault("expected `:`"));
        }
        self.at += 1;
        Ok(key)
    }

    /// A string; the opening quote is next.
    #[inline]
    pub(super) fn string(&mut self) -> Fallible<Raw<'a>> {
        let start = self.at + 1;
        self.at = start;
        let mut escaped = false;
        loop {
            self.at += plain_run(self.rest());
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => return Err(self.fault("a control character in a string")),
                None => return Err(self.fault("the text ends inside a string")),
            }
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok(Raw { text, start, escaped })
    }

    /// A number; `-` or a digit is next.
    pub(super) fn number(&mut self) -> Fallible<&'a [u8]> {
        let start = self.at;
        self.at += usize::from(self.text.get(start) == Some(&b'-'));
        let whole = self.at;
        self.digits()?;
        if self.text[whole] == b'0' && self.at > whole + 1 {
            self.at = start;
            return Err(self.fault("a number with a zero in front"));
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Fallible {
        let before = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == before { Err(self.fault("a malformed number")) } else { Ok(()) }
    }

    /// Goes past a value of a text that is known to be JSON, and gives its text.
    pub(super) fn pass(&mut self) -> Option<&'a [u8]> {
        self.peek();
        let start = self.at;
        let mut open = 0usize;
        loop {
            match self.peek() {
                b'{' | b'[' => {
                    open += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    open = open.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                b'"' => {
                    self.string().ok()?;
                }
                0 => return None,
                _ => {
                    let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
                    let length = self.rest().iter().take_while(|byte| word(byte)).count();
                    self.at += length;
                    if length == 0 {
                        return None;
                    }
                }
            }
            if open == 0 {
                return Some(&self.text[start..self.at]);
            }
        }
    }

    /// One of the three words.
    pub(super) fn word(&mut self, word: &str) -> Fallible {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.fault("expected a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The value that comes next is none that can stand here, or no value at all.
    #[cold]
    pub(super) fn wrong_type(&mut self, expected: &str) -> Box<Fault> {
        let at = self.at;
        // What is no JSON is told as that.
        let mut ahead = *self;
        let error = match ahead.peek() {
            b'{' | b'[' => None,
            b'"' => ahead.string().err(),
            b't' => ahead.word("true").err(),
            b'f' => ahead.word("false").err(),
            b'n' => ahead.word("null").err(),
            b'-' | b'0'..=b'9' => ahead.number().err(),
            _ => Some(ahead.fault("expected a JSON value")),
        };
        error.unwrap_or_else(|| {
            let reason = format!("expected {expected}, not {}", self.type_name());
            Fault::new(ErrorKind::WrongType, at, reason)
        })
    }

    /// What the next value is, for an error.
    fn type_name(&mut self) -> &'static str {
        match self.peek() {
            b'{' => "an object",
            b'[' => "a list",
            b'"' => "a string",
            b't' | b'f' => "a boolean",
            b'n' => "null",
            _ => "a number",
        }
    }
}

impl<'a> Raw<'a> {
    /// The string that is meant.
    pub(super) fn unescape(&self) -> Fallible<Cow<'a, [u8]>> {
        if !self.escaped {
            return Ok(Cow::Borrowed(self.text));
        }
        let mut text = Vec::with_capacity(self.text.len());
        self.append_to(&mut text)?;
        Ok(Cow::Owned(text))
    }

    /// Appends the string that is meant; it is never longer than what is written.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) -> Fallible {
        let mut at = 0;
        while let Some(length) = memchr::memchr(b'\\', &self.text[at..]) {
            out.extend_from_slice(&self.text[at..at + length]);
            at = self.escape(at + length, out)?;
        }
        out.extend_from_slice(&self.text[at..]);
        Ok(())
    }

    /// Appends what the escape at `at` means and tells where it ends.
    fn escape(&self, at: usize, out: &mut Vec<u8>) -> Fallible<usize> {
        let plain = match self.text.get(at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode(at, out),
            Some(_) | None => return Err(self.fault(at, "an unknown escape in a string")),
        };
        out.push(plain);
        Ok(at + 2)
    }

    fn unicode(&self, at: usize, out: &mut Vec<u8>) -> Fallible<usize> {
        let unit = |at: usize| -> Option<u32> {
            let digits = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
            digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
        };
        let first = unit(at).ok_or_else(|| self.fault(at, "`\\u` without four hexadecimal digits"))?;
        let (scalar, end) = match first {
            0xd800..0xdc00 => {
                let second = unit(at + 6).filter(|unit| (0xdc00..0xe000).contains(unit));
                (second.map(|second| 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)), at + 12)
            }
            first => (Some(first), at + 6),
        };
        let character =
            scalar.and_then(char::from_u32).ok_or_else(|| self.fault(at, "a lone surrogate in a string"))?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(end)
    }

    #[cold]
    fn fault(&self, at: usize, reason: &'static str) -> Box<Fault> {
        Fault::new(ErrorKind::Syntax, self.start + at, reason)
    }
}
