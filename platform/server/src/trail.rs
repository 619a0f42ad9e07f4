//! The audit trail: each call that was refused, and each that an operator makes, as a line of the log and as a row of the
//! service's store that nobody changes afterwards.
//!
//! A change by an operator is written down before it begins, and does not begin if that fails. Refusals and what an operator
//! only reads are written down a moment later, so that whoever is refused in a loop costs few rows: those alike are one row with
//! a count. A process that is killed in that moment has them in its log alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::Identity;
use contract::{Idempotency, Method};
use log::trail::{Record, Verdict, append};
use store::{Clock, Store, Tx, site};
use telemetry::Trace;

use crate::call::Process;

/// How long records wait for others, and how many of them that are not alike. What does not fit is counted in one row.
const MOMENT: Duration = Duration::from_millis(250);
const WAITING: usize = 256;
const REST: &str = "too many at once: the log tells of each";

/// The trail of one service. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Option<Store>,
    clock: Clock,
    process: Arc<Process>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Record>,
    /// Whether somebody will write them.
    awaited: bool,
}

/// The call that is written about.
pub(crate) struct Written<'a> {
    pub(crate) method: &'static Method,
    pub(crate) identity: &'a Identity,
    pub(crate) trace: Trace,
}

impl Written<'_> {
    fn principal(&self) -> &str {
        self.identity.principal.subject().map_or("", |subject| subject.id.as_str())
    }
}

impl Trail {
    pub(crate) fn new(store: Option<Store>, clock: &Clock, process: &Arc<Process>) -> Self {
        let (clock, process) = (clock.clone(), Arc::clone(process));
        Self { inner: Arc::new(Inner { store, clock, process, waiting: Mutex::default() }) }
    }

    /// The call is refused.
    pub(crate) fn denied(&self, call: &Written<'_>, reason: &str) {
        let (caller, subject) = (&call.identity.caller, call.principal());
        tracing::warn!(target: "audit", method = call.method.path, %caller, subject, reason, "denied");
        self.note(Record { reason: reason.to_owned(), ..self.record(call, Verdict::Denied) });
    }

    /// The call needs an operator and may begin, once this has succeeded.
    pub(crate) async fn admitted(&self, call: &Written<'_>) -> Result<(), log::Error> {
        let (caller, subject) = (&call.identity.caller, call.principal());
        tracing::info!(target: "audit", method = call.method.path, %caller, subject, "privileged call");
        let record = self.record(call, Verdict::Admitted);
        if call.method.idempotency == Idempotency::NoSideEffects {
            self.note(record);
            return Ok(());
        }
        self.write(record).await
    }

    /// The call has changed something. That it was going to is written down already, so a store that fails now stops nobody.
    pub(crate) async fn done(&self, call: &Written<'_>, resource: &str, reason: &str, outcome: &str) {
        let (method, actor) = (call.method.path, call.principal());
        tracing::info!(target: "audit", method, actor, resource, reason, outcome, "operator's change");
        let record = Record {
            resource: resource.to_owned(),
            reason: reason.to_owned(),
            outcome: outcome.to_owned(),
            ..self.record(call, Verdict::Done)
        };
        if let Err(error) = self.write(record).await {
            tracing::error!(method, resource, %error, "the audit trail does not tell what came of a change");
        }
    }

    fn record(&self, call: &Written<'_>, verdict: Verdict) -> Record {
        Record {
            id: uuid::Uuid::now_v7().to_string(),
            time: self.inner.clock.now(),
            verdict,
            method: call.method.path.to_owned(),
            caller: call.identity.caller.to_string(),
            principal: call.principal().to_owned(),
            resource: String::new(),
            reason: String::new(),
            outcome: String::new(),
            trace_id: call.trace.id(),
            calls: 1,
        }
    }

    async fn write(&self, record: Record) -> Result<(), log::Error> {
        let Some(store) = &self.inner.store else { return Ok(()) };
        store
            .write(site!("trail.write"), async move |tx: &mut Tx| append(tx, std::slice::from_ref(&record)).await)
            .await
    }

    /// Writes it down within a moment, with what comes until then.
    fn note(&self, record: Record) {
        let Some(store) = &self.inner.store else { return };
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.add(record);
        if std::mem::replace(&mut waiting.awaited, true) {
            return;
        }
        let (trail, store) = (self.clone(), store.clone());
        self.inner.process.writes.spawn(async move {
            tokio::time::sleep(MOMENT).await;
            let records = trail.take();
            let lines = records.len();
            let added = async move |tx: &mut Tx| append(tx, &records).await;
            if let Err(error) = store.write(site!("trail.note"), added).await {
                tracing::error!(lines, %error, "the audit trail lacks what is in the log");
            }
        });
    }

    fn take(&self) -> Vec<Record> {
        let mut waiting = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).records
    }
}

impl Waiting {
    fn add(&mut self, record: Record) {
        if self.count(&record) {
            return;
        }
        if self.records.len() < WAITING {
            return self.records.push(record);
        }
        let nobody = String::new;
        let rest =
            Record { method: nobody(), caller: nobody(), principal: nobody(), reason: REST.to_owned(), ..record };
        if !self.count(&rest) {
            self.records.push(rest);
        }
    }

    /// Whether there is one like it, which tells of this call too from now on.
    fn count(&mut self, record: &Record) -> bool {
        let same = self.records.iter_mut().find(|it| {
            let who = it.caller == record.caller && it.principal == record.principal;
            who && it.verdict == record.verdict && it.method == record.method && it.reason == record.reason
        });
        same.map(|it| it.calls += 1).is_some()
    }
}
