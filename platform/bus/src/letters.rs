//! Dead letters: what a consumer parked, for operators to see and to drive again.
//!
//! Letters that a newer release wrote are driven by whoever knows them, without an operator: while old and new copies of a
//! consumer run together, an old one parks them and a new one takes them up. So is what waits behind nothing: a message may
//! join its stream's queue in the moment in which another copy drives the last letter of it.

use std::sync::Arc;

use log::parked;
use store::Tx;

use crate::{Consumer, DeadLetter, Error, Failure, Message, Source, delivery};

/// Letters looked at in one transaction.
const PAGE: u32 = 256;

/// What a redrive did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redriven {
    /// Messages applied.
    pub applied: u64,
    /// Why it stopped before the end of a stream's queue, if it did; the last reason where several
    /// streams were driven.
    pub stopped: Option<String>,
}

impl Consumer {
    /// The parked messages in the order (producer, stream, version): those after `after`, at most
    /// `limit`.
    pub async fn dead_letters(
        &self,
        after: Option<(String, String, u64)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let name = self.inner.name;
        let letters = self
            .inner
            .store
            .read(async move |tx: &mut Tx| {
                let after = after.as_ref().map(|(producer, stream, version)| (&**producer, &**stream, *version));
                parked::list(tx, name, after, limit).await
            })
            .await?;
        Ok(letters)
    }

    /// Drives the parked messages of one stream again, in order, each in a transaction of its own,
    /// until the queue is empty (the stream then flows again) or one fails again.
    ///
    /// What this release does not know counts as applied: whoever drives it by hand has decided to go on without.
    pub async fn redrive(&self, producer: &str, stream: &str) -> Result<Redriven, Error> {
        self.drive_stream(producer, stream, By::Hand).await
    }

    /// Drives the streams whose first letter waits for nobody's hand, if this release knows it: a newer release wrote it, or
    /// it never failed and what it was queued behind is gone.
    pub(crate) async fn redrive_known(&self) -> Result<Redriven, Error> {
        let mut total = Redriven::default();
        let mut after: Option<(String, String, u64)> = None;
        loop {
            let page = self.dead_letters(after.clone(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(total) };
            let before = after.replace((last.producer.clone(), last.stream.clone(), last.version));
            let mut previous = before.as_ref().map(|(producer, stream, _)| (producer, stream));
            for letter in &page {
                let this = Some((&letter.producer, &letter.stream));
                let first = this != previous;
                previous = this;
                let free = Failure::was_newer(&letter.reason) || first && letter.reason.is_empty();
                if !(free && self.inner.handler.knows(&letter.name)) {
                    continue;
                }
                let redriven = self.drive_stream(&letter.producer, &letter.stream, By::Itself).await?;
                total.applied += redriven.applied;
                total.stopped = redriven.stopped.or(total.stopped);
            }
        }
    }

    async fn drive_stream(&self, producer: &str, stream: &str, by: By) -> Result<Redriven, Error> {
        let no_source = || Error::NoSuchSource(producer.to_owned());
        let source = self.inner.hub.source(producer).ok_or_else(no_source)?;
        let mut redriven = Redriven::default();
        while let Some(letter) = self.first_letter(producer, stream).await? {
            let message = fetch(&source, &letter).await?;
            match self.drive(message, by).await {
                Ok(applied) => redriven.applied += u64::from(applied),
                // What may work later is left as it is, for the next look.
                Err(NotDriven(Failure::Transient(reason))) if by == By::Itself => {
                    redriven.stopped = Some(reason);
                    break;
                }
                Err(NotDriven(Failure::Transient(reason) | Failure::Permanent(reason))) => {
                    redriven.stopped = Some(reason.clone());
                    self.note(letter, reason).await?;
                    break;
                }
            }
        }
        Ok(redriven)
    }

    /// Drives every parked stream once.
    pub async fn redrive_all(&self) -> Result<Redriven, Error> {
        let mut total = Redriven::default();
        let mut after = None;
        loop {
            // Past the last possible version of the stream driven before, so each comes up once.
            let Some(letter) = self.dead_letters(after, 1).await?.pop() else {
                return Ok(total);
            };
            let redriven = self.redrive(&letter.producer, &letter.stream).await?;
            total.applied += redriven.applied;
            total.stopped = redriven.stopped.or(total.stopped);
            after = Some((letter.producer, letter.stream, i64::MAX.unsigned_abs()));
        }
    }

    async fn first_letter(&self, producer: &str, stream: &str) -> Result<Option<DeadLetter>, Error> {
        let (name, producer, stream) = (self.inner.name, producer.to_owned(), stream.to_owned());
        let first =
            self.inner.store.read(async move |tx: &mut Tx| parked::first(tx, name, &producer, &stream).await).await?;
        Ok(first)
    }

    /// The effect and the end of the parking, together; false when another redrive was first.
    async fn drive(&self, message: Message, by: By) -> Result<bool, NotDriven> {
        let inner = self.inner.clone();
        self.inner
            .store
            .write(self.inner.site, async move |tx: &mut Tx| {
                let Message { service, stream, version, name, .. } = &message;
                let taken = parked::take(tx, inner.name, service, stream, *version).await.map_err(Failure::from)?;
                if taken && by == By::Itself && !inner.handler.knows(name) {
                    return Err(Failure::newer(name).into());
                }
                if taken && inner.handler.wants(name) {
                    delivery::apply(tx, &inner, &message).await?;
                }
                Ok(taken)
            })
            .await
    }

    async fn note(&self, letter: DeadLetter, reason: String) -> Result<(), Error> {
        let name = self.inner.name;
        self.inner
            .store
            .write(self.inner.site, async move |tx: &mut Tx| parked::failed_again(tx, name, &letter, &reason).await)
            .await?;
        Ok(())
    }
}

/// Who wants a letter driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Hand,
    Itself,
}

struct NotDriven(Failure);

impl From<Failure> for NotDriven {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<store::Error> for NotDriven {
    fn from(error: store::Error) -> Self {
        Failure::from(error).into()
    }
}

async fn fetch(source: &Arc<dyn Source>, letter: &DeadLetter) -> Result<Message, Error> {
    let found = source.read_stream(&letter.stream, letter.version, 1).await?.pop();
    found.filter(|message| message.version == letter.version).ok_or_else(|| Error::Missing {
        service: letter.producer.clone(),
        stream: letter.stream.clone(),
        version: letter.version,
    })
}
