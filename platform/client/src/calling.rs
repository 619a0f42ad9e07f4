//! A call that is made, with all its attempts: as it is counted and as the span that it is.

use telemetry::metrics;
use telemetry::spans::{Kind, Running};
use tonic::Code;
use tonic::body::Body;

use crate::outgoing::Outgoing;

/// Over when it is dropped; given up, if it was not ended.
pub(crate) struct Calling {
    calling: metrics::Calling,
    span: Running,
}

impl Calling {
    /// A call begins; what it causes is a part of it.
    pub(crate) fn begin(caller: &'static str, callee: &'static str, request: &mut http::Request<Body>) -> Self {
        let name = request.uri().path().trim_start_matches('/').to_owned();
        let outgoing = request.extensions_mut().get_or_insert_default::<Outgoing>();
        let mut span = Running::begin(caller, Kind::Client, name.clone(), &outgoing.trace);
        outgoing.trace = span.trace();
        span.set("rpc.system.name", "grpc");
        span.set("rpc.method", name);
        span.set("service.peer.name", callee);
        Calling { calling: metrics::Calling::begin(caller, callee), span }
    }

    /// It has ended with this code.
    pub(crate) fn end(self, code: Code) {
        self.calling.end(code.into());
        self.span.end_rpc(code.into());
    }
}
