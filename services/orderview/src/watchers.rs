//! Whoever waits for an order's view to change, and the one task that tells them.
//!
//! The consumer's commits wake nobody by themselves. So one task follows ordering's log, lets the consumer catch up, reads
//! the versions of the watched orders in one go, and tells those that moved: a thousand watchers cost one read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bus::{Consumer, Hub};
use store::{Store, Tx};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::store as rows;

/// The orders that are watched. A cheap handle.
#[derive(Clone, Default)]
pub(crate) struct Watchers {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    watched: Mutex<HashMap<String, watch::Sender<u64>>>,
    came: Notify,
}

/// How often the views are looked at without being woken.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long the consumer is waited for before looking all the same.
const PATIENCE: Duration = Duration::from_millis(200);

impl Watchers {
    /// Wakes its holder when the view of `order` has a new version. Subscribe first, then read: then nothing is missed.
    pub(crate) fn subscribe(&self, order: &str) -> watch::Receiver<u64> {
        let receiver = {
            let mut watched = self.watched();
            let sender = watched.entry(order.to_owned()).or_insert_with(|| watch::Sender::new(0));
            sender.subscribe()
        };
        self.inner.came.notify_one();
        receiver
    }

    /// Tells watchers until shutdown.
    pub(crate) async fn run(self, hub: Hub, consumer: Consumer, store: Store, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow(&hub, &consumer, &store) => {}
        }
    }

    async fn follow(&self, hub: &Hub, consumer: &Consumer, store: &Store) {
        let source = hub.wait_for("ordering").await;
        let mut changed = source.changed();
        loop {
            if self.watched().is_empty() {
                self.inner.came.notified().await;
            } else {
                tokio::select! {
                    () = self.inner.came.notified() => {}
                    closed = changed.changed() => if closed.is_err() { tokio::time::sleep(LOOK_AGAIN).await },
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
            changed.borrow_and_update();
            // A consumer that stands still has its own alarm; here it only means looking at what there is.
            let _ = tokio::time::timeout(PATIENCE, consumer.caught_up()).await;
            self.tell(store).await;
        }
    }

    async fn tell(&self, store: &Store) {
        let names: Vec<String> = {
            let mut watched = self.watched();
            watched.retain(|_, sender| sender.receiver_count() > 0);
            watched.keys().cloned().collect()
        };
        let versions = store
            .read(async move |tx: &mut Tx| {
                let mut versions = vec![];
                for name in &names {
                    versions.push((name.clone(), rows::version(tx, name).await?));
                }
                Ok::<_, store::Error>(versions)
            })
            .await;
        let versions = match versions {
            Ok(versions) => versions,
            Err(error) => {
                tracing::warn!(%error, "the versions of watched orders cannot be read");
                return;
            }
        };
        let watched = self.watched();
        for (name, version) in versions {
            if let Some(sender) = watched.get(&name) {
                sender.send_if_modified(|known| std::mem::replace(known, version) != version);
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<u64>>> {
        self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
