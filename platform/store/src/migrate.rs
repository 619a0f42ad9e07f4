//! Migrations: ordered texts, forward only, each applied once and never changed afterwards.
//!
//! What was applied is recorded in `migrations(set_name, version, name, checksum)`. A store that knows
//! a migration this binary does not is newer than the binary and is refused, as is one whose recorded
//! text differs.

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
}

impl Migration {
    /// A migration, usually with `include_str!` of its file.
    pub const fn new(version: u32, name: &'static str, sql: &'static str) -> Self {
        Self { version, name, sql }
    }

    pub(crate) fn checksum(&self) -> i64 {
        i64::from(crc32fast::hash(self.sql.as_bytes()))
    }
}

/// The table that remembers them.
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (set_name TEXT NOT NULL, version BIGINT NOT NULL, \
     name TEXT NOT NULL, checksum BIGINT NOT NULL, PRIMARY KEY (set_name, version))";
/// What was applied so far.
pub(crate) const APPLIED: &str = "SELECT set_name, version, name, checksum FROM migrations ORDER BY set_name, version";
/// Remembers one.
pub(crate) const RECORD: &str = "INSERT INTO migrations (set_name, version, name, checksum) VALUES ($1, $2, $3, $4)";

/// What is still to apply, in order, or why the store and this binary do not fit.
pub(crate) fn missing(
    service: &'static str,
    sets: &[MigrationSet],
    applied: &[Row],
) -> Result<Vec<(&'static str, &'static Migration)>, Error> {
    let refuse = |detail: String| Error::Migration { service, detail };
    for (at, set) in sets.iter().enumerate() {
        if sets.iter().take(at).any(|other| other.name == set.name) {
            return Err(refuse(format!("two sets are called {}", set.name)));
        }
        if !set.migrations.iter().zip(1..).all(|(migration, version)| migration.version == version) {
            return Err(refuse(format!("the versions of set {} are not 1, 2, 3, ...", set.name)));
        }
    }
    for row in applied {
        let (name, version, checksum): (String, u32, i64) =
            (row.get("set_name")?, row.get("version")?, row.get("checksum")?);
        let known = sets
            .iter()
            .find(|set| set.name == name)
            .and_then(|set| set.migrations.iter().find(|migration| migration.version == version));
        match known {
            None => {
                return Err(refuse(format!(
                    "the store has version {version} of {name}, which this binary does not know: it is older than the store"
                )));
            }
            Some(migration) if migration.checksum() != checksum => {
                return Err(refuse(format!("the text of {name} version {version} has changed since it was applied")));
            }
            Some(_) => {}
        }
    }
    let mut missing = Vec::new();
    for set in sets {
        for migration in set.migrations {
            let done = applied.iter().any(|row| {
                row.get::<String>("set_name").is_ok_and(|name| name == set.name)
                    && row.get::<u32>("version").is_ok_and(|version| version == migration.version)
            });
            if !done {
                missing.push((set.name, migration));
            }
        }
    }
    Ok(missing)
}
