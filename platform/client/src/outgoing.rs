//! What a caller says about its call besides the message.

use std::time::Duration;

use auth::Principal;
use telemetry::Trace;
use tokio::time::Instant;

/// For whom a call is made, in which story, and until when; it travels as an extension of the request.
///
/// A request without it is made for nobody, in a new story, with the contract's deadline.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The person the call is made for, if it is not the service's own business.
    pub principal: Principal,
    /// The story the call belongs to.
    pub trace: Trace,
    /// When the caller stops waiting; the contract's deadline holds as well.
    pub deadline: Option<Instant>,
}

impl Outgoing {
    /// A call on the service's own business, as sagas and consumers make them.
    pub fn itself(trace: Trace) -> Self {
        Outgoing { principal: Principal::Anonymous, trace, deadline: None }
    }

    /// Stops waiting at the latest after this time.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        let latest = Instant::now() + time;
        self.deadline = Some(self.deadline.map_or(latest, |deadline| deadline.min(latest)));
        self
    }

    /// The message as a request that is called so.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(self.clone());
        request
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::itself(Trace::new_root())
    }
}
