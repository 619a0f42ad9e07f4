//! Switches for tests that prove a class of fault is found or survived: a planted bug for the crash matrix, the next release's
//! tables for rolling updates, and a clock that is wrong. Compiled for tests alone.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};

use crate::{Config, Error, Migration, MigrationSet, Tx, params};

static ANSWER_BEFORE_COMMIT: AtomicBool = AtomicBool::new(false);
static SCHEMA: AtomicU8 = AtomicU8::new(0);
static CLOCK_OFF_S: AtomicI64 = AtomicI64::new(0);

/// From now on the system's clock is this many seconds ahead, or behind.
pub fn clock_off(seconds: i64) {
    CLOCK_OFF_S.store(seconds, Ordering::Relaxed);
}

/// What the clock shows for this time of the system.
pub(crate) fn shown(now: Timestamp) -> Timestamp {
    let off = SignedDuration::from_secs(CLOCK_OFF_S.load(Ordering::Relaxed));
    now.checked_add(off).unwrap_or(now)
}

/// From now on every write is acknowledged before it is committed.
pub fn answer_before_commit(on: bool) {
    ANSWER_BEFORE_COMMIT.store(on, Ordering::Relaxed);
}

pub(crate) fn answers_before_commit() -> bool {
    ANSWER_BEFORE_COMMIT.load(Ordering::Relaxed)
}

/// Which release's tables this process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// A column and a table more than today, which it writes in every transaction.
    Expanded,
    /// The same, and the step that takes away what only the releases before it use.
    Contracted,
}

/// From now on stores are opened as by a later release. Every store needs the table `requests` of the log.
pub fn as_later_release(schema: Schema) {
    SCHEMA.store(
        match schema {
            Schema::Expanded => 1,
            Schema::Contracted => 2,
        },
        Ordering::Relaxed,
    );
}

/// The configuration with what the later release has beyond it: migrations of the last set.
pub(crate) fn later(mut config: Config) -> Config {
    let more = usize::from(SCHEMA.load(Ordering::Relaxed));
    let Some(last) = config.migrations.last_mut().filter(|_| more > 0) else { return config };
    let known = last.known();
    if last.migrations.iter().any(|migration| migration.name == EXPANDS) {
        return config;
    }
    let contract =
        format!("-- contract: needs version {}\nALTER TABLE later_writes DROP COLUMN of_earlier_releases", known + 1);
    let steps = [
        Migration::new(known + 1, EXPANDS, EXPAND),
        Migration::new(known + 2, "the later release has taken over", Box::leak(contract.into_boxed_str())),
    ];
    let all: Vec<Migration> = last.migrations.iter().copied().chain(steps.into_iter().take(more)).collect();
    *last = MigrationSet::new(last.name, Box::leak(all.into_boxed_slice()));
    config
}

const EXPANDS: &str = "the later release's column and table";
const EXPAND: &str = "-- expand
ALTER TABLE requests ADD COLUMN release TEXT;
CREATE TABLE later_writes (id TEXT NOT NULL PRIMARY KEY, requests BIGINT NOT NULL, of_earlier_releases TEXT)";

/// What the later release does in each of its transactions: it fills its column and its table.
pub(crate) async fn write_as_later(tx: &mut Tx) -> Result<(), Error> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if SCHEMA.load(Ordering::Relaxed) == 0 || !tx.writable || tx.first_error.is_some() {
        return Ok(());
    }
    let now = tx.now();
    let sql = "UPDATE requests SET release = 'later' WHERE claim_time = $1 AND release IS NULL";
    let claimed = tx.execute(sql, params![now]).await?;
    // A process that is started again may have the number of one before it, but not in the same moment.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = format!("{}-{}-{count}", std::process::id(), now.as_microsecond());
    let insert = "INSERT INTO later_writes (id, requests) VALUES ($1, $2)";
    tx.execute(insert, params![id, claimed]).await.map(drop)
}
