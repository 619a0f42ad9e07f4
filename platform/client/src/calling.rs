//! A call that is made, with all its attempts: as it is counted and as the span that it is.

use contract::Method;
use telemetry::metrics;
use telemetry::spans::{Kind, Running};
use tonic::Code;
use tonic::body::Body;

use crate::breaker::Circuit;
use crate::outgoing::Outgoing;

/// Over when it is dropped; given up, if it was not ended.
pub(crate) struct Calling {
    calling: metrics::Calling,
    span: Running,
}

impl Calling {
    /// A call begins; what it causes is a part of it.
    pub(crate) fn begin(
        caller: &'static str,
        callee: &'static str,
        method: Option<&'static Method>,
        request: &mut http::Request<Body>,
    ) -> Self {
        // What no contract has is not sent, and has no name of ours.
        let name = method.map_or("_OTHER", |method| method.path.trim_start_matches('/'));
        let outgoing = request.extensions_mut().get_or_insert_default::<Outgoing>();
        let mut span = Running::begin(caller, Kind::Client, name, &outgoing.trace);
        outgoing.trace = span.trace();
        span.set("rpc.system.name", "grpc");
        span.set("rpc.method", name);
        span.set("service.peer.name", callee);
        Calling { calling: metrics::Calling::begin(caller, callee), span }
    }

    /// The breaker stood so, and did not let it pass.
    pub(crate) fn refused(&mut self, circuit: Circuit) {
        self.span.set("stoa.circuit.state", circuit.name());
    }

    /// It is why the breaker stands so from now on.
    pub(crate) fn moved(&mut self, circuit: Circuit) {
        self.span.set("stoa.circuit.moved", circuit.name());
    }

    /// What the callee said earlier stands in for its answer.
    pub(crate) fn stale(&mut self) {
        self.span.set("stoa.stale", "true");
    }

    /// It has ended with this code.
    pub(crate) fn end(self, code: Code) {
        self.calling.end(code.into());
        self.span.end_rpc(code.into());
    }
}
