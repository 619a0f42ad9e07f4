//! Field rules as values: the generated `Validate` code holds one static per ruled field and hands it the field.
//!
//! The rules and their names are those of `buf.validate`; only rules that have a field here are accepted by the contract
//! compiler, so that no rule is written and silently not kept. Lengths count characters, not bytes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::OnceLock;

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
                (Some(want), _, _) if len != want => fail("string.len", format!("must have {}, not {len}", characters(want))),
                (_, Some(min), _) if len < min => fail("string.min_len", format!("must have at least {}", characters(min))),
                (_, _, Some(max)) if len > max => fail("string.max_len", format!("must have at most {}, not {len}", characters(max))),
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
        self.compiled.get_or_init(|| Regex::new(self.text).ok()).as_ref().is_some_and(|regex| regex.is_match(value))
    }
}

/// Rules of a number.
#[derive(Debug)]
pub struct Number<T: 'static> {
    /// `const`
    pub equal: Option<T>,
    /// `gt`
    pub gt: Option<T>,
    /// `gte`
    pub gte: Option<T>,
    /// `lt`
    pub lt: Option<T>,
    /// `lte`
    pub lte: Option<T>,
    /// `in`
    pub one_of: &'static [T],
    /// `not_in`
    pub none_of: &'static [T],
}

impl<T: Numeric> Number<T> {
    /// Every number.
    pub const ANY: Self = Self { equal: None, gt: None, gte: None, lt: None, lte: None, one_of: &[], none_of: &[] };

    /// Adds what is wrong with the number.
    pub fn check(&self, value: T, path: &FieldPath, violations: &mut Vec<Violation>) {
        let names = T::RULES;
        let mut fail = |rule, message: String| violations.push(Violation::at(path, rule, message));
        if let Some(equal) = self.equal.filter(|equal| value != *equal) {
            fail(names.equal, format!("must be {equal}"));
        }
        // Written as "not greater" and so on, because a NaN is neither greater nor smaller and must fail.
        if let Some(bound) = self.gt.filter(|bound| !matches!(value.partial_cmp(bound), Some(std::cmp::Ordering::Greater))) {
            fail(names.gt, format!("must be greater than {bound}"));
        }
        if let Some(bound) = self.gte.filter(|bound| value.partial_cmp(bound).is_none_or(std::cmp::Ordering::is_lt)) {
            fail(names.gte, format!("must be at least {bound}"));
        }
        if let Some(bound) = self.lt.filter(|bound| !matches!(value.partial_cmp(bound), Some(std::cmp::Ordering::Less))) {
            fail(names.lt, format!("must be less than {bound}"));
        }
        if let Some(bound) = self.lte.filter(|bound| value.partial_cmp(bound).is_none_or(std::cmp::Ordering::is_gt)) {
            fail(names.lte, format!("must be at most {bound}"));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&value) {
            fail(names.one_of, format!("must be one of {}", list(self.one_of)));
        }
        if self.none_of.contains(&value) {
            fail(names.none_of, format!("must be none of {}", list(self.none_of)));
        }
    }
}

/// A number that rules can be written for.
pub trait Numeric: Copy + PartialOrd + Display + 'static {
    /// The names of its rules.
    const RULES: NumericRules;
}

/// The names of the rules of one kind of number.
#[derive(Clone, Copy, Debug)]
pub struct NumericRules {
    equal: &'static str,
    gt: &'static str,
    gte: &'static str,
    lt: &'static str,
    lte: &'static str,
    one_of: &'static str,
    none_of: &'static str,
}

macro_rules! numeric {
    ($($rust:ty => $kind:literal),*) => {$(
        impl Numeric for $rust {
            const RULES: NumericRules = NumericRules {
                equal: concat!($kind, ".const"),
                gt: concat!($kind, ".gt"),
                gte: concat!($kind, ".gte"),
                lt: concat!($kind, ".lt"),
                lte: concat!($kind, ".lte"),
                one_of: concat!($kind, ".in"),
                none_of: concat!($kind, ".not_in"),
            };
        }
    )*};
}

numeric!(i32 => "int32", i64 => "int64", u32 => "uint32", u64 => "uint64", f32 => "float", f64 => "double");

/// Rules of an enum.
#[derive(Debug)]
pub struct Choice {
    /// `const`
    pub equal: Option<i32>,
    /// `defined_only`: says which numbers have a name.
    pub defined: Option<fn(i32) -> bool>,
    /// `in`
    pub one_of: &'static [i32],
    /// `not_in`
    pub none_of: &'static [i32],
}

impl Choice {
    /// Every number.
    pub const ANY: Self = Self { equal: None, defined: None, one_of: &[], none_of: &[] };

    /// Adds what is wrong with the value.
    pub fn check(&self, value: i32, path: &FieldPath, violations: &mut Vec<Violation>) {
        let mut fail = |rule, message: String| violations.push(Violation::at(path, rule, message));
        if let Some(equal) = self.equal.filter(|equal| *equal != value) {
            fail("enum.const", format!("must be {equal}"));
        }
        if self.defined.is_some_and(|defined| !defined(value)) {
            fail("enum.defined_only", format!("{value} is none of the defined values"));
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&value) {
            fail("enum.in", format!("must be one of {}", list(self.one_of)));
        }
        if self.none_of.contains(&value) {
            // The usual case is "anything but UNSPECIFIED", which reads better so.
            let message = if value == 0 { "must be specified".to_owned() } else { format!("must be none of {}", list(self.none_of)) };
            fail("enum.not_in", message);
        }
    }
}

/// Rules of a bool.
#[derive(Debug)]
pub struct Flag {
    /// `const`
    pub equal: bool,
}

impl Flag {
    /// Adds what is wrong with the value.
    pub fn check(&self, value: bool, path: &FieldPath, violations: &mut Vec<Violation>) {
        if self.equal != value {
            violations.push(Violation::at(path, "bool.const", format!("must be {}", self.equal)));
        }
    }
}

/// How many bytes, elements or entries a field may have.
#[derive(Debug)]
pub struct Count {
    /// What is counted.
    pub of: Counted,
    /// Exactly so many.
    pub exactly: Option<u64>,
    /// At least so many.
    pub min: Option<u64>,
    /// At most so many.
    pub max: Option<u64>,
}

/// What a [`Count`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Bytes of a bytes field.
    Bytes,
    /// Elements of a list.
    Items,
    /// Entries of a map.
    Pairs,
}

impl Count {
    /// Adds what is wrong with the count.
    pub fn check(&self, count: usize, path: &FieldPath, violations: &mut Vec<Violation>) {
        let count = count as u64;
        let (noun, exactly, min, max) = match self.of {
            Counted::Bytes => ("byte", "bytes.len", "bytes.min_len", "bytes.max_len"),
            Counted::Items => ("element", "repeated.len", "repeated.min_items", "repeated.max_items"),
            Counted::Pairs => ("entry", "map.len", "map.min_pairs", "map.max_pairs"),
        };
        let mut fail = |rule, message: String| violations.push(Violation::at(path, rule, message));
        if let Some(want) = self.exactly.filter(|want| count != *want) {
            fail(exactly, format!("must have {want} of {noun}, not {count}"));
        }
        if let Some(bound) = self.min.filter(|bound| count < *bound) {
            fail(min, format!("must have at least {bound} of {noun}, not {count}"));
        }
        if let Some(bound) = self.max.filter(|bound| count > *bound) {
            fail(max, format!("must have at most {bound} of {noun}, not {count}"));
        }
    }
}

/// Bounds of a `Duration` or a `Timestamp`, each as seconds and nanos.
#[derive(Debug)]
pub struct Span {
    /// The names of gt, gte, lt, lte for this type.
    pub names: [&'static str; 4],
    /// `gt`
    pub gt: Option<(i64, i32)>,
    /// `gte`
    pub gte: Option<(i64, i32)>,
    /// `lt`
    pub lt: Option<(i64, i32)>,
    /// `lte`
    pub lte: Option<(i64, i32)>,
}

impl Span {
    /// Every duration.
    pub const DURATION: Self = Self { names: ["duration.gt", "duration.gte", "duration.lt", "duration.lte"], gt: None, gte: None, lt: None, lte: None };
    /// Every timestamp.
    pub const TIMESTAMP: Self =
        Self { names: ["timestamp.gt", "timestamp.gte", "timestamp.lt", "timestamp.lte"], gt: None, gte: None, lt: None, lte: None };

    /// Adds what is wrong with the value.
    pub fn check(&self, value: (i64, i32), path: &FieldPath, violations: &mut Vec<Violation>) {
        let bounds = [
            (self.gt, "more than", value > self.gt.unwrap_or(value)),
            (self.gte, "at least", value >= self.gte.unwrap_or(value)),
            (self.lt, "less than", value < self.lt.unwrap_or(value)),
            (self.lte, "at most", value <= self.lte.unwrap_or(value)),
        ];
        for ((bound, words, holds), rule) in bounds.into_iter().zip(self.names) {
            if let Some((seconds, nanos)) = bound
                && !holds
            {
                let seconds = seconds as f64 + f64::from(nanos) / 1e9;
                violations.push(Violation::at(path, rule, format!("must be {words} {seconds} s")));
            }
        }
    }
}

/// Adds that a required field is missing.
pub fn missing(path: &FieldPath, violations: &mut Vec<Violation>) {
    violations.push(Violation::at(path, "required", "is required"));
}

/// Adds that elements of a list are equal, if they are.
pub fn unique<T: Ord>(values: impl Iterator<Item = T>, path: &FieldPath, violations: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    for (index, value) in values.enumerate() {
        if !seen.insert(value) {
            violations.push(Violation::at(path, "repeated.unique", format!("must not repeat a value, as element {index} does")));
            return;
        }
    }
}

fn list<T: Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn characters(count: u64) -> String {
    if count == 1 { "1 character".to_owned() } else { format!("{count} characters") }
}

/// The grammar of `<input type=email>` in the HTML standard, which refuses what no mail server accepts anyway.
fn is_email(value: &str) -> bool {
    let Some((local, domain)) = value.rsplit_once('@') else { return false };
    let local_ok = !local.is_empty() && local.bytes().all(|b| b.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&b));
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
    let Some((scheme, rest)) = value.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && value.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(check: impl FnOnce(&FieldPath, &mut Vec<Violation>)) -> Vec<&'static str> {
        let mut violations = Vec::new();
        check(&FieldPath::default(), &mut violations);
        violations.into_iter().map(|violation| violation.rule).collect()
    }

    fn text(rules: &Text, value: &str) -> Vec<&'static str> {
        broken(|path, violations| rules.check(value, path, violations))
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

    #[test]
    fn numbers_keep_their_bounds_and_a_nan_keeps_none() {
        let rules = Number { gt: Some(0), lte: Some(10), ..Number::ANY };
        let check = |value| broken(|path, violations| rules.check(value, path, violations));
        assert!(check(1).is_empty() && check(10).is_empty());
        assert_eq!(check(0), ["int32.gt"]);
        assert_eq!(check(11), ["int32.lte"]);
        let float = Number { gte: Some(0.0), lt: Some(1.0), ..Number::ANY };
        assert_eq!(broken(|path, violations| float.check(f64::NAN, path, violations)), ["double.gte", "double.lt"]);
    }

    #[test]
    fn an_enum_refuses_unknown_and_excluded_values() {
        let rules = Choice { defined: Some(|value| value < 3), none_of: &[0], ..Choice::ANY };
        let check = |value| broken(|path, violations| rules.check(value, path, violations));
        assert!(check(1).is_empty());
        assert_eq!(check(0), ["enum.not_in"]);
        assert_eq!(check(7), ["enum.defined_only"]);
    }

    #[test]
    fn repeated_values_and_counts_are_seen() {
        assert_eq!(broken(|path, violations| unique(["a", "b", "a"].iter(), path, violations)), ["repeated.unique"]);
        let rules = Count { of: Counted::Items, exactly: None, min: Some(1), max: Some(2) };
        assert_eq!(broken(|path, violations| rules.check(0, path, violations)), ["repeated.min_items"]);
        assert_eq!(broken(|path, violations| rules.check(3, path, violations)), ["repeated.max_items"]);
    }

    #[test]
    fn a_duration_keeps_its_bounds() {
        let rules = Span { gte: Some((0, 0)), lte: Some((30, 0)), ..Span::DURATION };
        let check = |value| broken(|path, violations| rules.check(value, path, violations));
        assert!(check((30, 0)).is_empty());
        assert_eq!(check((30, 1)), ["duration.lte"]);
        assert_eq!(check((-1, 0)), ["duration.gte"]);
    }
}
