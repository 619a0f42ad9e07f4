//! What an audit found, by invariant.

use std::collections::{BTreeMap, HashSet};

/// What must hold, in the order it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// Stock never fell below zero, at any moment of its log.
    I1,
    /// Nothing is charged twice, and what is charged is what was shipped.
    I2,
    /// Nothing is kept of an order that came to nothing, and nothing stays in doubt.
    I3,
    /// Authorised is at least charged, charged at least given back; the provider says the same.
    I4,
    /// Every order is settled, no saga is left open.
    I5,
    /// Every derived row is what the logs say.
    I6,
    /// One request, one effect.
    I7,
    /// What was acknowledged is in the logs.
    I8,
    /// Every event has a cause.
    I9,
    /// The versions of every stream are 1 to n.
    I10,
    /// Positions have no holes.
    I11,
    /// What is stored is what was written.
    I12,
}

/// Broken things told of one invariant.
const TOLD: usize = 20;

/// What is wrong with a resource.
#[derive(Debug)]
struct Broken {
    resource: String,
    why: String,
}

/// The findings of one look.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    checked: BTreeMap<Invariant, Vec<String>>,
    broken: BTreeMap<Invariant, Vec<Broken>>,
}

impl Findings {
    /// Says what was looked at.
    pub(crate) fn checked(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.checked.entry(invariant).or_default().push(what.into());
    }

    /// Says what is wrong with a resource.
    pub(crate) fn broken(&mut self, invariant: Invariant, resource: &str, why: impl AsRef<str>) {
        self.broken
            .entry(invariant)
            .or_default()
            .push(Broken { resource: resource.to_owned(), why: why.as_ref().to_owned() });
    }

    /// Adds what another part of the look found.
    pub(crate) fn join(&mut self, other: Self) {
        for (invariant, what) in other.checked {
            self.checked.entry(invariant).or_default().extend(what);
        }
        for (invariant, what) in other.broken {
            self.broken.entry(invariant).or_default().extend(what);
        }
    }

    /// Leaves out what an earlier look did not find: it was on its way then, or is now.
    pub(crate) fn stayed(&mut self, earlier: &Self) {
        self.broken.retain(|invariant, broken| {
            let before = earlier.broken.get(invariant).map(Vec::as_slice).unwrap_or_default();
            let before: HashSet<&str> = before.iter().map(|it| &*it.resource).collect();
            broken.retain(|it| before.contains(&*it.resource));
            !broken.is_empty()
        });
    }

    /// Whether nothing is broken.
    pub(crate) fn hold(&self) -> bool {
        self.broken.is_empty()
    }

    /// One line an invariant that holds, one line a thing that is broken.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut all: Vec<Invariant> = self.checked.keys().chain(self.broken.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        let mut lines = Vec::new();
        for invariant in all {
            match self.broken.get(&invariant) {
                None => {
                    let what = self.checked.get(&invariant).map(|it| it.join("; ")).unwrap_or_default();
                    lines.push(format!("{invariant:?} ok {what}"));
                }
                Some(broken) => {
                    let told = broken.iter().take(TOLD);
                    lines.extend(told.map(|it| format!("{invariant:?} BROKEN {}: {}", it.resource, it.why)));
                    if broken.len() > TOLD {
                        lines.push(format!("{invariant:?} BROKEN and {} more", broken.len() - TOLD));
                    }
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_between_looks_is_not_told_and_what_stays_is() {
        let mut earlier = Findings::default();
        earlier.broken(Invariant::I5, "orders/a", "is not settled");
        earlier.broken(Invariant::I8, "orders/lost", "version 3 is not in the log");
        let mut later = Findings::default();
        later.broken(Invariant::I5, "orders/b", "is not settled");
        later.broken(Invariant::I8, "orders/lost", "version 4 is not in the log");
        later.stayed(&earlier);
        assert_eq!(later.lines(), ["I8 BROKEN orders/lost: version 4 is not in the log"]);
        later.stayed(&Findings::default());
        assert!(later.hold());
    }
}
