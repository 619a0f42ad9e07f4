//! The copies of a service elsewhere: which of them the next call goes to, and which are left alone for a while.
//!
//! Of two copies drawn by chance the one with fewer calls in flight is taken ("the power of two choices"), so a slow copy
//! gets less without anybody measuring it. A copy whose connection fails, or that says `UNAVAILABLE` or nothing several
//! times in a row, is left alone for a pause that doubles up to a bound; then one call at a time tries it again. Where all
//! are left alone, the one whose pause ends first is asked all the same: a guess is better than a certain failure.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tls::Trust;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::way::Way;

/// The first pause of a copy that failed, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How often in a row a copy that is connected may say that it is unavailable, or nothing in time.
const PATIENCE: u32 = 3;

/// The copies of one service. The set may change under calls; a call in flight keeps the copy it went to.
pub(crate) struct Endpoints {
    callee: &'static str,
    trust: Option<Trust>,
    copies: ArcSwap<Vec<Arc<Copy>>>,
    draws: AtomicU64,
}

/// One copy.
pub(crate) struct Copy {
    uri: String,
    way: Way,
    in_flight: AtomicUsize,
    standing: Mutex<Standing>,
}

/// What is remembered of a copy's failures.
#[derive(Default)]
struct Standing {
    /// Failures without a good answer in between.
    failures: u32,
    /// Left alone until then.
    until: Option<Instant>,
}

/// How a call to a copy ended, as far as it says something of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It answered, whatever the answer was.
    Answered,
    /// It answered that it cannot, or nothing in time.
    Unable,
    /// The connection was not made, or broke.
    Broken,
}

/// A call's place at a copy: counted until it is dropped.
pub(crate) struct Place {
    copy: Arc<Copy>,
}

impl Endpoints {
    pub(crate) fn new(
        callee: &'static str,
        uris: &[String],
        trust: Option<Trust>,
    ) -> Result<Self, (String, tonic::transport::Error)> {
        let seed = u64::from_be_bytes(telemetry::Trace::new_root().span_id);
        let this = Endpoints { callee, trust, copies: ArcSwap::default(), draws: AtomicU64::new(seed) };
        this.replace(uris)?;
        Ok(this)
    }

    /// From now on these are the copies. Those that stay keep their connections and what is known of them.
    pub(crate) fn replace(&self, uris: &[String]) -> Result<(), (String, tonic::transport::Error)> {
        let now = self.copies.load();
        let mut copies: Vec<Arc<Copy>> = Vec::with_capacity(uris.len());
        for uri in uris {
            if copies.iter().any(|copy| copy.uri == *uri) {
                continue;
            }
            let known = now.iter().find(|copy| copy.uri == *uri).map(Arc::clone);
            copies.push(match known {
                Some(copy) => copy,
                None => Arc::new(self.copy(uri).map_err(|error| (uri.clone(), error))?),
            });
        }
        self.copies.store(Arc::new(copies));
        Ok(())
    }

    /// A place at one of the copies that are not in `tried`, or nothing if there is none.
    pub(crate) fn take(&self, tried: &[Arc<Copy>]) -> Option<Place> {
        let copies = self.copies.load();
        let now = Instant::now();
        let mut well: Vec<&Arc<Copy>> = Vec::with_capacity(copies.len());
        let mut alone: Option<(Instant, &Arc<Copy>)> = None;
        for copy in copies.iter().filter(|copy| !tried.iter().any(|other| Arc::ptr_eq(copy, other))) {
            match copy.left_alone(now) {
                None => well.push(copy),
                Some(until) if alone.is_none_or(|(soonest, _)| until < soonest) => alone = Some((until, copy)),
                Some(_) => {}
            }
        }
        let chosen = match &*well {
            [] => alone?.1,
            [only] => only,
            several => {
                let (first, second) = self.two_of(several.len());
                let (first, second) = (several[first], several[second]);
                if second.load() < first.load() { second } else { first }
            }
        };
        Some(Place::new(Arc::clone(chosen)))
    }

    fn copy(&self, uri: &str) -> Result<Copy, tonic::transport::Error> {
        let way = Way::new(self.callee, uri, self.trust.clone())?;
        Ok(Copy { uri: uri.to_owned(), way, in_flight: AtomicUsize::new(0), standing: Mutex::default() })
    }

    /// Two different numbers below `count`, which is at least two.
    fn two_of(&self, count: usize) -> (usize, usize) {
        let draw = mix(self.draws.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed));
        let (count, low, high) = (count as u64, draw & 0xFFFF_FFFF, draw >> 32);
        let first = low % count;
        let second = (first + 1 + high % (count - 1)) % count;
        (first as usize, second as usize)
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.copies.load().iter().map(|copy| &copy.uri)).finish()
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbouring numbers become unrelated ones.
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

impl Copy {
    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Until when it is left alone, if it is. Whoever is told that a pause is over has to try it: the others get the next one.
    fn left_alone(&self, now: Instant) -> Option<Instant> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.until.filter(|until| now < *until)
    }

    /// Lets one call at a time try a copy whose pause is over.
    fn begin(&self) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.until.is_some() {
            standing.until = Some(Instant::now() + FIRST_PAUSE);
        }
    }

    fn ended(&self, end: End) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match end {
            End::Answered => *standing = Standing::default(),
            End::Unable | End::Broken => {
                // Many calls break with one connection; they are one failure.
                let already = standing.until.is_some_and(|until| Instant::now() + FIRST_PAUSE / 2 < until);
                if end == End::Broken && already {
                    return;
                }
                standing.failures = standing.failures.saturating_add(1);
                let strikes = match end {
                    End::Unable => standing.failures.saturating_sub(PATIENCE - 1),
                    End::Broken | End::Answered => standing.failures,
                };
                if strikes > 0 {
                    let pause = FIRST_PAUSE.saturating_mul(1 << (strikes - 1).min(16)).min(LONGEST_PAUSE);
                    standing.until = Some(Instant::now() + pause);
                    tracing::debug!(uri = self.uri, ?pause, "a copy is left alone");
                }
            }
        }
    }
}

impl Place {
    fn new(copy: Arc<Copy>) -> Self {
        copy.in_flight.fetch_add(1, Ordering::Relaxed);
        copy.begin();
        Place { copy }
    }

    /// This caller's connection to the copy.
    pub(crate) fn channel(&self, caller: &'static str) -> Result<Channel, tls::Error> {
        self.copy.way.of(caller)
    }

    /// The copy, to be tried no second time.
    pub(crate) fn copy(&self) -> Arc<Copy> {
        Arc::clone(&self.copy)
    }

    /// Tells what the call learned of the copy.
    pub(crate) fn ended(&self, end: End) {
        self.copy.ended(end);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.copy.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u16) -> Endpoints {
        let uris: Vec<String> = (1..=count).map(|port| format!("http://127.0.0.1:{port}")).collect();
        Endpoints::new("cart", &uris, None).unwrap()
    }

    fn uris(places: &[Place]) -> Vec<&str> {
        places.iter().map(|place| place.copy.uri.as_str()).collect()
    }

    #[tokio::test]
    async fn the_copy_with_fewer_calls_in_flight_is_taken() {
        let copies = of(2);
        let places: Vec<Place> = (0..20).filter_map(|_| copies.take(&[])).collect();
        let first = uris(&places).iter().filter(|uri| uri.ends_with(":1")).count();
        assert_eq!(first, 10);
        let many = of(5);
        let places: Vec<Place> = (0..500).filter_map(|_| many.take(&[])).collect();
        for copy in many.copies.load().iter() {
            assert!((80..=120).contains(&copy.load()), "{} of {}", copy.load(), places.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_that_breaks_is_left_alone_longer_each_time() {
        let copies = of(2);
        let broken = copies.take(&[]).unwrap().copy();
        for pause in [200, 400, 800] {
            broken.ended(End::Broken);
            assert!((0..50).all(|_| copies.take(&[]).unwrap().copy.uri != broken.uri));
            tokio::time::advance(Duration::from_millis(pause + 1)).await;
            let tries = (0..50).filter(|_| copies.take(&[]).unwrap().copy.uri == broken.uri).count();
            assert_eq!(tries, 1, "one call tries it again");
            tokio::time::advance(FIRST_PAUSE).await;
        }
        broken.ended(End::Answered);
        assert!((0..50).any(|_| copies.take(&[]).unwrap().copy.uri == broken.uri));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_copy_is_asked_whatever_it_did() {
        let copies = of(2);
        let first = copies.take(&[]).unwrap().copy();
        first.ended(End::Broken);
        tokio::time::advance(Duration::from_millis(50)).await;
        let second = copies.take(&[]).unwrap().copy();
        second.ended(End::Broken);
        assert_eq!(copies.take(&[]).unwrap().copy.uri, first.uri, "whose pause ends first");
        assert!(copies.take(&[first, second]).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_silence_is_forgiven_and_several_are_not() {
        let copies = of(2);
        let silent = copies.take(&[]).unwrap().copy();
        for _ in 1..PATIENCE {
            silent.ended(End::Unable);
            assert!(silent.left_alone(Instant::now()).is_none());
        }
        silent.ended(End::Unable);
        assert!(silent.left_alone(Instant::now()).is_some());
    }

    #[tokio::test]
    async fn a_copy_that_stays_keeps_what_is_known_of_it() {
        let copies = of(2);
        let place = copies.take(&[]).unwrap();
        let kept = place.copy.uri.clone();
        copies.replace(&[kept.clone(), "http://127.0.0.1:9".to_owned(), kept.clone()]).unwrap();
        assert_eq!(copies.copies.load().len(), 2);
        assert_eq!(copies.take(&[]).unwrap().copy.uri, "http://127.0.0.1:9", "the other has a call in flight");
        copies.replace(&[]).unwrap();
        assert!(copies.take(&[]).is_none());
        assert!(copies.replace(&["not a uri".to_owned()]).is_err());
    }
}
