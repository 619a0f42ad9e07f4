//! What is wrong with a contract tree, said so that its author finds the line.

use std::fmt;

/// Everything that is wrong with a contract tree.
#[derive(Debug, thiserror::Error)]
pub struct Errors(Vec<Problem>);

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the root of the tree.
    pub file: String,
    /// The method, field or message by full name; empty for the file as a whole.
    pub subject: String,
    /// What is wrong.
    pub text: String,
}

impl Problem {
    pub(crate) fn of_file(file: impl Into<String>, text: impl Into<String>) -> Self {
        Self { file: file.into(), subject: String::new(), text: text.into() }
    }
}

impl Errors {
    /// The faults, in the order of files.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    pub(crate) fn unless_empty(mut problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by(|a, b| (&a.file, &a.subject, &a.text).cmp(&(&b.file, &b.subject, &b.text)));
        problems.dedup();
        Err(Self(problems))
    }
}

impl From<Problem> for Errors {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "the contract has {count} {}", if count == 1 { "fault" } else { "faults" })?;
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, subject, text } = self;
        if subject.is_empty() { write!(f, "{file}: {text}") } else { write!(f, "{file}: {subject}: {text}") }
    }
}
