//! Webhooks: the outbox is emptied towards one address, signed, until each event is accepted.
//!
//! At least once: an event leaves the outbox after a 2xx, so a crash in between delivers it again under the
//! same id. Order is not promised; deliveries run side by side.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use sha2::Sha256;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::journal::Journal;
use crate::ledger::{Error, Webhook};
use crate::wire::Endpoint;

const SIDE_BY_SIDE: usize = 16;
const LOOK_AHEAD: i64 = 64;
const PATIENCE: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// A cheap handle on the deliveries.
#[derive(Clone)]
pub(crate) struct Deliveries {
    journal: Journal,
    changed: Arc<Notify>,
    endpoint: Arc<watch::Sender<Option<Endpoint>>>,
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<()>>>>,
}

impl Deliveries {
    pub(crate) fn new(journal: Journal, endpoint: Option<Endpoint>) -> Self {
        Self {
            journal,
            changed: Arc::new(Notify::new()),
            endpoint: Arc::new(watch::Sender::new(endpoint)),
            waiting: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// New events lie in the outbox.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Sends to another address from now on.
    pub(crate) fn redirect(&self, endpoint: Endpoint) {
        self.endpoint.send_replace(Some(endpoint));
        self.wake();
    }

    /// Returns once the event was accepted, or nobody listens, or patience ends.
    pub(crate) async fn delivered(&self, event: &str, patience: Duration) -> Result<(), Error> {
        if self.endpoint.borrow().is_none() {
            return Ok(());
        }
        let (accepted, answer) = oneshot::channel();
        self.waiting().insert(event.to_owned(), accepted);
        // It may have gone out before we began to listen.
        let id = event.to_owned();
        if self.journal.read(move |ledger| ledger.is_pending(&id)).await? {
            self.wake();
            drop(tokio::time::timeout(patience, answer).await);
        }
        self.waiting().remove(event);
        Ok(())
    }

    /// Delivers until it is told to stop; what is left stays in the outbox.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let mut running = JoinSet::new();
        let mut in_flight = HashSet::new();
        let mut addresses = self.endpoint.subscribe();
        loop {
            let pause = self.start_due(&client, &mut running, &mut in_flight).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                changed = addresses.changed() => if changed.is_err() { return },
                Some(ended) = running.join_next() => match ended {
                    Ok(event) => { in_flight.remove(&event); }
                    Err(error) => tracing::error!(%error, "a delivery panicked"),
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts what is due and returns how long nothing else will be.
    async fn start_due(
        &self,
        client: &Client<HttpConnector, Full<Bytes>>,
        running: &mut JoinSet<String>,
        in_flight: &mut HashSet<String>,
    ) -> Duration {
        let endpoint = self.endpoint.borrow().clone();
        let Some(endpoint) = endpoint else {
            return LAST_RETRY;
        };
        let pending = match self.journal.read(|ledger| ledger.pending(LOOK_AHEAD)).await {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(%error, "the outbox cannot be read");
                return LAST_RETRY;
            }
        };
        let now = clock::now();
        for webhook in pending {
            if in_flight.contains(&webhook.id) {
                continue;
            }
            if webhook.due_time > now {
                let wait = webhook.due_time.duration_since(now);
                return Duration::try_from(wait).unwrap_or(LAST_RETRY);
            }
            if running.len() >= SIDE_BY_SIDE {
                return LAST_RETRY;
            }
            in_flight.insert(webhook.id.clone());
            running.spawn(self.clone().deliver(client.clone(), endpoint.clone(), webhook));
        }
        LAST_RETRY
    }

    async fn deliver(self, client: Client<HttpConnector, Full<Bytes>>, endpoint: Endpoint, webhook: Webhook) -> String {
        let id = webhook.id.clone();
        let recorded = if post(&client, &endpoint, &webhook).await {
            let event = id.clone();
            let recorded = self.journal.write(move |ledger, _| ledger.delivered(&event)).await;
            if let Some(accepted) = self.waiting().remove(&id) {
                // Nobody waits any more when patience has ended.
                accepted.send(()).ok();
            }
            recorded
        } else {
            let (event, attempts) = (id.clone(), webhook.attempts);
            self.journal.write(move |ledger, now| ledger.undelivered(&event, next_try(now, attempts))).await
        };
        if let Err(error) = recorded {
            tracing::error!(%error, "a delivery could not be recorded");
        }
        id
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value of the `stoa-signature` header: `t=<unix seconds>,v1=<hex of HMAC-SHA256 over "t.body">`.
pub fn signature(secret: &str, unix_seconds: i64, body: &[u8]) -> String {
    let mut code = Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
    code.update(unix_seconds.to_string().as_bytes());
    code.update(b".");
    code.update(body);
    let mut header = format!("t={unix_seconds},v1=");
    for byte in code.finalize().into_bytes() {
        header.push_str(&format!("{byte:02x}"));
    }
    header
}

async fn post(client: &Client<HttpConnector, Full<Bytes>>, endpoint: &Endpoint, webhook: &Webhook) -> bool {
    let time = clock::now().as_second();
    let request = http::Request::post(&endpoint.url)
        .header("content-type", "application/json")
        .header("stoa-signature", signature(&endpoint.secret, time, webhook.body.as_bytes()))
        .header("stoa-event-id", &webhook.id)
        .body(Full::new(Bytes::from(webhook.body.clone())));
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(%error, url = endpoint.url, "the webhook address is none");
            return false;
        }
    };
    match tokio::time::timeout(PATIENCE, client.request(request)).await {
        Ok(Ok(answer)) => answer.status().is_success(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a webhook was not delivered");
            false
        }
        Err(_) => false,
    }
}

fn next_try(now: Timestamp, attempts: u32) -> Timestamp {
    let pause = FIRST_RETRY.saturating_mul(1 << attempts.min(10)).min(LAST_RETRY);
    now.checked_add(pause).unwrap_or(now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_hmac_of_time_and_body() {
        // Checked with: printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            signature("secret", 1_700_000_000, b"{}"),
            "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
    }

    #[test]
    fn retries_slow_down_to_a_bound() {
        let now = Timestamp::from_second(0).unwrap();
        assert_eq!(next_try(now, 0).as_millisecond(), 200);
        assert_eq!(next_try(now, 1).as_millisecond(), 400);
        assert_eq!(next_try(now, 60).as_second(), 30);
    }
}
