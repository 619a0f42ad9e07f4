//! What a store is opened with.

use std::{path::PathBuf, time::Duration};

use crate::{Clock, MigrationSet};

/// Everything `Store::open` needs; plain data.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the data lives.
    pub engine: Engine,
    /// The store's name in errors and logs: the short name of the service.
    pub name: &'static str,
    /// Threads (SQLite) or connections (PostgreSQL) for reads.
    pub readers: usize,
    /// The longest a read body may take; it is interrupted then, so that no reader holds the log's files for ever.
    pub read_limit: Duration,
    /// The tables, set by set; a later set may refer to an earlier one.
    pub migrations: Vec<MigrationSet>,
    /// The time of `Tx::now`.
    pub clock: Clock,
}

/// Where the data lives.
#[derive(Debug, Clone)]
pub enum Engine {
    /// One file, owned by this process alone.
    Sqlite {
        /// The file; its folder must exist.
        path: PathBuf,
    },
    /// A fresh SQLite file, not flushed, gone when the store is dropped: tests.
    Temporary {
        /// The folder to make it in; the system's if `None`.
        folder: Option<PathBuf>,
    },
    /// A fresh SQLite file for a rebuild: nothing is flushed and nothing can be taken back, so the store stops with the first
    /// body that fails.
    Scratch {
        /// The folder to make it in; the system's if `None`.
        folder: Option<PathBuf>,
    },
    /// One PostgreSQL database, shared with other processes of the same service.
    #[cfg(feature = "fleet")]
    Postgres(Database),
}

/// A PostgreSQL database and how it is used.
#[cfg(feature = "fleet")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// `postgres://user:password@host/database`.
    pub url: String,
    /// The same database as the role that owns its tables: it brings them up to date and grants the user of `url` what a
    /// service needs, which is to read and append events and never to change one. Without it, `url` does all.
    pub owner_url: Option<String>,
    /// Certificates (PEM) of who vouches for the server; with it no connection is made without TLS.
    pub authority: Option<PathBuf>,
    /// Connections for writes; each waiting body has its own.
    pub writers: usize,
    /// Shards of the log; fixed when the database is created.
    pub shards: u32,
}

#[cfg(feature = "fleet")]
impl Database {
    /// A database with sixteen writers and sixteen shards, reached plainly.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), owner_url: None, authority: None, writers: 16, shards: 16 }
    }
}

impl Config {
    /// A store in one SQLite file.
    pub fn sqlite(name: &'static str, path: impl Into<PathBuf>) -> Self {
        Self::new(name, Engine::Sqlite { path: path.into() })
    }

    /// A store that vanishes when it is dropped.
    pub fn temporary(name: &'static str) -> Self {
        Self::new(name, Engine::Temporary { folder: None })
    }

    /// A store in any engine, with two readers and the system's clock.
    pub fn new(name: &'static str, engine: Engine) -> Self {
        Self {
            engine,
            name,
            readers: 2,
            read_limit: Duration::from_secs(60),
            migrations: Vec::new(),
            clock: Clock::system(),
        }
    }

    /// With these tables, after those already named.
    #[must_use]
    pub fn migrations(mut self, sets: impl IntoIterator<Item = MigrationSet>) -> Self {
        self.migrations.extend(sets);
        self
    }

    /// With this clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}
