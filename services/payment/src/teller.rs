//! Attempts, from intent to result: the intent is committed, then the provider is called under the attempt's key, then
//! the result is committed. What happens in between (a crash, a timeout, a caller that vanished) leaves an attempt whose
//! outcome is unknown, and that is only ever asked about again under the same key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::payment::v1 as proto;
use jiff::Timestamp;
use log::{Log, Meta, Refusable as _};
use server::Windows;
use store::{Site, Tx, site};
use tokio::sync::Notify;

use crate::config::Config;
use crate::error::Error;
use crate::flights::Flights;
use crate::payment::{Attempt, AttemptState, Cancel, Command, Event, Kind, Outcome, Payment, Said, Source};
use crate::provider::{Authorize, Found, Move, Provider, Standing, called};
use crate::wire;

/// How often a change runs again after it lost a race for the stream's version.
const CONFLICT_ATTEMPTS: u32 = 8;

/// Payments that are to be looked at at once, at most; the sweep finds whatever did not fit.
const MAX_URGENT: usize = 4096;

/// Who talks to the provider. A cheap handle.
#[derive(Clone)]
pub(crate) struct Teller {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) log: Log<proto::Event>,
    pub(crate) provider: Arc<dyn Provider>,
    pub(crate) config: Config,
    pub(crate) windows: Windows,
    pub(crate) flights: Arc<Flights>,
    pub(crate) urgent: Mutex<BTreeSet<String>>,
    pub(crate) wake: Notify,
}

impl std::ops::Deref for Teller {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Teller")
    }
}

/// A payment, its stream's version, and the trace of each attempt.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) payment: Payment,
    pub(crate) version: u64,
    pub(crate) traces: BTreeMap<String, String>,
}

/// A payment after a command, and what the command caused.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) loaded: Loaded,
    pub(crate) events: Vec<Event>,
}

impl Changed {
    /// The attempt that is to be sent now.
    pub(crate) fn sent(&self) -> Option<String> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Sent { attempt, .. } => Some(attempt.clone()),
            _ => None,
        })
    }
}

/// Folds a payment's stream.
pub(crate) async fn load(log: &Log<proto::Event>, tx: &mut Tx, name: &str) -> Result<Loaded, Error> {
    tx.take_stream(name).await?;
    let mut loaded = Loaded { payment: Payment::named(name), version: 0, traces: BTreeMap::new() };
    for entry in log.load(tx, name).await? {
        loaded.version = entry.at.version;
        let Some(event) = wire::from_stored(&entry.event) else { continue };
        if let Event::Prepared { attempt, .. } = &event {
            loaded.traces.insert(attempt.clone(), wire::trace_id(&entry.at.traceparent));
        }
        loaded.payment = loaded.payment.evolve(&event, entry.at.occur_time);
    }
    Ok(loaded)
}

/// Decides and appends one command to one payment inside its transaction.
pub(crate) async fn decide(
    log: &Log<proto::Event>,
    tx: &mut Tx,
    meta: &Meta,
    mut loaded: Loaded,
    command: &Command,
) -> Result<Changed, Error> {
    let name = loaded.payment.name.clone();
    let reject = |rejection| Error::Rejected { name: name.clone(), rejection };
    let events = loaded.payment.decide(command).map_err(reject)?;
    if events.is_empty() {
        return Ok(Changed { loaded, events });
    }
    let mut stored = vec![];
    let now = tx.now();
    for event in &events {
        if let Event::Prepared { attempt, .. } = event {
            loaded.traces.insert(attempt.clone(), wire::trace_id(&meta.traceparent));
        }
        loaded.payment = loaded.payment.evolve(event, now);
        stored.push(wire::to_stored(&loaded.payment, event));
    }
    let customer = loaded.payment.customer.clone();
    let subject = Some(customer.as_str()).filter(|customer| !customer.is_empty());
    loaded.version = log.append(tx, &name, loaded.version, meta, subject, stored).await?;
    Ok(Changed { loaded, events })
}

impl Teller {
    /// A teller over the service's log.
    pub(crate) fn new(log: Log<proto::Event>, provider: Arc<dyn Provider>, config: Config, windows: Windows) -> Self {
        let inner = Inner {
            log,
            provider,
            config,
            windows,
            flights: Arc::default(),
            urgent: Mutex::default(),
            wake: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A payment as it is now.
    pub(crate) async fn load(&self, name: &str) -> Result<Loaded, Error> {
        let (log, name) = (self.log.clone(), name.to_owned());
        self.log.store().read(async move |tx: &mut Tx| load(&log, tx, &name).await).await
    }

    /// One command to one payment in a transaction of its own.
    pub(crate) async fn change(
        &self,
        site: &'static Site,
        name: &str,
        command: Command,
        meta: &Meta,
    ) -> Result<Changed, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (log, name, command, meta) = (self.log.clone(), name.to_owned(), command.clone(), meta.clone());
            let changed = self
                .log
                .store()
                .write(site, async move |tx: &mut Tx| {
                    let loaded = load(&log, tx, &name).await?;
                    decide(&log, tx, &meta, loaded, &command).await
                })
                .await;
            match changed {
                Err(error) if error.is_conflict() && attempts < CONFLICT_ATTEMPTS => {}
                done => return done,
            }
        }
    }

    /// What the provider says of an attempt, as a command.
    pub(crate) fn settling(&self, attempt: &str, outcome: Outcome, said: Said) -> Command {
        let now = self.log.store().clock().now();
        Command::Settle {
            attempt: attempt.to_owned(),
            outcome,
            said,
            action_expire_time: after(now, self.windows.action),
            authorization_expire_time: after(now, self.config.authorization_lifetime),
        }
    }

    /// Has a payment looked at at once.
    pub(crate) fn hurry(&self, name: &str) {
        let mut urgent = self.urgent.lock().unwrap_or_else(PoisonError::into_inner);
        if urgent.len() < MAX_URGENT {
            urgent.insert(name.to_owned());
        }
        drop(urgent);
        self.wake.notify_one();
    }

    /// Makes the call of an attempt that was written down as sent, and those that follow from its outcome; waits for it
    /// where somebody else makes it already.
    pub(crate) async fn drive(&self, name: &str, attempt: &str, meta: &Meta) -> Result<Loaded, Error> {
        let mut attempt = attempt.to_owned();
        loop {
            let flight = wire::attempt_name(name, &attempt);
            let Some(_flight) = self.flights.take(&flight) else {
                self.flights.landed(&flight).await;
                return self.load(name).await;
            };
            let loaded = self.load(name).await?;
            let Some(sent) = loaded.payment.attempt(&attempt) else { return Ok(loaded) };
            if sent.state != AttemptState::Sent {
                return Ok(loaded);
            }
            let outcome = self.ask(&loaded.payment, sent).await;
            let unknown = matches!(outcome, Outcome::Unknown { .. });
            let command = self.settling(&attempt, outcome, told(Source::Answer));
            let changed = self.change(site!("payment.settle"), name, command, meta).await?;
            if unknown {
                self.wake.notify_one();
            }
            match changed.sent() {
                Some(next) => attempt = next,
                None => return Ok(changed.loaded),
            }
        }
    }

    /// Sends an attempt whose outcome is unknown once more, under its key, unless somebody is just doing so, did so a
    /// moment ago, or it is not wanted any more.
    pub(crate) async fn resume(&self, name: &str, attempt: &str, meta: &Meta) -> Result<Loaded, Error> {
        if self.flights.is_taken(&wire::attempt_name(name, attempt)) {
            return self.drive(name, attempt, meta).await;
        }
        let loaded = self.load(name).await?;
        let Some(found) = loaded.payment.attempt(attempt) else { return Ok(loaded) };
        let rested = found.state == AttemptState::Sent || self.age(found.update_time) >= self.windows.retry_base;
        if !found.is_open() || !rested || !self.may_resend(&loaded.payment, found) {
            return Ok(loaded);
        }
        self.resend(name, attempt, meta).await
    }

    async fn resend(&self, name: &str, attempt: &str, meta: &Meta) -> Result<Loaded, Error> {
        let command = Command::Resend { attempt: attempt.to_owned() };
        self.change(reconcile_site(), name, command, meta).await?;
        self.drive(name, attempt, meta).await
    }

    /// Finds out what became of every attempt of a payment that is not settled, and goes on with a cancel; how many
    /// attempts got an outcome.
    pub(crate) async fn reconcile(&self, name: &str, meta: &Meta) -> Result<(Loaded, usize), Error> {
        let turn = reconciling(name);
        let Some(_turn) = self.flights.take(&turn) else {
            self.flights.landed(&turn).await;
            return Ok((self.load(name).await?, 0));
        };
        let mut loaded = self.load(name).await?;
        let unsettled = |attempt: &&Attempt| attempt.is_open() || attempt.state == AttemptState::Waiting;
        let before: Vec<Attempt> = loaded.payment.attempts.iter().filter(unsettled).cloned().collect();
        for attempt in &before {
            if self.flights.is_taken(&wire::attempt_name(name, &attempt.id)) {
                continue;
            }
            loaded = if attempt.is_open() && self.may_resend(&loaded.payment, attempt) {
                self.resend(name, &attempt.id, meta).await?
            } else {
                self.inquire(name, attempt, meta).await?
            };
        }
        let now = self.log.store().clock().now();
        if loaded.payment.action.as_ref().is_some_and(|action| action.expire_time <= now) {
            let changed = self.change(reconcile_site(), name, Command::Expire { now }, meta).await?;
            loaded = self.follow(changed, meta).await?;
        }
        if loaded.payment.cancel == Cancel::Requested && !loaded.payment.in_doubt() {
            loaded = self.unstick(loaded, meta).await?;
        }
        let settled = |attempt: &&Attempt| !loaded.payment.attempt(&attempt.id).as_ref().is_some_and(unsettled);
        let resolved = before.iter().filter(settled).count();
        Ok((loaded, resolved))
    }

    /// Makes the call that a change calls for.
    pub(crate) async fn follow(&self, changed: Changed, meta: &Meta) -> Result<Loaded, Error> {
        match changed.sent() {
            Some(attempt) => self.drive(&changed.loaded.payment.name, &attempt, meta).await,
            None => Ok(changed.loaded),
        }
    }

    /// A cancel whose void or refund was refused: takes note of what the provider has, and tries anew.
    async fn unstick(&self, loaded: Loaded, meta: &Meta) -> Result<Loaded, Error> {
        let name = loaded.payment.name.clone();
        let refused = loaded.payment.attempts.iter().rev().find(|attempt| attempt.kind == Kind::Void);
        if let Some(refused) = refused.filter(|attempt| attempt.is_void())
            && let Found::Here(standing) = self.find(&name).await
            && let Some(outcome) = void_of(&standing)
        {
            let command = self.settling(&refused.id, outcome, told(Source::Query));
            let changed = self.change(reconcile_site(), &name, command, meta).await?;
            return self.follow(changed, meta).await;
        }
        let changed = self.change(reconcile_site(), &name, Command::Continue, meta).await?;
        self.follow(changed, meta).await
    }

    /// Asks the provider what became of an attempt, without repeating it.
    async fn inquire(&self, name: &str, attempt: &Attempt, meta: &Meta) -> Result<Loaded, Error> {
        let outcome = match self.find(name).await {
            Found::Unknown(error) => {
                tracing::debug!(payment = name, attempt = attempt.id, error, "no answer; asked again later");
                None
            }
            Found::Nothing => self.gone(attempt),
            // One that waited for its buyer and is void was voided by us: its void attempt says so.
            Found::Here(standing) if standing.voided && attempt.state == AttemptState::Waiting => None,
            Found::Here(standing) if attempt.kind == Kind::Authorize => Some(standing.authorize),
            Found::Here(standing) => standing.done(&attempt.key).or_else(|| self.gone(attempt)),
        };
        let Some(outcome) = outcome else { return self.load(name).await };
        let command = self.settling(&attempt.id, outcome, told(Source::Query));
        let changed = self.change(reconcile_site(), name, command, meta).await?;
        self.follow(changed, meta).await
    }

    /// What it means that the provider knows nothing of an attempt: nothing yet, while its request may be on its way or
    /// its key is remembered and it may be repeated.
    fn gone(&self, attempt: &Attempt) -> Option<Outcome> {
        let over = attempt.is_open() && self.age(attempt.update_time) >= self.config.late_window;
        over.then_some(Outcome::NotFound)
    }

    /// Whether asking again under the same key is right: not for an authorization that nobody wants any more (it would be
    /// made to be voided), nor without its token, nor once the provider may have forgotten the key.
    fn may_resend(&self, payment: &Payment, attempt: &Attempt) -> bool {
        let wanted = attempt.kind != Kind::Authorize || (payment.cancel == Cancel::No && !payment.token.is_empty());
        wanted && self.age(attempt.create_time) < self.config.key_window
    }

    async fn find(&self, name: &str) -> Found {
        called("payment->provider/find", self.provider.find(name)).await
    }

    async fn ask(&self, payment: &Payment, attempt: &Attempt) -> Outcome {
        let key = crate::planted::key(attempt);
        let ask = Move { key: key.clone(), authorization: payment.reference.clone(), amount: attempt.amount };
        match attempt.kind {
            Kind::Authorize => {
                let ask = Authorize {
                    key,
                    reference: payment.name.clone(),
                    amount: attempt.amount,
                    currency: payment.currency.clone(),
                    token: payment.token.clone(),
                };
                called("payment->provider/authorize", self.provider.authorize(&ask)).await
            }
            Kind::Capture => called("payment->provider/capture", self.provider.capture(&ask)).await,
            Kind::Void => called("payment->provider/void", self.provider.void(&ask)).await,
            Kind::Refund => called("payment->provider/refund", self.provider.refund(&ask)).await,
        }
    }

    fn age(&self, since: Timestamp) -> Duration {
        Duration::try_from(self.log.store().clock().now().duration_since(since)).unwrap_or(Duration::ZERO)
    }
}

/// Every commit of the reconciler, whatever it found out.
fn reconcile_site() -> &'static Site {
    site!("payment.reconcile")
}

/// The name under which a payment is being reconciled.
pub(crate) fn reconciling(name: &str) -> String {
    format!("reconcile {name}")
}

/// An outcome that no operator told.
pub(crate) fn told(source: Source) -> Said {
    Said { source, actor: String::new(), note: String::new() }
}

fn void_of(standing: &Standing) -> Option<Outcome> {
    let (_, reference) = standing.moves.last().filter(|_| standing.voided)?;
    Some(Outcome::Done { reference: reference.clone() })
}

fn after(now: Timestamp, duration: Duration) -> Timestamp {
    let duration = jiff::SignedDuration::try_from(duration).ok();
    duration.and_then(|duration| now.checked_add(duration).ok()).unwrap_or(Timestamp::MAX)
}
