//! Two laws that every saga must pass: *each step may run twice*, and *a failure at any step unwinds clean*.
//!
//! A service's test hands in how to build its world (fresh stores, the real callees or their doubles), how to start one
//! saga, and how to describe the world when the saga is settled. The laws compare descriptions.

use std::sync::Arc;
use std::time::Duration;

use store::Store;
use tokio_util::sync::CancellationToken;

use crate::rows::{self, Phase};
use crate::{Config, Definition, Error, Outcome, Runner};

/// A fault put into a runner by a law.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Injection {
    /// None: how every runner outside tests behaves.
    #[default]
    None,
    /// Each action and each compensation runs twice in a row.
    Twice,
    /// The action of this step is answered "no" before it is sent.
    RefusedBefore(usize),
    /// The action of this step happens, but its answer is lost, at every attempt: the step's deadline decides.
    AnswerLost(usize),
}

impl Injection {
    pub(crate) fn before(&self, step: usize, compensation: bool) -> Option<Outcome> {
        match self {
            Self::RefusedBefore(at) if *at == step && !compensation => {
                Some(Outcome::refused("INJECTED", "the action was refused before it was sent"))
            }
            Self::None | Self::Twice | Self::RefusedBefore(_) | Self::AnswerLost(_) => None,
        }
    }

    pub(crate) fn repeats(&self) -> bool {
        *self == Self::Twice
    }

    pub(crate) fn after(&self, step: usize, compensation: bool, outcome: Outcome) -> Outcome {
        match self {
            Self::AnswerLost(at) if *at == step && !compensation => Outcome::Retry("the answer was lost".to_owned()),
            Self::None | Self::Twice | Self::RefusedBefore(_) | Self::AnswerLost(_) => outcome,
        }
    }
}

/// A world in which one saga can run.
pub struct World<C: 'static> {
    /// The store with the saga's rows.
    pub store: Store,
    /// What actions are given.
    pub context: Arc<C>,
    /// The saga's table.
    pub definition: &'static Definition<C>,
    /// The saga, already started (queued) in `store`.
    pub saga: String,
}

/// Runs the world's saga until it is settled, with `injection`, and returns its last phase.
pub async fn settle<C: Send + Sync + 'static>(
    world: &World<C>,
    injection: Injection,
    within: Duration,
) -> Result<Phase, Error> {
    let config = Config {
        backoff_base: Duration::from_millis(1),
        backoff_cap: Duration::from_millis(10),
        poll: Duration::from_millis(20),
        injection,
        ..Config::default()
    };
    let runner = Runner::new(world.store.clone(), Arc::clone(&world.context), vec![world.definition], config);
    let mut progress = runner.watch(&world.saga);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(runner.run(shutdown.clone()));
    let settled = tokio::time::timeout(within, async {
        loop {
            let id = world.saga.clone();
            let row = world.store.read(async move |tx: &mut store::Tx| rows::get(tx, &id).await).await?;
            match row {
                Some(row) if !row.phase.is_open() => return Ok(row.phase),
                _ => progress.changed().await,
            }
        }
    })
    .await;
    shutdown.cancel();
    let _ = running.await;
    match settled {
        Ok(phase) => phase,
        Err(_) => Err(Error::Unsettled { saga: world.saga.clone() }),
    }
}
