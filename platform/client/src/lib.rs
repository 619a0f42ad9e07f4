//! The one way to call another service: by name, with a deadline, as somebody, retried only where the contract allows.
//!
//! A generated client is built over a [`Channel`], which leads to the callee's own layers in this process or to a process
//! elsewhere; the caller cannot tell which. Invariants: every call has a deadline; a call is sent again only if its method is
//! idempotent by contract, the answer was `UNAVAILABLE`, and the channel's retry budget allows it; the callee learns who
//! calls from this crate alone, never from headers; of several copies of a callee the one with fewer calls in flight is asked,
//! and a call that may not be repeated goes to a second copy only if the first one certainly did not get it; where processes
//! know each other by certificates, a connection belongs to one caller, and leads to the callee that was meant or nowhere; a
//! callee that fails half of its calls is left alone for a while, and its callers are told so at once.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod breaker;
mod calling;
mod channel;
mod endpoints;
mod outgoing;
mod registry;
mod retry;
mod stale;
mod way;

pub use channel::{Answer, Arrival, Callee, Channel};
pub use outgoing::Outgoing;
pub use registry::{Caller, Error, Registry};
pub use stale::SINCE as STALE_SINCE;
pub use way::certified;
