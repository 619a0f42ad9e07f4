//! Who is let in when there is more to do than can be done: the places of a service, and whoever finds none is told at once.
//!
//! A call takes a place until its answer begins. While it waits for somebody else, its caller's own request first of all, it has
//! a place aside ([`Call::aside`](crate::Call::aside)): there it is counted, and neither keeps others out nor says that the
//! service is slow. Streams have theirs aside from their
//! beginning to their end. Nobody waits for a place: a queue here would only make late what could be refused in time.
//!
//! Invariants: a service has never more than its most in all; what finishes something that has begun is refused by that bound
//! alone, and the last sixteenth of it is for nothing else; what begins something new is refused first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use contract::{Access, Idempotency, Method};
use telemetry::metrics::{Reason, Shed};
use tokio::time::Instant;
use tonic::Status;

use crate::adaptive::{Adaptive, Done};
use crate::status;

/// When whoever was refused may come again.
const PAUSE: Duration = Duration::from_millis(100);

/// A method that may take longer than this waits for others or is long work: nobody at the door can tell which.
const LONG: Duration = Duration::from_secs(10);

/// The part of all places that is kept for what finishes.
const RESERVED: usize = 16;

/// How much is lost when a call is refused, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Everybody may ask for it: pages, searches, the first token. It begins something or is looked at again.
    Browsing,
    /// Somebody who has been let in goes on: a cart, an order, a look at one's own.
    Shopping,
    /// It ends what has begun: services among themselves, news from outside, whoever runs the shop.
    Finishing,
}

impl Rank {
    /// The rank of a method that somebody calls for a person, by its contract.
    pub fn of(method: &Method) -> Self {
        match method.policy.access {
            // Everybody may bring it, and bring it again: a provider's webhook.
            Access::Public if method.idempotency == Idempotency::Idempotent => Rank::Finishing,
            Access::Public => Rank::Browsing,
            Access::Guest | Access::Customer => Rank::Shopping,
            Access::Operator | Access::Internal => Rank::Finishing,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Rank::Browsing => "browsing",
            Rank::Shopping => "shopping",
            Rank::Finishing => "finishing",
        }
    }

    /// Places that may be taken for this rank to be let in. Whoever goes on finds half as many again as whoever begins, so
    /// that those who were let in come to their end.
    fn room(self, limit: usize, most: usize) -> usize {
        match self {
            Rank::Browsing => limit,
            Rank::Shopping => limit.saturating_add(limit / 2).min(most),
            Rank::Finishing => most,
        }
    }
}

/// The places of a service or of a door. A cheap handle.
#[derive(Clone, Debug)]
pub struct Places {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: &'static str,
    /// The most that are worked on.
    most: usize,
    /// The most in all, if they have a bound of their own.
    all: Option<usize>,
    books: Mutex<Books>,
    shed: Shed,
}

#[derive(Debug)]
struct Books {
    adaptive: Adaptive,
    working: usize,
    aside: usize,
}

impl Places {
    /// So many at most, those aside included, by the short name of the service.
    pub fn new(name: &'static str, most: usize) -> Self {
        Self::of(name, most, Some(most))
    }

    /// So many at most that are worked on. How many wait there is bounded by the listener, as connections and streams: with
    /// a bound of its own, whoever sends nothing could keep everybody out.
    pub fn at_a_door(name: &'static str, most: usize) -> Self {
        Self::of(name, most, None)
    }

    fn of(name: &'static str, most: usize, all: Option<usize>) -> Self {
        let adaptive = Adaptive::new(most, Instant::now());
        let shed = Shed::of(name);
        shed.stands(adaptive.limit(), 0, 0);
        let books = Mutex::new(Books { adaptive, working: 0, aside: 0 });
        Places { inner: Arc::new(Inner { name, most, all, books, shed }) }
    }

    /// A place for this call, or `RESOURCE_EXHAUSTED` with a pause to keep.
    pub fn take(&self, method: &'static Method, rank: Rank) -> Result<Place, Status> {
        let began = Instant::now();
        let mut books = self.inner.books();
        let room = rank.room(books.adaptive.limit(), self.inner.most);
        let all = self.inner.all.map(|all| if rank == Rank::Finishing { all } else { all - all / RESERVED });
        let reason = if all.is_some_and(|all| books.working + books.aside >= all) {
            Reason::Full
        } else if books.working >= room {
            Reason::Limit
        } else {
            books.working += 1;
            let working = books.working;
            books.adaptive.taken(working);
            self.inner.tell(&books);
            drop(books);
            let stream = method.server_streaming || method.client_streaming;
            let teaches = !stream && method.policy.access != Access::Operator;
            let watch = Mutex::new(Watch::default());
            let held = Arc::new(Held { inner: Arc::clone(&self.inner), method, began, teaches, watch });
            let waits = stream.then(|| Aside::of(&held));
            return Ok(Place { held, well: false, waits });
        };
        drop(books);
        self.inner.shed.refused(rank.name(), reason);
        let message = format!("{} has too many calls in progress", self.inner.name);
        Err(status::overloaded("OVERLOADED", message, PAUSE))
    }

    /// The same at a door, which does not see for what a call waits: one whose method may take long has its place aside from
    /// the beginning.
    pub fn take_at_the_door(&self, method: &'static Method) -> Result<Place, Status> {
        let mut place = self.take(method, Rank::of(method))?;
        if method.deadline > LONG {
            place.waits = Some(Aside::of(&place.held));
        }
        Ok(place)
    }
}

impl Inner {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, books: &Books) {
        self.shed.stands(books.adaptive.limit(), books.working, books.aside);
    }
}

/// A place; given back when it is dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Place {
    held: Arc<Held>,
    well: bool,
    waits: Option<Aside>,
}

impl Place {
    /// The call was answered well: how long it took says what calls of its method take.
    pub fn well(&mut self) {
        self.well = true;
    }

    /// The body of the call's request: until it is there, the call waits for its caller.
    pub fn awaiting<B: http_body::Body>(&self, body: B) -> Awaited<B> {
        let aside = (!body.is_end_stream()).then(|| Aside::of(&self.held));
        Awaited { inner: body, aside }
    }

    /// For whoever answers the call.
    pub(crate) fn holder(&self) -> Holder {
        Holder(Arc::clone(&self.held))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.waits.take());
        let now = Instant::now();
        let mut watch = self.held.watch();
        watch.over = true;
        let waited = watch.waited + watch.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let aside = watch.since.take().is_some();
        drop(watch);
        let Held { inner, method, began, teaches, .. } = &*self.held;
        let mut books = inner.books();
        let at_once = books.working;
        if aside {
            books.aside -= 1;
        } else {
            books.working -= 1;
        }
        if *teaches {
            let took = now.saturating_duration_since(*began).saturating_sub(waited);
            let done = Done { method: method.path, began: *began, took };
            if self.well {
                books.adaptive.answered(done, at_once, now);
            } else {
                books.adaptive.failed(done, at_once, now);
            }
        }
        inner.tell(&books);
    }
}

#[derive(Debug)]
struct Held {
    inner: Arc<Inner>,
    method: &'static Method,
    began: Instant,
    teaches: bool,
    watch: Mutex<Watch>,
}

/// What a call has waited for others.
#[derive(Debug, Default)]
struct Watch {
    /// How many waits are going on at once.
    depth: u32,
    /// Since when, if one is.
    since: Option<Instant>,
    waited: Duration,
    over: bool,
}

impl Held {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body that takes its call back from aside with its end.
#[derive(Debug)]
pub struct Awaited<B> {
    inner: B,
    aside: Option<Aside>,
}

impl<B: http_body::Body + Unpin> http_body::Body for Awaited<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.inner.is_end_stream() {
            self.aside = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// Whoever answers a call, to step aside from its place.
#[derive(Clone, Debug)]
pub(crate) struct Holder(Arc<Held>);

impl Holder {
    /// Aside until what is given is dropped.
    pub(crate) fn aside(&self) -> Aside {
        Aside::of(&self.0)
    }
}

/// A place aside. After the call has ended it is nothing.
#[derive(Debug)]
pub(crate) struct Aside(Arc<Held>);

impl Aside {
    fn of(held: &Arc<Held>) -> Self {
        let mut watch = held.watch();
        watch.depth += 1;
        if watch.depth == 1 && !watch.over {
            watch.since = Some(Instant::now());
            let mut books = held.inner.books();
            books.working -= 1;
            books.aside += 1;
            held.inner.tell(&books);
        }
        drop(watch);
        Aside(Arc::clone(held))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let held = &self.0;
        let mut watch = held.watch();
        watch.depth -= 1;
        if watch.depth == 0
            && let Some(since) = watch.since.take()
        {
            watch.waited += since.elapsed();
            let mut books = held.inner.books();
            books.aside -= 1;
            // It has been let in: there may be one more than the limit for what is left of it.
            books.working += 1;
            held.inner.tell(&books);
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::Policy;

    use super::*;

    const fn method(access: Access, idempotency: Idempotency) -> Method {
        Method {
            service: "stoa.test.v1.TestService",
            name: "Test",
            path: "/stoa.test.v1.TestService/Test",
            owner: "test",
            input: "stoa.test.v1.TestRequest",
            output: "stoa.test.v1.TestResponse",
            client_streaming: false,
            server_streaming: false,
            policy: Policy { access, owner: false, callers: &[] },
            idempotency,
            deadline: Duration::from_secs(5),
            request_id: false,
            secret_reply: false,
            max_request_bytes: 1024,
            stale_for: Duration::ZERO,
            http: &[],
        }
    }

    static READ: Method = method(Access::Public, Idempotency::NoSideEffects);
    static WATCH: Method = Method { server_streaming: true, ..method(Access::Guest, Idempotency::NoSideEffects) };
    static ORDER: Method = Method { deadline: Duration::from_secs(30), ..method(Access::Guest, Idempotency::Unknown) };

    fn stand(places: &Places) -> (usize, usize) {
        let books = places.inner.books();
        (books.working, books.aside)
    }

    #[test]
    fn a_rank_is_what_the_contract_says_of_the_method() {
        use Access::{Customer, Guest, Internal, Operator, Public};
        use Idempotency::{Idempotent, NoSideEffects, Unknown};
        for (access, idempotency, rank) in [
            (Public, NoSideEffects, Rank::Browsing),
            (Public, Unknown, Rank::Browsing),
            (Public, Idempotent, Rank::Finishing),
            (Guest, NoSideEffects, Rank::Shopping),
            (Customer, Unknown, Rank::Shopping),
            (Operator, NoSideEffects, Rank::Finishing),
            (Internal, Unknown, Rank::Finishing),
        ] {
            assert_eq!(Rank::of(&method(access, idempotency)), rank, "{access:?} {idempotency:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_has_its_place_aside_until_it_ends() {
        let places = Places::new("streams", 10);
        let stream = places.take(&WATCH, Rank::Shopping).unwrap();
        assert_eq!(stand(&places), (0, 1));
        drop(stream);
        assert_eq!(stand(&places), (0, 0));
    }

    #[tokio::test]
    async fn at_the_door_what_may_take_long_has_its_place_aside_and_is_let_in_as_others_are() {
        let places = Places::at_a_door("door-test", 100);
        let order = places.take_at_the_door(&ORDER).unwrap();
        assert_eq!(stand(&places), (0, 1));
        let reads: Vec<Place> = (0..100).map(|_| places.take_at_the_door(&READ).unwrap()).collect();
        assert!(places.take_at_the_door(&ORDER).is_err(), "a hundred are worked on");
        drop((order, reads));
        assert_eq!(stand(&places), (0, 0));
    }

    #[tokio::test]
    async fn whoever_does_not_send_their_request_keeps_nobody_out() {
        let places = Places::at_a_door("slow-bodies", 100);
        let body = || tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from_static(b"{}")));
        let mut slow = Vec::new();
        for _ in 0..1000 {
            let place = places.take_at_the_door(&READ).unwrap();
            slow.push((place.awaiting(body()), place));
        }
        assert_eq!(stand(&places), (0, 1000));
        let (mut first, place) = slow.pop().unwrap();
        assert!(http_body_util::BodyExt::frame(&mut first).await.is_some());
        assert_eq!(stand(&places), (1, 999), "it is there");
        drop((place, slow, first));
        assert_eq!(stand(&places), (0, 0));
        let place = places.take_at_the_door(&READ).unwrap();
        let _nothing = place.awaiting(tonic::body::Body::empty());
        assert_eq!(stand(&places), (1, 0), "a request without a body is there from the beginning");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_steps_aside_as_often_as_it_waits_and_its_waits_are_no_time_of_its_own() {
        let places = Places::new("waits", 10);
        let mut place = places.take(&READ, Rank::Browsing).unwrap();
        let holder = place.holder();
        let (one, other) = (holder.aside(), holder.aside());
        assert_eq!(stand(&places), (0, 1), "once, however many it waits for");
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(one);
        assert_eq!(stand(&places), (0, 1));
        drop(other);
        assert_eq!(stand(&places), (1, 0));
        tokio::time::advance(Duration::from_millis(3)).await;
        let last = holder.aside();
        place.well();
        drop(place);
        assert_eq!(stand(&places), (0, 0));
        drop(last);
        drop(holder.aside());
        assert_eq!(stand(&places), (0, 0), "what outlives its call is nothing");
        assert_eq!(places.inner.books().adaptive.least_of(READ.path), Some(Duration::from_millis(3)));
    }
}
