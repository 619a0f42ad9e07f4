//! Whether the session of an access token was ended, though the token itself has not expired.
//!
//! The cache says so while somebody vouches for it. When nobody does (it was emptied, or is away), identity is asked, which
//! knows. Its answer is not remembered: the end of a session may be answered a moment later, by a copy whose cache is back
//! before ours is. When neither answers, the request is refused: ended stays ended.

use std::sync::Arc;
use std::time::Duration;

use cache::{Marks, Standing};
use client::{Channel, Outgoing};
use contracts::identity::v1::{CheckSessionRequest, identity_service_client::IdentityServiceClient};
use tokio::time::Instant;

/// How long identity may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Neither the cache nor identity knows.
#[derive(Debug)]
pub(crate) struct Unanswered;

/// Looks sessions up.
pub(crate) struct Sessions {
    marks: Arc<dyn Marks>,
    identity: IdentityServiceClient<Channel>,
}

impl Sessions {
    pub(crate) fn new(context: &server::Context) -> Self {
        Sessions {
            marks: Arc::clone(context.cache.marks()),
            identity: IdentityServiceClient::new(context.clients.as_caller(auth::GATEWAY).channel("identity")),
        }
    }

    /// Whether a session was ended. A token may name none.
    pub(crate) async fn ended(&self, session: &str) -> Result<bool, Unanswered> {
        if session.is_empty() {
            return Ok(false);
        }
        match self.marks.standing(session).await {
            Ok(Standing::Good) => Ok(false),
            Ok(Standing::Revoked) => Ok(true),
            // The cache itself says when it goes away and comes back.
            Ok(Standing::Unknown) | Err(cache::Unavailable { .. }) => self.asked(session).await,
        }
    }

    async fn asked(&self, session: &str) -> Result<bool, Unanswered> {
        let asking = Outgoing { deadline: Some(Instant::now() + PATIENCE), ..Outgoing::default() };
        let asking = asking.request(CheckSessionRequest { name: session.to_owned() });
        match self.identity.clone().check_session(asking).await {
            Ok(reply) => Ok(reply.get_ref().revoked),
            Err(status) => {
                tracing::warn!(code = ?status.code(), "a session cannot be looked up, and its request is refused");
                Err(Unanswered)
            }
        }
    }
}
