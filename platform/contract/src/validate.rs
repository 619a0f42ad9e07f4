//! Checking a message against the field rules of its contract.

use std::fmt;

/// A message that can be checked against its field rules.
pub trait Validate {
    /// Adds a violation for every rule that is broken in this message or below it; `path` names where the message stands.
    fn validate(&self, path: &mut FieldPath, violations: &mut Vec<Violation>);

    /// Checks the message as a whole request.
    fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        self.validate(&mut FieldPath::default(), &mut violations);
        violations
    }
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, from the request down: `items[3].quantity`.
    pub field: String,
    /// The rule, as the contract names it: `int32.gt`.
    pub rule: &'static str,
    /// What would be right, in words.
    pub message: String,
}

impl Violation {
    /// A rule broken where the checker stands now.
    pub fn at(path: &FieldPath, rule: &'static str, message: impl Into<String>) -> Self {
        Self { field: path.to_string(), rule, message: message.into() }
    }
}

/// Where in a request the checker stands.
///
/// The text of a path is written only when a rule is broken, so that a valid list of thousands of items costs no formatting.
#[derive(Clone, Debug, Default)]
pub struct FieldPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Field(&'static str),
    Index(usize),
    Key(String),
}

impl FieldPath {
    /// Steps into a field for the time of `inside`.
    pub fn field<T>(&mut self, name: &'static str, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Field(name), inside)
    }

    /// Steps into an element of a list for the time of `inside`.
    pub fn index<T>(&mut self, index: usize, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Index(index), inside)
    }

    /// Steps into an entry of a map for the time of `inside`.
    pub fn key<T>(&mut self, key: &dyn fmt::Debug, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Key(format!("{key:?}")), inside)
    }

    fn step<T>(&mut self, step: Step, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.steps.push(step);
        let result = inside(self);
        self.steps.pop();
        result
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.steps.iter().enumerate() {
            match step {
                Step::Field(name) if depth == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_fields_elements_and_entries_and_is_restored_on_the_way_out() {
        let mut path = FieldPath::default();
        let inner = path.field("items", |path| {
            path.index(3, |path| path.field("labels", |path| path.key(&"a", |path| path.to_string())))
        });
        assert_eq!(inner, "items[3].labels[\"a\"]");
        assert_eq!(path.to_string(), "");
    }
}
