//! Answers that are kept to stand in for those that a callee cannot give.
//!
//! Only for methods whose contract says how old such an answer may be (`stale_for`): public ones without side effects. An
//! answer in place of another carries since when it has been known ([`SINCE`]), so whoever reads it can tell. Operators are
//! shown more than the public, so their answers are neither kept nor replaced.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use auth::Principal;
use bytes::Bytes;
use contract::{Method, Role};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use http_body_util::StreamBody;
use jiff::Timestamp;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use store::Clock;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::retry;

/// The metadata of an answer that stands in for another: when it was given, as RFC 3339.
pub const SINCE: HeaderName = HeaderName::from_static("stoa-stale-since");

/// The largest answer that is kept.
const LARGEST: usize = 256 << 10;

/// How old an answer is before a newer one takes its place: a product that everybody reads is not kept anew each time.
const FRESH: Duration = Duration::from_secs(1);

/// What is kept besides the bytes of request and answer.
const OVERHEAD: u64 = 512;

/// The answers one caller keeps, up to so many bytes; those used least leave first.
pub(crate) struct Kept {
    answers: Cache<Key, Arc<Known>, Weight>,
    clock: Clock,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    path: &'static str,
    request: Bytes,
}

struct Known {
    at: Timestamp,
    headers: HeaderMap,
    frames: Vec<Bytes>,
    trailers: HeaderMap,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Known>> for Weight {
    fn weight(&self, key: &Key, known: &Arc<Known>) -> u64 {
        OVERHEAD + (key.request.len() + known.frames.iter().map(Bytes::len).sum::<usize>()) as u64
    }
}

impl Kept {
    /// Room for so many bytes.
    pub(crate) fn new(bytes: u64, clock: Clock) -> Arc<Self> {
        // A guess at how many that is only sizes the first table.
        let count = usize::try_from(bytes / 4096).unwrap_or(usize::MAX);
        Arc::new(Kept { answers: Cache::with_weighter(count, bytes, Weight), clock })
    }

    /// Whether what the method answers this principal may be kept.
    pub(crate) fn concerns(method: &Method, principal: &Principal) -> bool {
        method.stale_for > Duration::ZERO && principal.subject().is_none_or(|it| it.role < Role::Operator)
    }

    /// Passes an answer on, and keeps it once it has ended well.
    pub(crate) fn keep(
        self: &Arc<Self>,
        method: &'static Method,
        request: &Bytes,
        answer: http::Response<Body>,
    ) -> http::Response<Body> {
        let key = Key { path: method.path, request: request.clone() };
        if let Some(code) = retry::code(answer.headers()) {
            // What is gone must not be shown again.
            if code == Code::NotFound {
                self.answers.remove(&key);
            }
            return answer;
        }
        let now = self.clock.now();
        if self.answers.get(&key).is_some_and(|known| age(&known, now) < FRESH) {
            return answer;
        }
        let (parts, body) = answer.into_parts();
        let known = Known { at: now, headers: parts.headers.clone(), frames: Vec::new(), trailers: HeaderMap::new() };
        let body = Passing { inner: body, size: 0, keeping: Some((self.clone(), key, known)) };
        http::Response::from_parts(parts, Body::new(body))
    }

    /// What was last answered, if the contract lets it still stand in.
    pub(crate) fn instead(&self, method: &'static Method, request: &Bytes) -> Option<http::Response<Body>> {
        let known = self.answers.get(&Key { path: method.path, request: request.clone() })?;
        if age(&known, self.clock.now()) > method.stale_for {
            return None;
        }
        let data = known.frames.iter().map(|frame| Frame::data(frame.clone()));
        let trailers = std::iter::once(Frame::trailers(known.trailers.clone()));
        let frames: Vec<Result<_, Status>> = data.chain(trailers).map(Ok).collect();
        let mut response = http::Response::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))));
        *response.headers_mut() = known.headers.clone();
        let since = HeaderValue::try_from(known.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).ok()?;
        response.headers_mut().insert(SINCE, since);
        Some(response)
    }
}

fn age(known: &Known, now: Timestamp) -> Duration {
    // A clock that was set back makes nothing older.
    Duration::try_from(now.duration_since(known.at)).unwrap_or_default()
}

/// An answer on its way, of which a copy is kept: of references, not of bytes.
struct Passing {
    inner: Body,
    size: usize,
    keeping: Option<(Arc<Kept>, Key, Known)>,
}

impl Passing {
    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.size += data.len();
            if self.size > LARGEST {
                self.keeping = None;
            } else if let Some((_, _, known)) = &mut self.keeping {
                known.frames.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref()
            && let Some((kept, key, mut known)) = self.keeping.take()
            && trailers.get("grpc-status").is_some_and(|status| status == "0")
        {
            known.trailers = trailers.clone();
            kept.answers.insert(key, Arc::new(known));
        }
    }
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => self.see(frame),
            Some(Err(_)) | None => self.keeping = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use auth::Subject;
    use contract::{Access, Idempotency, Policy};
    use http_body_util::BodyExt as _;

    use super::*;

    static METHOD: Method = Method {
        service: "stoa.test.v1.TestService",
        name: "Get",
        path: "/stoa.test.v1.TestService/Get",
        owner: "test",
        input: "stoa.test.v1.GetRequest",
        output: "stoa.test.v1.Thing",
        client_streaming: false,
        server_streaming: false,
        policy: Policy { access: Access::Public, owner: false, callers: &[] },
        idempotency: Idempotency::NoSideEffects,
        deadline: Duration::from_secs(1),
        request_id: false,
        secret_reply: false,
        max_request_bytes: 1024,
        stale_for: Duration::from_secs(60),
        http: &[],
    };

    fn answer(text: &'static str, status: &'static str) -> http::Response<Body> {
        let trailers =
            HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
        let frames: [Result<_, Status>; 2] =
            [Ok(Frame::data(Bytes::from_static(text.as_bytes()))), Ok(Frame::trailers(trailers))];
        let mut response = http::Response::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))));
        response.headers_mut().insert("stoa-etag", HeaderValue::from_static("7"));
        response
    }

    async fn read(response: http::Response<Body>) -> String {
        let whole = response.into_body().collect().await.unwrap();
        assert!(whole.trailers().is_some_and(|trailers| trailers.contains_key("grpc-status")));
        String::from_utf8(whole.to_bytes().to_vec()).unwrap()
    }

    fn kept() -> (Arc<Kept>, Clock) {
        let clock = Clock::manual(Timestamp::from_second(1_000_000).unwrap());
        (Kept::new(1 << 20, clock.clone()), clock)
    }

    #[tokio::test]
    async fn the_last_answer_to_the_same_request_stands_in_and_says_since_when() {
        let (kept, clock) = kept();
        let request = Bytes::from_static(b"a");
        assert_eq!(read(kept.keep(&METHOD, &request, answer("first", "0"))).await, "first");
        clock.advance(Duration::from_secs(5));
        assert_eq!(read(kept.keep(&METHOD, &request, answer("second", "0"))).await, "second");
        clock.advance(Duration::from_secs(60));
        let instead = kept.instead(&METHOD, &request).unwrap();
        assert_eq!(instead.headers()[SINCE], "1970-01-12T13:46:45Z");
        assert_eq!(instead.headers()["stoa-etag"], "7");
        assert_eq!(read(instead).await, "second");
        assert!(kept.instead(&METHOD, &Bytes::from_static(b"b")).is_none());
        clock.advance(Duration::from_secs(1));
        assert!(kept.instead(&METHOD, &request).is_none(), "older than the contract lets it be");
    }

    #[tokio::test]
    async fn what_failed_was_cut_off_or_is_large_is_not_kept() {
        let (kept, _) = kept();
        let request = Bytes::from_static(b"a");
        read(kept.keep(&METHOD, &request, answer("not found", "5"))).await;
        drop(kept.keep(&METHOD, &request, answer("nobody reads it", "0")));
        let large: &'static str = Box::leak("x".repeat(LARGEST + 1).into_boxed_str());
        read(kept.keep(&METHOD, &request, answer(large, "0"))).await;
        assert!(kept.instead(&METHOD, &request).is_none());
    }

    #[tokio::test]
    async fn what_is_gone_is_not_shown_again_and_who_is_busy_changes_nothing() {
        let (kept, _) = kept();
        let request = Bytes::from_static(b"a");
        read(kept.keep(&METHOD, &request, answer("there", "0"))).await;
        kept.keep(&METHOD, &request, Status::resource_exhausted("busy").into_http());
        assert!(kept.instead(&METHOD, &request).is_some());
        kept.keep(&METHOD, &request, Status::not_found("gone").into_http());
        assert!(kept.instead(&METHOD, &request).is_none());
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let (kept, _) = kept();
        let large: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
        for number in 0..100_u32 {
            read(kept.keep(&METHOD, &Bytes::from(number.to_string()), answer(large, "0"))).await;
        }
        let there = (0..100_u32).filter(|number| kept.instead(&METHOD, &Bytes::from(number.to_string())).is_some());
        assert!((1..=10).contains(&there.count()));
    }

    #[test]
    fn operators_and_methods_without_it_are_not_concerned() {
        let user = |role| {
            Principal::User(Subject { id: "users/1".to_owned(), role, session: "users/1/sessions/2".to_owned() })
        };
        assert!(Kept::concerns(&METHOD, &Principal::Anonymous) && Kept::concerns(&METHOD, &user(Role::Customer)));
        assert!(!Kept::concerns(&METHOD, &user(Role::Operator)));
        assert!(!Kept::concerns(&Method { stale_for: Duration::ZERO, ..METHOD }, &Principal::Anonymous));
    }
}
