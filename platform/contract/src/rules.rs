//! Field rules as values: the generated `Validate` code holds one static per ruled field and hands it the field.
//!
//! The rules and their names are those of `buf.validate`; only rules that have a field here are accepted by the contract
//! compiler, so that no rule is written and silently not kept. Lengths count characters, not bytes.

mod text;

use std::collections::BTreeSet;
use std::fmt::Display;

pub use text::{Format, Pattern, Text};

use crate::{FieldPath, Violation};

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
        if let Some(bound) =
            self.gt.filter(|bound| !matches!(value.partial_cmp(bound), Some(std::cmp::Ordering::Greater)))
        {
            fail(names.gt, format!("must be greater than {bound}"));
        }
        if let Some(bound) = self.gte.filter(|bound| value.partial_cmp(bound).is_none_or(std::cmp::Ordering::is_lt)) {
            fail(names.gte, format!("must be at least {bound}"));
        }
        if let Some(bound) = self.lt.filter(|bound| !matches!(value.partial_cmp(bound), Some(std::cmp::Ordering::Less)))
        {
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
            let message = if value == 0 {
                "must be specified".to_owned()
            } else {
                format!("must be none of {}", list(self.none_of))
            };
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
    pub const DURATION: Self = Self {
        names: ["duration.gt", "duration.gte", "duration.lt", "duration.lte"],
        gt: None,
        gte: None,
        lt: None,
        lte: None,
    };
    /// Every timestamp.
    pub const TIMESTAMP: Self = Self {
        names: ["timestamp.gt", "timestamp.gte", "timestamp.lt", "timestamp.lte"],
        gt: None,
        gte: None,
        lt: None,
        lte: None,
    };

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
            violations.push(Violation::at(
                path,
                "repeated.unique",
                format!("must not repeat a value, as element {index} does"),
            ));
            return;
        }
    }
}

fn list<T: Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(check: impl FnOnce(&FieldPath, &mut Vec<Violation>)) -> Vec<&'static str> {
        let mut violations = Vec::new();
        check(&FieldPath::default(), &mut violations);
        violations.into_iter().map(|violation| violation.rule).collect()
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
