//! How a process of Stoa tells what it does: structured log lines, each with the trace id of the call it belongs to,
//! [`metrics`], and [`spans`] of what was done.
//!
//! Invariants: a value somebody else chose cannot forge a line (line breaks, escape sequences and other control characters of
//! a logged field are printed as escapes, in both formats), and is no label of a metric.

mod logs;
pub mod metrics;
pub mod spans;
mod trace;

pub use logs::{Error, Format, init};
pub use trace::{MalformedTraceparent, Trace};
