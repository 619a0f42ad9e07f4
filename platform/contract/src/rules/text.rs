//! Rules of strings.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use regex::Regex;

use crate::{FieldPath, Violation};

/// Rules of a string.
#[derive(Debug)]
pub struct Text {
    /// `const`
    pub equal: Option<&'static str>,
    /// `len`
    pub len: Option<u64>,
    /// `min_len`
    pub min_len: Option<u64>,
    /// `max_len`
    pub max_len: Option<u64>,
    /// `max_bytes`
    pub max_bytes: Option<u64>,
    /// `pattern`
    pub pattern: Option<&'static Pattern>,
    /// `prefix`
    pub prefix: Option<&'static str>,
    /// `suffix`
    pub suffix: Option<&'static str>,
    /// `contains`
    pub contains: Option<&'static str>,
    /// `not_contains`
    pub not_contains: Option<&'static str>,
    /// `in`
    pub one_of: &'static [&'static str],
    /// `not_in`
    pub none_of: &'static [&'static str],
    /// `email`, `uuid`, `uri`, `hostname`
    pub format: Option<Format>,
}

/// A well-known form of string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An e-mail address as HTML forms accept it.
    Email,
    /// A UUID in its hyphenated form.
    Uuid,
    /// An absolute URI.
    Uri,
    /// A host name.
    Hostname,
}

impl Text {
    /// Every string.
    pub const ANY: Self = Self {
        equal: None,
        len: None,
        min_len: None,
        max_len: None,
        max_bytes: None,
        pattern: None,
        prefix: None,
        suffix: None,
        contains: None,
        not_contains: None,
        one_of: &[],
        none_of: &[],
        format: None,
    };

    /// Adds what is wrong with the string.
    pub fn check(&self, value: &str, path: &FieldPath, violations: &mut Vec<Violation>) {
        let mut fail = |rule, message: String| violations.push(Violation::at(path, rule, message));
        if self.equal.is_some_and(|equal| equal != value) {
            fail("string.const", format!("must be {:?}", self.equal.unwrap_or_default()));
        }
        if self.len.is_some() || self.min_len.is_some() || self.max_len.is_some() {
            let len = value.chars().count() as u64;
            match (self.len, self.min_len, self.max_len) {
                (Some(want), _, _) if len != want => {
                    fail("string.len", format!("must have {}, not {len}", characters(want)))
                }
                (_, Some(min), _) if len < min => {
                    fail("string.min_len", format!("must have at least {}", characters(min)))
                }
                (_, _, Some(max)) if len > max => {
                    fail("string.max_len", format!("must have at most {}, not {len}", characters(max)))
                }
                _ => {}
            }
        }
        if let Some(max) = self.max_bytes.filter(|max| value.len() as u64 > *max) {
            fail("string.max_bytes", format!("must have at most {max} bytes"));
        }
        if let Some(pattern) = self.pattern.filter(|pattern| !pattern.matches(value)) {
            fail("string.pattern", format!("must match {}", pattern.text));
        }
        if let Some(prefix) = self.prefix.filter(|prefix| !value.starts_with(prefix)) {
            fail("string.prefix", format!("must start with {prefix:?}"));
        }
        if let Some(suffix) = self.suffix.filter(|suffix| !value.ends_with(suffix)) {
            fail("string.suffix", format!("must end with {suffix:?}"));
        }
        if let Some(part) = self.contains.filter(|part| !value.contains(part)) {
            fail("string.contains", format!("must contain {part:?}"));
        }
        if let Some(part) = self.not_contains.filter(|part| value.contains(part)) {
            fail("string.not_contains", format!("must not contain {part:?}"));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&value) {
            fail("string.in", format!("must be one of {}", self.one_of.join(", ")));
        }
        if self.none_of.contains(&value) {
            fail("string.not_in", format!("must be none of {}", self.none_of.join(", ")));
        }
        match self.format {
            Some(Format::Email) if !is_email(value) => fail("string.email", "must be an e-mail address".to_owned()),
            Some(Format::Uuid) if !is_uuid(value) => fail("string.uuid", "must be a UUID".to_owned()),
            Some(Format::Uri) if !is_uri(value) => fail("string.uri", "must be an absolute URI".to_owned()),
            Some(Format::Hostname) if !is_hostname(value) => fail("string.hostname", "must be a host name".to_owned()),
            Some(Format::Email | Format::Uuid | Format::Uri | Format::Hostname) | None => {}
        }
    }
}

/// A regular expression, compiled on first use. The contract compiler has seen that it is one.
#[derive(Debug)]
pub struct Pattern {
    text: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// The expression as written.
    pub const fn new(text: &'static str) -> Self {
        Self { text, compiled: OnceLock::new() }
    }

    fn matches(&self, value: &str) -> bool {
        // An expression that does not compile matches nothing: a broken rule must not let requests through.
        self.compiled.get_or_init(|| shared(self.text)).as_ref().is_some_and(|regex| regex.is_match(value))
    }
}

/// The compiled expression, one for all fields that have the same: names of resources alone stand in hundreds.
fn shared(text: &'static str) -> Option<Regex> {
    static COMPILED: Mutex<BTreeMap<&'static str, Option<Regex>>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(text).or_insert_with(|| Regex::new(text).ok()).clone()
}

fn characters(count: u64) -> String {
    if count == 1 { "1 character".to_owned() } else { format!("{count} characters") }
}

/// The grammar of `<input type=email>` in the HTML standard, which refuses what no mail server accepts anyway.
fn is_email(value: &str) -> bool {
    let Some((local, domain)) = value.rsplit_once('@') else {
        return false;
    };
    let local_ok =
        !local.is_empty() && local.bytes().all(|b| b.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&b));
    local_ok && value.len() <= 254 && is_hostname(domain)
}

fn is_hostname(value: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    value.len() <= 253 && value.split('.').all(label)
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(index, b)| match index {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

fn is_uri(value: &str) -> bool {
    let Some((scheme, rest)) = value.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && value.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rules: &Text, value: &str) -> Vec<&'static str> {
        let mut violations = Vec::new();
        rules.check(value, &FieldPath::default(), &mut violations);
        violations.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn lengths_count_characters_and_not_bytes() {
        let rules = Text { min_len: Some(2), max_len: Some(3), ..Text::ANY };
        assert!(text(&rules, "äöü").is_empty());
        assert_eq!(text(&rules, "ä"), ["string.min_len"]);
        assert_eq!(text(&rules, "äöüß"), ["string.max_len"]);
    }

    #[test]
    fn formats_accept_and_refuse() {
        let format = |format, value| text(&Text { format: Some(format), ..Text::ANY }, value).is_empty();
        assert!(format(Format::Email, "a.b+c@example.com"));
        for bad in ["", "a", "@b", "a@", "a b@c", "a@b c", "a@-b", "a@b@c@"] {
            assert!(!format(Format::Email, bad), "{bad}");
        }
        assert!(format(Format::Uuid, "0190f5b0-7b1a-7c3e-8a55-0123456789aB"));
        assert!(!format(Format::Uuid, "0190f5b07b1a7c3e8a550123456789ab"));
        assert!(format(Format::Uri, "https://example.com/a?b=c"));
        assert!(!format(Format::Uri, "/a/b"));
        assert!(format(Format::Hostname, "a.example"));
        assert!(!format(Format::Hostname, "a..b"));
    }

    #[test]
    fn a_pattern_is_searched_for_and_a_broken_one_lets_nothing_through() {
        static GOOD: Pattern = Pattern::new("^carts/[a-z0-9-]+$");
        static BROKEN: Pattern = Pattern::new("(");
        assert!(text(&Text { pattern: Some(&GOOD), ..Text::ANY }, "carts/1").is_empty());
        assert_eq!(text(&Text { pattern: Some(&GOOD), ..Text::ANY }, "carts/"), ["string.pattern"]);
        assert_eq!(text(&Text { pattern: Some(&BROKEN), ..Text::ANY }, "("), ["string.pattern"]);
    }
}
