//! Which releases have a database open: each process holds a shared lock for every set of its migrations and the version it
//! knows, as long as its connection lasts. A migration that older binaries do not survive is not applied beside them.
//!
//! It is a guard and no proof: a process that has lost its connection at that moment is not seen. It comes back within half a
//! second, and meets the tables as they are then.

use std::{fmt::Write as _, time::Duration};

use deadpool_postgres::tokio_postgres;
use tokio_postgres::Client;

use crate::MigrationSet;

/// The statement that takes the locks; nobody takes them otherwise than shared, so it waits for nobody.
pub(super) fn statement(sets: &[MigrationSet]) -> String {
    sets.iter().fold(String::new(), |mut sql, set| {
        let _ = write!(sql, "SELECT pg_advisory_lock_shared({}, {});", class(set.name), set.known());
        sql
    })
}

/// How often it is looked whether older processes are still there, and how far apart: the server needs a moment to notice
/// that one has ended.
const LOOKS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(150);

/// As [`older`], of those who are still there after some looks.
pub(super) async fn older_for_long(
    client: &Client,
    set: &str,
    needs: u32,
) -> Result<Option<(i64, i64)>, tokio_postgres::Error> {
    for _ in 1..LOOKS {
        match older(client, set, needs).await? {
            None => return Ok(None),
            Some(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
    older(client, set, needs).await
}

/// How many processes have the database open that know less than version `needs` of a set, and the least they know.
async fn older(client: &Client, set: &str, needs: u32) -> Result<Option<(i64, i64)>, tokio_postgres::Error> {
    // The number of the set is shown unsigned.
    const HELD: &str = "SELECT count(*), CAST(min(CAST(objid AS BIGINT)) AS BIGINT) FROM pg_locks \
         WHERE locktype = 'advisory' AND objsubid = 2 AND CAST(objid AS BIGINT) < $2 \
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
           AND CAST(classid AS BIGINT) = $1 AND mode = 'ShareLock' AND granted";
    let class = i64::from(class(set).cast_unsigned());
    let row = client.query_one(HELD, &[&class, &i64::from(needs)]).await?;
    let least: Option<i64> = row.try_get(1)?;
    let count: i64 = row.try_get(0)?;
    Ok(least.map(|least| (count, least)))
}

fn class(set: &str) -> i32 {
    crc32fast::hash(set.as_bytes()).cast_signed()
}
