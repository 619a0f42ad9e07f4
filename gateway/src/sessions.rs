//! Whether the session of an access token was ended, though the token itself has not expired.
//!
//! The cache says so while somebody vouches for it. When nobody does (it was emptied, or is away), identity is asked, which
//! knows; a session that it finds good is believed for [`BELIEVED`], so that an absent cache costs identity a call for each
//! session in that time and not for each request. When neither answers, the request is refused: ended stays ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cache::{Marks, Standing};
use client::{Channel, Outgoing};
use contracts::identity::v1::{CheckSessionRequest, identity_service_client::IdentityServiceClient};
use tokio::time::Instant;

/// How long identity may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a session is good after identity said so.
const BELIEVED: Duration = Duration::from_secs(1);

/// Answers of identity that are remembered at most.
const MAX_BELIEVED: usize = 8 * 1024;

/// Neither the cache nor identity knows.
#[derive(Debug)]
pub(crate) struct Unanswered;

/// Looks sessions up.
pub(crate) struct Sessions {
    marks: Arc<dyn Marks>,
    identity: IdentityServiceClient<Channel>,
    good_until: Mutex<HashMap<Box<str>, Instant>>,
}

impl Sessions {
    pub(crate) fn new(context: &server::Context) -> Self {
        Sessions {
            marks: Arc::clone(context.cache.marks()),
            identity: IdentityServiceClient::new(context.clients.as_caller(auth::GATEWAY).channel("identity")),
            good_until: Mutex::default(),
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
        let now = Instant::now();
        if self.good_until().get(session).is_some_and(|until| now < *until) {
            return Ok(false);
        }
        let asking = Outgoing { deadline: Some(now + PATIENCE), ..Outgoing::default() };
        let asking = asking.request(CheckSessionRequest { name: session.to_owned() });
        match self.identity.clone().check_session(asking).await {
            Ok(reply) if reply.get_ref().revoked => Ok(true),
            Ok(_) => {
                let mut good_until = self.good_until();
                if good_until.len() >= MAX_BELIEVED {
                    good_until.retain(|_, until| now < *until);
                    if good_until.len() >= MAX_BELIEVED {
                        good_until.clear();
                    }
                }
                good_until.insert(session.into(), now + BELIEVED);
                Ok(false)
            }
            Err(status) => {
                tracing::warn!(code = ?status.code(), "a session cannot be looked up, and its request is refused");
                Err(Unanswered)
            }
        }
    }

    fn good_until(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Instant>> {
        self.good_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
