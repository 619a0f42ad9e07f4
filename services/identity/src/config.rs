//! Every value of identity and its default.

use std::fmt;
use std::time::Duration;

use server::duration;

/// How identity behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Password of the first operator; a random one is made and handed back where this is none. It matters only to a store
    /// without an operator.
    pub operator_password: Option<Secret>,
    /// How long an access token lives; at most five minutes.
    pub access_lifetime: Duration,
    /// How long a user's session lives without being refreshed.
    pub session_lifetime: Duration,
    /// How long a guest's session lives without being refreshed.
    pub guest_lifetime: Duration,
    /// How long a spent refresh token is answered with its successor again, for a client that lost the answer.
    pub replay_window: Duration,
    /// How long a new signing key is published before it signs.
    pub key_notice: Duration,
    /// Failed sign-ins of one account.
    pub account_limit: Limit,
    /// Failed sign-ins of one source.
    pub source_limit: Limit,
    /// What a password's hash costs.
    pub hashing: Hashing,
}

/// So many failures within a time; they come back evenly over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many at once.
    pub failures: u32,
    /// How long until all of them are back.
    pub window: Duration,
}

impl From<Limit> for cache::Limit {
    fn from(limit: Limit) -> Self {
        cache::Limit { times: limit.failures, window: limit.window }
    }
}

/// Parameters of Argon2id, and how much of it runs at once.
#[derive(Clone, Debug)]
pub struct Hashing {
    /// Memory of one hash.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Hashes computed at the same time.
    pub parallel: usize,
    /// Hashes that wait at most; more are turned away.
    pub waiting: usize,
}

impl Default for Config {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        const QUARTER: Duration = Duration::from_secs(15 * 60);
        Config {
            operator_password: None,
            access_lifetime: Duration::from_secs(5 * 60),
            session_lifetime: 30 * DAY,
            guest_lifetime: 7 * DAY,
            replay_window: Duration::from_secs(10),
            key_notice: Duration::from_secs(10 * 60),
            account_limit: Limit { failures: 10, window: QUARTER },
            source_limit: Limit { failures: 100, window: QUARTER },
            hashing: Hashing::default(),
        }
    }
}

impl Default for Hashing {
    /// The least that OWASP's Password Storage Cheat Sheet recommends.
    fn default() -> Self {
        Hashing { memory_kib: 19 * 1024, passes: 2, lanes: 1, parallel: 2, waiting: 64 }
    }
}

/// A text that no log and no debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What may be set on a command line.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// First operator's password (of operator@stoa.local); without one, the first start makes one up and prints it once
    #[arg(long, value_name = "PASSWORD", env = "STOA_OPERATOR_PASSWORD", hide_env_values = true)]
    operator_password: Option<String>,
    /// How long an access token lives; at most 5m
    #[arg(long, value_name = "TIME", env = "STOA_ACCESS_TOKEN", default_value = "5m", value_parser = duration)]
    access_token: Duration,
    /// How long a new signing key is published before it signs
    #[arg(long, value_name = "TIME", env = "STOA_KEY_NOTICE", default_value = "10m", value_parser = duration)]
    key_notice: Duration,
    /// Memory of one hash of a password (Argon2id)
    #[arg(long, value_name = "KIB", env = "STOA_PASSWORD_MEMORY_KIB", default_value_t = 19 * 1024)]
    password_memory_kib: u32,
    /// Passes over the memory
    #[arg(long, value_name = "N", env = "STOA_PASSWORD_PASSES", default_value_t = 2)]
    password_passes: u32,
}

impl Flags {
    /// The configuration that was asked for.
    pub fn config(self) -> Config {
        Config {
            operator_password: self.operator_password.map(Secret::from),
            access_lifetime: self.access_token,
            key_notice: self.key_notice,
            hashing: Hashing {
                memory_kib: self.password_memory_kib,
                passes: self.password_passes,
                ..Hashing::default()
            },
            ..Config::default()
        }
    }
}
