//! The one way to call another service: by name, with a deadline, as somebody, retried only where the contract allows.
//!
//! A generated client is built over a [`Channel`], which leads to the callee's own layers in this process or to a process
//! elsewhere; the caller cannot tell which. Invariants: every call has a deadline; a call is sent again only if its method is
//! idempotent by contract, the answer was `UNAVAILABLE`, and the channel's retry budget allows it; the callee learns who
//! calls from this crate alone, never from headers.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod channel;
mod outgoing;
mod registry;
mod retry;

pub use channel::{Answer, Arrival, Callee, Channel};
pub use outgoing::Outgoing;
pub use registry::{Caller, Error, Registry};
