//! Whoever calls a service follows the list of its copies: reads it, and watches what changes from there on.
//!
//! When the watch ends, whatever the reason (the connection broke, etcd was away, what came next was compacted, etcd lost its
//! memory and counts from the beginning), everything is read again: a list is small, and nothing can be missed that way.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;

use tonic::Status;

use crate::wire::{Event, KeyValue};
use crate::{Pauses, Registry, folder};

/// No member of etcd told what was asked.
#[derive(Debug, thiserror::Error)]
#[error("etcd says: {0}")]
pub struct Unanswered(#[from] Status);

/// Why what was known has to be read again.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("etcd says: {0}")]
    Etcd(#[from] Status),
    #[error("what came next is compacted")]
    Compacted,
    #[error("the watch was ended: {0}")]
    Cancelled(String),
    #[error("the copies cannot be reached: {0}")]
    Refused(String),
}

impl Registry {
    /// Tells where the copies of a service are, whenever that has changed; ends never.
    ///
    /// An empty list is not told: those known last stay.
    pub async fn follow<E: std::fmt::Display>(
        &self,
        prefix: &str,
        service: &str,
        tell: impl Fn(&BTreeSet<SocketAddr>) -> Result<(), E>,
    ) {
        let folder = folder(prefix, service);
        let mut told = BTreeSet::new();
        let mut say = |list: &List| {
            let found = list.addresses();
            if !found.is_empty() && found != told {
                tell(&found).map_err(|error| Ended::Refused(error.to_string()))?;
                tracing::debug!(service, copies = found.len(), "the copies are others");
                told = found;
            }
            Ok(())
        };
        let mut pauses = Pauses::new();
        loop {
            let Err(ended) = self.follow_once(&folder, &mut say, &mut pauses).await;
            match pauses.fresh && !matches!(ended, Ended::Compacted) {
                true => tracing::warn!(service, error = %ended, "its copies are read anew; those known stay"),
                false => tracing::debug!(service, error = %ended, "its copies are read anew"),
            }
            pauses.pause().await;
        }
    }

    /// Where the copies of a service are now, for whoever asks once.
    pub async fn find(&self, prefix: &str, service: &str) -> Result<BTreeSet<SocketAddr>, Unanswered> {
        let (found, _) = self.link.read(&folder(prefix, service)).await?;
        Ok(List::of(found).addresses())
    }

    /// Reads, and follows what changes until that ends.
    async fn follow_once(
        &self,
        folder: &str,
        say: &mut impl FnMut(&List) -> Result<(), Ended>,
        pauses: &mut Pauses,
    ) -> Result<Infallible, Ended> {
        let (found, revision) = self.link.read(folder).await?;
        let mut list = List::of(found);
        say(&list)?;
        self.watch(folder, revision + 1, |events| {
            *pauses = Pauses::new();
            let changed = !events.is_empty();
            events.into_iter().for_each(|event| list.apply(event));
            if changed { say(&list) } else { Ok(()) }
        })
        .await
    }

    /// Hands on what changes from this revision on, also that there is nothing yet.
    async fn watch(
        &self,
        folder: &str,
        from: i64,
        mut hear: impl FnMut(Vec<Event>) -> Result<(), Ended>,
    ) -> Result<Infallible, Ended> {
        let mut watch = self.link.watch(folder, from).await?;
        loop {
            let Some(heard) = watch.message().await? else { return Err(Ended::Cancelled("without a word".to_owned())) };
            if heard.compact_revision > 0 {
                return Err(Ended::Compacted);
            }
            if heard.canceled {
                return Err(Ended::Cancelled(heard.cancel_reason));
            }
            hear(heard.events)?;
        }
    }
}

/// Addresses by key.
#[derive(Debug, Default)]
struct List(BTreeMap<Vec<u8>, SocketAddr>);

impl List {
    fn of(found: Vec<KeyValue>) -> Self {
        let mut list = List::default();
        found.into_iter().for_each(|kv| list.put(kv));
        list
    }

    fn put(&mut self, kv: KeyValue) {
        match std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok()) {
            Some(address) => drop(self.0.insert(kv.key, address)),
            None => {
                // Not one of ours wrote it.
                tracing::warn!(key = %String::from_utf8_lossy(&kv.key), "its value is no ADDR:PORT, it is left out");
                self.0.remove(&kv.key);
            }
        }
    }

    fn apply(&mut self, event: Event) {
        match (event.kind, event.kv) {
            (0, Some(kv)) => self.put(kv),
            (_, Some(kv)) => drop(self.0.remove(&kv.key)),
            (_, None) => {}
        }
    }

    /// Two keys may have one address: a copy that registered again while its old lease runs out.
    fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.0.values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: i32, key: &str, value: &str) -> Event {
        Event { kind, kv: Some(KeyValue { key: key.into(), value: value.into(), lease: 0 }) }
    }

    #[test]
    fn a_list_knows_each_address_once_and_nothing_that_is_none() {
        let mut list = List::default();
        list.apply(event(0, "a", "127.0.0.1:1"));
        list.apply(event(0, "b", "127.0.0.1:1"));
        list.apply(event(0, "c", "nowhere"));
        assert_eq!(list.addresses().len(), 1);
        list.apply(event(1, "a", ""));
        assert_eq!(list.addresses().len(), 1, "the other key stays");
        list.apply(event(0, "b", "gone"));
        assert!(list.addresses().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by the lane `etcd`, which has one"]
    async fn a_history_that_is_compacted_is_known_as_such() {
        let etcd = crate::server::Etcd::start();
        let registry = Registry::new(&crate::Config::at([etcd.url()])).unwrap();
        (0..3).for_each(|turn| etcd.put("shop/cart/1", &format!("127.0.0.1:{turn}")));
        let (_, revision) = etcd.keys("shop/");
        let mut heard = vec![];
        let watched = registry.watch("shop/cart/", revision - 1, |events| {
            heard.extend(events);
            if heard.len() == 2 { Err(Ended::Compacted) } else { Ok(()) }
        });
        assert!(matches!(watched.await, Err(Ended::Compacted)));
        assert_eq!(heard.len(), 2, "nothing between the revision and now is missed");
        etcd.compact();
        let watched = registry.watch("shop/cart/", revision - 1, |events| {
            assert!(events.is_empty(), "{events:?}");
            Ok(())
        });
        assert!(matches!(watched.await, Err(Ended::Compacted)));
    }
}
