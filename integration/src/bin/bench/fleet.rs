//! A fleet: its engines, each beside what it is compared with, and a shop of ten processes on them.
//!
//! Servers are started by who starts this program (`cargo xtask bench -- fleet`), which says where they are; what needs a
//! server that is not there is not measured, and that is said.

pub(crate) mod engines;
pub(crate) mod shop;

use std::path::PathBuf;

/// What the fleet stands on, as far as it is there.
pub(crate) struct Given {
    /// The binary with the fleet's engines.
    pub(crate) binary: Option<PathBuf>,
    /// The programs that measure engines without a shop.
    pub(crate) programs: Option<PathBuf>,
    /// A PostgreSQL, with a role that may create databases.
    pub(crate) postgres: Option<String>,
    /// The same server's pgbench.
    pub(crate) pgbench: Option<PathBuf>,
    /// Databases of fleets, with `{fleet}` for the measurement and `{service}`.
    pub(crate) databases: Option<String>,
    /// A Kafka, `host:port`.
    pub(crate) kafka: Option<String>,
    /// A RabbitMQ.
    pub(crate) rabbitmq: Option<String>,
    /// The servers' processes by name.
    pub(crate) processes: Vec<(String, u32)>,
}

impl Given {
    /// What the environment says.
    pub(crate) fn read() -> Self {
        let text = |name: &str| std::env::var(name).ok();
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let processes = text("STOA_FLEET_PROCESSES").unwrap_or_default();
        let process =
            |word: &str| word.split_once('=').and_then(|(name, id)| Some((name.to_owned(), id.parse().ok()?)));
        Self {
            binary: path("STOA_FLEET_BIN"),
            programs: path("STOA_FLEET_PROGRAMS"),
            postgres: text("STOA_FLEET_POSTGRES"),
            pgbench: path("STOA_FLEET_PGBENCH"),
            databases: text("STOA_FLEET_DATABASES"),
            kafka: text("STOA_FLEET_KAFKA"),
            rabbitmq: text("STOA_FLEET_RABBITMQ"),
            processes: processes.split(' ').filter_map(process).collect(),
        }
    }
}

/// Says that something is not measured.
fn missing(what: &str) {
    println!("not measured: {what} is not there; `cargo xtask bench -- fleet` starts it");
}
