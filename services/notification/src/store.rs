//! The rows of recipients and messages: every SQL statement of this service. All of them are derived: `Rows` is the inline
//! projection that makes them from events.

use contracts::notification::v1::Event;
use jiff::Timestamp;
use log::{At, LocalBoxFuture, Projection};
use store::{Error, Migration, MigrationSet, Row, Tx, params};

use crate::filter::Filter;
use crate::wire;

/// The tables of this service.
pub const MIGRATIONS: MigrationSet = MigrationSet::new(
    "notification",
    &[Migration::new(1, "notification", include_str!("../migrations/0001_notification.sql"))],
);

/// What the streams of recipients begin with.
pub(crate) const RECIPIENTS: &str = "recipients/";

/// Where to write to somebody, sealed.
#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    pub(crate) subject: String,
    pub(crate) email: String,
    pub(crate) display_name: String,
}

/// A message as stored, personal fields sealed.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) template: String,
    pub(crate) state: String,
    pub(crate) recipient: String,
    pub(crate) subject_line: String,
    pub(crate) order: String,
    pub(crate) customer: String,
    pub(crate) dedupe_key: String,
    pub(crate) attempt_count: i32,
    pub(crate) last_error: String,
    pub(crate) message_id: String,
    pub(crate) trace_id: String,
    pub(crate) version: u64,
    pub(crate) create_time: Timestamp,
    pub(crate) send_time: Option<Timestamp>,
    pub(crate) update_time: Timestamp,
}

impl Stored {
    /// Whose key its personal fields are sealed with.
    pub(crate) fn sealed_for(&self) -> &str {
        sealed_for(&self.customer, &self.name)
    }

    /// Whether it is still to be sent.
    pub(crate) fn is_pending(&self) -> bool {
        self.state == "PENDING"
    }
}

/// Whose key seals a message: its customer's, or one of its own.
pub(crate) fn sealed_for<'a>(customer: &'a str, notification: &'a str) -> &'a str {
    if customer.is_empty() { notification } else { customer }
}

/// The inline projection of recipients and messages.
#[derive(Debug)]
pub(crate) struct Rows;

impl Projection<Event> for Rows {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["recipients", "notifications"]
    }

    fn apply<'a>(&'a self, tx: &'a mut Tx, at: &'a At, event: &'a Event) -> LocalBoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match event {
                Event::RecipientRecorded(recorded) => {
                    tx.execute(
                        "INSERT INTO recipients (name, subject, email, display_name) VALUES ($1, $2, $3, $4)
                         ON CONFLICT (name) DO UPDATE
                         SET subject = excluded.subject, email = excluded.email, display_name = excluded.display_name",
                        params![
                            at.stream.strip_prefix(RECIPIENTS).unwrap_or_default(),
                            recorded.subject.as_str(),
                            recorded.email.as_str(),
                            recorded.display_name.as_str()
                        ],
                    )
                    .await?;
                }
                Event::NotificationRequested(asked) => {
                    tx.execute(
                        "INSERT INTO notifications (name, template, state, recipient, subject_line, order_name, customer,
                             dedupe_key, attempt_count, last_error, message_id, trace_id, version, create_time,
                             update_time, due)
                         VALUES ($1, $2, 'PENDING', $3, $4, $5, $6, $7, 0, '', $8, $9, $10, $11, $11, $11)",
                        params![
                            asked.notification.as_str(),
                            asked.template().as_str_name(),
                            asked.recipient.as_str(),
                            asked.subject_line.as_str(),
                            asked.order.as_str(),
                            asked.customer.as_str(),
                            asked.dedupe_key.as_str(),
                            asked.message_id.as_str(),
                            at.traceparent.split('-').nth(1).unwrap_or_default(),
                            at.version,
                            at.occur_time
                        ],
                    )
                    .await?;
                }
                Event::NotificationAttemptFailed(failed) => {
                    let outcome = Outcome { due: wire::micros(failed.retry_time), ..Outcome::new("PENDING") };
                    settle(tx, at, Outcome { attempt: failed.attempt, error: &failed.error, ..outcome }).await?;
                }
                Event::NotificationSent(sent) => {
                    settle(tx, at, Outcome { attempt: sent.attempt, sent: true, ..Outcome::new("SENT") }).await?;
                }
                Event::NotificationFailed(failed) => {
                    let outcome = Outcome { attempt: failed.attempt, error: &failed.error, ..Outcome::new("FAILED") };
                    settle(tx, at, outcome).await?;
                }
                Event::NotificationSuppressed(suppressed) => {
                    settle(tx, at, Outcome { error: &suppressed.reason, ..Outcome::new("SUPPRESSED") }).await?;
                }
                Event::SubjectErased(erased) => {
                    tx.execute("DELETE FROM recipients WHERE subject = $1", params![erased.subject.as_str()]).await?;
                    tx.execute(
                        "UPDATE notifications SET recipient = '', subject_line = '' WHERE customer = $1",
                        params![erased.subject.as_str()],
                    )
                    .await?;
                }
            }
            Ok(())
        })
    }
}

/// What an attempt comes to.
struct Outcome<'a> {
    state: &'static str,
    attempt: i32,
    error: &'a str,
    sent: bool,
    due: i64,
}

impl Outcome<'_> {
    fn new(state: &'static str) -> Self {
        Outcome { state, attempt: 0, error: "", sent: false, due: 0 }
    }
}

async fn settle(tx: &mut Tx, at: &At, outcome: Outcome<'_>) -> Result<(), Error> {
    let Outcome { state, attempt, error, sent, due } = outcome;
    let send_time = sent.then_some(at.occur_time);
    tx.execute(
        "UPDATE notifications
         SET state = $2, attempt_count = CASE WHEN $3 > attempt_count THEN $3 ELSE attempt_count END, last_error = $4,
             send_time = $5, due = $6, version = $7, update_time = $8
         WHERE name = $1",
        params![at.stream.as_str(), state, attempt, error, send_time, due, at.version, at.occur_time],
    )
    .await?;
    Ok(())
}

/// Where to write to about `name`: a person or an order.
pub(crate) async fn get_recipient(tx: &mut Tx, name: &str) -> Result<Option<Recipient>, Error> {
    let row =
        tx.query_opt("SELECT subject, email, display_name FROM recipients WHERE name = $1", params![name]).await?;
    let recipient = |row: Row| {
        Ok(Recipient { subject: row.get("subject")?, email: row.get("email")?, display_name: row.get("display_name")? })
    };
    row.map(recipient).transpose()
}

const NOTIFICATION: &str = "SELECT name, template, state, recipient, subject_line, order_name, customer, dedupe_key,
                                   attempt_count, last_error, message_id, trace_id, version, create_time, send_time, update_time
                            FROM notifications";

/// One message.
pub(crate) async fn get_notification(tx: &mut Tx, name: &str) -> Result<Option<Stored>, Error> {
    let row = tx.query_opt(&format!("{NOTIFICATION} WHERE name = $1"), params![name]).await?;
    row.as_ref().map(stored).transpose()
}

/// Messages to be sent by `now`, those that wait longest first.
pub(crate) async fn due(tx: &mut Tx, now: Timestamp, limit: u32) -> Result<Vec<Stored>, Error> {
    let rows = tx
        .query(
            &format!(
                "{NOTIFICATION} WHERE state = 'PENDING' AND due <= $1 ORDER BY due, name LIMIT CAST($2 AS BIGINT)"
            ),
            params![now, limit],
        )
        .await?;
    rows.iter().map(stored).collect()
}

/// When the next message is to be sent.
pub(crate) async fn next_due(tx: &mut Tx) -> Result<Option<Timestamp>, Error> {
    let rows = tx.query("SELECT due FROM notifications WHERE state = 'PENDING' ORDER BY due LIMIT 1", &[]).await?;
    rows.first().map(|row| row.get("due")).transpose()
}

/// Messages to somebody that are not sent yet.
pub(crate) async fn pending_of(tx: &mut Tx, customer: &str) -> Result<Vec<Stored>, Error> {
    let rows = tx
        .query(
            &format!("{NOTIFICATION} WHERE customer = $1 AND customer <> '' AND state = 'PENDING' ORDER BY name"),
            params![customer],
        )
        .await?;
    rows.iter().map(stored).collect()
}

/// Messages that pass a filter, newest first, after (time, name). `state` is the stored text.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &Filter,
    state: &str,
    after: Option<(Timestamp, &str)>,
    limit: u32,
) -> Result<Vec<Stored>, Error> {
    let (time, name) = after.unwrap_or((Timestamp::MAX, ""));
    // The narrowest condition is spelled out, so that its index is used.
    let narrowed = match (filter.order.is_empty(), filter.customer.is_empty()) {
        (false, _) => "order_name = $1 AND ($2 = '' OR customer = $2)",
        (true, false) => "$1 = '' AND customer = $2 AND customer <> ''",
        (true, true) => "$1 = '' AND $2 = ''",
    };
    let rows = tx
        .query(
            &format!(
                "{NOTIFICATION} WHERE {narrowed} AND ($3 = '' OR state = $3)
                   AND (create_time < CAST($4 AS BIGINT) OR (create_time = CAST($4 AS BIGINT) AND name > $5))
                 ORDER BY create_time DESC, name LIMIT CAST($6 AS BIGINT)"
            ),
            params![filter.order.as_str(), filter.customer.as_str(), state, time, name, limit],
        )
        .await?;
    rows.iter().map(stored).collect()
}

fn stored(row: &Row) -> Result<Stored, Error> {
    Ok(Stored {
        name: row.get("name")?,
        template: row.get("template")?,
        state: row.get("state")?,
        recipient: row.get("recipient")?,
        subject_line: row.get("subject_line")?,
        order: row.get("order_name")?,
        customer: row.get("customer")?,
        dedupe_key: row.get("dedupe_key")?,
        attempt_count: row.get("attempt_count")?,
        last_error: row.get("last_error")?,
        message_id: row.get("message_id")?,
        trace_id: row.get("trace_id")?,
        version: row.get("version")?,
        create_time: row.get("create_time")?,
        send_time: row.get("send_time")?,
        update_time: row.get("update_time")?,
    })
}
