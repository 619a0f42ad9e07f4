//! The webhook outbox: filled with the change it tells of, emptied when an event was accepted.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::rows::time_of;
use super::{Error, Ledger};
use crate::wire::Endpoint;

/// A row of the outbox.
#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) attempts: u32,
    pub(crate) due_time: Timestamp,
}

impl Ledger {
    /// The next events to deliver, soonest first, due or not.
    pub(crate) fn pending(&self, limit: i64) -> Result<Vec<Webhook>, Error> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, body, attempts, due_time FROM webhooks ORDER BY due_time, id LIMIT ?1")?;
        let mut rows = statement.query([limit])?;
        let mut pending = Vec::new();
        while let Some(row) = rows.next()? {
            pending.push(Webhook {
                id: row.get(0)?,
                body: row.get(1)?,
                attempts: row.get(2)?,
                due_time: time_of(row.get(3)?)?,
            });
        }
        Ok(pending)
    }

    /// Whether an event still waits for its delivery.
    pub(crate) fn is_pending(&self, event: &str) -> Result<bool, Error> {
        Ok(self.connection.prepare_cached("SELECT 1 FROM webhooks WHERE id = ?1")?.exists([event])?)
    }

    /// One copy of an event was accepted.
    pub(crate) fn delivered(&self, event: &str) -> Result<(), Error> {
        self.connection
            .prepare_cached("UPDATE webhooks SET copies = copies - 1, attempts = 0 WHERE id = ?1")?
            .execute([event])?;
        self.connection.prepare_cached("DELETE FROM webhooks WHERE id = ?1 AND copies <= 0")?.execute([event])?;
        Ok(())
    }

    /// A delivery failed; it is tried again at `due`.
    pub(crate) fn undelivered(&self, event: &str, due: Timestamp) -> Result<(), Error> {
        self.connection
            .prepare_cached("UPDATE webhooks SET attempts = attempts + 1, due_time = ?2 WHERE id = ?1")?
            .execute(params![event, due.as_microsecond()])?;
        Ok(())
    }

    /// The address set at run time.
    pub(crate) fn endpoint(&self) -> Result<Option<Endpoint>, Error> {
        Ok(self
            .connection
            .query_row("SELECT url, secret FROM endpoint", [], |row| {
                Ok(Endpoint { url: row.get(0)?, secret: row.get(1)? })
            })
            .optional()?)
    }

    /// Keeps the address over a restart.
    pub(crate) fn set_endpoint(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.connection.execute(
            "INSERT INTO endpoint (one, url, secret) VALUES (1, ?1, ?2)
             ON CONFLICT (one) DO UPDATE SET url = excluded.url, secret = excluded.secret",
            [&endpoint.url, &endpoint.secret],
        )?;
        Ok(())
    }
}
