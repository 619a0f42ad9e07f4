//! One service, or some, as a process of a fleet.
//!
//! [`run`] is given the map of the fleet and the parts to serve, each a name and how its component is built; it does the
//! rest: stores, ways to the other services and their logs, listeners, signals, drain. [`main`] is the whole program of a
//! service that is a process of its own. Calls between processes carry the fleet's signature; everything else is what it is
//! in one process.
//!
//! Invariants: nothing here knows a service by name or rule; a process whose part fails ends instead of looking alive.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod map;

#[cfg(feature = "fleet")]
mod discovery;
mod part;
mod program;
#[cfg(feature = "fleet")]
mod registration;
mod run;
mod settings;
mod signals;

pub use map::Map;
pub use part::Part;
pub use program::main;
pub use run::{Error, Surroundings, locate, run};
pub use settings::{Faults, NoFlags, Notice, Settings, Times, Unwatched, Watching};
pub use signals::until_asked_to_stop;
