//! One async store code, one SQL text, two engines.
//!
//! A service hands `Store::write` a body, an async closure over a [`Tx`]; what it executes and the
//! events it appends become durable together or not at all, and the answer comes after COMMIT. A body
//! awaits only its transaction and has no effects outside, for it may run again.
//!
//! Invariants: one process owns a SQLite file; a transaction that met an error cannot commit; positions
//! of events are dense per shard; a stream's versions are 1, 2, ... without gaps; a stored event whose
//! checksum does not fit is never served; after an input/output error in a commit the store stops.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod conformance;
pub mod crash;

mod audit;
mod clock;
mod config;
pub mod deadline;
mod error;
mod event;
mod job;
mod migrate;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod sqlite;
mod store;
mod table;
mod tx;
mod value;

#[cfg(feature = "fleet")]
mod postgres;

pub use audit::Audit;
pub use clock::Clock;
#[cfg(feature = "fleet")]
pub use config::Database;
pub use config::{Config, Engine};
pub use crash::Site;
pub use error::{ConstraintKind, Error};
pub use event::{NewEvent, Recorded};
pub use migrate::{Migration, MigrationSet};
#[cfg(feature = "fleet")]
pub use postgres::create_database;
pub use store::Store;
pub use tx::Tx;
pub use value::{FromValue, Row, Value};
