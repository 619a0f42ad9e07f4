//! A call that is answered, as it is counted and as the span that it is.

use contract::Method;
use telemetry::Trace;
use telemetry::metrics::Serving;
use telemetry::spans::{Kind, Running};
use tonic::Code;

/// Over when it is dropped; given up, if it was not ended.
pub(crate) struct Answering {
    serving: Serving,
    span: Running,
}

impl Answering {
    /// A call begins, as a part of the caller's span.
    pub(crate) fn begin(service: &'static str, method: &'static Method, parent: &Trace) -> Self {
        let name = method.path.trim_start_matches('/');
        let mut span = Running::begin(service, Kind::Server, name, parent);
        if method.server_streaming || method.client_streaming {
            span.untimed();
        }
        span.set("rpc.system.name", "grpc");
        span.set("rpc.method", name);
        Answering { serving: Serving::begin(service, name), span }
    }

    /// The context of what is done for it.
    pub(crate) fn trace(&self) -> Trace {
        self.span.trace()
    }

    /// It has ended with this code.
    pub(crate) fn end(self, code: Code) {
        self.serving.end(code.into());
        self.span.end_rpc(code.into());
    }
}
