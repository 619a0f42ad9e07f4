//! Named points where a test may kill the process: before and after every commit and every outgoing call.
//!
//! Points are registered where they are written (`site!`), so the list of what must survive a crash is
//! read from the binary and never kept by hand. Unless armed, a point costs one relaxed load.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::{self, Write as _},
    path::Path,
    str::FromStr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// A place that commits; made by [`site!`](crate::site).
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    name: &'static str,
}

/// Where in a commit or call the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Everything is written, nothing is durable.
    CommitBefore,
    /// Everything is durable, nobody has been told.
    CommitAfter,
    /// The call is not made yet.
    CallBefore,
    /// The call is answered, nothing is made of the answer yet.
    CallAfter,
}

/// The point at which to die: `commit.before:ordering.place_order:3` is the third hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The kind of the point.
    pub kind: Kind,
    /// The name of its site.
    pub name: String,
    /// Which hit, from 1.
    pub nth: u64,
}

/// A text that names no crash point.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0:?} is not KIND:NAME:N with KIND one of commit.before, commit.after, call.before, call.after")]
pub struct NotASpec(String);

/// From now on the process aborts at the point of `spec`, without unwinding, flushing or saying goodbye.
pub fn arm(spec: Spec) {
    let mut state = state();
    state.target = Some(spec);
    state.hits = 0;
    ACTIVE.store(true, Ordering::Release);
}

/// From now on the first hit of every point is appended to the file as a line `KIND:NAME`.
pub fn record(path: &Path) -> io::Result<()> {
    let file = File::options().create(true).append(true).open(path)?;
    let mut state = state();
    state.record = Some(file);
    state.seen.clear();
    ACTIVE.store(true, Ordering::Release);
    Ok(())
}

/// Passes the point.
#[inline]
pub fn hit(kind: Kind, name: &str) {
    if ACTIVE.load(Ordering::Relaxed) {
        pass(kind, name);
    }
}

/// Whether any point is armed or recorded; lets a caller skip making names.
#[inline]
pub fn active() -> bool {
    ACTIVE.load(Ordering::Relaxed)
}

/// The names of all sites in this binary, sorted.
pub fn sites() -> Vec<&'static str> {
    let mut names: BTreeSet<&'static str> = inventory_registry::iter::<Registered>().map(|site| site.0.name).collect();
    names.extend(dynamic().keys());
    names.into_iter().collect()
}

impl Site {
    /// For [`site!`](crate::site) alone: a site that is not registered is not tested.
    #[doc(hidden)]
    pub const fn registered(name: &'static str) -> Self {
        Self { name }
    }

    /// The site whose name is known only at run time, such as one for each consumer; the same name is the same site.
    ///
    /// Names must come from a small closed set: they are kept for the life of the process.
    pub fn named(name: &str) -> &'static Self {
        let mut sites = dynamic();
        if let Some(site) = sites.get(name) {
            return site;
        }
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        let site: &'static Self = Box::leak(Box::new(Self { name }));
        sites.insert(name, site);
        site
    }

    /// Its name, for example `ordering.place_order`.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Names a place that commits and registers it as a crash point: `site!("ordering.place_order")`, a `&'static Site`.
#[macro_export]
macro_rules! site {
    ($name:literal) => {{
        static SITE: $crate::Site = $crate::Site::registered($name);
        $crate::crash::registry::submit! { $crate::crash::Registered(&SITE) }
        &SITE
    }};
}

#[doc(hidden)]
pub use inventory_registry as registry;

#[doc(hidden)]
#[derive(Debug)]
pub struct Registered(pub &'static Site);

inventory_registry::collect!(Registered);

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::CommitBefore => "commit.before",
            Self::CommitAfter => "commit.after",
            Self::CallBefore => "call.before",
            Self::CallAfter => "call.after",
        })
    }
}

impl FromStr for Spec {
    type Err = NotASpec;

    fn from_str(text: &str) -> Result<Self, NotASpec> {
        let refuse = || NotASpec(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(refuse)?;
        let (name, nth) = rest.rsplit_once(':').ok_or_else(refuse)?;
        let kind = [Kind::CommitBefore, Kind::CommitAfter, Kind::CallBefore, Kind::CallAfter]
            .into_iter()
            .find(|candidate| candidate.to_string() == kind)
            .ok_or_else(refuse)?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(refuse)?;
        if name.is_empty() {
            return Err(refuse());
        }
        Ok(Self { kind, name: name.to_owned(), nth })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.kind, self.name, self.nth)
    }
}

static ACTIVE: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<State> = Mutex::new(State { target: None, hits: 0, record: None, seen: BTreeSet::new() });
static DYNAMIC: Mutex<BTreeMap<&'static str, &'static Site>> = Mutex::new(BTreeMap::new());

struct State {
    target: Option<Spec>,
    hits: u64,
    record: Option<File>,
    seen: BTreeSet<(Kind, String)>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn dynamic() -> MutexGuard<'static, BTreeMap<&'static str, &'static Site>> {
    DYNAMIC.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
fn pass(kind: Kind, name: &str) {
    let mut state = state();
    let State { target, hits, record, seen } = &mut *state;
    if let Some(file) = record
        && seen.insert((kind, name.to_owned()))
        && let Err(error) = file.write_all(format!("{kind}:{name}\n").as_bytes())
    {
        tracing::error!(%error, "crash points are not recorded");
    }
    if let Some(target) = target
        && target.kind == kind
        && target.name == name
    {
        *hits += 1;
        if *hits == target.nth {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_spec_is_kind_name_and_count() {
        let spec: Spec = "call.before:ordering->/stoa.inventory.v1.InventoryService/HoldStock:2".parse().unwrap();
        assert_eq!(spec.kind, Kind::CallBefore);
        assert_eq!(spec.name, "ordering->/stoa.inventory.v1.InventoryService/HoldStock");
        assert_eq!(spec.nth, 2);
        assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
        for text in
            ["", "commit.before", "commit.before:x", "commit.before::1", "commit.before:x:0", "commit.never:x:1"]
        {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_site_is_listed_whether_or_not_it_was_reached() {
        fn never_called() -> &'static Site {
            crate::site!("test.never_reached")
        }
        let _ = never_called;
        assert!(sites().contains(&"test.never_reached"));
        assert!(std::ptr::eq(Site::named("test.by_name"), Site::named("test.by_name")));
        assert!(sites().contains(&"test.by_name"));
    }
}
