//! The engine of the fleet: one PostgreSQL database, shared by every process of a service.
//!
//! Bodies are polled on the store's own threads, each with a pooled connection of its own, so a caller
//! that vanishes never cuts one half-way. The log has several shards, so that commits of different
//! streams share a flush; the counters of the shards a body appends to are locked in their order by its
//! last statements, in one round trip with COMMIT. The counter's lock orders the versions of a stream,
//! and UNIQUE (stream, version) decides.

mod adopt;
mod append;
mod hints;
mod open;
mod presence;
mod session;
mod wire;
mod workers;

pub use open::create_database;
pub(crate) use open::open;
pub(crate) use session::Session;
