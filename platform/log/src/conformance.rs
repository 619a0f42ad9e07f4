//! What every engine below the log must let it promise; each promise one function, run over a fresh
//! store.
//!
//! `make` opens an empty store whose migrations are [`crate::MIGRATIONS`] and then [`MIGRATIONS`].
//! The functions panic where a promise is broken, as tests do.

pub mod toy;

/// The tables of the toy service below.
pub const MIGRATIONS: store::MigrationSet = store::MigrationSet::new(
    "toy",
    &[store::Migration::new(
        1,
        "toy",
        "CREATE TABLE toy_accounts (
             name TEXT NOT NULL, subject TEXT NOT NULL, owner TEXT NOT NULL,
             balance BIGINT NOT NULL CHECK (balance >= 0), version BIGINT NOT NULL,
             PRIMARY KEY (name));
         CREATE TABLE toy_entries (
             account TEXT NOT NULL REFERENCES toy_accounts (name), version BIGINT NOT NULL,
             amount BIGINT NOT NULL, occur_time BIGINT NOT NULL,
             PRIMARY KEY (account, version));",
    )],
);

