//! What the ledger shows; each query sees what is committed.

use super::rows::{Lookup, authorization_of, kind_of, status_of, time_of};
use super::{Error, Ledger};
use crate::wire::{Authorization, Counts, Entry, Found, History, Kind, Operation, Status, Summary, Sums};

impl Ledger {
    /// One authorisation with its history.
    pub(crate) fn find(&self, id: &str) -> Result<Option<History>, Error> {
        self.authorization_where(Lookup::Id, id)?.map(|(authorization, _)| self.history(authorization)).transpose()
    }

    /// The authorisation that a challenge belongs to.
    pub(crate) fn find_by_challenge(&self, challenge: &str) -> Result<Option<Authorization>, Error> {
        Ok(self.authorization_where(Lookup::Challenge, challenge)?.map(|(authorization, _)| authorization))
    }

    /// Every authorisation made for a reference, oldest first.
    pub(crate) fn find_by_reference(&self, reference: &str) -> Result<Found, Error> {
        let mut statement = self.connection.prepare_cached(Lookup::Reference.sql())?;
        let mut rows = statement.query([reference])?;
        let mut authorizations = Vec::new();
        while let Some(row) = rows.next()? {
            let (authorization, _) = authorization_of(row)?;
            authorizations.push(self.history(authorization)?);
        }
        Ok(Found { authorizations })
    }

    /// The entries after a position, in order, at most `limit`.
    pub(crate) fn entries(&self, after: i64, limit: i64) -> Result<Vec<Entry>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT e.seq, e.kind, e.id, e.authorization, e.capture, e.reference, a.reference AS authorization_reference, e.idempotency_key,
                    e.amount, e.currency, e.status, a.status AS authorization_status, a.token, e.create_time
             FROM entries e JOIN authorizations a ON a.id = e.authorization WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2",
        )?;
        let mut rows = statement.query([after, limit])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(Entry {
                seq: row.get("seq")?,
                kind: kind_of(row)?,
                id: row.get("id")?,
                authorization: row.get("authorization")?,
                capture: row.get("capture")?,
                reference: row.get("reference")?,
                authorization_reference: row.get("authorization_reference")?,
                idempotency_key: row.get("idempotency_key")?,
                amount: row.get("amount")?,
                currency: row.get("currency")?,
                status: row.get("status")?,
                authorization_status: status_of(row.get("authorization_status")?)?,
                token: row.get("token")?,
                create_time: time_of(row.get("create_time")?)?,
            });
        }
        Ok(entries)
    }

    /// Counts and sums over everything.
    pub(crate) fn summary(&self) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut statement = self.connection.prepare_cached("SELECT kind, count(*) FROM entries GROUP BY kind")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let count: i64 = row.get(1)?;
            summary.entries += count;
            match kind_of(row)? {
                Kind::Authorization | Kind::Challenge => {}
                Kind::Capture => summary.captures = count,
                Kind::Void => summary.voids = count,
                Kind::Refund => summary.refunds = count,
            }
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT currency, status, count(*), sum(amount), sum(captured), sum(refunded) FROM authorizations GROUP BY currency, status",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (count, amount): (i64, i64) = (row.get(2)?, row.get(3)?);
            let sums: &mut Sums = summary.currencies.entry(row.get(0)?).or_default();
            sums.captured_amount += row.get::<_, i64>(4)?;
            sums.refunded_amount += row.get::<_, i64>(5)?;
            let counts: &mut Counts = &mut summary.authorizations;
            counts.total += count;
            match status_of(row.get(1)?)? {
                Status::RequiresAction => counts.requires_action += count,
                Status::Declined => counts.declined += count,
                Status::Authorized => {
                    counts.authorized += count;
                    sums.authorized_amount += amount;
                }
                Status::Voided => {
                    counts.voided += count;
                    sums.voided_amount += amount;
                }
            }
        }
        summary.references_authorized_twice = self.connection.query_row(
            "SELECT count(*) FROM (SELECT 1 FROM authorizations WHERE status = 'authorized' GROUP BY reference HAVING count(*) > 1)",
            [],
            |row| row.get(0),
        )?;
        summary.webhooks_pending = self.connection.query_row("SELECT count(*) FROM webhooks", [], |row| row.get(0))?;
        Ok(summary)
    }

    fn history(&self, authorization: Authorization) -> Result<History, Error> {
        let mut history = History { authorization, captures: Vec::new(), voids: Vec::new(), refunds: Vec::new() };
        let mut statement = self.connection.prepare_cached(
            "SELECT kind, id, authorization, capture, reference, amount, currency, status, create_time FROM entries WHERE authorization = ?1 ORDER BY seq",
        )?;
        let mut rows = statement.query([&history.authorization.id])?;
        while let Some(row) = rows.next()? {
            let operation = Operation {
                id: row.get("id")?,
                object: kind_of(row)?,
                authorization: row.get("authorization")?,
                capture: row.get("capture")?,
                reference: row.get("reference")?,
                status: row.get("status")?,
                amount: row.get("amount")?,
                currency: row.get("currency")?,
                create_time: time_of(row.get("create_time")?)?,
            };
            match operation.object {
                Kind::Authorization | Kind::Challenge => {}
                Kind::Capture => history.captures.push(operation),
                Kind::Void => history.voids.push(operation),
                Kind::Refund => history.refunds.push(operation),
            }
        }
        Ok(history)
    }
}
