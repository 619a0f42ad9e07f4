//! Stores damaged by hand, and what an audit must say of them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use integration::closed::file_of;
use integration::command_line::Ended;

/// The file of a service in this data folder, whose process is stopped.
pub(crate) fn open(data: &Path, service: &str) -> Result<Connection> {
    Ok(Connection::open(file_of(data, service)?)?)
}

/// Takes a stream's events from a version on out of a log that ends with them, so that what is left looks whole.
pub(crate) fn cut(log: &Connection, stream: &str, version: i64) -> Result<()> {
    let (shard, first, count): (i64, i64, i64) = log.query_row(
        "SELECT min(shard), min(position), count(*) FROM events WHERE stream = ?1 AND version >= ?2",
        (stream, version),
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    let head: i64 = log.query_row("SELECT head FROM shards WHERE shard = ?1", [shard], |row| row.get(0))?;
    ensure!(head == first + count - 1, "{stream} is not the end of its log: {first} and {count} more, of {head}");
    log.execute("DELETE FROM events WHERE shard = ?1 AND position >= ?2", [shard, first])?;
    log.execute("UPDATE shards SET head = ?2 WHERE shard = ?1", [shard, first - 1])?;
    Ok(())
}

/// The audit must have found these broken and nothing else, and named this.
pub(crate) fn only_broken(audit: &Ended, invariants: &[&str], named: &str) -> Result<()> {
    ensure!(audit.code == Some(1), "the audit saw nothing: {audit:?}");
    let broken: Vec<&str> = audit.output.lines().filter(|line| line.contains(" BROKEN ")).collect();
    let found: BTreeSet<&str> = broken.iter().filter_map(|line| line.split(' ').next()).collect();
    ensure!(found == invariants.iter().copied().collect(), "not {invariants:?} alone: {broken:#?}");
    broken.iter().find(|line| line.contains(named)).with_context(|| format!("{named} is not named: {broken:#?}"))?;
    Ok(())
}
