//! Whether, when and how often a call is sent again.
//!
//! Retries are at most a fifth of the calls plus ten a second, so that they cannot become the load that keeps a callee down.

use std::error::Error as StdError;
use std::time::Duration;

use contract::{Idempotency, Method};
use http::HeaderMap;
use tokio::time::Instant;
use tonic::Code;
use tower::retry::budget::{Budget as _, TpsBudget};

/// How often a call is sent at most.
pub(crate) const MAX_ATTEMPTS: u32 = 4;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The retries one channel may still make: 20 % of its calls and 10 a second.
#[derive(Default)]
pub(crate) struct Budget(TpsBudget);

impl Budget {
    /// Counts a call, which earns a fifth of a retry.
    pub(crate) fn earn(&self) {
        self.0.deposit();
    }

    /// How long to wait before the call is sent again, or that it is not.
    pub(crate) fn pause(&self, attempt: u32, answer: &HeaderMap, deadline: Instant) -> Option<Duration> {
        if attempt >= MAX_ATTEMPTS {
            return None;
        }
        let pause = match pushback(answer) {
            Pushback::Never => return None,
            Pushback::After(pause) => pause,
            Pushback::Silent => {
                let longest = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
                longest.mul_f64(unit_random())
            }
        };
        let in_time = Instant::now() + pause < deadline;
        (in_time && self.0.withdraw()).then_some(pause)
    }
}

/// Whether the contract lets the method be sent again without a request id, and its request can be kept to do so.
pub(crate) fn repeatable(method: &Method) -> bool {
    let idempotent = match method.idempotency {
        Idempotency::Idempotent | Idempotency::NoSideEffects => true,
        Idempotency::Unknown => false,
    };
    idempotent && !method.client_streaming
}

/// Whether an answer says that the callee did nothing: a refusal carries its status in the headers, without a body.
pub(crate) fn unavailable(headers: &HeaderMap) -> bool {
    code(headers) == Some(Code::Unavailable)
}

/// The code of an answer without a body.
pub(crate) fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()))
}

/// Whether a call that failed has certainly not been taken up by the callee: no connection was made, the connection had
/// ended before the request was written, or the callee refused it unread. Such a call may go elsewhere whatever it does.
pub(crate) fn unsent(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| error.source()).any(|cause| {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            // A GOAWAY without an error ends only the streams that it says were not begun (RFC 9113, 6.8).
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            let gone = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            return error.is_remote() && (refused || gone);
        }
        cause.is::<tonic::ConnectError>() || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
    })
}

enum Pushback {
    Silent,
    After(Duration),
    Never,
}

/// What the server asks for in `grpc-retry-pushback-ms`: a pause, or with a negative or malformed number no retry at all.
fn pushback(headers: &HeaderMap) -> Pushback {
    match headers.get("grpc-retry-pushback-ms") {
        None => Pushback::Silent,
        Some(value) => match value.to_str().ok().and_then(|text| text.parse::<u32>().ok()) {
            Some(pause_ms) => Pushback::After(Duration::from_millis(u64::from(pause_ms))),
            None => Pushback::Never,
        },
    }
}

/// Full jitter needs no good randomness, only different numbers in different processes: a fresh span id serves.
fn unit_random() -> f64 {
    let bytes = telemetry::Trace::new_root().span_id;
    f64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test]
    async fn retries_without_calls_run_out() {
        let budget = Budget::default();
        let granted = (0..10_000).filter(|_| budget.pause(1, &HeaderMap::new(), far()).is_some()).count();
        assert!(granted <= 110, "{granted}");
    }

    #[tokio::test]
    async fn five_calls_earn_one_retry() {
        let budget = Budget::default();
        while budget.pause(1, &HeaderMap::new(), far()).is_some() {}
        for _ in 0..500 {
            budget.earn();
        }
        let granted = (0..10_000).filter(|_| budget.pause(1, &HeaderMap::new(), far()).is_some()).count();
        assert!((90..=130).contains(&granted), "{granted}");
    }

    #[tokio::test]
    async fn the_servers_pushback_is_honoured() {
        let budget = Budget::default();
        let headers = |value: &'static str| {
            HeaderMap::from_iter([("grpc-retry-pushback-ms".parse().unwrap(), value.parse().unwrap())])
        };
        assert_eq!(budget.pause(1, &headers("250"), far()), Some(Duration::from_millis(250)));
        assert_eq!(budget.pause(1, &headers("-1"), far()), None);
        assert_eq!(budget.pause(1, &headers("soon"), far()), None);
    }

    #[tokio::test]
    async fn no_retry_starts_after_the_deadline_or_too_often() {
        let budget = Budget::default();
        assert_eq!(budget.pause(1, &HeaderMap::new(), Instant::now()), None);
        assert_eq!(budget.pause(MAX_ATTEMPTS, &HeaderMap::new(), far()), None);
    }
}
