//! Hints between the processes that share a database: something was appended.
//!
//! A notification travels on a connection of its own and after the COMMIT it tells of, a few times a hundredth of a second
//! at most: inside the commits it would make them queue behind one lock. It may be lost with the process that owes it, so
//! whoever listens also looks by itself now and then.

use std::{rc::Rc, time::Duration};

use deadpool_postgres::tokio_postgres;
use futures_util::{StreamExt as _, future::pending};
use tokio::sync::{Notify, watch};
use tokio_postgres::{AsyncMessage, Client};

use super::wire::Wire;

/// Between two notifications of one process, at least.
const SPACING: Duration = Duration::from_millis(4);
/// Until the server is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Where the hints of a store go and come from.
#[derive(Clone)]
pub(super) struct Hints {
    pub(super) wire: Wire,
    /// This process' own name among those who tell: what it hears of itself it knows already.
    pub(super) me: String,
    /// What whoever listens says first: which release it is, see `presence`.
    pub(super) presence: String,
    /// Changes each time that was said.
    pub(super) there: watch::Sender<()>,
}

impl Hints {
    /// Tells the others each time `appended` is notified, until dropped.
    pub(super) async fn tell(self, appended: Rc<Notify>) {
        let mut client: Option<Client> = None;
        loop {
            appended.notified().await;
            let connected = match client.take().filter(|client| !client.is_closed()) {
                Some(client) => Some(client),
                None => self.wire.connect().await.ok(),
            };
            if let Some(told) = connected
                && told.execute("SELECT pg_notify('stoa_appended', $1)", &[&self.me]).await.is_ok()
            {
                client = Some(told);
            }
            tokio::time::sleep(SPACING).await;
        }
    }

    /// Notifies `heard` each time another process has appended, and whenever that may have been missed, until dropped.
    pub(super) async fn listen(self, heard: Rc<Notify>) {
        let hello = format!("{} LISTEN stoa_appended", self.presence);
        loop {
            if let Ok((client, mut messages)) = self.wire.open().await {
                // The connection moves only while it is polled, also for the answer to LISTEN.
                let listening = client.batch_execute(&hello);
                let hearing = async {
                    while let Some(Ok(message)) = messages.next().await {
                        if matches!(message, AsyncMessage::Notification(told) if told.payload() != self.me) {
                            heard.notify_one();
                        }
                    }
                };
                let listening = async {
                    if listening.await.is_ok() {
                        self.there.send_replace(());
                        heard.notify_one();
                        pending::<()>().await;
                    }
                };
                tokio::select! {
                    () = hearing => {}
                    () = listening => {}
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
