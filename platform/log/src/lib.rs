//! The event log of a service, on its store: every state change appends its events in the same
//! transaction, whether the service folds its state from them or keeps rows.
//!
//! [`Log`] appends and reads; [`Log::once`] ties a transaction to a request id; [`Aggregate`] and
//! [`Log::execute`] are the event-sourced way to decide. Beside the log lie what every service needs
//! to be right under crashes and repeats: [`inbox`], [`parked`] and [`cursors`] for consumers,
//! [`relays`] for what goes to a broker, [`timers`], and [`personal`] for fields that must become unreadable.
//!
//! Invariants: versions of a stream are 1..n; positions of a shard are dense; stored bytes are never
//! re-encoded; personal text is never stored unsealed; derived rows equal the fold of the log.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod aggregate;
pub mod backoff;
pub mod conformance;
pub mod cursors;
mod error;
mod event;
pub mod golden;
pub mod inbox;
mod journal;
mod layout;
pub mod once;
mod opening;
pub mod parked;
pub mod personal;
mod projection;
mod rebuild;
pub mod relays;
pub mod timers;
pub mod trail;

pub use aggregate::{Aggregate, Execute, Executed, Loaded};
pub use error::Error;
pub use event::{At, Entry, Meta};
pub use journal::Log;
pub use once::{Refusable, Refusal, Request};
pub use projection::{LocalBoxFuture, Projection};
pub use rebuild::{Difference, MAX_DIFFERENCES, Rebuilt, What};

/// The tables of the log; the first migrations of every service.
pub const MIGRATIONS: store::MigrationSet = store::MigrationSet::new(
    "log",
    &[
        store::Migration::new(1, "log", include_str!("../migrations/0001_log.sql")),
        store::Migration::new(2, "relays", include_str!("../migrations/0002_relays.sql")),
        store::Migration::new(3, "audit records", include_str!("../migrations/0003_audit_records.sql")),
    ],
);
