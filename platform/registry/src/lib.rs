//! Where the copies of services say that they are, and where callers read it: etcd.
//!
//! A copy keeps one key, `PREFIX/SERVICE/ID`, whose value is its address, under a lease. The id is the lease's own, in
//! hexadecimal digits: etcd hands out no lease twice, so no two copies can have one id. A copy that dies leaves the list when
//! its lease runs out, one that ends in order revokes it before it does anything else ([`Registry::keep`]). Callers read the
//! keys of a service and watch what changes from that revision on ([`Registry::follow`]).
//!
//! Invariants: what was known last stays while etcd is away, and while it says that there is nobody, for a registry that lost
//! its memory is more often the truth than a service that ended; nothing waits for etcd longer than [`PATIENCE`] before it
//! asks another member or pauses, and no pause is longer than [`LONGEST_PAUSE`] and its jitter. etcd is asked for no decision:
//! whoever is in the list is only where a call may be tried.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod following;
mod keeping;
mod link;
mod secure;
#[cfg(test)]
#[path = "../tests/server/mod.rs"]
mod server;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

pub use following::Unanswered;

use link::Link;

/// How long one answer of one member may take.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The first pause after a failure, which doubles, and the longest; jitter adds up to as much again.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// See [`FIRST_PAUSE`].
pub const LONGEST_PAUSE: Duration = Duration::from_millis(1600);
/// How long a copy that ends waits for etcd to take it off the list; then the lease runs out by itself.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// How etcd is reached, and how long who says nothing is believed to be there.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its members, `http://host:port` or `https://host:port`; some are enough.
    pub members: Vec<String>,
    /// Who asks, where etcd wants to know, and the password.
    pub user: Option<(String, String)>,
    /// Certificates (PEM) of who vouches for the members; `https` needs them.
    pub authority: Option<Vec<u8>>,
    /// Certificate and key (PEM) of who asks, where the members want to see one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// From the last sign of life of a copy until it is taken off the list. etcd may make it longer.
    pub ttl: Duration,
}

impl Config {
    /// Members that ask nobody who they are, and ten seconds.
    pub fn at(members: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let members = members.into_iter().map(Into::into).collect();
        Config { members, user: None, authority: None, identity: None, ttl: Duration::from_secs(10) }
    }
}

/// etcd cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
#[error("etcd cannot be asked: {0}")]
pub struct Misconfigured(pub(crate) String);

/// A copy of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Under which prefix it is found; more than one fleet may share an etcd.
    pub prefix: String,
    /// The service's short name.
    pub service: String,
    /// Where it answers.
    pub address: SocketAddr,
}

/// The list of copies. A cheap handle.
#[derive(Clone, Debug)]
pub struct Registry {
    link: Arc<Link>,
    ttl: Duration,
}

impl Registry {
    /// No member is asked yet. Needs a runtime to belong to.
    pub fn new(config: &Config) -> Result<Self, Misconfigured> {
        if config.ttl.as_secs() == 0 {
            return Err(Misconfigured("a lease lasts a second or longer".to_owned()));
        }
        Ok(Registry { link: Arc::new(Link::new(config)?), ttl: config.ttl })
    }
}

/// What the keys of a service's copies begin with.
fn folder(prefix: &str, service: &str) -> String {
    format!("{}/{service}/", prefix.trim_end_matches('/'))
}

/// Pauses between tries, ever longer until something went well.
struct Pauses {
    growing: ExponentialBackoff,
    /// Whether nothing failed yet: the first failure of a row is worth telling, the others are not.
    fresh: bool,
}

impl Pauses {
    fn new() -> Self {
        let growing = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        Pauses { growing: growing.with_jitter().without_max_times().build(), fresh: true }
    }

    async fn pause(&mut self) {
        self.fresh = false;
        tokio::time::sleep(self.growing.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_etcd_cannot_be_reached_by_is_refused() {
        assert!(Registry::new(&Config::at(["http://127.0.0.1:2379"])).is_ok());
        let none: [&str; 0] = [];
        let wrong = [
            Config::at(none),
            Config::at(["127.0.0.1:2379"]),
            Config::at(["ftp://127.0.0.1:2379"]),
            // Whom to believe is said, or nobody is.
            Config::at(["https://127.0.0.1:2379"]),
            Config { authority: Some(b"no certificate".to_vec()), ..Config::at(["https://127.0.0.1:2379"]) },
            Config { ttl: Duration::from_millis(900), ..Config::at(["http://127.0.0.1:2379"]) },
        ];
        for config in wrong {
            assert!(Registry::new(&config).is_err(), "{config:?}");
        }
    }

    #[test]
    fn a_prefix_may_end_in_a_slash() {
        assert_eq!(folder("shop", "cart"), "shop/cart/");
        assert_eq!(folder("/shops/one/", "cart"), "/shops/one/cart/");
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let pauses: Vec<Duration> = Pauses::new().growing.take(50).collect();
        assert!(pauses[0] >= FIRST_PAUSE && pauses[0] <= FIRST_PAUSE * 2);
        assert!(pauses[10..].iter().all(|pause| (LONGEST_PAUSE..=LONGEST_PAUSE * 2).contains(pause)), "{pauses:?}");
    }
}
