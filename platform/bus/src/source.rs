//! Where messages come from: a producer's log, by shard and by stream.

use std::pin::Pin;
use std::sync::Arc;

use contract::EventSet;
use log::Log;
use store::Tx;
use tokio::sync::watch;

use crate::{Error, Message, Outbox};

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The log of one service, as others may read it.
pub trait Source: Send + Sync + 'static {
    /// The short name of the service.
    fn service(&self) -> &str;

    /// The last position of every shard; the number of shards is its length.
    fn heads(&self) -> BoxFuture<'_, Result<Vec<u64>, Error>>;

    /// The messages of a shard after position `after`, in order and without holes, at most `limit`.
    fn read(&self, shard: u32, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<Message>, Error>>;

    /// The messages of a stream from version `from` on, in order, at most `limit`.
    fn read_stream<'a>(&'a self, stream: &'a str, from: u64, limit: u32) -> BoxFuture<'a, Result<Vec<Message>, Error>>;

    /// The log as its relay sees it; nothing where it is in another process, which relays it there.
    fn outbox(&self) -> Option<&dyn Outbox> {
        None
    }

    /// Wakes its holder when there may be more to read. A hint: who misses it, polls.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// The log of a service in this process as a source.
pub fn source<E: EventSet>(log: Log<E>) -> Arc<dyn Source> {
    Arc::new(Direct { log })
}

pub(crate) struct Direct<E> {
    pub(crate) log: Log<E>,
}

impl<E: EventSet> Direct<E> {
    pub(crate) fn failed(source: log::Error) -> Error {
        Error::Source { service: E::SERVICE.to_owned(), source }
    }
}

impl<E: EventSet> Source for Direct<E> {
    fn service(&self) -> &str {
        E::SERVICE
    }

    fn heads(&self) -> BoxFuture<'_, Result<Vec<u64>, Error>> {
        let store = self.log.store();
        Box::pin(async move {
            store.read(async |tx: &mut Tx| tx.heads().await.map_err(log::Error::from)).await.map_err(Self::failed)
        })
    }

    fn read(&self, shard: u32, after: u64, limit: u32) -> BoxFuture<'_, Result<Vec<Message>, Error>> {
        Box::pin(async move {
            let log = self.log.clone();
            self.log
                .store()
                .read(async move |tx: &mut Tx| {
                    let events = log.tail_recorded(tx, shard, after, limit).await?;
                    Ok(events.into_iter().map(|e| Message::from_recorded(E::SERVICE, e)).collect())
                })
                .await
                .map_err(Self::failed)
        })
    }

    fn read_stream<'a>(&'a self, stream: &'a str, from: u64, limit: u32) -> BoxFuture<'a, Result<Vec<Message>, Error>> {
        Box::pin(async move {
            let (log, stream) = (self.log.clone(), stream.to_owned());
            self.log
                .store()
                .read(async move |tx: &mut Tx| {
                    let events = log.read_recorded(tx, &stream, from, limit).await?;
                    Ok(events.into_iter().map(|e| Message::from_recorded(E::SERVICE, e)).collect())
                })
                .await
                .map_err(Self::failed)
        })
    }

    fn outbox(&self) -> Option<&dyn Outbox> {
        Some(self)
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.log.changed()
    }
}
