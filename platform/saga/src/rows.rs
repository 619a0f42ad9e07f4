//! The rows of sagas and of their steps: every SQL statement of this crate.
//!
//! Each write of a runner names the epoch under which it claimed the saga. A runner that slept past its lease finds the
//! epoch moved on and its write changes no row: it then lets go.

use jiff::Timestamp;
use store::{Error, Migration, MigrationSet, Tx, Value, params};

use crate::Definition;

/// The tables of this crate, created in each store that runs sagas.
pub const MIGRATIONS: MigrationSet = MigrationSet {
    name: "saga",
    migrations: &[
        Migration { version: 1, name: "sagas", sql: include_str!("../migrations/0001_sagas.sql") },
        Migration { version: 2, name: "owners", sql: include_str!("../migrations/0002_owners.sql") },
    ],
};

/// Where a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Going forward.
    Running,
    /// Unwinding.
    Compensating,
    /// Every step is done.
    Done,
    /// Every compensation is done.
    Unwound,
    /// A step past the pivot cannot succeed: an operator decides.
    Stuck,
}

impl Phase {
    /// The stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Compensating => "COMPENSATING",
            Self::Done => "DONE",
            Self::Unwound => "UNWOUND",
            Self::Stuck => "STUCK",
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "RUNNING" => Ok(Self::Running),
            "COMPENSATING" => Ok(Self::Compensating),
            "DONE" => Ok(Self::Done),
            "UNWOUND" => Ok(Self::Unwound),
            "STUCK" => Ok(Self::Stuck),
            other => Err(mismatch("phase", "a phase", other)),
        }
    }

    /// Whether somebody must still work on it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Compensating)
    }
}

/// A saga as stored.
#[derive(Clone, Debug)]
pub struct Row {
    /// The saga's id.
    pub id: String,
    /// Name of its definition.
    pub definition: String,
    /// Version of its definition.
    pub version: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Index of the step that runs, or that is being undone.
    pub step: usize,
    /// Attempts at that step so far.
    pub attempts: u32,
    /// First attempt at that step.
    pub step_started: Timestamp,
    /// When somebody must look at it next.
    pub due: Timestamp,
    /// Whether a runner holds it.
    pub active: bool,
    /// The fencing token.
    pub epoch: i64,
    /// The runner that claimed it last.
    pub owner: String,
    /// What it was started with.
    pub data: Vec<u8>,
    /// Why it unwinds or is stuck; empty otherwise.
    pub reason: String,
    /// The last error or the refusal's detail.
    pub detail: String,
    /// Correlation id.
    pub correlation: String,
    /// W3C trace context.
    pub traceparent: String,
    /// When it was started.
    pub created: Timestamp,
    /// When it last moved.
    pub updated: Timestamp,
}

/// One step's history.
#[derive(Clone, Debug)]
pub struct History {
    /// Index in the table of steps.
    pub step: usize,
    /// Whether this is the compensation.
    pub compensation: bool,
    /// The step's name.
    pub name: String,
    /// How often it was tried.
    pub attempts: u32,
    /// DONE, REFUSED, RETRY, WAIT or EXPIRED.
    pub outcome: String,
    /// Error, refusal or reason to wait.
    pub detail: String,
    /// First attempt.
    pub started: Timestamp,
    /// Last attempt.
    pub ended: Timestamp,
}

/// What a saga is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Unique; starting the same id twice is one saga.
    pub id: String,
    /// Handed to every action.
    pub data: Vec<u8>,
    /// Correlation id of the request.
    pub correlation: String,
    /// W3C trace context of the request.
    pub traceparent: String,
}

/// Starts a saga that any runner of this store picks up. Starting the same id twice is one saga: false the second time.
pub async fn enqueue<C>(tx: &mut Tx, definition: &Definition<C>, start: &Start) -> Result<bool, Error> {
    let now = tx.now();
    insert(tx, definition, start, "", now, false).await
}

pub(crate) async fn insert<C>(
    tx: &mut Tx,
    definition: &Definition<C>,
    start: &Start,
    owner: &str,
    due: Timestamp,
    active: bool,
) -> Result<bool, Error> {
    let now = tx.now();
    let changed = tx
        .execute(
            "INSERT INTO sagas (id, definition, version, phase, step, attempts, step_started, due, active, epoch, owner, data,
                                reason, detail, correlation, traceparent, created, updated)
             VALUES ($1, $2, $3, 'RUNNING', 0, 0, $4, $5, $6, 1, $7, $8, '', '', $9, $10, $4, $4)
             ON CONFLICT (id) DO NOTHING",
            params![
                &start.id,
                definition.name,
                i64::from(definition.version),
                now,
                due,
                active,
                owner,
                &start.data,
                &start.correlation,
                &start.traceparent
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// One saga by its id.
pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Row>, Error> {
    let row = tx
        .query_opt(
            "SELECT id, definition, version, phase, step, attempts, step_started, due, active, epoch, owner, data, reason,
                    detail, correlation, traceparent, created, updated
             FROM sagas WHERE id = $1",
            params![id],
        )
        .await?;
    row.map(|row| read(&row)).transpose()
}

/// How many sagas somebody must still work on: by phase, those that run, unwind and are stuck.
pub async fn open(tx: &mut Tx) -> Result<[(Phase, u64); 3], Error> {
    let mut counts = [(Phase::Running, 0), (Phase::Compensating, 0), (Phase::Stuck, 0)];
    let rows = tx
        .query(
            "SELECT phase, COUNT(*) AS n FROM sagas WHERE phase IN ('RUNNING', 'COMPENSATING', 'STUCK') GROUP BY phase",
            params![],
        )
        .await?;
    for row in rows {
        let phase = Phase::parse(&row.get::<String>("phase")?)?;
        if let Some((_, count)) = counts.iter_mut().find(|(it, _)| *it == phase) {
            *count = row.get("n")?;
        }
    }
    Ok(counts)
}

/// Sagas in any of these phases (in all, if none is named), newest first and by id within one moment: those after `after`,
/// the moment and id of the last one seen; at most `limit`.
pub async fn list(
    tx: &mut Tx,
    phases: &[Phase],
    after: Option<(Timestamp, &str)>,
    limit: u32,
) -> Result<Vec<Row>, Error> {
    let (moment, id) = after.unwrap_or((Timestamp::MAX, ""));
    let wanted = |phase: Phase| phases.is_empty() || phases.contains(&phase);
    let rows = tx
        .query(
            "SELECT id, definition, version, phase, step, attempts, step_started, due, active, epoch, owner, data, reason,
                    detail, correlation, traceparent, created, updated
             FROM sagas
             WHERE (created < CAST($1 AS BIGINT) OR (created = CAST($1 AS BIGINT) AND id > $2))
               AND ((phase = 'RUNNING' AND $3) OR (phase = 'COMPENSATING' AND $4) OR (phase = 'DONE' AND $5)
                    OR (phase = 'UNWOUND' AND $6) OR (phase = 'STUCK' AND $7))
             ORDER BY created DESC, id LIMIT CAST($8 AS BIGINT)",
            params![
                moment,
                id,
                wanted(Phase::Running),
                wanted(Phase::Compensating),
                wanted(Phase::Done),
                wanted(Phase::Unwound),
                wanted(Phase::Stuck),
                i64::from(limit)
            ],
        )
        .await?;
    rows.iter().map(read).collect()
}

/// What the steps of a saga went through, in order.
pub async fn history(tx: &mut Tx, id: &str) -> Result<Vec<History>, Error> {
    let rows = tx
        .query(
            "SELECT step, direction, name, attempts, outcome, detail, started, ended
             FROM saga_steps WHERE saga = $1 ORDER BY started, step, direction",
            params![id],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(History {
                step: index(row.get("step")?)?,
                compensation: row.get::<String>("direction")? == "COMPENSATION",
                name: row.get("name")?,
                attempts: count(row.get("attempts")?)?,
                outcome: row.get("outcome")?,
                detail: row.get("detail")?,
                started: row.get("started")?,
                ended: row.get("ended")?,
            })
        })
        .collect()
}

/// A claimed saga's next state: what one write of the runner stores.
pub(crate) struct Move<'a> {
    pub(crate) id: &'a str,
    pub(crate) epoch: i64,
    pub(crate) phase: Phase,
    pub(crate) step: usize,
    pub(crate) attempts: u32,
    pub(crate) step_started: Timestamp,
    pub(crate) due: Timestamp,
    pub(crate) active: bool,
    pub(crate) reason: &'a str,
    pub(crate) detail: &'a str,
}

/// Stores where a saga stands now; false if another runner has claimed it since.
pub(crate) async fn store_move(tx: &mut Tx, to: &Move<'_>) -> Result<bool, Error> {
    let now = tx.now();
    let changed = tx
        .execute(
            "UPDATE sagas SET phase = $1, step = $2, attempts = $3, step_started = $4, due = $5, active = $6, reason = $7,
                              detail = $8, updated = $9
             WHERE id = $10 AND epoch = $11",
            params![
                to.phase.as_str(),
                signed(to.step),
                i64::from(to.attempts),
                to.step_started,
                to.due,
                to.active,
                to.reason,
                to.detail,
                now,
                to.id,
                to.epoch
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Adds an attempt to the history of a step.
pub(crate) async fn record(tx: &mut Tx, saga: &str, entry: &History) -> Result<(), Error> {
    let direction = if entry.compensation { "COMPENSATION" } else { "ACTION" };
    tx.execute(
        "INSERT INTO saga_steps (saga, step, direction, name, attempts, outcome, detail, started, ended)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (saga, step, direction) DO UPDATE
         SET attempts = excluded.attempts, outcome = excluded.outcome, detail = excluded.detail, ended = excluded.ended",
        params![
            saga,
            signed(entry.step),
            direction,
            &entry.name,
            i64::from(entry.attempts),
            &entry.outcome,
            &entry.detail,
            entry.started,
            entry.ended
        ],
    )
    .await?;
    Ok(())
}

/// The tables of steps a runner has, by name and version.
#[derive(Debug, Clone)]
pub(crate) struct Known(pub(crate) Vec<(&'static str, u32)>);

impl Known {
    /// Whether a row is of one of them, and its parameters from `$1` on.
    fn clause(&self) -> (String, Vec<Value>) {
        if self.0.is_empty() {
            return ("1 = 0".to_owned(), Vec::new());
        }
        let one = |at: usize| format!("(definition = ${} AND version = ${})", 2 * at + 1, 2 * at + 2);
        let clause = (0..self.0.len()).map(one).collect::<Vec<_>>().join(" OR ");
        let values = self.0.iter().flat_map(|(name, version)| [Value::from(*name), Value::from(i64::from(*version))]);
        (clause, values.collect())
    }
}

/// Open sagas of these tables of steps that are due, oldest first. Those of a newer release are left to it.
pub(crate) async fn due(tx: &mut Tx, known: &Known, now: Timestamp, limit: usize) -> Result<Vec<String>, Error> {
    let (clause, mut values) = known.clause();
    let (due, most) = (values.len() + 1, values.len() + 2);
    let sql = format!(
        "SELECT id FROM sagas WHERE phase IN ('RUNNING', 'COMPENSATING') AND ({clause}) AND due <= ${due}
         ORDER BY due LIMIT CAST(${most} AS BIGINT)"
    );
    values.extend([now.into(), signed(limit).into()]);
    let rows = tx.query(&sql, &values).await?;
    rows.iter().map(|row| row.get("id")).collect()
}

/// When the next open saga of these tables is due.
pub(crate) async fn next_due(tx: &mut Tx, known: &Known) -> Result<Option<Timestamp>, Error> {
    let (clause, values) = known.clause();
    let sql = format!("SELECT min(due) AS due FROM sagas WHERE phase IN ('RUNNING', 'COMPENSATING') AND ({clause})");
    match tx.query_opt(&sql, &values).await? {
        Some(row) => row.get("due"),
        None => Ok(None),
    }
}

/// Claims a due saga: the new epoch fences off whoever held it. None if it is not due (any more).
pub(crate) async fn claim(tx: &mut Tx, id: &str, owner: &str, lease_end: Timestamp) -> Result<Option<Row>, Error> {
    let now = tx.now();
    let changed = tx
        .execute(
            "UPDATE sagas SET epoch = epoch + 1, owner = $1, due = $2, active = true
             WHERE id = $3 AND due <= $4 AND phase IN ('RUNNING', 'COMPENSATING')",
            params![owner, lease_end, id, now],
        )
        .await?;
    if changed == 0 { Ok(None) } else { get(tx, id).await }
}

/// Makes every saga that a vanished runner held due at once. Right only where no other process can hold one.
pub(crate) async fn take_over(tx: &mut Tx, owner: &str) -> Result<u64, Error> {
    let now = tx.now();
    tx.execute(
        "UPDATE sagas SET due = $1, active = false WHERE active AND owner <> $2 AND phase IN ('RUNNING', 'COMPENSATING')",
        params![now, owner],
    )
    .await
}

/// Says that a runner lives until `lease_end`, and takes over what runners held that no longer do; how many sagas those are.
pub(crate) async fn beat(tx: &mut Tx, owner: &str, lease_end: Timestamp) -> Result<u64, Error> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO saga_owners (owner, lease_end) VALUES ($1, $2)
         ON CONFLICT (owner) DO UPDATE SET lease_end = excluded.lease_end",
        params![owner, lease_end],
    )
    .await?;
    let gone = tx.query("SELECT owner FROM saga_owners WHERE lease_end < $1 LIMIT 64", params![now]).await?;
    let mut taken = 0;
    for row in gone {
        let gone: String = row.get("owner")?;
        taken += tx
            .execute(
                "UPDATE sagas SET due = $1, active = false
                 WHERE active AND owner = $2 AND phase IN ('RUNNING', 'COMPENSATING')",
                params![now, gone.as_str()],
            )
            .await?;
        tx.execute("DELETE FROM saga_owners WHERE owner = $1 AND lease_end < $2", params![gone.as_str(), now]).await?;
    }
    Ok(taken)
}

/// An operator's or an event's nudge: an open, waiting saga becomes due now; a stuck one goes on from its step.
pub async fn nudge(tx: &mut Tx, id: &str) -> Result<bool, Error> {
    let now = tx.now();
    let changed = tx
        .execute(
            "UPDATE sagas SET due = $1, attempts = 0, step_started = $1, reason = '',
                              phase = CASE WHEN phase = 'STUCK' THEN 'RUNNING' ELSE phase END
             WHERE id = $2 AND NOT active AND phase = 'STUCK'",
            params![now, id],
        )
        .await?;
    if changed == 1 {
        return Ok(true);
    }
    let changed = tx
        .execute(
            "UPDATE sagas SET due = $1 WHERE id = $2 AND NOT active AND phase IN ('RUNNING', 'COMPENSATING')",
            params![now, id],
        )
        .await?;
    Ok(changed == 1)
}

/// Turns a running saga round; the runner that holds it finds its epoch gone.
pub(crate) async fn turn_round(tx: &mut Tx, id: &str, reason: &str, last_step: usize) -> Result<bool, Error> {
    let now = tx.now();
    let changed = tx
        .execute(
            "UPDATE sagas SET phase = 'COMPENSATING', due = $1, active = false, epoch = epoch + 1, attempts = 0,
                              step_started = $1, reason = $2
             WHERE id = $3 AND phase = 'RUNNING' AND step <= $4",
            params![now, reason, id, signed(last_step)],
        )
        .await?;
    Ok(changed == 1)
}

fn read(row: &store::Row) -> Result<Row, Error> {
    Ok(Row {
        id: row.get("id")?,
        definition: row.get("definition")?,
        version: count(row.get("version")?)?,
        phase: Phase::parse(&row.get::<String>("phase")?)?,
        step: index(row.get("step")?)?,
        attempts: count(row.get("attempts")?)?,
        step_started: row.get("step_started")?,
        due: row.get("due")?,
        active: row.get("active")?,
        epoch: row.get("epoch")?,
        owner: row.get("owner")?,
        data: row.get("data")?,
        reason: row.get("reason")?,
        detail: row.get("detail")?,
        correlation: row.get("correlation")?,
        traceparent: row.get("traceparent")?,
        created: row.get("created")?,
        updated: row.get("updated")?,
    })
}

fn index(value: i64) -> Result<usize, Error> {
    usize::try_from(value).map_err(|_| mismatch("step", "an index", value))
}

fn count(value: i64) -> Result<u32, Error> {
    u32::try_from(value).map_err(|_| mismatch("attempts", "a count", value))
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn mismatch(column: &str, expected: &'static str, found: impl ToString) -> Error {
    Error::Mismatch { column: column.to_owned(), expected, found: found.to_string() }
}
