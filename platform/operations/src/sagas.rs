//! The sagas of a service, whatever their steps are given.

use std::time::Duration;

use bus::BoxFuture;
use jiff::Timestamp;
use saga::{History, Phase, Row, Runner};
use store::{Error, Tx};

/// A saga with what only its table of steps knows.
pub(crate) struct Seen {
    pub(crate) row: Row,
    /// Name of the step it stands at, and the bound on all attempts at it.
    pub(crate) step: Option<(&'static str, Duration)>,
    /// Whether it can still be made to undo what it did.
    pub(crate) can_turn: bool,
}

/// A saga and the history of its steps.
pub(crate) type Told = (Seen, Vec<History>);

/// What an operator asks of a runner.
pub(crate) trait Sagas: Send + Sync {
    /// Sagas in these phases (in all, if none is named), newest first, after one seen before.
    fn list(
        &self,
        phases: Vec<Phase>,
        after: Option<(Timestamp, String)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Seen>, Error>>;

    /// One saga with the history of its steps.
    fn get(&self, id: String) -> BoxFuture<'_, Result<Option<Told>, Error>>;

    /// Makes a waiting or stuck saga due now.
    fn nudge(&self, id: String) -> BoxFuture<'_, Result<bool, Error>>;

    /// Makes a saga that has not passed its pivot undo what it did.
    fn turn(&self, id: String, reason: String) -> BoxFuture<'_, Result<bool, Error>>;
}

impl<C: Send + Sync + 'static> Sagas for Runner<C> {
    fn list(
        &self,
        phases: Vec<Phase>,
        after: Option<(Timestamp, String)>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<Seen>, Error>> {
        Box::pin(async move {
            let rows = self
                .store()
                .read(async move |tx: &mut Tx| {
                    let after = after.as_ref().map(|(moment, id)| (*moment, id.as_str()));
                    saga::list(tx, &phases, after, limit).await
                })
                .await?;
            Ok(rows.into_iter().map(|row| seen(self, row)).collect())
        })
    }

    fn get(&self, id: String) -> BoxFuture<'_, Result<Option<Told>, Error>> {
        Box::pin(async move {
            let found = self
                .store()
                .read(async move |tx: &mut Tx| match saga::get(tx, &id).await? {
                    Some(row) => Ok::<_, Error>(Some((row, saga::history(tx, &id).await?))),
                    None => Ok(None),
                })
                .await?;
            Ok(found.map(|(row, history)| (seen(self, row), history)))
        })
    }

    fn nudge(&self, id: String) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move { Runner::nudge(self, &id).await })
    }

    fn turn(&self, id: String, reason: String) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async move { self.force_compensate(&id, &reason).await })
    }
}

fn seen<C: Send + Sync + 'static>(runner: &Runner<C>, row: Row) -> Seen {
    Seen { step: runner.step_of(&row).map(|step| (step.name, step.deadline)), can_turn: runner.can_turn(&row), row }
}
