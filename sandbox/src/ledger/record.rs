//! What the ledger writes: rows and entries, each in the transaction of the decision that made it.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::rows::{Lookup, authorization_of, decline_code};
use super::{Error, Ledger, Occasion, Queued, identifier, json};
use crate::token::Token;
use crate::wire::{Authorization, Event, Kind, Operation, Status};

impl Ledger {
    pub(super) fn add_authorization(
        &self,
        authorization: &Authorization,
        token: Token,
        metadata: &str,
        key: &str,
    ) -> Result<(), Error> {
        let challenge = authorization.challenge.as_ref();
        self.connection
            .prepare_cached(
                "INSERT INTO authorizations (id, reference, amount, currency, token, status, metadata, challenge, challenge_url, create_time, update_time)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
            )?
            .execute(params![
                authorization.id,
                authorization.reference,
                authorization.amount,
                authorization.currency,
                token.as_str(),
                authorization.status.as_str(),
                metadata,
                challenge.map(|challenge| challenge.id.as_str()),
                challenge.map(|challenge| challenge.url.as_str()),
                authorization.create_time.as_microsecond(),
            ])?;
        self.add_entry(
            &Operation {
                id: authorization.id.clone(),
                object: Kind::Authorization,
                authorization: authorization.id.clone(),
                capture: None,
                reference: authorization.reference.clone(),
                status: authorization.status.as_str().to_owned(),
                amount: authorization.amount,
                currency: authorization.currency.clone(),
                create_time: authorization.create_time,
            },
            key,
        )
    }

    pub(super) fn add_entry(&self, operation: &Operation, key: &str) -> Result<(), Error> {
        self.connection
            .prepare_cached(
                "INSERT INTO entries (kind, id, authorization, capture, reference, idempotency_key, amount, currency, status, create_time)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                operation.object.as_str(),
                operation.id,
                operation.authorization,
                operation.capture,
                operation.reference,
                key,
                operation.amount,
                operation.currency,
                operation.status,
                operation.create_time.as_microsecond(),
            ])?;
        Ok(())
    }

    pub(super) fn set_status(
        &self,
        authorization: &mut Authorization,
        status: Status,
        now: Timestamp,
    ) -> Result<(), Error> {
        authorization.status = status;
        authorization.decline_code = decline_code(status);
        authorization.update_time = now;
        self.connection
            .prepare_cached("UPDATE authorizations SET status = ?2, update_time = ?3 WHERE id = ?1")?
            .execute(params![authorization.id, status.as_str(), now.as_microsecond()])?;
        Ok(())
    }

    /// Puts an event into the outbox, if this payment's changes are told.
    pub(super) fn tell(
        &self,
        token: Token,
        kind: &'static str,
        authorization: &Authorization,
        operation: Option<&Operation>,
        occasion: Occasion<'_>,
    ) -> Result<Option<Queued>, Error> {
        let Occasion { telling, now, .. } = occasion;
        let answers_challenge = operation.is_some_and(|operation| operation.object == Kind::Challenge);
        let Some(delivery) = token.delivery(telling.policy, answers_challenge, telling.late) else {
            return Ok(None);
        };
        let id = identifier("evt");
        let body = json(&Event { id: &id, object: "event", kind, create_time: now, authorization, operation });
        let delay = i64::try_from(delivery.delay.as_micros()).unwrap_or(i64::MAX);
        self.connection
            .prepare_cached("INSERT INTO webhooks (id, body, copies, due_time) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![id, body, delivery.copies, now.as_microsecond().saturating_add(delay)])?;
        Ok(Some(Queued { id, first: token == Token::WebhookFirst }))
    }

    pub(super) fn stored_answer(&self, key: &str) -> Result<Option<([u8; 32], u16, String)>, Error> {
        Ok(self
            .connection
            .prepare_cached("SELECT fingerprint, status, body FROM answers WHERE idempotency_key = ?1")?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?)
    }

    pub(super) fn first_failure(&self, key: &str) -> Result<bool, Error> {
        let added = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO failed_once (idempotency_key) VALUES (?1)")?
            .execute([key])?;
        Ok(added == 1)
    }

    pub(super) fn capture(&self, id: &str) -> Result<Option<(String, i64)>, Error> {
        Ok(self
            .connection
            .prepare_cached("SELECT authorization, amount FROM entries WHERE id = ?1 AND kind = 'capture'")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    }

    pub(super) fn refunded_of(&self, authorization: &str, capture: &str) -> Result<i64, Error> {
        Ok(self
            .connection
            .prepare_cached(
                "SELECT coalesce(sum(amount), 0) FROM entries WHERE authorization = ?1 AND kind = 'refund' AND capture = ?2",
            )?
            .query_row([authorization, capture], |row| row.get(0))?)
    }

    pub(super) fn authorization_where(
        &self,
        lookup: Lookup,
        value: &str,
    ) -> Result<Option<(Authorization, Token)>, Error> {
        let mut statement = self.connection.prepare_cached(lookup.sql())?;
        let mut rows = statement.query([value])?;
        match rows.next()? {
            Some(row) => Ok(Some(authorization_of(row)?)),
            None => Ok(None),
        }
    }
}
