//! Looks up what `docs/ARCHITECTURE.md` names: every word in backticks must be a file, a crate or an
//! identifier that exists, so that the document cannot describe what is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::paths;
use crate::workspace::{Workspace, files};

const DOCUMENT: &str = "docs/ARCHITECTURE.md";

/// What the document names and nobody can find.
pub(crate) fn unknown(workspace: &Workspace) -> Result<Vec<String>> {
    let Ok(document) = fs::read_to_string(paths::root().join(DOCUMENT)) else {
        return Ok(vec![format!("{DOCUMENT} is missing")]);
    };
    let known = known_words(workspace)?;
    let mut problems = Vec::new();
    for (line, name) in backticked(&document) {
        if !exists(&name, &known) {
            problems.push(format!("{DOCUMENT}:{line}: nothing is called `{name}`"));
        }
    }
    Ok(problems)
}

/// The identifiers in a piece of text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn known_words(workspace: &Workspace) -> Result<BTreeSet<String>> {
    let mut known: BTreeSet<String> = workspace.members().iter().map(|package| package.name.to_string()).collect();
    let root = paths::root();
    for source in files(root, &["rs", "proto", "toml", "sql", "yaml"])? {
        known.extend(words(&source.text).map(str::to_owned));
    }
    Ok(known)
}

/// Each name in single backticks with its line, fenced blocks left out.
fn backticked(document: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in document.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|name| (index + 1, name.to_owned())));
        }
    }
    found
}

/// A path exists, or every identifier of the name does; a command line is judged by its words.
fn exists(name: &str, known: &BTreeSet<String>) -> bool {
    let path = name.trim_end_matches('/');
    if !path.contains(' ') && paths::root().join(path).exists() {
        return true;
    }
    let looks_like_file = Path::new(path)
        .extension()
        .is_some_and(|end| ["rs", "proto", "toml", "sql", "md", "yaml"].iter().any(|known| end == *known));
    if looks_like_file && !path.contains(['*', '{', ' ']) {
        return false;
    }
    words(name).all(|word| known.contains(word) || word.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_fences_are_not_looked_up() {
        let found = backticked("see `a` and `b::c`\n```\n`not this`\n```\n`d`");
        assert_eq!(found, [(1, "a".to_owned()), (1, "b::c".to_owned()), (5, "d".to_owned())]);
    }

    #[test]
    fn a_file_that_is_gone_is_unknown() {
        let known = BTreeSet::from(["src".to_owned(), "gone".to_owned(), "rs".to_owned()]);
        assert!(!exists("src/gone.rs", &known));
        assert!(exists("xtask/src/names.rs", &known));
        assert!(exists("src::gone", &known));
        assert!(!exists("src::never", &known));
    }
}
