//! Marks on Redis.
//!
//! Keys: `life`, made by whoever begins first, gone when the server is emptied; `vouched`, a new text at each vouching, which
//! expires after the lease; `revoked:{id}`, which expires when nobody can show the id any more.
//!
//! Why nothing comes back, whatever Redis forgets. Emptied in place: `life` and `vouched` are gone with the marks, and a keeper
//! that vouches finds another life, or none. Restarted or restored, so that it may hold an old `vouched` without the newest
//! marks: every connection broke. A keeper vouches only on the connection on which it began to fill, so it fills again; who
//! asks believes `vouched` only once it has changed since it connected, so somebody filled the marks of *this* server. A keeper
//! that is cut off stops vouching, and the lease ends. A vouching that was sent and is carried out late (the server was stopped)
//! carries the time after which it is void, by the server's clock.

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Script, pipe};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{Filling, Mark, Marks, Pace, Standing, Unavailable};

/// KEYS: life. ARGV: what it is called if it is new. Answers the life and the server's time in microseconds, as text.
static BEGIN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        redis.call('SET', KEYS[1], ARGV[1], 'NX')
        local time = redis.call('TIME')
        return {redis.call('GET', KEYS[1]), string.format('%.0f', time[1] * 1000000 + time[2])}
        ",
    )
});

/// KEYS: life, vouched. ARGV: the life, the new text, the lease in milliseconds, the server's time after which this is void.
/// Answers the server's time, or an empty text if it is not vouched.
static VOUCH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local time = redis.call('TIME')
        local now = time[1] * 1000000 + time[2]
        if now > tonumber(ARGV[4]) or redis.call('GET', KEYS[1]) ~= ARGV[1] then return '' end
        redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
        return string.format('%.0f', now)
        ",
    )
});

/// KEYS: marks. ARGV: how long each lives, in milliseconds. None is shortened.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        for place, key in ipairs(KEYS) do
            local lives = tonumber(ARGV[place])
            if redis.call('PTTL', key) < lives then redis.call('SET', key, '1', 'PX', lives) end
        end
        return 0
        ",
    )
});

/// Marks of one script.
const AT_ONCE: usize = 500;

/// Vouchings of one lease: some may fail before anybody notices.
const VOUCHINGS: u32 = 4;

/// The server that was filled, as far as one can tell.
#[derive(Debug)]
pub(crate) struct Life {
    /// What its marks call themselves until they are emptied.
    name: String,
    /// The connection they were filled on.
    connection: u64,
    /// Its time in microseconds when that was read last, and when it was read.
    time: Mutex<(i64, Instant)>,
}

pub(super) struct Shared {
    redis: super::Shared,
    seen: Mutex<Seen>,
}

/// What this process has seen of `vouched` on one connection.
#[derive(Debug, Default)]
struct Seen {
    connection: u64,
    first: Option<String>,
    changed: bool,
}

impl Seen {
    /// Whether a vouching that was read on a connection was made for the server behind it.
    fn believes(&mut self, connection: u64, vouched: Option<&str>) -> bool {
        if connection < self.connection {
            return false;
        }
        if connection > self.connection {
            *self = Seen { connection, first: vouched.map(str::to_owned), changed: false };
            return false;
        }
        self.changed |= vouched.is_some() && vouched != self.first.as_deref();
        self.changed && vouched.is_some()
    }
}

impl Shared {
    pub(super) fn new(redis: super::Shared) -> Self {
        Shared { redis, seen: Mutex::default() }
    }
}

impl Marks for Shared {
    fn begin(&self) -> BoxFuture<'_, Result<Filling, Unavailable>> {
        async move {
            let mut script = BEGIN.key(self.redis.key("life"));
            script.arg(Uuid::new_v4().to_string());
            let ((name, now), connection) =
                self.redis.run(async |redis| script.invoke_async::<(String, String)>(redis).await).await?;
            let time = Mutex::new((micros(&now)?, Instant::now()));
            Ok(Filling { life: Some(Life { name, connection, time }) })
        }
        .boxed()
    }

    fn put<'a>(&'a self, marks: &'a [Mark]) -> BoxFuture<'a, Result<(), Unavailable>> {
        async move {
            for marks in marks.chunks(AT_ONCE) {
                let mut script = PUT.prepare_invoke();
                for mark in marks {
                    script.key(self.redis.key(&format!("revoked:{}", mark.id)));
                    script.arg(u64::try_from(mark.remaining.as_millis()).unwrap_or(u64::MAX).max(1));
                }
                self.redis.run(async |redis| script.invoke_async::<i64>(redis).await).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn vouch<'a>(&'a self, filling: &'a Filling) -> BoxFuture<'a, Result<bool, Unavailable>> {
        async move {
            let Some(life) = &filling.life else { return Ok(false) };
            let (read, at) = *life.time.lock().unwrap_or_else(PoisonError::into_inner);
            let inner = &self.redis.inner;
            let void = i64::try_from((at.elapsed() + inner.patience).as_micros()).unwrap_or(0).saturating_add(read);
            let lease = u64::try_from(inner.lease.as_millis()).unwrap_or(u64::MAX);
            let mut script = VOUCH.key(self.redis.key("life"));
            script.key(self.redis.key("vouched"));
            script.arg(&life.name).arg(Uuid::new_v4().to_string()).arg(lease).arg(void);
            // On a newer connection nothing is sent: what was filled was filled into another server.
            let (connection, number) = self.redis.connection().await?;
            if number != life.connection {
                return Ok(false);
            }
            let vouching = async |redis: &mut MultiplexedConnection| script.invoke_async::<String>(redis).await;
            let now = self.redis.run_on(connection, number, vouching).await?;
            if now.is_empty() {
                return Ok(false);
            }
            *life.time.lock().unwrap_or_else(PoisonError::into_inner) = (micros(&now)?, Instant::now());
            Ok(true)
        }
        .boxed()
    }

    fn standing<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Standing, Unavailable>> {
        async move {
            let keys = [self.redis.key("vouched"), self.redis.key(&format!("revoked:{id}"))];
            let mut read = pipe();
            read.mget(&keys[..]);
            type Both = ((Option<String>, Option<String>),);
            let (((vouched, revoked),), connection) =
                self.redis.run(async |redis| read.query_async::<Both>(redis).await).await?;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let believed = seen.believes(connection, vouched.as_deref());
            Ok(match (revoked, believed) {
                (Some(_), _) => Standing::Revoked,
                (None, true) => Standing::Good,
                (None, false) => Standing::Unknown,
            })
        }
        .boxed()
    }

    fn pace(&self) -> Option<Pace> {
        let inner = &self.redis.inner;
        Some(Pace { vouch: inner.lease / VOUCHINGS, grace: inner.lease + 2 * inner.patience })
    }
}

fn micros(text: &str) -> Result<i64, Unavailable> {
    text.parse().map_err(|_| Unavailable { detail: format!("it tells its time as {text:?}") })
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(marks)")
    }
}
