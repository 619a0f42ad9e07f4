//! Migrations: ordered texts, forward only, each applied once and never changed afterwards.
//!
//! What was applied is recorded in `migrations(set_name, version, name, checksum, needs)`. `needs` is the least version of the
//! set a binary must know to open the store from then on. The first line of a migration's text says it:
//!
//! * `-- expand`: older binaries go on working (a table, an index, a column that may be empty or has a default);
//! * `-- contract: needs version 2`: only binaries that know version 2 of the set go on working;
//! * neither: only binaries that know this very migration do.
//!
//! Invariants: a store is opened by a binary that knows less of it than was applied if, and only if, nothing of what it does
//! not know needs more than it knows; a recorded text that differs from the binary's is refused.

use crate::{Error, Row};

/// The migrations of one owner, for example of the log or of a service.
#[derive(Debug, Clone, Copy)]
pub struct MigrationSet {
    /// The owner; unique in a store.
    pub name: &'static str,
    /// In order of their versions.
    pub migrations: &'static [Migration],
}

/// One step from one shape of the tables to the next.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// 1, 2, 3, ... within its set.
    pub version: u32,
    /// What it does, in a few words.
    pub name: &'static str,
    /// Statements for both engines; the types are TEXT, BIGINT, BYTEA and BOOLEAN.
    pub sql: &'static str,
}

impl MigrationSet {
    /// A set with this name.
    pub const fn new(name: &'static str, migrations: &'static [Migration]) -> Self {
        Self { name, migrations }
    }

    /// The last version of the set that this binary knows.
    pub(crate) fn known(&self) -> u32 {
        self.migrations.last().map_or(0, |migration| migration.version)
    }
}

impl Migration {
    /// A migration, usually with `include_str!` of its file.
    pub const fn new(version: u32, name: &'static str, sql: &'static str) -> Self {
        Self { version, name, sql }
    }

    pub(crate) fn checksum(&self) -> i64 {
        i64::from(crc32fast::hash(self.sql.as_bytes()))
    }

    /// The least version of the set that a binary must know once this is applied; 0 if any will do.
    fn needs(&self) -> Result<u32, String> {
        let mut lines = self.sql.lines();
        let first = lines.next().unwrap_or_default();
        if let Some(stray) = lines.find(|line| is_mark(line)) {
            return Err(format!("the mark `{stray}` stands elsewhere than in the first line"));
        }
        if !is_mark(first) {
            return Ok(self.version);
        }
        if first == EXPAND {
            return Ok(0);
        }
        let needed = first.strip_prefix(CONTRACT).and_then(|number| number.parse().ok().filter(|_| digits(number)));
        match needed {
            Some(needed) if (1..=self.version).contains(&needed) => Ok(needed),
            Some(needed) => Err(format!("it cannot need version {needed} of its own set, only 1 to {}", self.version)),
            None => Err(format!("`{first}` is no mark: write `{EXPAND}` or `{CONTRACT}K`")),
        }
    }
}

const EXPAND: &str = "-- expand";
const CONTRACT: &str = "-- contract: needs version ";

/// Whether a line was meant to say how older binaries fare, well written or not.
fn is_mark(line: &str) -> bool {
    let comment = line.trim_start().strip_prefix("--").unwrap_or_default().trim_start().to_ascii_lowercase();
    comment.starts_with("expand") || comment.starts_with("contract")
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0')
}

/// The table that remembers them.
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (set_name TEXT NOT NULL, version BIGINT NOT NULL, \
     name TEXT NOT NULL, checksum BIGINT NOT NULL, needs BIGINT, PRIMARY KEY (set_name, version))";
/// The column that a table of an earlier release lacks.
pub(crate) const ADD_NEEDS: &str = "ALTER TABLE migrations ADD COLUMN needs BIGINT";
/// What was applied so far; the columns are [`COLUMNS`].
pub(crate) const APPLIED: &str = "SELECT set_name, version, name, checksum, CAST(coalesce(needs, version) AS BIGINT) AS needs \
     FROM migrations ORDER BY set_name, version";
#[cfg(feature = "fleet")]
pub(crate) const COLUMNS: [&str; 5] = ["set_name", "version", "name", "checksum", "needs"];
/// Remembers one.
pub(crate) const RECORD: &str =
    "INSERT INTO migrations (set_name, version, name, checksum, needs) VALUES ($1, $2, $3, $4, $5)";

/// What opening a store has to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// To apply, in order.
    pub(crate) missing: Vec<Missing>,
    /// Sets of which the store has more than this binary knows, and may have.
    ahead: Vec<Ahead>,
}

/// A migration to apply.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) set: &'static str,
    pub(crate) migration: &'static Migration,
    pub(crate) needs: u32,
}

#[derive(Debug)]
struct Ahead {
    set: String,
    known: u32,
    applied: u32,
    needs: u32,
}

impl Plan {
    /// Says which parts of the store are newer than this binary.
    pub(crate) fn tell(&self, service: &'static str) {
        for Ahead { set, known, applied, needs } in &self.ahead {
            tracing::warn!(
                service,
                set,
                known,
                applied,
                needs,
                "the store is newer than this binary, which may open it: what was added is left alone"
            );
        }
    }
}

/// What is still to apply, in order, or why the store and this binary do not fit.
pub(crate) fn plan(service: &'static str, sets: &[MigrationSet], applied: &[Row]) -> Result<Plan, Error> {
    let refuse = |detail: String| Error::Migration { service, detail };
    for (at, set) in sets.iter().enumerate() {
        if sets.iter().take(at).any(|other| other.name == set.name) {
            return Err(refuse(format!("two sets are called {}", set.name)));
        }
        if !set.migrations.iter().zip(1..).all(|(migration, version)| migration.version == version) {
            return Err(refuse(format!("the versions of set {} are not 1, 2, 3, ...", set.name)));
        }
    }
    let mut ahead: Vec<Ahead> = Vec::new();
    let mut done: Vec<(String, u32)> = Vec::new();
    for row in applied {
        let (name, version, checksum, needs): (String, u32, i64, u32) =
            (row.get("set_name")?, row.get("version")?, row.get("checksum")?, row.get("needs")?);
        let set = sets.iter().find(|set| set.name == name);
        let known = set.map_or(0, MigrationSet::known);
        match set.and_then(|set| set.migrations.iter().find(|migration| migration.version == version)) {
            None if needs > known => return Err(refuse(too_old(&name, version, needs, known))),
            None => match ahead.last_mut().filter(|last| last.set == name) {
                Some(last) => (last.applied, last.needs) = (version, last.needs.max(needs)),
                None => ahead.push(Ahead { set: name.clone(), known, applied: version, needs }),
            },
            Some(migration) if migration.checksum() != checksum => {
                return Err(refuse(format!("the text of {name} version {version} has changed since it was applied")));
            }
            Some(_) => {}
        }
        done.push((name, version));
    }
    let mut missing = Vec::new();
    for set in sets {
        for migration in set.migrations {
            if done.iter().any(|(name, version)| name == set.name && *version == migration.version) {
                continue;
            }
            let needs = migration.needs().map_err(|wrong| {
                refuse(format!("{} version {} ({}): {wrong}", set.name, migration.version, migration.name))
            })?;
            missing.push(Missing { set: set.name, migration, needs });
        }
    }
    Ok(Plan { missing, ahead })
}

fn too_old(set: &str, version: u32, needs: u32, known: u32) -> String {
    format!(
        "the store has version {version} of {set}, which only a binary that knows at least version {needs} of it may open; \
         this one knows version {known} and is older than the store: start the release that migrated it, or a newer one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(sql: &'static str) -> Result<u32, String> {
        Migration::new(3, "third", sql).needs()
    }

    #[test]
    fn the_first_line_says_which_binaries_go_on() {
        assert_eq!(needs("-- expand\nCREATE TABLE t (id TEXT)"), Ok(0));
        assert_eq!(needs("-- contract: needs version 2\nDROP TABLE t"), Ok(2));
        assert_eq!(needs("-- contract: needs version 3\nDROP TABLE t"), Ok(3));
        assert_eq!(needs("-- Why there is a table.\nCREATE TABLE t (id TEXT)"), Ok(3));
        assert_eq!(needs("CREATE TABLE t (id TEXT)"), Ok(3));
    }

    #[test]
    fn a_mark_that_is_not_well_written_is_refused() {
        for sql in [
            "-- expands\nSELECT 1",
            "-- Expand\nSELECT 1",
            "--expand\nSELECT 1",
            "-- expand \nSELECT 1",
            "-- contract\nSELECT 1",
            "-- contract: needs version 0\nSELECT 1",
            "-- contract: needs version 4\nSELECT 1",
            "-- contract: needs version 02\nSELECT 1",
            "-- contract: needs version +2\nSELECT 1",
            "-- contract: needs version two\nSELECT 1",
            "-- Why.\n-- expand\nSELECT 1",
            "-- expand\n-- contract: needs version 2\nSELECT 1",
        ] {
            assert!(needs(sql).is_err(), "{sql}");
        }
    }
}
