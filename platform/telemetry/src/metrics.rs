//! What a process counts: calls it answers and makes, breakers, sagas, and what waits; as text for Prometheus.
//!
//! Invariant: the number of series is bounded by the program. Labels are names of methods, services, callers, consumers and
//! steps, which come from the contract tables and the code, and the codes of gRPC; nothing that somebody sends is one.
//!
//! The instruments belong to the process: services that run in one share them and differ by their `service`.

mod instruments;
mod text;

use std::time::Instant;

use prometheus_client::metrics::gauge::Gauge;

use instruments::{Code, Consumer, INSTRUMENTS, Phase, Refused, Served, Service, Settled, Step, Way};

pub(crate) use instruments::code_name;
pub use text::{CONTENT_TYPE, text, watch};

/// A call that a service answers, counted from here to its [`end`](Serving::end).
///
/// One that is dropped before its end counts as `CANCELLED`: nobody waits for it any more.
#[must_use = "a call is over when this is dropped"]
pub struct Serving {
    served: Served,
    begun: Instant,
    ended: bool,
}

impl Serving {
    /// A call to this method (`stoa.ordering.v1.OrderingService/PlaceOrder`) of this service begins. The names are those of
    /// the contract.
    pub fn begin(service: &'static str, method: &'static str) -> Self {
        INSTRUMENTS.serving.get_or_create(&Service { service }).inc();
        Serving { served: Served { service, method }, begun: Instant::now(), ended: false }
    }

    /// The call has ended with this code of gRPC, 0 to 16.
    pub fn end(mut self, code: i32) {
        self.record(code);
    }

    fn record(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Served { service, method } = self.served;
        INSTRUMENTS.serving.get_or_create(&Service { service }).dec();
        INSTRUMENTS.served.get_or_create(&(self.served.clone(), Code { code: code_name(code) })).inc();
        let took = self.begun.elapsed().as_secs_f64();
        INSTRUMENTS.served_duration.get_or_create(&Served { service, method }).observe(took);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.record(CANCELLED);
    }
}

/// A call that one service makes to another, with all its attempts.
///
/// One that is dropped before its end counts as `CANCELLED`: the caller gave it up.
#[must_use = "a call is over when this is dropped"]
pub struct Calling {
    way: Way,
    begun: Instant,
    ended: bool,
}

impl Calling {
    /// A call begins.
    pub fn begin(caller: &'static str, callee: &'static str) -> Self {
        let way = Way { caller, callee };
        INSTRUMENTS.calling.get_or_create(&way).inc();
        Calling { way, begun: Instant::now(), ended: false }
    }

    /// The call has ended with this code of gRPC, 0 to 16.
    pub fn end(mut self, code: i32) {
        self.record(code);
    }

    fn record(&mut self, code: i32) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        INSTRUMENTS.calling.get_or_create(&self.way).dec();
        INSTRUMENTS.called.get_or_create(&(self.way.clone(), Code { code: code_name(code) })).inc();
        INSTRUMENTS.called_duration.get_or_create(&self.way).observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.record(CANCELLED);
    }
}

/// A call is sent once more.
pub fn retried(caller: &'static str, callee: &'static str) {
    INSTRUMENTS.retries.get_or_create(&Way { caller, callee }).inc();
}

/// The verb, if it is one of the usual ones, else `other`.
pub fn verb(verb: &str) -> &'static str {
    const VERBS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    VERBS.into_iter().find(|known| *known == verb).unwrap_or("other")
}

/// A request that the door answers over HTTP, in whatever form.
#[must_use = "a request is over when this is dropped"]
pub struct Request {
    verb: &'static str,
    begun: Instant,
}

impl Request {
    /// A request begins; a verb that is none of the usual ones is `other`.
    pub fn begin(verb: &str) -> Self {
        Request { verb: self::verb(verb), begun: Instant::now() }
    }

    /// It is answered with this status, which the program chose.
    pub fn end(self, status: u16) {
        INSTRUMENTS.requests.get_or_create(&instruments::Answered { verb: self.verb, status }).inc();
        let took = self.begun.elapsed().as_secs_f64();
        INSTRUMENTS.request_duration.get_or_create(&instruments::Verb { verb: self.verb }).observe(took);
    }
}

/// The breaker between a caller and a callee, as others see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Circuit {
    state: Gauge,
    refusals: prometheus_client::metrics::counter::Counter,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls go through.
    Closed = 0,
    /// Single calls go through, to see how the callee is.
    HalfOpen = 1,
    /// Calls are refused here.
    Open = 2,
}

impl Circuit {
    /// A breaker that is closed.
    pub fn between(caller: &'static str, callee: &'static str) -> Self {
        let way = Way { caller, callee };
        let state = INSTRUMENTS.circuit.get_or_create(&way).clone();
        state.set(State::Closed as i64);
        Circuit { state, refusals: INSTRUMENTS.refusals.get_or_create(&way).clone() }
    }

    /// It stands here from now on.
    pub fn set(&self, state: State) {
        self.state.set(state as i64);
    }

    /// It has refused a call.
    pub fn refused(&self) {
        self.refusals.inc();
    }
}

/// The places of a service, as others see them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shed {
    service: &'static str,
    limit: Gauge,
    working: Gauge,
    aside: Gauge,
}

/// Why a call found no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// More are worked on than the limit has for its rank.
    Limit,
    /// There are as many as there may ever be, the waiting ones included.
    Full,
}

impl Shed {
    /// The places of this service, or of the door.
    pub fn of(service: &'static str) -> Self {
        let of = Service { service };
        Shed {
            service,
            limit: INSTRUMENTS.limit.get_or_create(&of).clone(),
            working: INSTRUMENTS.working.get_or_create(&of).clone(),
            aside: INSTRUMENTS.aside.get_or_create(&of).clone(),
        }
    }

    /// So many are allowed, worked on, and waiting for others.
    pub fn stands(&self, limit: usize, working: usize, aside: usize) {
        self.limit.set(whole(limit as u64));
        self.working.set(whole(working as u64));
        self.aside.set(whole(aside as u64));
    }

    /// A call of this rank was refused; the names of ranks are the program's.
    pub fn refused(&self, rank: &'static str, reason: Reason) {
        let reason = match reason {
            Reason::Limit => "limit",
            Reason::Full => "full",
        };
        INSTRUMENTS.shed.get_or_create(&Refused { service: self.service, rank, reason }).inc();
    }
}

/// A step of a saga has ended one way or another. The names are those of the table of steps.
pub fn saga_step(saga: &'static str, step: &'static str, compensation: bool, outcome: &str) {
    const OUTCOMES: [&str; 6] = ["DONE", "REFUSED", "ABANDONED", "EXPIRED", "RETRY", "WAIT"];
    let outcome = OUTCOMES.into_iter().find(|known| *known == outcome).unwrap_or("other");
    let direction = if compensation { "compensation" } else { "action" };
    INSTRUMENTS.steps.get_or_create(&Step { saga, step, direction, outcome }).inc();
}

/// A saga has come to this end.
pub fn saga_settled(saga: &'static str, phase: &'static str) {
    INSTRUMENTS.settled.get_or_create(&Settled { saga, phase }).inc();
}

/// How many sagas of a service are in a phase.
pub fn sagas(service: &'static str, phase: &'static str, count: u64) {
    INSTRUMENTS.sagas.get_or_create(&Phase { service, phase }).set(whole(count));
}

/// How many messages a consumer has yet to deal with, and how many it has parked.
pub fn consumer(service: &'static str, consumer: &'static str, behind: u64, parked: u64) {
    let labels = Consumer { service, consumer };
    INSTRUMENTS.behind.get_or_create(&labels).set(whole(behind));
    INSTRUMENTS.parked.get_or_create(&labels).set(whole(parked));
}

/// How many events of a service the broker has yet to confirm, and the seconds since the oldest of them was committed.
pub fn outbox(service: &'static str, waiting: u64, age_s: f64) {
    INSTRUMENTS.outbox.get_or_create(&Service { service }).set(whole(waiting));
    INSTRUMENTS.outbox_age.get_or_create(&Service { service }).set(age_s);
}

/// How many holds on stock are neither committed nor released.
pub fn stock_holds(open: u64) {
    INSTRUMENTS.holds.set(whole(open));
}

/// A collector has taken so many spans.
pub fn spans_exported(count: u64) {
    INSTRUMENTS.spans_exported.inc_by(count);
}

/// So many spans were given up: the collector did not take them, or not fast enough.
pub fn spans_dropped(count: u64) {
    INSTRUMENTS.spans_dropped.inc_by(count);
}

/// The code of a call that nobody waits for.
const CANCELLED: i32 = 1;

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(series: &str) -> Option<f64> {
        let text = text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }

    #[test]
    fn a_call_is_counted_by_its_code_and_one_that_is_dropped_as_cancelled() {
        const CALLS: &str = "stoa_server_calls_total{service=\"counted\",method=\"a.B/C\",code=";
        let first = Serving::begin("counted", "a.B/C");
        assert_eq!(value("stoa_server_calls_in_flight{service=\"counted\"}"), Some(1.0));
        first.end(0);
        Serving::begin("counted", "a.B/C").end(14);
        drop(Serving::begin("counted", "a.B/C"));
        for code in ["OK", "UNAVAILABLE", "CANCELLED"] {
            assert_eq!(value(&format!("{CALLS}\"{code}\"}}")), Some(1.0), "{code}");
        }
        assert_eq!(value("stoa_server_calls_in_flight{service=\"counted\"}"), Some(0.0));
        let count = "stoa_server_call_duration_seconds_count{service=\"counted\",method=\"a.B/C\"}";
        assert_eq!(value(count), Some(3.0));
    }

    #[test]
    fn a_call_that_is_sent_again_is_one_call() {
        let calling = Calling::begin("again", "callee");
        retried("again", "callee");
        retried("again", "callee");
        calling.end(0);
        assert_eq!(value("stoa_client_retries_total{caller=\"again\",callee=\"callee\"}"), Some(2.0));
        assert_eq!(value("stoa_client_calls_total{caller=\"again\",callee=\"callee\",code=\"OK\"}"), Some(1.0));
        assert_eq!(value("stoa_client_calls_in_flight{caller=\"again\",callee=\"callee\"}"), Some(0.0));
    }

    #[test]
    fn a_breaker_tells_where_it_stands_and_what_it_refused() {
        let circuit = Circuit::between("one", "other");
        let state = "stoa_circuit_state{caller=\"one\",callee=\"other\"}";
        assert_eq!(value(state), Some(0.0));
        circuit.set(State::Open);
        circuit.refused();
        assert_eq!(value(state), Some(2.0));
        circuit.set(State::HalfOpen);
        assert_eq!(value(state), Some(1.0));
        assert_eq!(value("stoa_circuit_refusals_total{caller=\"one\",callee=\"other\"}"), Some(1.0));
    }

    #[test]
    fn places_tell_how_many_there_are_and_whom_they_were_denied() {
        let shed = Shed::of("crowded");
        shed.stands(64, 7, 3);
        shed.refused("browsing", Reason::Limit);
        shed.refused("browsing", Reason::Limit);
        shed.refused("finishing", Reason::Full);
        for (series, wanted) in [
            ("stoa_limit_calls{service=\"crowded\"}", 64.0),
            ("stoa_limit_calls_working{service=\"crowded\"}", 7.0),
            ("stoa_limit_calls_aside{service=\"crowded\"}", 3.0),
            ("stoa_calls_shed_total{service=\"crowded\",rank=\"browsing\",reason=\"limit\"}", 2.0),
            ("stoa_calls_shed_total{service=\"crowded\",rank=\"finishing\",reason=\"full\"}", 1.0),
        ] {
            assert_eq!(value(series), Some(wanted), "{series}");
        }
    }

    #[test]
    fn a_verb_or_code_that_nobody_knows_makes_no_series_of_its_own() {
        for n in 0..1000 {
            Request::begin(&format!("VERB{n}")).end(405);
            Serving::begin("odd", "odd.Odd/Odd").end(n + 17);
        }
        assert_eq!(value("stoa_http_requests_total{verb=\"other\",status=\"405\"}"), Some(1000.0));
        let series = text().lines().filter(|line| line.starts_with("stoa_server_calls_total{service=\"odd\"")).count();
        assert_eq!(series, 1);
    }

    #[test]
    fn what_is_watched_is_asked_when_somebody_looks() {
        watch("stoa_test_watched", "Something.", || 7);
        assert_eq!(value("stoa_test_watched"), Some(7.0));
        watch("stoa_test_watched", "Something.", || 8);
        assert_eq!(value("stoa_test_watched"), Some(8.0));
        assert!(text().ends_with("# EOF\n"));
    }
}
