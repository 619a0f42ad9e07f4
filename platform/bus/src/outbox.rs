//! What the relay of a log needs from its store: the leases of the shards, and the events as they are stored.

use std::time::Duration;

use contract::EventSet;
use log::relays::{self, Lease};
use store::{Site, Tx};

use crate::source::Direct;
use crate::{BoxFuture, Envelope, Error, Message};

/// The log of a service in this process, as the relay to a broker sees it.
pub trait Outbox: Send + Sync {
    /// See [`relays::hold`].
    fn hold<'a>(&'a self, holder: &'a str, length: Duration) -> BoxFuture<'a, Result<Vec<Lease>, Error>>;

    /// The messages of a shard after position `after`, in order and without holes, at most `limit`; as they are stored.
    fn read(&self, shard: u32, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<Envelope>, Error>>;

    /// See [`relays::advance`].
    fn advance(&self, lease: Lease, position: u64) -> BoxFuture<'_, Result<bool, Error>>;

    /// See [`relays::release`].
    fn release<'a>(&'a self, holder: &'a str) -> BoxFuture<'a, Result<(), Error>>;
}

impl<E: EventSet> Direct<E> {
    fn site() -> &'static Site {
        Site::named(&format!("bus.relay.{}", E::SERVICE))
    }
}

impl<E: EventSet> Outbox for Direct<E> {
    fn hold<'a>(&'a self, holder: &'a str, length: Duration) -> BoxFuture<'a, Result<Vec<Lease>, Error>> {
        let (store, holder) = (self.log.store(), holder.to_owned());
        Box::pin(async move {
            let hold = async move |tx: &mut Tx| {
                let shards = tx.heads().await?.len();
                relays::hold(tx, &holder, u32::try_from(shards).unwrap_or(u32::MAX), length).await
            };
            store.write(Self::site(), hold).await.map_err(Self::failed)
        })
    }

    fn read(&self, shard: u32, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<Envelope>, Error>> {
        let log = self.log.clone();
        Box::pin(async move {
            let read = async move |tx: &mut Tx| {
                let events = log.tail_sealed(tx, shard, after, limit).await?.into_iter();
                let envelope =
                    |(event, sealed)| Envelope { message: Message::from_recorded(E::SERVICE, event), sealed };
                Ok(events.map(envelope).collect())
            };
            self.log.store().read(read).await.map_err(Self::failed)
        })
    }

    fn advance(&self, lease: Lease, position: u64) -> BoxFuture<'_, Result<bool, Error>> {
        let store = self.log.store();
        Box::pin(async move {
            let advance = async move |tx: &mut Tx| {
                #[cfg(feature = "planted-bugs")]
                if crate::planted::checks_no_fence() {
                    return crate::planted::advance_unfenced(tx, lease.shard, position).await;
                }
                relays::advance(tx, lease, position).await
            };
            store.write(Self::site(), advance).await.map_err(Self::failed)
        })
    }

    fn release<'a>(&'a self, holder: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let (store, holder) = (self.log.store(), holder.to_owned());
        Box::pin(async move {
            let release = async move |tx: &mut Tx| relays::release(tx, &holder).await;
            store.write(Self::site(), release).await.map_err(Self::failed)
        })
    }
}
