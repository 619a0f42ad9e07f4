//! One saga's way: attempt after attempt, forward and back, each move committed before the next begins.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;
use store::{Site, Tx};
use telemetry::spans::{self, Name, Running};
use telemetry::{Trace, metrics};

use super::{Inner, after, lock};
use crate::rows::{self, History, Move, Phase, Row};
use crate::{Attempt, Change, Definition, Effect, Error, Kind, OnDeadline, Outcome, Refusal, Step, Stop, key};

/// What a write of the runner came to.
#[expect(clippy::large_enum_variant, reason = "one at a time, handed from a write to its caller")]
pub(super) enum Moved {
    /// The row is stored; run on from it.
    On(Row),
    /// Parked, settled, or claimed by another runner.
    Away,
}

pub(super) enum Unmoved {
    Stop(Stop),
    Fenced,
}

/// Why the transaction of a move is not known to have happened.
enum Lost {
    Unmoved(Unmoved),
    /// The connection went with the answer to COMMIT.
    InDoubt(store::Error),
}

impl From<store::Error> for Lost {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::InDoubt { .. } => Self::InDoubt(error),
            error => Self::Unmoved(Unmoved::Stop(Stop::from(error))),
        }
    }
}

impl<C: Send + Sync + 'static> Inner<C> {
    pub(super) async fn drive(&self, id: &str, row: Option<Row>) -> Result<(), Error> {
        let mut row = match row {
            Some(row) => row,
            None => match self.started(id).await? {
                Some(row) => row,
                None => return Ok(()),
            },
        };
        let Some(definition) = self
            .definitions
            .iter()
            .copied()
            .find(|definition| definition.name == row.definition && definition.version == row.version)
        else {
            tracing::error!(saga = %id, definition = %row.definition, version = row.version, "no such saga is defined here");
            return Ok(());
        };
        loop {
            let moved = match row.phase {
                Phase::Running => self.act(definition, row).await?,
                Phase::Compensating => self.undo(definition, row).await?,
                Phase::Done | Phase::Unwound | Phase::Stuck => return Ok(()),
            };
            match moved {
                Moved::On(next) => row = next,
                Moved::Away => return Ok(()),
            }
        }
    }

    /// A saga that was started under this runner's lease.
    pub(super) async fn started(&self, id: &str) -> Result<Option<Row>, store::Error> {
        let owned = id.to_owned();
        let row = self.store.read(async move |tx: &mut Tx| rows::get(tx, &owned).await).await?;
        Ok(row.filter(|row| row.active && row.owner == self.owner))
    }

    async fn act(&self, definition: &'static Definition<C>, row: Row) -> Result<Moved, Error> {
        let Some(step) = definition.steps.get(row.step) else {
            tracing::error!(saga = %row.id, step = row.step, "the table of steps has no such step");
            return Ok(Moved::Away);
        };
        let now = self.store.clock().now();
        let step_end = after(row.step_started, step.deadline);
        if row.attempts > 0 && now >= step_end && step.on_deadline != OnDeadline::Retry {
            let refusal = Refusal { reason: "DEADLINE_EXCEEDED".to_owned(), detail: step.name.to_owned() };
            return match step.on_deadline {
                OnDeadline::Stick => self.stick(definition, row, "EXPIRED", refusal).await,
                // The action may have happened: its own compensation runs as well.
                OnDeadline::Compensate | OnDeadline::Retry => {
                    let from = Some(row.step);
                    self.turn(definition, row, "EXPIRED", refusal, from).await
                }
            };
        }
        let attempt = self.attempt(step, &row, false);
        let outcome = self.run_action(step.action, step, &attempt, row.step, false).await;
        match outcome {
            Outcome::Done(effect) => self.advance(definition, row, step, effect).await,
            Outcome::Refused(refusal) => self.refuse(definition, row, step, refusal).await,
            Outcome::Abandoned(refusal) if step.kind == Kind::Retriable => {
                self.stick(definition, row, "ABANDONED", refusal).await
            }
            Outcome::Abandoned(refusal) => {
                let from = Some(row.step);
                self.turn(definition, row, "ABANDONED", refusal, from).await
            }
            Outcome::Retry(error) => self.park(row, step, false, error, None, None).await,
            Outcome::Wait { until, why, effect } => {
                self.park(row, step, false, why, Some(until.min(step_end.max(now))), effect).await
            }
        }
    }

    async fn advance(
        &self,
        definition: &'static Definition<C>,
        row: Row,
        step: &'static Step<C>,
        effect: Option<Effect>,
    ) -> Result<Moved, Error> {
        let last = row.step + 1 == definition.steps.len();
        let now = self.store.clock().now();
        let next = Row {
            phase: if last { Phase::Done } else { Phase::Running },
            step: if last { row.step } else { row.step + 1 },
            attempts: 0,
            step_started: now,
            due: after(now, self.config.lease),
            active: !last,
            detail: String::new(),
            ..row.clone()
        };
        let history = entry(&row, step, false, "DONE", String::new(), now);
        match self.commit(&next, history, effect).await? {
            Ok(()) => {
                if step.milestone || last {
                    self.tell(&next.id);
                }
                Ok(if last { Moved::Away } else { Moved::On(next) })
            }
            Err(Unmoved::Fenced) => Ok(Moved::Away),
            Err(Unmoved::Stop(Stop::Refused(refusal))) => self.refuse(definition, row, step, refusal).await,
            Err(Unmoved::Stop(Stop::Fault(error))) => self.park(row, step, false, error, None, None).await,
        }
    }

    async fn refuse(
        &self,
        definition: &'static Definition<C>,
        row: Row,
        step: &'static Step<C>,
        refusal: Refusal,
    ) -> Result<Moved, Error> {
        match step.kind {
            // A definite no means that nothing happened under this step's key: only the steps before it are undone.
            Kind::Compensatable | Kind::Pivot => {
                let from = row.step.checked_sub(1);
                self.turn(definition, row, "REFUSED", refusal, from).await
            }
            Kind::Retriable => self.stick(definition, row, "REFUSED", refusal).await,
        }
    }

    /// Starts to unwind at step `from`; with nothing to undo the saga ends here.
    pub(super) async fn turn(
        &self,
        definition: &'static Definition<C>,
        row: Row,
        outcome: &str,
        refusal: Refusal,
        from: Option<usize>,
    ) -> Result<Moved, Error> {
        let Some(step) = definition.steps.get(row.step) else {
            return Ok(Moved::Away);
        };
        let now = self.store.clock().now();
        let target = from.and_then(|from| undoable(definition, from));
        let next = Row {
            phase: if target.is_some() { Phase::Compensating } else { Phase::Unwound },
            step: target.unwrap_or(0),
            attempts: 0,
            step_started: now,
            due: after(now, self.config.lease),
            active: target.is_some(),
            reason: refusal.reason.clone(),
            detail: refusal.detail.clone(),
            ..row.clone()
        };
        let effect = target.is_none().then(|| {
            let attempt = self.attempt(step, &row, true);
            (definition.unwound)(&self.context, &attempt, &refusal)
        });
        let history = entry(&row, step, false, outcome, format!("{}: {}", refusal.reason, refusal.detail), now);
        match self.commit(&next, history, effect).await? {
            Ok(()) if target.is_some() => Ok(Moved::On(next)),
            Ok(()) => {
                self.tell(&next.id);
                Ok(Moved::Away)
            }
            Err(Unmoved::Fenced) => Ok(Moved::Away),
            Err(Unmoved::Stop(stop)) => self.park(row, step, false, describe(stop), None, None).await,
        }
    }

    async fn stick(
        &self,
        definition: &'static Definition<C>,
        row: Row,
        outcome: &str,
        refusal: Refusal,
    ) -> Result<Moved, Error> {
        let Some(step) = definition.steps.get(row.step) else {
            return Ok(Moved::Away);
        };
        tracing::error!(saga = %row.id, step = step.name, reason = %refusal.reason, "a saga is stuck and needs an operator");
        let now = self.store.clock().now();
        let next = Row {
            phase: Phase::Stuck,
            active: false,
            reason: refusal.reason.clone(),
            detail: refusal.detail.clone(),
            ..row.clone()
        };
        let attempt = self.attempt(step, &row, false);
        let effect = (definition.stuck)(&self.context, &attempt, &refusal);
        let history = entry(&row, step, false, outcome, format!("{}: {}", refusal.reason, refusal.detail), now);
        match self.commit(&next, history, Some(effect)).await? {
            Ok(()) => {
                self.tell(&next.id);
                Ok(Moved::Away)
            }
            Err(Unmoved::Fenced) => Ok(Moved::Away),
            Err(Unmoved::Stop(stop)) => self.park(row, step, false, describe(stop), None, None).await,
        }
    }

    async fn undo(&self, definition: &'static Definition<C>, row: Row) -> Result<Moved, Error> {
        let Some(index) = undoable(definition, row.step) else {
            return self.unwind(definition, row, None).await;
        };
        let Some(step) = definition.steps.get(index) else {
            return Ok(Moved::Away);
        };
        let Some(compensation) = step.compensation else {
            return Ok(Moved::Away);
        };
        let attempt = self.attempt(step, &row, true);
        let effect = match self.run_action(compensation, step, &attempt, index, true).await {
            Outcome::Done(effect) => effect,
            Outcome::Retry(error) => return self.park(row, step, true, error, None, None).await,
            Outcome::Wait { until, why, effect } => {
                return self.park(row, step, true, why, Some(until), effect).await;
            }
            // A compensation has no way to be refused: it is tried until somebody mends what is in its way.
            Outcome::Refused(refusal) | Outcome::Abandoned(refusal) => {
                let error = format!("{}: {}", refusal.reason, refusal.detail);
                return self.park(row, step, true, error, None, None).await;
            }
        };
        let now = self.store.clock().now();
        let undone = entry(&row, step, true, "DONE", String::new(), now);
        match index.checked_sub(1).and_then(|below| undoable(definition, below)) {
            Some(below) => {
                let next = Row {
                    step: below,
                    attempts: 0,
                    step_started: now,
                    due: after(now, self.config.lease),
                    ..row.clone()
                };
                match self.commit(&next, undone, effect).await? {
                    Ok(()) => Ok(Moved::On(next)),
                    Err(Unmoved::Fenced) => Ok(Moved::Away),
                    Err(Unmoved::Stop(stop)) => self.park(row, step, true, describe(stop), None, None).await,
                }
            }
            None => self.unwind(definition, row, Some((undone, effect))).await,
        }
    }

    /// The last write of a saga that was undone.
    async fn unwind(
        &self,
        definition: &'static Definition<C>,
        row: Row,
        undone: Option<(History, Option<Effect>)>,
    ) -> Result<Moved, Error> {
        let Some(step) = definition.steps.get(row.step) else {
            return Ok(Moved::Away);
        };
        let refusal = Refusal { reason: row.reason.clone(), detail: row.detail.clone() };
        let attempt = self.attempt(step, &row, true);
        let now = self.store.clock().now();
        let (history, first) = undone.unwrap_or_else(|| (entry(&row, step, true, "DONE", String::new(), now), None));
        let last = (definition.unwound)(&self.context, &attempt, &refusal);
        let next = Row { phase: Phase::Unwound, active: false, ..row.clone() };
        match self.commit(&next, history, Some(Box::new(Both { first, second: last }))).await? {
            Ok(()) => {
                self.tell(&next.id);
                Ok(Moved::Away)
            }
            Err(Unmoved::Fenced) => Ok(Moved::Away),
            Err(Unmoved::Stop(stop)) => self.park(row, step, true, describe(stop), None, None).await,
        }
    }

    /// Lets go of a saga until it is due again.
    async fn park(
        &self,
        row: Row,
        step: &'static Step<C>,
        compensation: bool,
        detail: String,
        until: Option<Timestamp>,
        effect: Option<Effect>,
    ) -> Result<Moved, Error> {
        let now = self.store.clock().now();
        let attempts = row.attempts.saturating_add(1);
        let due = until.unwrap_or_else(|| after(now, self.backoff(attempts)));
        let outcome = if until.is_some() { "WAIT" } else { "RETRY" };
        if until.is_none() {
            tracing::warn!(saga = %row.id, step = step.name, attempts, error = %detail, "a step is tried again later");
        }
        // While a saga unwinds, `detail` keeps why: the last error of a compensation stands in its history.
        let kept = if compensation { row.detail.clone() } else { detail.clone() };
        let next = Row { attempts, due, active: false, detail: kept, ..row.clone() };
        let history = entry(&row, step, compensation, outcome, detail, now);
        match self.commit(&next, history, effect).await? {
            Ok(()) => {
                if until.is_some() {
                    self.tell(&next.id);
                }
                Ok(Moved::Away)
            }
            Err(Unmoved::Fenced) => Ok(Moved::Away),
            Err(Unmoved::Stop(Stop::Fault(detail))) => Err(Error::Effect { saga: next.id, detail }),
            Err(Unmoved::Stop(Stop::Refused(refusal))) => {
                // The effect of a wait was refused: the wait itself still holds.
                tracing::warn!(saga = %row.id, reason = %refusal.reason, "what a wait wanted to record was refused");
                let history = entry(&row, step, compensation, outcome, refusal.reason, now);
                match self.commit(&next, history, None).await? {
                    Ok(()) | Err(Unmoved::Fenced) => Ok(Moved::Away),
                    Err(Unmoved::Stop(stop)) => Err(Error::Effect { saga: next.id, detail: describe(stop) }),
                }
            }
        }
    }

    /// Stores a move. An error means that nobody knows whether it was stored: the row must be read before anything else.
    pub(super) async fn commit(
        &self,
        to: &Row,
        history: History,
        effect: Option<Effect>,
    ) -> Result<Result<(), Unmoved>, Error> {
        let site = self.site(&to.definition, &history);
        let count = self.count(to, &history);
        let to = to.clone();
        let mut effect = effect;
        let outcome = self
            .store
            .write(site, async move |tx: &mut Tx| {
                if let Some(effect) = &mut effect {
                    effect.apply(tx).await.map_err(|stop| Lost::Unmoved(Unmoved::Stop(stop)))?;
                }
                let stored = rows::store_move(
                    tx,
                    &Move {
                        id: &to.id,
                        epoch: to.epoch,
                        phase: to.phase,
                        step: to.step,
                        attempts: to.attempts,
                        step_started: to.step_started,
                        due: to.due,
                        active: to.active,
                        reason: &to.reason,
                        detail: &to.detail,
                    },
                )
                .await?;
                if !stored {
                    return Err(Lost::Unmoved(Unmoved::Fenced));
                }
                rows::record(tx, &to.id, &history).await?;
                Ok(())
            })
            .await;
        match outcome {
            Ok(()) => {
                count();
                Ok(Ok(()))
            }
            Err(Lost::Unmoved(unmoved)) => Ok(Err(unmoved)),
            Err(Lost::InDoubt(error)) => Err(Error::Store(error)),
        }
    }

    /// How the move is counted once it is stored, under the names of the saga's table.
    fn count(&self, to: &Row, history: &History) -> impl FnOnce() + use<C> {
        let (compensation, outcome, phase) = (history.compensation, history.outcome.clone(), to.phase);
        let same = |it: &&&'static Definition<C>| it.name == to.definition && it.version == to.version;
        let names = self.definitions.iter().find(same).and_then(|it| Some((it.name, it.steps.get(history.step)?.name)));
        move || {
            let Some((saga, step)) = names else { return };
            metrics::saga_step(saga, step, compensation, &outcome);
            if !phase.is_open() {
                metrics::saga_settled(saga, phase.as_str());
            }
        }
    }

    async fn run_action(
        &self,
        action: crate::Action<C>,
        step: &Step<C>,
        attempt: &Attempt,
        index: usize,
        compensation: bool,
    ) -> Outcome {
        if let Some(outcome) = self.config.injection.before(index, compensation) {
            return outcome;
        }
        let mut outcome = self.attempt_once(action, step, attempt, compensation).await;
        if self.config.injection.repeats() {
            outcome = self.attempt_once(action, step, attempt, compensation).await;
        }
        self.config.injection.after(index, compensation, outcome)
    }

    async fn attempt_once(
        &self,
        action: crate::Action<C>,
        step: &Step<C>,
        attempt: &Attempt,
        compensation: bool,
    ) -> Outcome {
        let mut span = self.span(step, attempt, compensation);
        let attempt = match span.is_recorded() {
            true => Cow::Owned(Attempt { traceparent: span.trace().traceparent(), ..attempt.clone() }),
            false => Cow::Borrowed(attempt),
        };
        let work = AssertUnwindSafe(spans::within(span.trace(), action(&self.context, &attempt))).catch_unwind();
        let outcome = match tokio::time::timeout(step.try_timeout, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::Retry("the step panicked".to_owned()),
            Err(_) => Outcome::Retry(format!("no answer within {} ms", step.try_timeout.as_millis())),
        };
        if matches!(outcome, Outcome::Retry(_)) {
            span.fail(true);
        }
        span.end();
        outcome
    }

    /// An attempt as a part of the story of the request that started the saga.
    fn span(&self, step: &Step<C>, attempt: &Attempt, compensation: bool) -> Running {
        let story = Trace::parse(&attempt.traceparent).unwrap_or_else(|_| Trace::new_root());
        let name = Name::of(if compensation { "undo" } else { "step" }, step.name);
        let mut span = Running::begin(self.store.name(), spans::Kind::Internal, name, &story);
        span.set("stoa.saga.attempt", attempt.number);
        span
    }

    /// Each step has crash points of its own, for its action and for its compensation.
    fn site(&self, definition: &str, history: &History) -> &'static Site {
        let direction = if history.compensation { "compensation" } else { "action" };
        self.sites
            .get(&(definition.to_owned(), history.step, history.compensation))
            .copied()
            .unwrap_or_else(|| Site::named(&site_name(definition, &history.name, direction)))
    }

    pub(super) fn attempt(&self, step: &Step<C>, row: &Row, compensation: bool) -> Attempt {
        let now = self.store.clock().now();
        Attempt {
            saga: row.id.clone(),
            data: row.data.clone(),
            step: step.name,
            number: row.attempts.saturating_add(1),
            key: key(&row.id, step.name, compensation),
            started: row.step_started,
            now,
            until: after(now, step.try_timeout),
            correlation: row.correlation.clone(),
            traceparent: row.traceparent.clone(),
            reason: row.reason.clone(),
        }
    }

    /// Full jitter over a doubling range: sagas that failed together do not come back together.
    pub(super) fn backoff(&self, attempts: u32) -> Duration {
        let doubled = self.config.backoff_base.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let range = doubled.min(self.config.backoff_cap);
        let random = getrandom::u32().unwrap_or(u32::MAX);
        range / 2 + range.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
    }

    pub(super) fn tell(&self, id: &str) {
        if let Some(sender) = lock(&self.watchers).get(id) {
            sender.send_modify(|count| *count += 1);
        }
    }
}

/// The highest step at or below `from` that has something to undo.
fn undoable<C>(definition: &Definition<C>, from: usize) -> Option<usize> {
    (0..=from).rev().find(|&index| definition.steps.get(index).is_some_and(|step| step.compensation.is_some()))
}

/// The effects of the last compensation and of the end, in one transaction.
struct Both {
    first: Option<Effect>,
    second: Effect,
}

impl Change for Both {
    fn apply<'a>(&'a mut self, tx: &'a mut Tx) -> LocalBoxFuture<'a, Result<(), Stop>> {
        Box::pin(async move {
            if let Some(first) = &mut self.first {
                first.apply(tx).await?;
            }
            self.second.apply(tx).await
        })
    }
}

pub(super) fn site_name(definition: &str, step: &str, direction: &str) -> String {
    format!("saga.{definition}.{step}.{direction}")
}

fn entry<C>(row: &Row, step: &Step<C>, compensation: bool, outcome: &str, detail: String, now: Timestamp) -> History {
    History {
        step: row.step,
        compensation,
        name: step.name.to_owned(),
        attempts: row.attempts.saturating_add(1),
        outcome: outcome.to_owned(),
        detail,
        started: row.step_started,
        ended: now,
    }
}

fn describe(stop: Stop) -> String {
    match stop {
        Stop::Fault(error) => error,
        Stop::Refused(refusal) => format!("{}: {}", refusal.reason, refusal.detail),
    }
}
