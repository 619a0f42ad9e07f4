//! Event-sourced aggregates: load, decide, append, written once.
//!
//! The domain file implements [`Aggregate`] with two pure functions; this file does the rest in one
//! transaction: fold the stream, decide, append at the version that was folded. When another
//! transaction moved the stream in between, all of it runs again, a bounded number of times.

use contract::EventSet;
use store::{Site, Tx};

use crate::once::{Refusable, Request};
use crate::{Error, Log, Meta};

/// An aggregate whose state is the fold of its stream.
pub trait Aggregate: Default + Send + 'static {
    /// The event as the service stores it.
    type Stored: EventSet;
    /// The event as the domain sees it; the same type where the domain reads contract messages.
    type Event: Send + 'static;
    /// What may be asked of it.
    type Command: Send + 'static;
    /// Why it may say no.
    type Rejection: Send + 'static;

    /// What happens because of `command`, or why nothing does. Pure: time and ids are in the command.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The state after `event`. Pure and total: history is never refused.
    #[must_use]
    fn evolve(self, event: &Self::Event) -> Self;

    /// The event as it is stored.
    fn to_stored(event: &Self::Event) -> Self::Stored;

    /// The event as it was stored, or why it means nothing here.
    fn from_stored(stored: Self::Stored) -> Result<Self::Event, String>;
}

/// An aggregate as loaded: its state and the version that state has.
#[derive(Debug, Clone)]
pub struct Loaded<A> {
    /// The fold of the stream.
    pub state: A,
    /// The stream's version; 0 when it does not exist.
    pub version: u64,
}

/// A decided and appended command.
#[derive(Debug)]
pub struct Executed<A: Aggregate> {
    /// The state after the new events.
    pub state: A,
    /// The stream's new version.
    pub version: u64,
    /// What happened; empty when the command changed nothing.
    pub events: Vec<A::Event>,
}

/// A command to an aggregate with its circumstances.
#[derive(Debug)]
pub struct Execute<A: Aggregate> {
    /// The aggregate's stream.
    pub stream: String,
    /// Why this happens.
    pub meta: Meta,
    /// Whose personal fields the new events carry.
    pub subject: Option<String>,
    /// What is asked.
    pub command: A::Command,
}

impl<E: EventSet> Log<E> {
    /// Folds a stream, its personal fields opened.
    pub async fn fold<A: Aggregate<Stored = E>>(&self, tx: &mut Tx, stream: &str) -> Result<Loaded<A>, Error> {
        self.fold_until(tx, stream, u64::MAX).await
    }

    /// Folds a stream up to and with `version`: the aggregate as it was.
    pub async fn fold_until<A: Aggregate<Stored = E>>(
        &self,
        tx: &mut Tx,
        stream: &str,
        version: u64,
    ) -> Result<Loaded<A>, Error> {
        let mut loaded = Loaded { state: A::default(), version: 0 };
        for entry in self.load(tx, stream).await? {
            if entry.at.version > version {
                break;
            }
            let at = entry.at.version;
            let event = A::from_stored(entry.event).map_err(|detail| Error::NotUnderstood {
                stream: stream.to_owned(),
                version: at,
                detail,
            })?;
            loaded = Loaded { state: loaded.state.evolve(&event), version: at };
        }
        Ok(loaded)
    }

    /// Load, decide and append inside a transaction that does more: the outer error is a fault (or
    /// a lost race), the inner one the domain's no. [`Log::execute`] adds transaction, request id
    /// and retry.
    pub async fn decide_in<A: Aggregate<Stored = E>>(
        &self,
        tx: &mut Tx,
        execute: &Execute<A>,
    ) -> Result<Result<Executed<A>, A::Rejection>, Error> {
        // Taken before it is read, commands to one aggregate wait for each other instead of running again.
        tx.take_stream(&execute.stream).await?;
        let Loaded { state, version } = self.fold::<A>(tx, &execute.stream).await?;
        let events = match state.decide(&execute.command) {
            Ok(events) => events,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let stored = events.iter().map(A::to_stored).collect();
        let subject = execute.subject.as_deref();
        let version = self.append(tx, &execute.stream, version, &execute.meta, subject, stored).await?;
        let state = events.iter().fold(state, A::evolve);
        Ok(Ok(Executed { state, version, events }))
    }

    /// One command to one aggregate in one transaction with its request id. `then` runs in the same
    /// transaction after the append: rows, timers, a saga; and makes the reply. A rejection is
    /// stored as the request's answer, a fault is not.
    pub async fn execute<A, Reply, X, F>(
        &self,
        site: &'static Site,
        request: Option<Request>,
        execute: Execute<A>,
        mut then: F,
    ) -> Result<Reply, X>
    where
        A: Aggregate<Stored = E>,
        Reply: prost::Message + Default + 'static,
        X: From<A::Rejection> + From<Error> + From<store::Error> + Refusable + Send + 'static,
        F: AsyncFnMut(&mut Tx, &Executed<A>) -> Result<Reply, X> + Send + 'static,
    {
        let log = self.clone();
        self.once(site, request, async move |tx: &mut Tx| {
            let executed = log.decide_in(tx, &execute).await??;
            then(tx, &executed).await
        })
        .await
    }
}
