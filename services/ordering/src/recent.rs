//! Orders as they were last read: whoever needs one again reads and folds only what came since.
//!
//! A checkout looks at its order before and after each of its steps, and an order may have a thousand lines. What is kept
//! was folded from committed events, which never change; so it may be old, and is never wrong. Once a person is erased,
//! nothing that is kept about their orders is used any more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::Loaded;

/// Orders kept; the first to come go first.
const KEPT: usize = 256;

/// The orders kept. A cheap handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    orders: HashMap<String, Arc<Loaded>>,
    /// In the order in which they came.
    names: VecDeque<String>,
}

impl Recent {
    /// The order as it was when it was last kept.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Loaded>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.orders.get(name).cloned()
    }

    /// Keeps an order that was read by a transaction that cannot write: what it saw is committed.
    pub(crate) fn keep(&self, name: &str, loaded: &Loaded) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut *kept;
        match kept.orders.get_mut(name) {
            Some(known) if known.version >= loaded.version => {}
            Some(known) => *known = Arc::new(loaded.clone()),
            None => {
                if kept.names.len() == KEPT
                    && let Some(oldest) = kept.names.pop_front()
                {
                    kept.orders.remove(&oldest);
                }
                kept.names.push_back(name.to_owned());
                kept.orders.insert(name.to_owned(), Arc::new(loaded.clone()));
            }
        }
    }
}
