//! The instruments by name, and the labels each has.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper ends of the classes of durations, in seconds: from a call in memory to the longest deadline.
const CLASSES_S: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The names of gRPC's codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The name of a code; a number that is none is `UNKNOWN`, as gRPC says.
pub(crate) fn code_name(code: i32) -> &'static str {
    usize::try_from(code).ok().and_then(|code| CODES.get(code)).copied().unwrap_or("UNKNOWN")
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Service {
    pub(super) service: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Served {
    pub(super) service: &'static str,
    pub(super) method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Code {
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Way {
    pub(super) caller: &'static str,
    pub(super) callee: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Answered {
    pub(super) verb: &'static str,
    pub(super) status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Verb {
    pub(super) verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Step {
    pub(super) saga: &'static str,
    pub(super) step: &'static str,
    pub(super) direction: &'static str,
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Settled {
    pub(super) saga: &'static str,
    pub(super) phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Phase {
    pub(super) service: &'static str,
    pub(super) phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Consumer {
    pub(super) service: &'static str,
    pub(super) consumer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Refused {
    pub(super) service: &'static str,
    pub(super) rank: &'static str,
    pub(super) reason: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Everything that is counted.
pub(super) struct Instruments {
    pub(super) registry: Registry,
    pub(super) served: Family<(Served, Code), Counter>,
    pub(super) served_duration: Histograms<Served>,
    pub(super) serving: Family<Service, Gauge>,
    pub(super) limit: Family<Service, Gauge>,
    pub(super) working: Family<Service, Gauge>,
    pub(super) aside: Family<Service, Gauge>,
    pub(super) shed: Family<Refused, Counter>,
    pub(super) called: Family<(Way, Code), Counter>,
    pub(super) called_duration: Histograms<Way>,
    pub(super) calling: Family<Way, Gauge>,
    pub(super) retries: Family<Way, Counter>,
    pub(super) circuit: Family<Way, Gauge>,
    pub(super) refusals: Family<Way, Counter>,
    pub(super) requests: Family<Answered, Counter>,
    pub(super) request_duration: Histograms<Verb>,
    pub(super) steps: Family<Step, Counter>,
    pub(super) settled: Family<Settled, Counter>,
    pub(super) sagas: Family<Phase, Gauge>,
    pub(super) behind: Family<Consumer, Gauge>,
    pub(super) parked: Family<Consumer, Gauge>,
    pub(super) outbox: Family<Service, Gauge>,
    pub(super) outbox_age: Family<Service, Gauge<f64, AtomicU64>>,
    pub(super) holds: Gauge,
    pub(super) spans_exported: Counter,
    pub(super) spans_dropped: Counter,
}

pub(super) static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(Instruments::new);

impl Instruments {
    fn new() -> Self {
        let durations: fn() -> Histogram = || Histogram::new(CLASSES_S);
        let mut it = Instruments {
            registry: Registry::with_prefix("stoa"),
            served: Family::default(),
            served_duration: Family::new_with_constructor(durations),
            serving: Family::default(),
            limit: Family::default(),
            working: Family::default(),
            aside: Family::default(),
            shed: Family::default(),
            called: Family::default(),
            called_duration: Family::new_with_constructor(durations),
            calling: Family::default(),
            retries: Family::default(),
            circuit: Family::default(),
            refusals: Family::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations),
            steps: Family::default(),
            settled: Family::default(),
            sagas: Family::default(),
            behind: Family::default(),
            parked: Family::default(),
            outbox: Family::default(),
            outbox_age: Family::default(),
            holds: Gauge::default(),
            spans_exported: Counter::default(),
            spans_dropped: Counter::default(),
        };
        it.register();
        it
    }

    fn register(&mut self) {
        let it = &mut self.registry;
        it.register("server_calls", "Calls answered", self.served.clone());
        it.register_with_unit(
            "server_call_duration",
            "Until the answer begins",
            Unit::Seconds,
            self.served_duration.clone(),
        );
        it.register("server_calls_in_flight", "Calls taken and not answered", self.serving.clone());
        it.register("limit_calls", "Calls that may be worked on at once", self.limit.clone());
        it.register("limit_calls_working", "Calls that are worked on", self.working.clone());
        it.register("limit_calls_aside", "Calls that wait for others, and streams", self.aside.clone());
        it.register("calls_shed", "Calls refused because there is too much to do", self.shed.clone());
        it.register("client_calls", "Calls made, each with all its attempts", self.called.clone());
        it.register_with_unit(
            "client_call_duration",
            "Until the answer begins",
            Unit::Seconds,
            self.called_duration.clone(),
        );
        it.register("client_calls_in_flight", "Calls made and not answered", self.calling.clone());
        it.register("client_retries", "Calls sent once more", self.retries.clone());
        it.register("circuit_state", "0 closed, 1 half open, 2 open", self.circuit.clone());
        it.register("circuit_refusals", "Calls that a breaker refused", self.refusals.clone());
        it.register("http_requests", "Requests answered at the door", self.requests.clone());
        it.register_with_unit(
            "http_request_duration",
            "Until the answer begins",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        it.register("saga_steps", "Ends of attempts at steps of sagas", self.steps.clone());
        it.register("sagas_settled", "Sagas that came to an end", self.settled.clone());
        it.register("sagas", "Sagas that somebody must still work on", self.sagas.clone());
        it.register("consumer_lag_messages", "Messages a consumer has yet to deal with", self.behind.clone());
        it.register("dead_letters", "Messages a consumer has parked", self.parked.clone());
        it.register("outbox_messages", "Events the broker has yet to confirm", self.outbox.clone());
        it.register_with_unit(
            "outbox_age",
            "Since the oldest of them was committed",
            Unit::Seconds,
            self.outbox_age.clone(),
        );
        it.register("stock_holds", "Holds on stock neither committed nor released", self.holds.clone());
        it.register("spans_exported", "Spans a collector has taken", self.spans_exported.clone());
        it.register("spans_dropped", "Spans no collector has taken", self.spans_dropped.clone());
    }
}
