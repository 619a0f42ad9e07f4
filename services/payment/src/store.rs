//! The rows of payments, attempts, refunds, postings and webhooks: every SQL statement of this service. All of them are
//! derived: `Rows` is the inline projection that makes them from events, in the transaction that appends and again in a
//! rebuild.

use contracts::payment::v1::Event as StoredEvent;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use store::{Error, Migration, MigrationSet, Tx, params};

use crate::payment::postings::postings;
use crate::payment::{Balance, Event};
use crate::wire;

/// The tables of this service.
pub const MIGRATIONS: MigrationSet =
    MigrationSet::new("payment", &[Migration::new(1, "payment", include_str!("../migrations/0001_payment.sql"))]);

/// The inline projection of everything this service knows.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<StoredEvent> for Rows {
    fn name(&self) -> &'static str {
        "payments"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["payments", "attempts", "refunds", "postings", "webhook_receipts"]
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut Tx,
        at: &'a At,
        event: &'a StoredEvent,
    ) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match wire::from_stored(event) {
                Some(event) => {
                    store_attempt(tx, at, &event).await?;
                    store_payment(tx, at, &event).await?;
                    store_postings(tx, at, &event).await
                }
                None => store_webhook(tx, at, event).await,
            }
        })
    }
}

async fn store_payment(tx: &mut Tx, at: &At, event: &Event) -> Result<(), Error> {
    match event {
        Event::Created { order, customer, currency, amount, provider, .. } => {
            insert_payment(tx, at, (order, customer, provider), (currency, *amount), ("CREATED", "")).await
        }
        Event::CancelRequested { order, .. } if at.version == 1 => {
            insert_payment(tx, at, (order, "", ""), ("", 0), ("", "REQUESTED")).await
        }
        Event::CancelRequested { .. } => set_payment(tx, at, ("", "REQUESTED"), "", "", None).await,
        Event::CancelCompleted => set_payment(tx, at, ("", "COMPLETED"), "", "", None).await,
        Event::ActionRequired { action, reference, .. } => {
            set_payment(tx, at, ("REQUIRES_ACTION", ""), reference, "", Some(action.expire_time)).await
        }
        Event::Failed { code } => set_payment(tx, at, ("FAILED", ""), "", code, None).await,
        Event::Succeeded { kind: crate::payment::Kind::Authorize, reference, .. } => {
            set_payment(tx, at, ("", ""), reference, "", None).await
        }
        Event::Prepared { .. }
        | Event::Sent { .. }
        | Event::Succeeded { .. }
        | Event::Declined { .. }
        | Event::InDoubt { .. }
        | Event::Abandoned { .. } => set_payment(tx, at, ("", ""), "", "", None).await,
        Event::Authorized { .. }
        | Event::Captured { .. }
        | Event::Voided { .. }
        | Event::Refunded { .. }
        | Event::Expired { .. } => set_balance(tx, at, event).await,
    }
}

async fn insert_payment(
    tx: &mut Tx,
    at: &At,
    (order, customer, provider): (&str, &str, &str),
    (currency, amount): (&str, i64),
    (state, cancel): (&str, &str),
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO payments (name, order_name, customer, provider, state, currency, amount, authorized, voided, captured,
                               refunded, cancel, reference, decline_code, version, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, 0, $8, '', '', $9, $10, $10)",
        params![
            at.stream.as_str(),
            order,
            customer,
            provider,
            state,
            currency,
            amount,
            cancel,
            at.version,
            at.occur_time
        ],
    )
    .await?;
    Ok(())
}

/// Sets what is not empty, and the version.
async fn set_payment(
    tx: &mut Tx,
    at: &At,
    (state, cancel): (&str, &str),
    reference: &str,
    decline_code: &str,
    action_expire_time: Option<Timestamp>,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE payments
         SET state = CASE WHEN $1 = '' THEN state ELSE $1 END,
             cancel = CASE WHEN $2 = '' THEN cancel ELSE $2 END,
             reference = CASE WHEN $3 = '' THEN reference ELSE $3 END,
             decline_code = CASE WHEN $4 = '' THEN decline_code ELSE $4 END,
             action_expire_time = COALESCE(CAST($5 AS BIGINT), action_expire_time),
             version = $6, update_time = $7
         WHERE name = $8",
        params![
            state,
            cancel,
            reference,
            decline_code,
            action_expire_time,
            at.version,
            at.occur_time,
            at.stream.as_str()
        ],
    )
    .await?;
    Ok(())
}

async fn set_balance(tx: &mut Tx, at: &At, event: &Event) -> Result<(), Error> {
    let row = tx
        .query_opt(
            "SELECT authorized, voided, captured, refunded FROM payments WHERE name = $1",
            params![at.stream.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    let before = Balance {
        authorized: row.get("authorized")?,
        voided: row.get("voided")?,
        captured: row.get("captured")?,
        refunded: row.get("refunded")?,
    };
    let after = before.after(event);
    let state = match event {
        Event::Expired { .. } => "EXPIRED",
        _ => wire::state_text(after.state()),
    };
    let expire_time = match event {
        Event::Authorized { expire_time, .. } => Some(*expire_time),
        _ => None,
    };
    tx.execute(
        "UPDATE payments
         SET authorized = $1, voided = $2, captured = $3, refunded = $4,
             state = CASE WHEN $5 = '' THEN state ELSE $5 END,
             authorization_expire_time = COALESCE(CAST($6 AS BIGINT), authorization_expire_time),
             version = $7, update_time = $8
         WHERE name = $9",
        params![
            after.authorized,
            after.voided,
            after.captured,
            after.refunded,
            state,
            expire_time,
            at.version,
            at.occur_time,
            at.stream.as_str()
        ],
    )
    .await?;
    Ok(())
}

async fn store_attempt(tx: &mut Tx, at: &At, event: &Event) -> Result<(), Error> {
    let said = |said: &crate::payment::Said| wire::source_text(said.source);
    let (attempt, state, tries, reference, code, error, source) = match event {
        Event::Prepared { .. } => return insert_attempt(tx, at, event).await,
        Event::Sent { attempt, tries } => (attempt, "SENT", *tries, "", "", "", ""),
        Event::Succeeded { attempt, reference, said: by, .. } => {
            (attempt, "SUCCEEDED", 0, reference.as_str(), "", "", said(by))
        }
        Event::Declined { attempt, code, said: by, .. } => (attempt, "DECLINED", 0, "", code.as_str(), "", said(by)),
        Event::InDoubt { attempt, error } => (attempt, "IN_DOUBT", 0, "", "", error.as_str(), ""),
        Event::Abandoned { attempt, said: by } => (attempt, "ABANDONED", 0, "", "", "", said(by)),
        Event::ActionRequired { attempt, reference, .. } => (attempt, "WAITING", 0, reference.as_str(), "", "", ""),
        Event::Created { .. }
        | Event::Authorized { .. }
        | Event::Captured { .. }
        | Event::Voided { .. }
        | Event::Refunded { .. }
        | Event::Failed { .. }
        | Event::Expired { .. }
        | Event::CancelRequested { .. }
        | Event::CancelCompleted => return Ok(()),
    };
    tx.execute(
        "UPDATE attempts
         SET state = $1,
             tries = CASE WHEN CAST($2 AS BIGINT) = 0 THEN tries ELSE CAST($2 AS BIGINT) END,
             reference = CASE WHEN $3 = '' THEN reference ELSE $3 END,
             decline_code = CASE WHEN $4 = '' THEN decline_code ELSE $4 END,
             last_error = CASE WHEN $5 = '' THEN last_error ELSE $5 END,
             source = CASE WHEN $6 = '' THEN source ELSE $6 END,
             update_time = $7
         WHERE payment = $8 AND attempt = $9",
        params![
            state,
            i64::from(tries),
            reference,
            code,
            error,
            source,
            at.occur_time,
            at.stream.as_str(),
            attempt.as_str()
        ],
    )
    .await?;
    Ok(())
}

async fn insert_attempt(tx: &mut Tx, at: &At, event: &Event) -> Result<(), Error> {
    let Event::Prepared { attempt, kind, amount, key, shipment, return_id, reason, actor, .. } = event else {
        return Ok(());
    };
    tx.execute(
        "INSERT INTO attempts (payment, attempt, kind, state, amount, currency, provider_key, tries, reference,
                               decline_code, last_error, shipment, return_id, reason, actor, source, traceparent,
                               create_time, update_time)
         VALUES ($1, $2, $3, 'PREPARED', $4, COALESCE((SELECT currency FROM payments WHERE name = $1), ''), $5, 0, '', '',
                 '', $6, $7, $8, $9, '', $10, $11, $11)",
        params![
            at.stream.as_str(),
            attempt.as_str(),
            wire::kind_text(*kind),
            *amount,
            key.as_str(),
            shipment.as_str(),
            return_id.as_str(),
            reason.as_str(),
            actor.as_str(),
            at.traceparent.as_str(),
            at.occur_time
        ],
    )
    .await?;
    Ok(())
}

async fn store_postings(tx: &mut Tx, at: &At, event: &Event) -> Result<(), Error> {
    let lines = postings(event);
    if lines.is_empty() {
        return Ok(());
    }
    let row = tx.query_opt("SELECT currency FROM payments WHERE name = $1", params![at.stream.as_str()]).await?;
    let currency: String = row.map_or(Ok(String::new()), |row| row.get("currency"))?;
    for (line, posting) in lines.iter().enumerate() {
        tx.execute(
            "INSERT INTO postings (stream, version, line, account, currency, minor, occur_time)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            params![
                at.stream.as_str(),
                at.version,
                line as i64,
                posting.account.text(),
                currency.as_str(),
                posting.minor,
                at.occur_time
            ],
        )
        .await?;
    }
    if let Event::Refunded { attempt, amount, return_id, .. } = event {
        tx.execute(
            "INSERT INTO refunds (payment, attempt, return_id, currency, amount, occur_time)
             VALUES ($1, $2, $3, $4, $5, $6)",
            params![
                at.stream.as_str(),
                attempt.as_str(),
                return_id.as_str(),
                currency.as_str(),
                *amount,
                at.occur_time
            ],
        )
        .await?;
    }
    Ok(())
}

async fn store_webhook(tx: &mut Tx, at: &At, event: &StoredEvent) -> Result<(), Error> {
    let (provider, event_id, state, payment, outcome) = match event {
        StoredEvent::WebhookReceived(received) => {
            tx.execute(
                "INSERT INTO webhook_receipts (provider, event_id, event_type, provider_key, reference, state, payment,
                                               outcome, receive_time, update_time)
                 VALUES ($1, $2, $3, $4, $5, 'RECEIVED', $6, '', $7, $7)",
                params![
                    received.provider.as_str(),
                    received.event_id.as_str(),
                    received.event_type.as_str(),
                    received.provider_key.as_str(),
                    received.provider_reference.as_str(),
                    wire::payment_of_key(&received.provider_key),
                    at.occur_time
                ],
            )
            .await?;
            return Ok(());
        }
        StoredEvent::WebhookApplied(applied) => {
            (&applied.provider, &applied.event_id, "APPLIED", applied.payment.as_str(), applied.outcome.as_str())
        }
        StoredEvent::WebhookParked(parked) => {
            (&parked.provider, &parked.event_id, "PARKED", "", parked.reason.as_str())
        }
        _ => return Ok(()),
    };
    tx.execute(
        "UPDATE webhook_receipts SET state = $1, payment = CASE WHEN $2 = '' THEN payment ELSE $2 END, outcome = $3, update_time = $4
         WHERE provider = $5 AND event_id = $6",
        params![state, payment, outcome, at.occur_time, provider.as_str(), event_id.as_str()],
    )
    .await?;
    Ok(())
}

/// An attempt that is not settled.
#[derive(Clone, Debug)]
pub(crate) struct Unsettled {
    pub(crate) payment: String,
    pub(crate) state: String,
    pub(crate) update_time: Timestamp,
}

/// Attempts whose outcome is unknown or waits for the buyer, longest unchanged first.
pub(crate) async fn unsettled(tx: &mut Tx, limit: u32) -> Result<Vec<Unsettled>, Error> {
    let mut found = vec![];
    for sql in [
        "SELECT payment, state, update_time FROM attempts
         WHERE state IN ('PREPARED', 'SENT', 'IN_DOUBT') ORDER BY update_time LIMIT CAST($1 AS BIGINT)",
        "SELECT payment, state, update_time FROM attempts
         WHERE state = 'WAITING' ORDER BY update_time LIMIT CAST($1 AS BIGINT)",
    ] {
        for row in tx.query(sql, params![limit]).await? {
            found.push(Unsettled {
                payment: row.get("payment")?,
                state: row.get("state")?,
                update_time: row.get("update_time")?,
            });
        }
    }
    Ok(found)
}

/// Payments whose net is to be zero, and when they last changed, while nothing is asked of the provider.
pub(crate) async fn stuck_cancels(tx: &mut Tx, limit: u32) -> Result<Vec<(String, Timestamp)>, Error> {
    let rows = tx
        .query(
            "SELECT name, update_time FROM payments
             WHERE cancel = 'REQUESTED'
               AND NOT EXISTS (SELECT 1 FROM attempts
                               WHERE payment = name AND state IN ('PREPARED', 'SENT', 'IN_DOUBT'))
             ORDER BY update_time LIMIT CAST($1 AS BIGINT)",
            params![limit],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get("name")?, row.get("update_time")?))).collect()
}

/// Streams of parked webhooks whose payment is known by now.
pub(crate) async fn redeemable_webhooks(tx: &mut Tx, limit: u32) -> Result<Vec<(String, String)>, Error> {
    let rows = tx
        .query(
            "SELECT provider, event_id FROM webhook_receipts
             WHERE state = 'PARKED'
               AND EXISTS (SELECT 1 FROM payments WHERE name = webhook_receipts.payment AND customer <> '')
             ORDER BY receive_time LIMIT CAST($1 AS BIGINT)",
            params![limit],
        )
        .await?;
    rows.iter().map(|row| Ok((row.get("provider")?, row.get("event_id")?))).collect()
}

/// How many webhooks are parked.
pub(crate) async fn parked_webhooks(tx: &mut Tx) -> Result<i64, Error> {
    let row = tx.query_opt("SELECT COUNT(*) AS parked FROM webhook_receipts WHERE state = 'PARKED'", &[]).await?;
    row.map_or(Ok(0), |row| row.get("parked"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use log::{Log, Meta};
    use store::{Config, Store, site};

    use super::*;
    use crate::payment::{Command, Outcome, Source};
    use crate::teller::{decide, load, told};

    fn settle(attempt: &str, outcome: Outcome) -> Command {
        Command::Settle {
            attempt: attempt.to_owned(),
            outcome,
            said: told(Source::Answer),
            action_expire_time: Timestamp::MAX,
            authorization_expire_time: Timestamp::MAX,
        }
    }

    fn done(attempt: &str) -> Command {
        settle(attempt, Outcome::Done { reference: format!("ref-{attempt}") })
    }

    #[tokio::test]
    async fn the_rows_are_the_fold_of_the_log_and_the_books_balance() {
        let config = Config::temporary("payment").migrations([log::MIGRATIONS, MIGRATIONS]);
        let log: Log<StoredEvent> = Log::new(Store::open(config).await.unwrap(), vec![Arc::new(Rows)]);
        let authorize = |customer: &str| Command::Authorize {
            order: "orders/o".to_owned(),
            customer: customer.to_owned(),
            currency: "EUR".to_owned(),
            amount: 100,
            token: "tok".to_owned(),
            provider: "sandbox".to_owned(),
        };
        let cancel = Command::Cancel { order: "orders/o".to_owned(), reason: "test".to_owned() };
        let capture = Command::Capture { shipment: "shipments/s".to_owned(), amount: 60 };
        let unknown = settle("1", Outcome::Unknown { error: "timeout".to_owned() });
        let action = settle(
            "1",
            Outcome::ActionRequired {
                reference: "auth".to_owned(),
                uri: "http://psp".to_owned(),
                challenge: "chl".to_owned(),
            },
        );
        let declined = settle("1", Outcome::Declined { code: "no".to_owned() });
        let stories = [
            (
                "payments/a",
                vec![authorize("users/u"), unknown, done("1"), capture, done("2"), cancel.clone(), done("4")],
            ),
            ("payments/b", vec![authorize("users/u"), action, declined]),
            ("payments/c", vec![cancel]),
        ];
        for (name, commands) in stories {
            for command in commands {
                let writer = log.clone();
                log.store()
                    .write(site!("test"), async move |tx: &mut Tx| {
                        let loaded = load(&writer, tx, name).await?;
                        decide(&writer, tx, &Meta::default(), loaded, &command).await.map(|_| ())
                    })
                    .await
                    .unwrap();
            }
        }
        assert_eq!(log.verify("payments").await.unwrap(), []);
        let (states, sum) = log
            .store()
            .read(async move |tx: &mut Tx| {
                let rows = tx.query("SELECT state FROM payments ORDER BY name", &[]).await?;
                let states: Result<Vec<String>, Error> = rows.iter().map(|row| row.get("state")).collect();
                let sum = tx.query_opt("SELECT SUM(minor) AS sum, COUNT(*) AS lines FROM postings", &[]).await?;
                let sum = sum.unwrap();
                Ok::<_, Error>((states?, (sum.get::<i64>("sum")?, sum.get::<i64>("lines")?)))
            })
            .await
            .unwrap();
        assert_eq!(states, ["REFUNDED", "FAILED", "FAILED"]);
        assert_eq!(sum, (0, 10));
    }
}
