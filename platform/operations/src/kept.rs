//! What a service keeps beside its log of what it told others: answers by request id, and how far its consumers are.
//!
//! A stored answer is the business of who asked for it, and holds what is theirs. Whoever looks whether it is still true needs
//! no more than the names in it, and is told no more.

use bus::BoxFuture;
use contract::EventSet;
use log::inbox::DealtWith;
use log::once::{Answer, Outcome};
use log::{Log, inbox, once, trail};
use store::{Tx, site};

use crate::names::names;

/// Stored answers that are in memory at a time, and names in one page, beyond which it ends early.
const ANSWERS: usize = 64;
const NAMES: usize = 4096;

/// Request ids and inbox of a service, whatever its events are.
pub(crate) trait Kept: Send + Sync {
    /// Takes a request id; refuses one that was used for another body. What follows may run again under the same id, so it
    /// has the same effect when repeated.
    fn claim(&self, request: Option<log::Request>) -> BoxFuture<'_, Result<(), log::Error>>;

    /// Answers behind one, in the order of [`once::answers`], at most `limit`.
    fn answers(&self, after: Answer, limit: u32) -> BoxFuture<'_, Result<Vec<Answer>, log::Error>>;

    /// Rows of the inbox behind one, in the order of [`inbox::all`], at most `limit`.
    fn inbox(&self, after: DealtWith, limit: u32) -> BoxFuture<'_, Result<Vec<DealtWith>, log::Error>>;

    /// The audit trail behind a record's id, newest first, at most `limit`.
    fn trail(&self, wanted: trail::Wanted, before: String, limit: u32) -> Trail<'_>;
}

pub(crate) type Trail<'a> = BoxFuture<'a, Result<Vec<trail::Record>, log::Error>>;

impl<E: EventSet> Kept for Log<E> {
    fn claim(&self, request: Option<log::Request>) -> BoxFuture<'_, Result<(), log::Error>> {
        Box::pin(self.once(site!("operations.claim"), request, async |_: &mut Tx| Ok(())))
    }

    fn answers(&self, after: Answer, limit: u32) -> BoxFuture<'_, Result<Vec<Answer>, log::Error>> {
        Box::pin(self.store().read(async move |tx: &mut Tx| once::answers(tx, &after, limit).await))
    }

    fn inbox(&self, after: DealtWith, limit: u32) -> BoxFuture<'_, Result<Vec<DealtWith>, log::Error>> {
        Box::pin(self.store().read(async move |tx: &mut Tx| inbox::all(tx, &after, limit).await))
    }

    fn trail(&self, wanted: trail::Wanted, before: String, limit: u32) -> Trail<'_> {
        Box::pin(self.store().read(async move |tx: &mut Tx| trail::list(tx, &wanted, &before, limit).await))
    }
}

/// What may be told of an answer.
pub(crate) struct Told {
    /// Whose it is and what came of it, without the answer itself.
    pub(crate) answer: Answer,
    /// The names in it; nothing where it cannot be read.
    pub(crate) names: Option<Vec<String>>,
}

impl Told {
    fn of(answer: Answer) -> Self {
        let names = match answer.outcome {
            Outcome::Done => names(&answer.reply).map(|names| names.into_iter().map(str::to_owned).collect()),
            Outcome::Claimed | Outcome::Refused => Some(Vec::new()),
        };
        Self { answer: Answer { reply: Vec::new(), ..answer }, names }
    }
}

/// A page of answers, and whether there may be more behind it.
pub(crate) async fn answers(kept: &dyn Kept, mut after: Answer, size: usize) -> Result<(Vec<Told>, bool), log::Error> {
    let (mut page, mut told) = (Vec::new(), 0);
    while page.len() < size && told < NAMES {
        let limit = ANSWERS.min(size - page.len());
        let read = kept.answers(after, u32::try_from(limit).unwrap_or(u32::MAX)).await?;
        let ended = read.len() < limit;
        page.extend(read.into_iter().map(Told::of));
        told = page.iter().filter_map(|it: &Told| it.names.as_ref()).map(Vec::len).sum();
        match page.last() {
            Some(last) if !ended => after = last.answer.clone(),
            _ => return Ok((page, false)),
        }
    }
    Ok((page, true))
}

/// The place of an answer in the list, and the place that a list goes on behind.
pub(crate) fn place_of(answer: &Answer) -> String {
    [&*answer.principal, &*answer.method, &*answer.key].join("\n")
}

pub(crate) fn behind_answer(place: &str) -> Option<Answer> {
    let mut parts = place.split('\n').map(str::to_owned);
    let (principal, method, key) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Answer { principal, method, key, ..Answer::default() })
}

/// The place of a row of the inbox in the list, and the place that a list goes on behind.
pub(crate) fn place_in(row: &DealtWith) -> String {
    [&*row.consumer, &*row.producer, &*row.stream].join("\n")
}

pub(crate) fn behind_row(place: &str) -> Option<DealtWith> {
    let mut parts = place.split('\n').map(str::to_owned);
    let (consumer, producer, stream) = (parts.next()?, parts.next()?, parts.next()?);
    Some(DealtWith { consumer, producer, stream, version: 0 })
}
