//! The embedded engine: one SQLite file, one writer thread, a few reader threads.
//!
//! The file is in WAL mode with `synchronous = FULL`: a COMMIT returns once its frames are on disk.
//! Only the writer's connection writes; readers see the snapshot of the last commit.

mod adopt;
mod dialect;
mod lock;
mod open;
mod readers;
mod session;
mod writer;

pub(crate) use open::open;
pub(crate) use session::Session;
