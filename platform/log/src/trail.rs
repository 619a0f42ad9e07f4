//! The audit trail of a service: which calls were refused, and what operators did.
//!
//! Rows are added and never changed. Their ids are UUIDs of version 7, so that their order is that of time, across copies
//! of a service as far as clocks agree.

use jiff::Timestamp;
use store::{Tx, params};

use crate::Error;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was refused.
    Denied,
    /// It needs an operator, and was let in.
    Admitted,
    /// An operator changed something by it.
    Done,
}

/// One line of the trail. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// A UUID of version 7.
    pub id: String,
    /// When it was written down.
    pub time: Timestamp,
    /// What became of the call.
    pub verdict: Verdict,
    /// The full path of the method.
    pub method: String,
    /// The short name of the process that called.
    pub caller: String,
    /// For whom: `users/{user}` or `guests/{guest}`.
    pub principal: String,
    /// What was changed.
    pub resource: String,
    /// Why it was refused, or why the operator says that it was done.
    pub reason: String,
    /// What came of the change.
    pub outcome: String,
    /// The trace of the call, or of the first of them: 32 hex digits.
    pub trace_id: String,
    /// How many calls it tells of, at least one.
    pub calls: u64,
}

/// Which records are asked for; what is empty or `None` asks for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// With this verdict.
    pub verdict: Option<Verdict>,
    /// For this person.
    pub principal: String,
    /// Of this method.
    pub method: String,
    /// About this resource.
    pub resource: String,
}

impl Verdict {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Denied => "denied",
            Verdict::Admitted => "admitted",
            Verdict::Done => "done",
        }
    }

    fn parse(text: &str) -> Result<Self, store::Error> {
        [Verdict::Denied, Verdict::Admitted, Verdict::Done]
            .into_iter()
            .find(|verdict| verdict.as_str() == text)
            .ok_or_else(|| store::Error::Damaged { service: "log", detail: format!("no verdict is called {text:?}") })
    }
}

/// Adds records.
pub async fn append(tx: &mut Tx, records: &[Record]) -> Result<(), Error> {
    for it in records {
        let calls = i64::try_from(it.calls).unwrap_or(i64::MAX);
        tx.execute(
            "INSERT INTO audit_records
                 (id, time, verdict, method, caller, principal, resource, reason, outcome, trace_id, calls)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                it.id.as_str(),
                it.time,
                it.verdict.as_str(),
                it.method.as_str(),
                it.caller.as_str(),
                it.principal.as_str(),
                it.resource.as_str(),
                it.reason.as_str(),
                it.outcome.as_str(),
                it.trace_id.as_str(),
                calls
            ],
        )
        .await?;
    }
    Ok(())
}

/// Records behind the id `before` (empty for the newest), newest first, at most `limit`.
pub async fn list(tx: &mut Tx, wanted: &Wanted, before: &str, limit: u32) -> Result<Vec<Record>, Error> {
    let verdict = wanted.verdict.map_or("", Verdict::as_str);
    let rows = tx
        .query(
            "SELECT id, time, verdict, method, caller, principal, resource, reason, outcome, trace_id, calls
             FROM audit_records
             WHERE ($1 = '' OR id < $1) AND ($2 = '' OR verdict = $2) AND ($3 = '' OR principal = $3)
               AND ($4 = '' OR method = $4) AND ($5 = '' OR resource = $5)
             ORDER BY id DESC LIMIT $6",
            params![
                before,
                verdict,
                wanted.principal.as_str(),
                wanted.method.as_str(),
                wanted.resource.as_str(),
                i64::from(limit)
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Record {
                id: row.get("id")?,
                time: row.get("time")?,
                verdict: Verdict::parse(&row.get::<String>("verdict")?)?,
                method: row.get("method")?,
                caller: row.get("caller")?,
                principal: row.get("principal")?,
                resource: row.get("resource")?,
                reason: row.get("reason")?,
                outcome: row.get("outcome")?,
                trace_id: row.get("trace_id")?,
                calls: row.get("calls")?,
            })
        })
        .collect()
}
