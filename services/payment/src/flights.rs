//! Who is doing what right now in this process, so that one attempt is called by one at a time and everybody else waits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The names of what is under way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    taken: Mutex<HashSet<String>>,
    landings: watch::Sender<u64>,
}

/// One thing under way; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    flights: Arc<Flights>,
    name: String,
}

impl Flights {
    /// Takes a name; nothing if it is taken.
    pub(crate) fn take(self: &Arc<Self>, name: &str) -> Option<Flight> {
        let taken = self.taken().insert(name.to_owned());
        taken.then(|| Flight { flights: Arc::clone(self), name: name.to_owned() })
    }

    /// Whether a name is taken.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.taken().contains(name)
    }

    /// Returns when a name is free.
    pub(crate) async fn landed(&self, name: &str) {
        let mut landings = self.landings.subscribe();
        while self.is_taken(name) {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = landings.changed().await;
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.taken().remove(&self.name);
        self.flights.landings.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_taken_once_and_those_who_wait_are_woken() {
        let flights = Arc::new(Flights::default());
        let flight = flights.take("a").unwrap();
        assert!(flights.take("a").is_none());
        assert!(flights.take("b").is_some());
        let waiting = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.landed("a").await }
        });
        tokio::task::yield_now().await;
        drop(flight);
        waiting.await.unwrap();
        assert!(flights.take("a").is_some());
    }
}
