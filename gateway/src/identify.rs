//! Who is calling: the one bearer token a request may carry, or nobody.

use std::time::Duration;

use auth::{Principal, Verifier};
use contract::Guard;
use http::{HeaderMap, header};
use server::status;
use tonic::Code;
use transcode::service::Problem;

use crate::sessions::{Sessions, Unanswered};
use crate::upstream::status_of;

/// The clock the tokens' times are checked by; the context's.
type Clock = Box<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// Checks the tokens of requests.
pub(crate) struct Doorkeeper {
    verifier: Verifier,
    sessions: Sessions,
    now: Clock,
}

impl Doorkeeper {
    pub(crate) fn new(
        verifier: Verifier,
        sessions: Sessions,
        now: impl Fn() -> jiff::Timestamp + Send + Sync + 'static,
    ) -> Self {
        Doorkeeper { verifier, sessions, now: Box::new(now) }
    }

    /// The person behind the token. A token that is not believed is refused even where none is needed: a client that shows
    /// one wants to be somebody, and must hear that it is not.
    pub(crate) async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Ok(Principal::Anonymous);
        };
        if values.next().is_some() && Guard::OneToken.stands() {
            return Err(refused("more than one token"));
        }
        if self.verifier.keyring().is_empty() {
            let unknown = status::unavailable("the keys of tokens are not known yet", Duration::from_millis(500));
            return Err(Problem::from(status_of(&unknown)));
        }
        let token = value.to_str().ok().and_then(bearer).ok_or_else(|| refused("not a bearer token"))?;
        let subject = self.verifier.verify(token, (self.now)()).map_err(|reason| refused(&reason.to_string()))?;
        match self.sessions.ended(&subject.session).await {
            Ok(true) if Guard::EndedSession.stands() => Err(refused("its session was ended")),
            Ok(_) => Ok(Principal::User(subject)),
            Err(Unanswered) => {
                let unknown = "whether the session was ended cannot be found out";
                Err(Problem::from(status_of(&status::unavailable(unknown, Duration::from_millis(500)))))
            }
        }
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains([' ', ','])).then_some(token)
}

/// The reason goes to the log; outside it would only help to forge a better one.
fn refused(reason: &str) -> Problem {
    tracing::warn!(target: "audit", reason, "token refused");
    Problem::from(status_of(&status::rejected(Code::Unauthenticated, "UNAUTHENTICATED", "a valid token is needed", [])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_one_word_behind_its_scheme() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer abc"), Some("abc"));
        for bad in ["", "Bearer", "Bearer ", "Bearer a b", "Bearer a, Bearer b", "Basic abc", "abc", "Bearer  abc"] {
            assert_eq!(bearer(bad), None, "{bad:?}");
        }
    }
}
