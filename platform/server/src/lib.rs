//! The one way to be a service: a component of routes and tasks, its layers, and the listener in front of it.
//!
//! A service's `build(config, &Context)` gives a [`Component`]. [`Context::mount`] puts the layers around its routes (trace,
//! identity, policy, deadline, load shedding) and makes it callable in this process; [`serve`] also listens. Invariants: no
//! handler runs before its method's policy has been decided; who calls is known from this process or from a signed token,
//! never from a header an outsider can write, and where processes have certificates both say the same; a write that has begun is finished, whether or not its caller still waits
//! ([`Call::detached`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accept;
pub mod descriptors;
pub mod metrics;
pub mod status;

mod adaptive;
mod answering;
mod arriving;
mod body;
mod call;
mod component;
mod context;
mod deadline;
mod frames;
mod framing;
mod health;
mod layer;
mod limits;
mod messages;
mod page;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod shedding;
mod trail;
mod watched;

pub use accept::{Certified, Gauge, Limits, Listener, Peer};
pub use arriving::Arriving;
pub use call::Call;
pub use component::{Component, Door, Failed, Measure, Task, serve, supervise};
#[cfg(feature = "fleet")]
pub use context::Databases;
pub use context::{Context, Storage, Windows, duration};
pub use deadline::requested as requested_deadline;
pub use health::Probe;
pub use layer::Service;
pub use shedding::{Awaited, Place, Places, Rank};
