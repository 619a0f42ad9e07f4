//! Cursors: how far a consumer has come in each shard of a producer's log.
//!
//! A cursor moves by compare-and-set in the transaction of the effect, so of two copies of a
//! consumer (or one that woke from a long pause) only one commits.

use store::{Tx, params};

use crate::Error;

/// The last position dealt with; 0 before the first.
pub async fn get(tx: &mut Tx, consumer: &str, producer: &str, shard: u32) -> Result<u64, Error> {
    let row = tx
        .query_opt(
            "SELECT position FROM cursors WHERE consumer = $1 AND producer = $2 AND shard = $3",
            params![consumer, producer, i64::from(shard)],
        )
        .await?;
    Ok(row.map(|row| row.get::<u64>("position")).transpose()?.unwrap_or(0))
}

/// Moves the cursor from `old` to `new`; false, and nothing moved, when it does not stand at `old`.
pub async fn advance(
    tx: &mut Tx,
    consumer: &str,
    producer: &str,
    shard: u32,
    old: u64,
    new: u64,
) -> Result<bool, Error> {
    let shard = i64::from(shard);
    let moved = if old == 0 {
        tx.execute(
            "INSERT INTO cursors (consumer, producer, shard, position) VALUES ($1, $2, $3, $4)
             ON CONFLICT (consumer, producer, shard) DO NOTHING",
            params![consumer, producer, shard, new],
        )
        .await?
    } else {
        tx.execute(
            "UPDATE cursors SET position = $5
             WHERE consumer = $1 AND producer = $2 AND shard = $3 AND position = $4",
            params![consumer, producer, shard, old, new],
        )
        .await?
    };
    Ok(moved == 1)
}
