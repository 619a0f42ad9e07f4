//! The table of abuse in the documents names tests that exist, and every test of abuse stands in it

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration::command_line::repository;

/// Files all of whose tests stand in the table.
const WHOLE: [&str; 7] = [
    "abuse_bodies.rs",
    "abuse_logs.rs",
    "abuse_requests.rs",
    "abuse_shop.rs",
    "abuse_tokens.rs",
    "attacks.rs",
    "guards.rs",
];

/// A test: its file, and its name.
type Named = (String, String);

#[test]
fn the_table_of_abuse_and_the_tests_name_each_other() -> Result<()> {
    let text = fs::read_to_string(repository().join("docs/security.md"))?;
    let (_, section) = text.split_once("\n## Abuse\n").context("no section on abuse")?;
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    ensure!(rows.len() > 30, "only {} rows", rows.len());
    let mut told = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [input, answer, tests] = cells[..] else { anyhow::bail!("not three cells: {row}") };
        ensure!(!input.is_empty() && !answer.is_empty(), "{row}");
        let named = names(tests).with_context(|| row.to_owned())?;
        ensure!(!named.is_empty(), "no test: {row}");
        told.extend(named);
    }
    for (file, name) in &told {
        ensure!(tests_in(file)?.contains(name), "{file} has no test {name}");
    }
    for file in WHOLE {
        for name in tests_in(file)? {
            ensure!(told.contains(&(file.to_owned(), name.clone())), "{file}: {name} does not stand in the table");
        }
    }
    Ok(())
}

/// `file.rs`: `one`, `two`; text that introduces another file: `three`.
fn names(cell: &str) -> Result<Vec<Named>> {
    let mut file = None;
    let mut named = vec![];
    for quoted in cell.split('`').skip(1).step_by(2) {
        if quoted.ends_with(".rs") {
            file = Some(quoted.to_owned());
        } else {
            named.push((file.clone().context("a test without its file")?, quoted.to_owned()));
        }
    }
    Ok(named)
}

fn tests_in(file: &str) -> Result<BTreeSet<String>> {
    let path: PathBuf =
        if file.contains('/') { repository().join(file) } else { repository().join("integration/tests").join(file) };
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut tests = BTreeSet::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
            continue;
        }
        let head = lines.by_ref().find(|line| line.contains("fn "));
        let name = head.and_then(|head| head.split_once("fn ")?.1.split_once('('));
        tests.extend(name.map(|(name, _)| name.to_owned()));
    }
    Ok(tests)
}
