//! The provider's HTTP interface: routes, validation, and the misbehaviour that a token asks for.
//!
//! An answer is given only after what it tells is on disk. Cutting a connection is an error of the service
//! function: hyper closes the connection without a byte.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::journal::Journal;
use crate::ledger::{self, Action, Answer, Command, Refusal, Telling, json, problem};
use crate::token::Token;
use crate::webhook::Deliveries;
use crate::wire::{AuthorizeBody, CompleteBody, Endpoint, MoveBody, VoidBody};

const BODY_LIMIT: usize = 64 * 1024;
const TEXT_LIMIT: usize = 255;
const AMOUNT_LIMIT: i64 = 99_999_999_999;
const PAGE: i64 = 1000;

/// A ledger that fails half-way through a long answer breaks it off, so that nobody takes it for whole.
type Body = UnsyncBoxBody<Bytes, ledger::Error>;

/// The connection is to be cut instead of answered.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut without an answer, as the token asks")]
pub(crate) struct Cut;

/// Everything a request needs.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) journal: Journal,
    pub(crate) deliveries: Deliveries,
    pub(crate) telling: Telling,
    pub(crate) slow: Duration,
    pub(crate) patience: Duration,
    pub(crate) base: String,
}

/// Why a request is not performed.
enum Failure {
    Cut,
    Ledger(ledger::Error),
    Refused(Answer),
}

impl From<ledger::Error> for Failure {
    fn from(error: ledger::Error) -> Self {
        Failure::Ledger(error)
    }
}

impl Desk {
    /// Answers one request, or cuts the connection.
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
        match self.route(request).await {
            Ok(response) => Ok(response),
            Err(Failure::Cut) => Err(Cut),
            Err(Failure::Refused(answer)) => Ok(respond(answer.status, answer.body)),
            Err(Failure::Ledger(error)) => {
                tracing::error!(%error, "a request failed");
                Ok(respond(500, problem("internal", "the provider failed; try again with the same key")))
            }
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (&method, parts.as_slice()) {
            (&Method::POST, ["v1", "authorizations"]) => self.authorize(request).await,
            (&Method::GET, ["v1", "authorizations"]) => self.find_by_reference(&request).await,
            (&Method::GET, ["v1", "authorizations", id]) => self.find(id).await,
            (&Method::POST, ["v1", "authorizations", id, "capture"]) => {
                let (id, path) = ((*id).to_owned(), path.clone());
                self.perform_move(request, &path, |amount, reference| Action::Capture {
                    authorization: id,
                    amount,
                    reference,
                })
                .await
            }
            (&Method::POST, ["v1", "authorizations", id, "refund"]) => {
                let (id, path) = ((*id).to_owned(), path.clone());
                self.perform_move(request, &path, |amount, reference| Action::RefundAuthorization {
                    authorization: id,
                    amount,
                    reference,
                })
                .await
            }
            (&Method::POST, ["v1", "captures", id, "refund"]) => {
                let (id, path) = ((*id).to_owned(), path.clone());
                self.perform_move(request, &path, |amount, reference| Action::RefundCapture {
                    capture: id,
                    amount,
                    reference,
                })
                .await
            }
            (&Method::POST, ["v1", "authorizations", id, "void"]) => self.void(request, id, &path).await,
            (&Method::GET, ["challenges", id]) => self.challenge(id).await,
            (&Method::POST, ["challenges", last]) if last.ends_with(":complete") => {
                self.complete(request, last.trim_end_matches(":complete")).await
            }
            (&Method::GET, ["ledger"]) => self.entries(&request),
            (&Method::GET, ["ledger", "summary"]) => {
                let summary = self.journal.read(|ledger| ledger.summary()).await?;
                Ok(ok(&summary))
            }
            (&Method::PUT, ["webhook_endpoint"]) => self.redirect(request).await,
            (&Method::GET, ["health"]) => Ok(respond(200, "{\"status\":\"ok\"}".to_owned())),
            (_, parts) => Ok(no_such_route(parts)),
        }
    }

    async fn authorize(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let key = idempotency_key(&request)?;
        let body: AuthorizeBody = body_of(request, false).await?;
        check_amount(body.amount)?;
        check_reference(&body.reference)?;
        if body.currency.len() != 3 || !body.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid("currency is three capital letters of ISO 4217"));
        }
        let Some(token) = Token::parse(&body.token) else {
            return Err(Failure::Refused(Answer::problem(422, "unknown_token", "no such payment token")));
        };
        if token == Token::Never {
            // Until the client gives up: hyper drops this future with the connection.
            std::future::pending::<()>().await;
        }
        let fingerprint = fingerprint("/v1/authorizations", &body);
        let command = Command {
            key,
            fingerprint,
            action: Action::Authorize {
                metadata: json(&body.metadata),
                reference: body.reference,
                amount: body.amount,
                currency: body.currency,
                token,
                base: self.base.clone(),
            },
        };
        let answer = self.perform(command).await?;
        if !answer.replayed && answer.status == 200 {
            match token {
                Token::AnswerLost => return Err(Failure::Cut),
                Token::Slow => tokio::time::sleep(self.slow).await,
                Token::Ok
                | Token::Declined
                | Token::RequiresAction
                | Token::FailsOnce
                | Token::Never
                | Token::WebhookFirst
                | Token::WebhookTwice
                | Token::WebhookLate
                | Token::WebhookNever => {}
            }
        }
        Ok(respond(answer.status, answer.body))
    }

    async fn perform_move(
        &self,
        request: Request<Incoming>,
        path: &str,
        action: impl FnOnce(i64, String) -> Action,
    ) -> Result<Response<Body>, Failure> {
        let key = idempotency_key(&request)?;
        let body: MoveBody = body_of(request, false).await?;
        check_amount(body.amount)?;
        check_reference(&body.reference)?;
        let fingerprint = fingerprint(path, &body);
        let action = action(body.amount, body.reference);
        let answer = self.perform(Command { key, fingerprint, action }).await?;
        Ok(respond(answer.status, answer.body))
    }

    async fn void(
        &self,
        request: Request<Incoming>,
        authorization: &str,
        path: &str,
    ) -> Result<Response<Body>, Failure> {
        let key = idempotency_key(&request)?;
        let body: VoidBody = body_of(request, true).await?;
        if body.reference.len() > TEXT_LIMIT {
            return Err(invalid("reference is at most 255 bytes"));
        }
        let command = Command {
            key,
            fingerprint: fingerprint(path, &body),
            action: Action::Void { authorization: authorization.to_owned(), reference: body.reference },
        };
        let answer = self.perform(command).await?;
        Ok(respond(answer.status, answer.body))
    }

    /// Records, then delivers first what has to be delivered before the answer.
    async fn perform(&self, command: Command) -> Result<Answer, Failure> {
        let telling = self.telling;
        let answer = self.journal.write(move |ledger, now| ledger.perform(&command, telling, now)).await?;
        if answer.told {
            self.deliveries.wake();
        }
        if let Some(event) = &answer.deliver_first {
            self.deliveries.delivered(event, self.patience).await?;
        }
        Ok(answer)
    }

    async fn complete(&self, request: Request<Incoming>, challenge: &str) -> Result<Response<Body>, Failure> {
        let body: CompleteBody = body_of(request, false).await?;
        let (challenge, telling) = (challenge.to_owned(), self.telling);
        let answer =
            self.journal.write(move |ledger, now| ledger.complete(&challenge, body.outcome, telling, now)).await?;
        if answer.told {
            self.deliveries.wake();
        }
        Ok(respond(answer.status, answer.body))
    }

    async fn find(&self, id: &str) -> Result<Response<Body>, Failure> {
        let id = id.to_owned();
        match self.journal.read(move |ledger| ledger.find(&id)).await? {
            Some(history) => Ok(ok(&history)),
            None => Err(not_found("authorization")),
        }
    }

    async fn find_by_reference(&self, request: &Request<Incoming>) -> Result<Response<Body>, Failure> {
        let Some(reference) = query(request, "reference") else {
            return Err(invalid("the query parameter reference is missing"));
        };
        let found = self.journal.read(move |ledger| ledger.find_by_reference(&reference)).await?;
        if found.authorizations.is_empty() {
            return Err(not_found("authorization"));
        }
        Ok(ok(&found))
    }

    async fn challenge(&self, id: &str) -> Result<Response<Body>, Failure> {
        let id = id.to_owned();
        let found = self.journal.read(move |ledger| ledger.find_by_challenge(&id)).await?;
        match found {
            Some(authorization) => Ok(ok(&authorization)),
            None => Err(not_found("challenge")),
        }
    }

    /// Streams the entries page by page, so that a year of them needs no more memory than a page.
    fn entries(&self, request: &Request<Incoming>) -> Result<Response<Body>, Failure> {
        let number = |name: &str, default: i64| match query(request, name) {
            None => Ok(default),
            Some(text) => text
                .parse::<i64>()
                .ok()
                .filter(|number| *number >= 0)
                .ok_or_else(|| invalid("after and limit are whole numbers")),
        };
        let cursor = Cursor {
            journal: self.journal.clone(),
            lines: request
                .headers()
                .get(header::ACCEPT)
                .is_some_and(|accept| accept.as_bytes() == b"application/x-ndjson"),
            after: number("after", 0)?,
            left: number("limit", i64::MAX)?,
            started: false,
            ended: false,
        };
        let content_type = if cursor.lines { "application/x-ndjson" } else { "application/json" };
        let pages = stream::unfold(cursor, |mut cursor| async move {
            let page = cursor.next_page().await?;
            Some((page.map(|page| Frame::data(Bytes::from(page))), cursor))
        });
        let mut response = Response::new(StreamBody::new(pages).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
        Ok(response)
    }

    async fn redirect(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let endpoint: Endpoint = body_of(request, false).await?;
        if !endpoint.url.starts_with("http://") {
            return Err(invalid("url begins with http://"));
        }
        let kept = endpoint.clone();
        self.journal.write(move |ledger, _| ledger.set_endpoint(&kept)).await?;
        self.deliveries.redirect(endpoint);
        Ok(respond(200, "{}".to_owned()))
    }
}

/// A walk through the entries.
struct Cursor {
    journal: Journal,
    /// One entry a line, without brackets.
    lines: bool,
    after: i64,
    left: i64,
    started: bool,
    ended: bool,
}

impl Cursor {
    async fn next_page(&mut self) -> Option<Result<String, ledger::Error>> {
        if self.ended {
            return None;
        }
        let (after, limit) = (self.after, self.left.min(PAGE));
        let entries = match self.journal.read(move |ledger| ledger.entries(after, limit)).await {
            Ok(entries) => entries,
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        self.left -= count;
        self.ended = count < PAGE || self.left == 0;
        let mut page = String::new();
        if !self.lines && !self.started {
            page.push('[');
        }
        for entry in &entries {
            self.after = entry.seq;
            if !self.lines {
                page.push_str(if self.started { ",\n" } else { "\n" });
            }
            self.started = true;
            page.push_str(&json(entry));
            if self.lines {
                page.push('\n');
            }
        }
        self.started = true;
        if !self.lines && self.ended {
            page.push_str("\n]\n");
        }
        Some(Ok(page))
    }
}

fn idempotency_key(request: &Request<Incoming>) -> Result<String, Failure> {
    request
        .headers()
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .filter(|key| !key.is_empty() && key.len() <= TEXT_LIMIT)
        .map(str::to_owned)
        .ok_or_else(|| invalid("the header Idempotency-Key is missing or longer than 255 bytes"))
}

async fn body_of<T: DeserializeOwned>(request: Request<Incoming>, may_be_empty: bool) -> Result<T, Failure> {
    let bytes = Limited::new(request.into_body(), BODY_LIMIT)
        .collect()
        .await
        .map_err(|_| invalid("the body cannot be read or is larger than 64 KiB"))?
        .to_bytes();
    let text: &[u8] = if may_be_empty && bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| invalid(&error.to_string()))
}

fn check_amount(amount: i64) -> Result<(), Failure> {
    if (1..=AMOUNT_LIMIT).contains(&amount) {
        Ok(())
    } else {
        Err(invalid("amount is between 1 and 99999999999 minor units"))
    }
}

fn check_reference(reference: &str) -> Result<(), Failure> {
    if reference.is_empty() || reference.len() > TEXT_LIMIT {
        return Err(invalid("reference has 1 to 255 bytes"));
    }
    Ok(())
}

/// What makes two requests the same: where they go and what they say, not how it is spelt.
fn fingerprint<T: Serialize>(path: &str, body: &T) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(path.as_bytes());
    hash.update([0]);
    hash.update(json(body).as_bytes());
    hash.finalize().into()
}

fn query(request: &Request<Incoming>, name: &str) -> Option<String> {
    request.uri().query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| unescape(value))
    })
}

/// Percent-decoding of a query value; a malformed escape stands for itself.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn no_such_route(parts: &[&str]) -> Response<Body> {
    let allowed = match parts {
        ["v1", "authorizations"] => "GET, POST",
        ["v1", "authorizations", _] | ["ledger"] | ["ledger", "summary"] | ["health"] => "GET",
        ["v1", "authorizations", _, "capture" | "refund" | "void"] | ["v1", "captures", _, "refund"] => "POST",
        ["challenges", last] if last.ends_with(":complete") => "POST",
        ["challenges", _] => "GET",
        ["webhook_endpoint"] => "PUT",
        _ => return respond(404, problem("not_found", "no such path")),
    };
    let mut response = respond(405, problem("method_not_allowed", "this path has another method"));
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}

fn invalid(message: &str) -> Failure {
    Failure::Refused(Answer::problem(400, "invalid_request", message))
}

fn not_found(what: &'static str) -> Failure {
    Failure::Refused(Answer::refused(&Refusal::NotFound(what)))
}

fn ok<T: Serialize>(value: &T) -> Response<Body> {
    respond(200, json(value))
}

fn respond(status: u16, body: String) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_percent_decoded() {
        assert_eq!(unescape("orders%2F1+a%zz%"), "orders/1 a%zz%");
    }
}
