//! The sandbox provider over HTTP/1.1: kept-alive connections, a bound on calls at once, a time limit for each.
//!
//! 2xx is a yes, or the decline its body says; 400, 404 and 422 are a definite no, for nothing was done and the same
//! request will never be. Everything else, a timeout, a broken connection, a body that is none, leaves the outcome open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use telemetry::spans::{self, Kind, Name, Running};
use telemetry::{Trace, metrics};
use tokio::sync::Semaphore;

use crate::payment::Outcome;
use crate::provider::{Authorize, Found, Move, Provider, Standing};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// A client of one sandbox provider.
pub(crate) struct Sandbox {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    places: Arc<Semaphore>,
    timeout: Duration,
}

/// An answer that came whole.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

#[derive(Deserialize)]
struct Authorization {
    id: String,
    status: String,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    challenge: Option<Challenge>,
    #[serde(default)]
    captures: Vec<Operation>,
    #[serde(default)]
    voids: Vec<Operation>,
    #[serde(default)]
    refunds: Vec<Operation>,
}

#[derive(Deserialize)]
struct Challenge {
    id: String,
    url: String,
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    #[serde(default)]
    reference: String,
}

#[derive(Deserialize)]
struct Authorizations {
    authorizations: Vec<Authorization>,
}

impl Sandbox {
    /// A client of the provider at `base`, with at most `calls` at once.
    pub(crate) fn new(base: &str, calls: usize, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(calls)
            .build(connector);
        let base = base.trim_end_matches('/').to_owned();
        Self { base, client, places: Arc::new(Semaphore::new(calls)), timeout }
    }

    /// The answer, or why there is none.
    async fn send(&self, method: Method, path: &str, key: &str, body: Option<Value>) -> Result<Answer, String> {
        let story = spans::current().unwrap_or_else(Trace::new_root);
        let verb = metrics::verb(method.as_str());
        let mut span = Running::begin("payment", Kind::Client, Name::of(verb, "provider"), &story);
        span.set("http.request.method", verb);
        span.set("service.peer.name", "provider");
        let traceparent = span.trace().traceparent();
        let call = async {
            let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
            let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
            request = request.header("traceparent", traceparent);
            if !key.is_empty() {
                request = request.header("idempotency-key", key);
            }
            let body = match body {
                Some(body) => {
                    request = request.header(http::header::CONTENT_TYPE, "application/json");
                    Bytes::from(body.to_string())
                }
                None => Bytes::new(),
            };
            let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
            let response = self.client.request(request).await.map_err(|error| told(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status, body })
        };
        let late = |_| format!("no answer within {:?}", self.timeout);
        let answer = tokio::time::timeout(self.timeout, call).await.map_err(late).flatten();
        match &answer {
            Ok(answer) => span.end_http(answer.status.as_u16()),
            Err(_) => {
                span.fail(true);
                span.set("error.type", "unanswered");
                span.end();
            }
        }
        answer
    }

    async fn perform(&self, ask: &Move, verb: &str, body: Value) -> Outcome {
        let path = format!("/v1/authorizations/{}/{verb}", ask.authorization);
        let answer = match self.send(Method::POST, &path, &ask.key, Some(body)).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unknown { error },
        };
        if !answer.status.is_success() {
            return refused(&answer);
        }
        match serde_json::from_slice::<Operation>(&answer.body) {
            Ok(operation) => Outcome::Done { reference: operation.id },
            Err(error) => Outcome::Unknown { error: format!("the answer is no operation: {error}") },
        }
    }
}

impl Provider for Sandbox {
    fn authorize<'a>(&'a self, ask: &'a Authorize) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let body = json!({
                "amount": ask.amount,
                "currency": ask.currency,
                "token": ask.token,
                "reference": ask.reference,
            });
            let answer = match self.send(Method::POST, "/v1/authorizations", &ask.key, Some(body)).await {
                Ok(answer) => answer,
                Err(error) => return Outcome::Unknown { error },
            };
            if !answer.status.is_success() {
                return refused(&answer);
            }
            match serde_json::from_slice::<Authorization>(&answer.body) {
                Ok(authorization) => outcome_of(&authorization),
                Err(error) => Outcome::Unknown { error: format!("the answer is no authorization: {error}") },
            }
        })
    }

    fn capture<'a>(&'a self, ask: &'a Move) -> BoxFuture<'a, Outcome> {
        Box::pin(self.perform(ask, "capture", json!({"amount": ask.amount, "reference": ask.key})))
    }

    fn void<'a>(&'a self, ask: &'a Move) -> BoxFuture<'a, Outcome> {
        Box::pin(self.perform(ask, "void", json!({"reference": ask.key})))
    }

    fn refund<'a>(&'a self, ask: &'a Move) -> BoxFuture<'a, Outcome> {
        Box::pin(self.perform(ask, "refund", json!({"amount": ask.amount, "reference": ask.key})))
    }

    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            // Names of payments are made of characters that stand for themselves in a query.
            let path = format!("/v1/authorizations?reference={reference}");
            let answer = match self.send(Method::GET, &path, "", None).await {
                Ok(answer) => answer,
                Err(error) => return Found::Unknown(error),
            };
            if answer.status == StatusCode::NOT_FOUND {
                return Found::Nothing;
            }
            if !answer.status.is_success() {
                return Found::Unknown(format!("the provider answers {}", answer.status));
            }
            match serde_json::from_slice::<Authorizations>(&answer.body) {
                Ok(found) => match found.authorizations.first() {
                    Some(first) => Found::Here(Box::new(standing_of(first))),
                    None => Found::Nothing,
                },
                Err(error) => Found::Unknown(format!("the answer is no list of authorizations: {error}")),
            }
        })
    }
}

/// What an authorization says of the attempt that made it: captured or void, it was once authorized.
fn outcome_of(authorization: &Authorization) -> Outcome {
    let reference = authorization.id.clone();
    match authorization.status.as_str() {
        "authorized" | "voided" => Outcome::Done { reference },
        "declined" => {
            Outcome::Declined { code: authorization.decline_code.clone().unwrap_or_else(|| "declined".to_owned()) }
        }
        "requires_action" => {
            let (challenge, uri) =
                authorization.challenge.as_ref().map(|it| (it.id.clone(), it.url.clone())).unwrap_or_default();
            Outcome::ActionRequired { reference, uri, challenge }
        }
        other => Outcome::Unknown { error: format!("the authorization is {other:?}") },
    }
}

fn standing_of(authorization: &Authorization) -> Standing {
    let moves = [&authorization.captures, &authorization.voids, &authorization.refunds];
    Standing {
        authorize: outcome_of(authorization),
        voided: authorization.status == "voided",
        moves: moves.into_iter().flatten().map(|made| (made.reference.clone(), made.id.clone())).collect(),
    }
}

/// What an answer that is no success means.
fn refused(answer: &Answer) -> Outcome {
    #[derive(Default, Deserialize)]
    struct Problem {
        error: Detail,
    }
    #[derive(Default, Deserialize)]
    struct Detail {
        code: String,
    }
    match answer.status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => {
            let problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
            let code = if problem.error.code.is_empty() { "refused".to_owned() } else { problem.error.code };
            Outcome::Declined { code }
        }
        // Whatever else it is (a key used otherwise, too many calls, no credentials, a fault), it does not say what
        // became of the call that was first made under this key.
        status => Outcome::Unknown { error: format!("the provider answers {status}") },
    }
}

/// An error with its causes, without the address.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), body: Bytes::from(body.to_owned()) }
    }

    #[test]
    fn only_a_definite_no_is_a_decline() {
        for (status, definite) in [
            (400, true),
            (401, false),
            (404, true),
            (409, false),
            (422, true),
            (429, false),
            (500, false),
            (503, false),
        ] {
            let outcome = refused(&answer(status, r#"{"error":{"code":"wrong_status","message":""}}"#));
            assert_eq!(matches!(outcome, Outcome::Declined { .. }), definite, "{status}");
        }
        assert_eq!(refused(&answer(422, "<html>")), Outcome::Declined { code: "refused".to_owned() });
    }
}
