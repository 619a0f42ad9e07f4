//! A connection that is made when it is needed, and made again after it broke.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Event};
use log::backoff;
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::Fault;

/// From the first packet until the broker has let us in.
const CONNECTED: Duration = Duration::from_secs(5);
/// For the answer to anything but a publication.
const ANSWERED: Duration = Duration::from_secs(10);
/// The pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Asks the broker something that is answered at once or not at all.
pub(super) async fn within<T>(what: &'static str, asked: impl Future<Output = lapin::Result<T>>) -> Result<T, Fault> {
    Ok(timeout(ANSWERED, asked).await.map_err(|_| Fault::Silent(what))??)
}

/// One connection, for as long as it lasts, and then the next.
pub(super) struct Link {
    purpose: &'static str,
    uri: AMQPUri,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Open>>,
    attempts: u32,
    failed: Option<(Instant, Fault)>,
    rest_until: Option<Instant>,
}

/// A connection, alive or not.
pub(super) struct Open {
    connection: Connection,
    /// Why the broker reads nothing from us, while it does not.
    blocked: watch::Receiver<Option<String>>,
    listening: AbortHandle,
}

impl Link {
    pub(super) fn new(purpose: &'static str, uri: AMQPUri) -> Self {
        Self { purpose, uri, state: Mutex::default() }
    }

    /// The connection. Who asks while another connects shares the outcome, so that many who wait for a broker that is away
    /// do not wait for each other's attempts too.
    pub(super) async fn open(&self) -> Result<Arc<Open>, Fault> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| open.connection.status().connected()) {
            return Ok(open.clone());
        }
        if let Some((_, fault)) = state.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(fault.clone());
        }
        state.open = None;
        if let Some(until) = state.rest_until {
            sleep_until(until).await;
        }
        let name = format!("stoa {}", self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connecting = timeout(CONNECTED, Connection::connect_uri(self.uri.clone(), properties)).await;
        let reason = match connecting {
            Ok(Ok(connection)) => {
                let open = Arc::new(Open::new(connection));
                *state = State { open: Some(open.clone()), ..State::default() };
                return Ok(open);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer".to_owned(),
        };
        state.attempts += 1;
        state.rest_until = Some(Instant::now() + backoff::jittered(state.attempts, FIRST_PAUSE, LONGEST_PAUSE));
        let fault = Fault::Unreachable(reason);
        state.failed = Some((Instant::now(), fault.clone()));
        Err(fault)
    }

    /// Gives up a connection that does not answer.
    pub(super) async fn discard(&self, silent: &Arc<Open>) {
        let mut state = self.state.lock().await;
        if state.open.as_ref().is_some_and(|open| Arc::ptr_eq(open, silent)) {
            state.open = None;
        }
    }

    pub(super) async fn close(&self) {
        if let Some(open) = self.state.lock().await.open.take() {
            // It is gone either way when this process is.
            let _ = within("close a connection", open.connection.close(200, "bye".into())).await;
        }
    }
}

impl Open {
    fn new(connection: Connection) -> Self {
        let (reason, blocked) = watch::channel(None);
        let mut events = connection.events_listener().boxed();
        let listening = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(why) => drop(reason.send_replace(Some(why))),
                    Event::ConnectionUnblocked => drop(reason.send_replace(None)),
                    _ => {}
                }
            }
        });
        Self { connection, blocked, listening: listening.abort_handle() }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn is_blocked(&self) -> Option<String> {
        self.blocked.borrow().clone()
    }

    /// Returns, with the reason, when the broker stops reading from us.
    pub(super) async fn blocked(&self) -> String {
        let mut blocked = self.blocked.clone();
        let reason = blocked.wait_for(Option::is_some).await.map(|reason| reason.clone().unwrap_or_default());
        match reason {
            Ok(reason) => reason,
            // The connection is over, which is found out elsewhere.
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns once the broker reads from us; an error if that takes too long. Nothing may be sent before: it would
    /// be kept here, once for every attempt.
    pub(super) async fn unblocked(&self, patience: Duration) -> Result<(), Fault> {
        let mut blocked = self.blocked.clone();
        let waiting = timeout(patience, blocked.wait_for(Option::is_none));
        match waiting.await {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::Blocked(self.is_blocked().unwrap_or_default())),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
