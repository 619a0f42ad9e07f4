//! Redis as the copies of a fleet share it.
//!
//! One multiplexed connection a process. A command that fails or is late costs the connection, and for [`PAUSE`] afterwards
//! nobody asks: callers are told at once. The number of a connection is how users of it notice that the server on the other
//! side may be another one, or the same with an older memory: a Redis that restarts breaks every connection.

mod buckets;
mod marks;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo as _, RedisError, TlsCertificates};
use tokio::time::{Instant, timeout};

use crate::{Limit, Misconfigured, Unavailable};

pub(crate) use marks::Life;

/// How long nobody asks after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Commands under way at once; more wait, within their patience.
const MAX_IN_FLIGHT: usize = 1024;

/// Where a Redis is and how it is used.
#[derive(Clone)]
pub struct Address {
    /// `rediss://user@host:port/database`; `redis://` where the network is private.
    pub url: String,
    /// The password of the user, where it is not in the URL.
    pub password: Option<String>,
    /// The certificate authority that signed the server's certificate, PEM; the system's where it is none.
    pub authority: Option<Vec<u8>>,
    /// What the name of every key begins with.
    pub prefix: String,
    /// How long one command, or a connection, may take.
    pub patience: Duration,
    /// How long a vouching lasts.
    pub lease: Duration,
}

impl Address {
    /// The usual times.
    pub fn new(url: impl Into<String>) -> Self {
        Address {
            url: url.into(),
            password: None,
            authority: None,
            prefix: "stoa".to_owned(),
            patience: Duration::from_millis(250),
            lease: Duration::from_secs(2),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Address").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A Redis as this process uses it. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    prefix: String,
    patience: Duration,
    lease: Duration,
    link: Mutex<Link>,
    /// Held by whoever connects.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    /// The number of `connection`, or of the last one.
    number: u64,
    /// Until when nobody asks; none before the first failure.
    away_until: Option<Instant>,
    /// Whether it was said that it is away.
    said: bool,
}

impl Shared {
    /// The Redis at this address; it is connected when it is first asked.
    pub fn new(address: &Address) -> Result<Self, Misconfigured> {
        let wrong = |error: RedisError| Misconfigured { detail: error.to_string() };
        let mut info = address.url.as_str().into_connection_info().map_err(wrong)?;
        if let Some(password) = &address.password {
            let settings = info.redis_settings().clone().set_password(password.clone());
            info = info.set_redis_settings(settings);
        }
        let encrypted = address.url.starts_with("rediss://");
        if encrypted {
            // Someone else in the process may have chosen first; any provider does.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = match (&address.authority, encrypted) {
            (Some(authority), true) => {
                let root_cert = Some(authority.clone());
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
            }
            (Some(_), false) => {
                return Err(Misconfigured { detail: "an authority is given for a connection without TLS".to_owned() });
            }
            (None, _) => Client::open(info),
        };
        let inner = Inner {
            client: client.map_err(wrong)?,
            prefix: address.prefix.clone(),
            patience: address.patience,
            lease: address.lease,
            link: Mutex::default(),
            connecting: tokio::sync::Mutex::new(()),
        };
        Ok(Shared { inner: Arc::new(inner) })
    }

    /// The buckets of a limit, counted by the server's clock.
    pub fn buckets(&self, name: &str, limit: Limit) -> impl crate::Buckets + use<> {
        buckets::Shared::new(self.clone(), name, limit, buckets::Clock::Server)
    }

    /// The same, counted by the clock of whoever asks: for comparing decisions.
    pub fn buckets_by_given_time(&self, name: &str, limit: Limit) -> impl crate::Buckets + use<> {
        buckets::Shared::new(self.clone(), name, limit, buckets::Clock::Given)
    }

    /// The marks.
    pub fn marks(&self) -> impl crate::Marks + use<> {
        marks::Shared::new(self.clone())
    }

    /// Runs commands on the one connection; answers their result and the connection's number.
    async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<(T, u64), Unavailable> {
        let (connection, number) = self.connection().await?;
        Ok((self.run_on(connection, number, work).await?, number))
    }

    /// Runs commands on this connection and no other.
    async fn run_on<T>(
        &self,
        mut connection: MultiplexedConnection,
        number: u64,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, Unavailable> {
        let detail = match timeout(self.inner.patience, work(&mut connection)).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer in time".to_owned(),
        };
        self.inner.lost(number, &detail);
        Err(Unavailable { detail })
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), Unavailable> {
        let inner = &self.inner;
        let first = match inner.link().state() {
            State::Up(connection, number) => return Ok((connection, number)),
            State::Away => return Err(Unavailable { detail: "it was away a moment ago".to_owned() }),
            State::Fresh => true,
            State::Due => false,
        };
        // Everybody waits for the first connection. For one after a failure only one does.
        let _turn = if first {
            let late = |_| Unavailable { detail: "it is being connected".to_owned() };
            timeout(inner.patience, inner.connecting.lock()).await.map_err(late)?
        } else {
            let busy = |_| Unavailable { detail: "it is being connected again".to_owned() };
            inner.connecting.try_lock().map_err(busy)?
        };
        match inner.link().state() {
            State::Up(connection, number) => return Ok((connection, number)),
            State::Away => return Err(Unavailable { detail: "it was away a moment ago".to_owned() }),
            State::Fresh | State::Due => {}
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(inner.patience))
            .set_response_timeout(Some(inner.patience))
            .set_concurrency_limit(MAX_IN_FLIGHT);
        let connecting = inner.client.get_multiplexed_async_connection_with_config(&config);
        let error = match timeout(inner.patience, connecting).await {
            Ok(Ok(connection)) => {
                let mut link = inner.link();
                link.number += 1;
                link.connection = Some(connection.clone());
                if std::mem::take(&mut link.said) {
                    // As loud as the word that it was away.
                    tracing::warn!("the cache is back");
                }
                return Ok((connection, link.number));
            }
            Ok(Err(error)) if error.kind() == ErrorKind::AuthenticationFailed => {
                format!("it does not let us in: {error}")
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes no connection in time".to_owned(),
        };
        let number = inner.link().number;
        inner.lost(number, &error);
        Err(Unavailable { detail: error })
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.inner.prefix)
    }
}

enum State {
    Up(MultiplexedConnection, u64),
    Away,
    /// It was never asked.
    Fresh,
    /// It was away, and it is time to try again.
    Due,
}

impl Link {
    fn state(&self) -> State {
        match (&self.connection, self.away_until) {
            (Some(connection), _) => State::Up(connection.clone(), self.number),
            (None, None) => State::Fresh,
            (None, Some(until)) if Instant::now() < until => State::Away,
            (None, Some(_)) => State::Due,
        }
    }
}

impl Inner {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection up, unless it was replaced already.
    fn lost(&self, number: u64, detail: &str) {
        let mut link = self.link();
        if link.number != number {
            return;
        }
        link.connection = None;
        link.away_until = Some(Instant::now() + PAUSE);
        if !std::mem::replace(&mut link.said, true) {
            tracing::warn!(
                detail,
                "the cache is away: limits count by process and sessions are asked for until it is back"
            );
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.inner.prefix)
    }
}
