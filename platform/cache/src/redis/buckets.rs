//! Buckets on Redis: the arithmetic of the buckets in memory as one script, which nothing interleaves with.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use ::redis::Script;
use futures_util::future::{BoxFuture, FutureExt as _};
use jiff::Timestamp;

use crate::{Buckets, Limit, Unavailable};

/// KEYS: the bucket. ARGV: step, window and, by the clock of whoever asks, now; all in microseconds.
/// Answers 0, or how long to wait. Numbers are doubles, exact up to 2^53, and are written without an exponent.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local step, window, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        if not now then
            local time = redis.call('TIME')
            now = time[1] * 1000000 + time[2]
        end
        local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + step
        local over = full - now - window
        if over > 0 then return over end
        redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
        return 0
        ",
    )
});

/// KEYS: the bucket. ARGV: step.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local full = tonumber(redis.call('GET', KEYS[1]))
        if full then
            redis.call('SET', KEYS[1], string.format('%.0f', full - tonumber(ARGV[1])), 'KEEPTTL')
        end
        return 0
        ",
    )
});

/// Whose time counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clock {
    /// The server's: copies whose clocks disagree still share one limit.
    Server,
    /// That of whoever asks.
    Given,
}

pub(super) struct Shared {
    redis: super::Shared,
    /// What the names of the buckets begin with.
    name: Vec<u8>,
    limit: Limit,
    clock: Clock,
}

impl Shared {
    pub(super) fn new(redis: super::Shared, name: &str, limit: Limit, clock: Clock) -> Self {
        let name = redis.key(&format!("limit:{name}:")).into_bytes();
        Shared { redis, name, limit, clock }
    }

    fn bucket(&self, key: &[u8]) -> Vec<u8> {
        [self.name.as_slice(), key].concat()
    }
}

impl Buckets for Shared {
    fn take<'a>(&'a self, key: &'a [u8], now: Timestamp) -> BoxFuture<'a, Result<Result<(), Duration>, Unavailable>> {
        let now = match self.clock {
            Clock::Server => String::new(),
            Clock::Given => now.as_microsecond().to_string(),
        };
        async move {
            let mut script = TAKE.key(self.bucket(key));
            script.arg(self.limit.step_us()).arg(self.limit.window_us()).arg(now);
            let (over, _) = self.redis.run(async |redis| script.invoke_async::<i64>(redis).await).await?;
            Ok(if over > 0 { Err(Duration::from_micros(over.unsigned_abs())) } else { Ok(()) })
        }
        .boxed()
    }

    fn give_back<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<(), Unavailable>> {
        async move {
            let mut script = GIVE_BACK.key(self.bucket(key));
            script.arg(self.limit.step_us());
            self.redis.run(async |redis| script.invoke_async::<i64>(redis).await).await?;
            Ok(())
        }
        .boxed()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("limit", &self.limit).field("clock", &self.clock).finish_non_exhaustive()
    }
}
