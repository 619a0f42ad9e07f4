//! Who passes this log on to a broker, and how far.
//!
//! Any number of copies of a service may run; each shard is relayed by the one that holds its lease. A lease alone
//! proves nothing (its holder may have been asleep), so the position moves only together with the epoch that every new
//! holder raises: one who wakes up late fails that update, and what it published again is a duplicate to everyone.
//!
//! It cannot skip a late commit: the position is the last one that was read from the dense positions of a shard.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use store::{Tx, params};

use crate::Error;

/// The right to relay a shard, from a position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub shard: u32,
    /// Raised by each new holder.
    pub epoch: u64,
    /// The last position that the broker has confirmed.
    pub position: u64,
}

/// Renews the leases of `holder` for `length` from now, takes those that nobody holds any more, and says which it has.
pub async fn hold(tx: &mut Tx, holder: &str, shards: u32, length: Duration) -> Result<Vec<Lease>, Error> {
    let now = tx.now();
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    let hold_end = now.checked_add(length).unwrap_or(Timestamp::MAX);
    let known = tx.query_opt("SELECT COUNT(*) AS known FROM relays", params![]).await?;
    let known = known.map(|row| row.get::<u64>("known")).transpose()?.unwrap_or(0);
    if known < u64::from(shards) {
        for shard in 0..shards {
            tx.execute(
                "INSERT INTO relays (shard, position, epoch, holder, hold_end) VALUES ($1, 0, 0, '', 0)
                 ON CONFLICT (shard) DO NOTHING",
                params![i64::from(shard)],
            )
            .await?;
        }
    }
    tx.execute("UPDATE relays SET hold_end = $2 WHERE holder = $1", params![holder, hold_end]).await?;
    tx.execute(
        "UPDATE relays SET epoch = epoch + 1, holder = $1, hold_end = $2 WHERE holder <> $1 AND hold_end <= $3",
        params![holder, hold_end, now],
    )
    .await?;
    let held =
        tx.query("SELECT shard, epoch, position FROM relays WHERE holder = $1 ORDER BY shard", params![holder]).await?;
    held.iter()
        .map(|row| {
            let (shard, epoch, position) = (row.get::<u64>("shard")?, row.get("epoch")?, row.get("position")?);
            Ok(Lease { shard: u32::try_from(shard).unwrap_or(u32::MAX), epoch, position })
        })
        .collect()
}

/// Moves the position of a lease's shard to `position`; false, and nothing moved, when the lease is not the newest or does
/// not stand where the shard does.
pub async fn advance(tx: &mut Tx, lease: Lease, position: u64) -> Result<bool, Error> {
    let Lease { shard, epoch, position: old } = lease;
    let moved = tx
        .execute(
            "UPDATE relays SET position = $4 WHERE shard = $1 AND epoch = $2 AND position = $3",
            params![i64::from(shard), epoch, old, position],
        )
        .await?;
    Ok(moved == 1)
}

/// Gives up every lease of `holder`, so that another copy need not wait for their end.
pub async fn release(tx: &mut Tx, holder: &str) -> Result<(), Error> {
    tx.execute("UPDATE relays SET hold_end = 0 WHERE holder = $1", params![holder]).await?;
    Ok(())
}

/// How far each shard has been relayed, if anybody relays this log.
pub async fn positions(tx: &mut Tx) -> Result<Vec<(u32, u64)>, Error> {
    let rows = tx.query("SELECT shard, position FROM relays ORDER BY shard", params![]).await?;
    let position = |row: &store::Row| {
        Ok((u32::try_from(row.get::<u64>("shard")?).unwrap_or(u32::MAX), row.get::<u64>("position")?))
    };
    rows.iter().map(position).collect()
}
