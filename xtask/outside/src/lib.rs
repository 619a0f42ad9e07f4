//! Nothing of its own: whoever is built together with this crate is built over the same outside crates.
//!
//! Cargo chooses the features of an outside crate for everything that one command builds. Without this crate those that the
//! engines of a fleet ask for (`once_cell`, `tokio-util` and others at the bottom of everything) would be compiled once with
//! them and once without.

use deadpool_postgres as _;
use hickory_resolver as _;
use lapin as _;
use moka as _;
use mongodb as _;
use rdkafka as _;
use redis as _;
use tokio_postgres as _;
use tokio_postgres_rustls as _;
