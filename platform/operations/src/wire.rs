//! Rows, letters and messages as `stoa.operations.v1` shows them.

use bus::{DeadLetter, Message};
use contracts::operations::v1::{self as proto, AnswerOutcome, SagaPhase, StepOutcome};
use contracts::wkt;
use jiff::{SignedDuration, Timestamp};
use log::inbox::DealtWith;
use log::once::Outcome;
use log::trail::{self, Verdict};
use log::{Difference, What};
use saga::{History, Phase};

use crate::kept::Told;
use crate::sagas::Seen;

/// The stored phases that a phase on the wire stands for.
pub(crate) fn phases(asked: SagaPhase, open_only: bool) -> Vec<Phase> {
    match asked {
        SagaPhase::Unspecified if open_only => vec![Phase::Running, Phase::Compensating, Phase::Stuck],
        SagaPhase::Unspecified => vec![],
        SagaPhase::Running => vec![Phase::Running],
        SagaPhase::Compensating => vec![Phase::Compensating],
        SagaPhase::Done => vec![Phase::Done, Phase::Unwound],
        SagaPhase::Failed => vec![Phase::Stuck],
    }
}

fn phase(stored: Phase) -> SagaPhase {
    match stored {
        Phase::Running => SagaPhase::Running,
        Phase::Compensating => SagaPhase::Compensating,
        Phase::Done | Phase::Unwound => SagaPhase::Done,
        Phase::Stuck => SagaPhase::Failed,
    }
}

/// A saga with its history, which a list leaves out.
pub(crate) fn saga(service: &str, seen: Seen, history: Vec<History>) -> proto::Saga {
    let Seen { row, step, .. } = seen;
    let deadline = step.and_then(|(_, bound)| {
        let bound = SignedDuration::try_from(bound).ok()?;
        row.step_started.checked_add(bound).ok()
    });
    let trace = trace_id(&row.traceparent);
    let settled = matches!(row.phase, Phase::Done | Phase::Unwound);
    let steps = history.into_iter().map(|entry| saga_step(entry, &trace)).collect();
    proto::Saga {
        name: format!("services/{service}/sagas/{}", row.id),
        definition: row.definition,
        definition_version: count(row.version),
        phase: phase(row.phase).into(),
        step: step.map_or_else(String::new, |(name, _)| name.to_owned()),
        attempt_count: count(row.attempts),
        due_time: (!settled).then(|| time(row.due)),
        deadline_time: deadline.filter(|_| !settled).map(time),
        last_error: if row.reason.is_empty() { row.detail } else { format!("{}: {}", row.reason, row.detail) },
        correlation_id: row.correlation,
        trace_id: trace,
        epoch: row.epoch,
        steps,
        create_time: Some(time(row.created)),
        update_time: Some(time(row.updated)),
    }
}

fn saga_step(entry: History, trace: &str) -> proto::SagaStep {
    // The runner's words for a step that ended without an answer are told in the detail.
    let (outcome, word) = match entry.outcome.as_str() {
        "DONE" => (StepOutcome::Done, ""),
        "REFUSED" => (StepOutcome::Refused, ""),
        "RETRY" => (StepOutcome::Retry, ""),
        "WAIT" => (StepOutcome::Wait, ""),
        other => (StepOutcome::Refused, other),
    };
    let detail = if word.is_empty() { entry.detail } else { format!("{word}: {}", entry.detail) };
    proto::SagaStep {
        step: entry.name,
        compensation: entry.compensation,
        attempt: count(entry.attempts),
        outcome: outcome.into(),
        detail,
        start_time: Some(time(entry.started)),
        end_time: Some(time(entry.ended)),
        trace_id: trace.to_owned(),
    }
}

/// A parked message.
pub(crate) fn dead_letter(service: &str, consumer: &str, letter: DeadLetter) -> proto::DeadLetter {
    let id = format!("{consumer}~{}~{}~{}", letter.producer, letter.stream.replace('/', "."), letter.version);
    proto::DeadLetter {
        name: format!("services/{service}/deadLetters/{id}"),
        consumer: consumer.to_owned(),
        producer: letter.producer,
        stream: letter.stream,
        version: signed(letter.version),
        r#type: letter.name,
        error: letter.reason,
        attempt_count: i32::try_from(letter.attempts).unwrap_or(i32::MAX),
        create_time: Some(time(letter.park_time)),
    }
}

/// A row that is not what the log says. Values are not shown: they may be personal.
pub(crate) fn difference(difference: Difference) -> proto::Difference {
    let (expected, found) = match difference.what {
        What::Missing => ("{}".to_owned(), String::new()),
        What::Extra => (String::new(), "{}".to_owned()),
        What::Differs(columns) => {
            let columns = columns.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(",");
            (format!("{{\"columns\":[{columns}]}}"), format!("{{\"columns\":[{columns}]}}"))
        }
    };
    proto::Difference { table: difference.table.to_owned(), key: difference.key, expected, found }
}

/// An event as it is stored.
pub(crate) fn record(message: Message) -> proto::LogRecord {
    proto::LogRecord {
        shard: message.shard,
        position: signed(message.position),
        stream: message.stream,
        version: signed(message.version),
        r#type: message.name,
        schema_version: message.schema,
        occur_time: Some(time(message.occur_time)),
        causation_id: message.causation,
        correlation_id: message.correlation,
        traceparent: message.traceparent,
        subject: message.subject.unwrap_or_default(),
        payload: message.payload,
    }
}

/// What was answered under a request id.
pub(crate) fn answer(told: Told) -> proto::Answer {
    let Told { answer, names } = told;
    let outcome = match answer.outcome {
        Outcome::Claimed => AnswerOutcome::Claimed,
        Outcome::Done if names.is_none() => AnswerOutcome::Unreadable,
        Outcome::Done => AnswerOutcome::Done,
        Outcome::Refused => AnswerOutcome::Refused,
    };
    proto::Answer {
        principal: answer.principal,
        method: answer.method,
        request_id: answer.key,
        outcome: outcome.into(),
        resources: names.unwrap_or_default(),
    }
}

/// How far a consumer is in one stream.
pub(crate) fn inbox_entry(row: DealtWith) -> proto::InboxEntry {
    let DealtWith { consumer, producer, stream, version } = row;
    proto::InboxEntry { consumer, producer, stream, version: signed(version) }
}

/// A line of the audit trail.
pub(crate) fn audit_record(service: &str, record: trail::Record) -> proto::AuditRecord {
    let verdict = match record.verdict {
        Verdict::Denied => proto::AuditVerdict::Denied,
        Verdict::Admitted => proto::AuditVerdict::Admitted,
        Verdict::Done => proto::AuditVerdict::Done,
    };
    proto::AuditRecord {
        name: format!("services/{service}/auditRecords/{}", record.id),
        create_time: Some(time(record.time)),
        verdict: verdict.into(),
        method: record.method,
        caller: record.caller,
        principal: record.principal,
        resource: record.resource,
        reason: record.reason,
        outcome: record.outcome,
        trace_id: record.trace_id,
        call_count: signed(record.calls),
    }
}

/// Which verdict is asked for.
pub(crate) fn verdict(asked: proto::AuditVerdict) -> Option<Verdict> {
    match asked {
        proto::AuditVerdict::Unspecified => None,
        proto::AuditVerdict::Denied => Some(Verdict::Denied),
        proto::AuditVerdict::Admitted => Some(Verdict::Admitted),
        proto::AuditVerdict::Done => Some(Verdict::Done),
    }
}

/// The trace id inside a W3C trace context, or nothing.
fn trace_id(traceparent: &str) -> String {
    traceparent.split('-').nth(1).unwrap_or_default().to_owned()
}

fn time(time: Timestamp) -> wkt::Timestamp {
    wkt::Timestamp::from(time)
}

fn count(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A count or position as the wire has it.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
