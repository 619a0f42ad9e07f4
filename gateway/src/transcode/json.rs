//! A strict reading of JSON text before any codec sees it: UTF-8, RFC 8259 grammar, bounded depth, no key twice, no lone surrogate.
//!
//! Invariant: one pass, no recursion, so the deepest input costs a bounded stack and an answer that names line and column.
//! The same pass finds the field path that stands at a position, which gives a codec's error its field.

use std::{borrow::Cow, collections::HashSet};

/// The nesting that is accepted; protobuf decoders accept no more.
pub const MAX_DEPTH: usize = 100;

/// Where and why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub reason: String,
    /// The line, from 1.
    pub line: usize,
    /// The byte in the line, from 1.
    pub column: usize,
    /// The path of the value in question, `items[3].quantity`; empty at the top.
    pub field: String,
}

/// Checks a whole text.
pub fn check(text: &[u8]) -> Result<(), Fault> {
    if let Err(error) = std::str::from_utf8(text) {
        let scanner = Scanner::new(text, None);
        return Err(scanner.fault(error.valid_up_to(), "the text is not UTF-8"));
    }
    Scanner::new(text, None).run()
}

/// The path of the value that ends at or spans the given line and column (both from 1).
pub fn field_at(text: &[u8], line: usize, column: usize) -> String {
    let start =
        text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).nth(line.wrapping_sub(2));
    let start = if line <= 1 { 0 } else { start.unwrap_or(0) };
    match Scanner::new(text, Some(start + column)).run() {
        Ok(()) => String::new(),
        Err(fault) => fault.field,
    }
}

enum Level<'a> {
    Object { keys: Keys<'a>, key: Cow<'a, str> },
    Array { index: usize },
}

/// The keys of one object: a short list is searched, a long one is hashed.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        if self.few.contains(&key) {
            return false;
        }
        self.few.push(key);
        if self.few.len() > 16 {
            self.many = self.few.drain(..).collect();
        }
        true
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// Ends the walk with the path of the first token that reaches this position.
    stop: Option<usize>,
    levels: Vec<Level<'a>>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8], stop: Option<usize>) -> Self {
        Scanner { text, at: 0, stop, levels: Vec::new() }
    }

    fn run(mut self) -> Result<(), Fault> {
        self.blanks();
        'value: loop {
            // A value begins here.
            match self.text.get(self.at) {
                Some(b'{') => {
                    self.reached(self.at + 1)?;
                    self.at += 1;
                    self.blanks();
                    self.open(Level::Object { keys: Keys::default(), key: Cow::Borrowed("") })?;
                    if self.text.get(self.at) == Some(&b'}') {
                        self.at += 1;
                        self.levels.pop();
                    } else {
                        self.key()?;
                        continue 'value;
                    }
                }
                Some(b'[') => {
                    self.reached(self.at + 1)?;
                    self.at += 1;
                    self.blanks();
                    self.open(Level::Array { index: 0 })?;
                    if self.text.get(self.at) == Some(&b']') {
                        self.at += 1;
                        self.levels.pop();
                    } else {
                        continue 'value;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                Some(_) => return Err(self.fault(self.at, "expected a JSON value")),
                None => return Err(self.fault(self.at, "the text ends where a value is expected")),
            }
            // A value ended here: close what ends with it.
            loop {
                self.reached(self.at)?;
                self.blanks();
                let next = self.text.get(self.at).copied();
                match (self.levels.last_mut(), next) {
                    (None, None) => return Ok(()),
                    (None, Some(_)) => return Err(self.fault(self.at, "text after the value")),
                    (Some(Level::Object { .. }), Some(b',')) => {
                        self.at += 1;
                        self.blanks();
                        self.key()?;
                        continue 'value;
                    }
                    (Some(Level::Array { index }), Some(b',')) => {
                        *index += 1;
                        self.at += 1;
                        self.blanks();
                        continue 'value;
                    }
                    (Some(Level::Object { .. }), Some(b'}')) | (Some(Level::Array { .. }), Some(b']')) => {
                        // serde closes an object before it places the error of its last value, so a position behind
                        // the bracket means that value.
                        self.reached(self.at + 1)?;
                        self.at += 1;
                        self.levels.pop();
                    }
                    (Some(Level::Object { .. }), Some(_)) => {
                        return Err(self.fault(self.at, "expected `,` or `}`"));
                    }
                    (Some(Level::Array { .. }), Some(_)) => {
                        return Err(self.fault(self.at, "expected `,` or `]`"));
                    }
                    (Some(_), None) => {
                        return Err(self.fault(self.at, "the text ends inside a value"));
                    }
                }
            }
        }
    }

    fn open(&mut self, level: Level<'a>) -> Result<(), Fault> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(Fault { field: String::new(), ..self.fault(self.at, "nested deeper than 100 levels") });
        }
        self.levels.push(level);
        Ok(())
    }

    fn key(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.text.get(start) != Some(&b'"') {
            return Err(self.fault(start, "expected a key in double quotes"));
        }
        let text = self.string()?;
        let fresh = match self.levels.last_mut() {
            Some(Level::Object { keys, key }) => {
                key.clone_from(&text);
                keys.insert(text)
            }
            Some(Level::Array { .. }) | None => true,
        };
        if !fresh {
            return Err(self.fault(start, "the key is given twice"));
        }
        self.reached(self.at)?;
        self.blanks();
        if self.text.get(self.at) != Some(&b':') {
            return Err(self.fault(self.at, "expected `:`"));
        }
        self.at += 1;
        self.blanks();
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(byte) if *byte < 0x20 => {
                    return Err(self.fault(at, "a control character in a string"));
                }
                Some(_) => at += 1,
                None => return Err(self.fault(self.text.len(), "the text ends inside a string")),
            }
        }
        self.at = at + 1;
        let raw = &self.text[start..at];
        if escaped {
            return self.unescape(raw, start).map(Cow::Owned);
        }
        std::str::from_utf8(raw)
            .map(Cow::Borrowed)
            .map_err(|error| self.fault(start + error.valid_up_to(), "the text is not UTF-8"))
    }

    fn unescape(&self, raw: &[u8], start: usize) -> Result<String, Fault> {
        let mut bytes = Vec::with_capacity(raw.len());
        let mut at = 0;
        while let Some(byte) = raw.get(at) {
            if *byte != b'\\' {
                bytes.push(*byte);
                at += 1;
                continue;
            }
            let here = start + at;
            let plain = match raw.get(at + 1) {
                Some(b'"') => Some(b'"'),
                Some(b'\\') => Some(b'\\'),
                Some(b'/') => Some(b'/'),
                Some(b'b') => Some(8),
                Some(b'f') => Some(12),
                Some(b'n') => Some(b'\n'),
                Some(b'r') => Some(b'\r'),
                Some(b't') => Some(b'\t'),
                Some(b'u') => None,
                Some(_) | None => return Err(self.fault(here, "an unknown escape in a string")),
            };
            if let Some(plain) = plain {
                bytes.push(plain);
                at += 2;
                continue;
            }
            let unit = |at: usize| -> Option<u32> {
                let digits = raw.get(at..at + 4)?;
                digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
            };
            let first = unit(at + 2).ok_or_else(|| self.fault(here, "`\\u` without four hexadecimal digits"))?;
            at += 6;
            let scalar =
                if (0xd800..0xdc00).contains(&first) && raw.get(at) == Some(&b'\\') && raw.get(at + 1) == Some(&b'u') {
                    let second = unit(at + 2).filter(|unit| (0xdc00..0xe000).contains(unit));
                    at += 6;
                    second.map(|second| 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
                } else {
                    Some(first)
                };
            let Some(character) = scalar.and_then(char::from_u32) else {
                return Err(self.fault(here, "a lone surrogate in a string"));
            };
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        String::from_utf8(bytes).map_err(|_| self.fault(start, "the text is not UTF-8"))
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        match self.text.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) | None => return Err(self.fault(start, "a number without digits")),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits(start)?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits(start)?;
        }
        if self.text.get(self.at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.') {
            return Err(self.fault(start, "a malformed number"));
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, start: usize) -> Result<(), Fault> {
        let before = self.at;
        self.digits();
        if self.at == before { Err(self.fault(start, "a malformed number")) } else { Ok(()) }
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(self.fault(self.at, "expected a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn reached(&self, end: usize) -> Result<(), Fault> {
        if self.stop.is_some_and(|stop| end >= stop) { Err(self.fault(end, "")) } else { Ok(()) }
    }

    fn fault(&self, at: usize, reason: &str) -> Fault {
        let before = &self.text[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count();
        Fault { reason: reason.to_owned(), line, column, field: self.path() }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for level in &self.levels {
            match level {
                Level::Object { key, .. } => {
                    if !path.is_empty() && !key.is_empty() {
                        path.push('.');
                    }
                    path.push_str(key);
                }
                Level::Array { index } => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> Fault {
        check(text).unwrap_err()
    }

    #[test]
    fn good_texts_pass() {
        for good in [
            "{}",
            " [ ] ",
            "null",
            "-0.5e+10",
            r#"{"a":[1,{"b":"\u00e9\ud83d\ude00\n"}],"c":true,"d":false}"#,
            "\"x\"",
            "[[],[1],{}]",
            "0",
            "{\"a\":\n{}}",
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
    }

    #[test]
    fn everything_outside_the_grammar_is_refused() {
        for bad in [
            "",
            "{",
            "[",
            "[1,]",
            "{\"a\":1,}",
            "{'a':1}",
            "{a:1}",
            "// x\n{}",
            "{} {}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "NaN",
            "tru",
            "[1 2]",
            "{\"a\" 1}",
            "\"\u{1}\"",
            "\"\\x\"",
            r#""\u12""#,
            "\"a",
            "{\"a\":}",
            "]",
            "\u{feff}{}",
            "1x",
            "0x10",
            "--1",
            "{\"a\":1]",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(refused(b"{\"a\":\"\xff\"}").reason, "the text is not UTF-8");
    }

    #[test]
    fn a_key_given_twice_is_named_with_its_place() {
        let fault = refused(b"{\"items\": [{\"sku\": 1},\n {\"sku\": 1, \"\\u0073ku\": 2}]}");
        assert_eq!((fault.line, fault.column, fault.field.as_str()), (2, 13, "items[1].sku"));
        let many: String = (0..40).map(|n| format!("\"k{n}\":1,")).collect();
        assert_eq!(check(format!("{{{many}\"z\":1}}").as_bytes()), Ok(()));
        assert!(check(format!("{{{many}\"k7\":1}}").as_bytes()).is_err());
        assert_eq!(check(b"{\"a\":{\"a\":{\"a\":1}}}"), Ok(()));
    }

    #[test]
    fn lone_surrogates_are_refused() {
        for bad in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800x""#] {
            assert_eq!(refused(bad.as_bytes()).reason, "a lone surrogate in a string", "{bad}");
        }
    }

    #[test]
    fn a_hundred_levels_pass_and_ten_thousand_are_refused() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(nest(100).as_bytes()), Ok(()));
        assert_eq!(refused(nest(101).as_bytes()).reason, "nested deeper than 100 levels");
        assert!(check("{\"a\":".repeat(10_000).as_bytes()).is_err());
        assert!(check("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn a_position_gives_the_field_path() {
        let text = b"{\"a\":{\"b\":[1,{\"c\":\"xx\"}]},\n\"d\":{\"e\":1}}";
        assert_eq!(field_at(text, 1, 4), "a");
        assert_eq!(field_at(text, 1, 12), "a.b[0]");
        assert_eq!(field_at(text, 1, 22), "a.b[1].c");
        assert_eq!(field_at(text, 2, 5), "d");
        assert_eq!(field_at(text, 2, 10), "d.e");
        assert_eq!(field_at(text, 2, 11), "d.e");
    }
}
