//! The keys that sign access tokens, where identity is in another process: fetched at the start, and then now and then.
//!
//! A key is published well before it signs, so a set that is a little old still has every key in use; while identity is
//! away, the last good set stays.

use std::time::Duration;

use client::Outgoing;
use contracts::identity::v1::{GetJwksRequest, identity_service_client::IdentityServiceClient};
use server::Task;
use tokio::time::MissedTickBehavior;

/// How long one fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the context's keyring up with identity's keys, looking `every` so often.
pub fn follow(context: &server::Context, every: Duration) -> Task {
    let mut identity = IdentityServiceClient::new(context.clients.as_caller(auth::GATEWAY).channel("identity"));
    let (keyring, shutdown) = (context.keyring().clone(), context.shutdown.clone());
    Task::endless("gateway.keys", async move {
        let mut turns = tokio::time::interval(every);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = String::new();
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let deadline = Some(tokio::time::Instant::now() + PATIENCE);
            let asked = Outgoing { deadline, ..Outgoing::default() }.request(GetJwksRequest {});
            let keys = match identity.get_jwks(asked).await {
                Ok(reply) => reply.into_inner(),
                Err(status) => {
                    tracing::warn!(%status, "the signing keys cannot be fetched; those held stay");
                    continue;
                }
            };
            // The same set is not published again: what was verified with it is remembered.
            match serde_json::to_string(&keys) {
                Ok(document) if document == held => {}
                Ok(document) => match keyring.import(&document) {
                    Ok(()) => held = document,
                    Err(error) => tracing::warn!(%error, "the signing keys are not taken; those held stay"),
                },
                Err(error) => tracing::warn!(%error, "the signing keys cannot be read"),
            }
        }
    })
}
