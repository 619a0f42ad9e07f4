//! Publish and subscribe between services, *at least once*: here within one process, where a
//! consumer tails the producer's log directly.
//!
//! A service publishes its log to the [`Hub`] as a [`Source`]. A [`Consumer`] reads batches from its
//! sources and applies each batch in one transaction of its own store: inbox, effect and cursor
//! together.
//!
//! **It cannot skip a late commit**: positions are dense per shard and assigned under a lock by the
//! appending transaction, so when position p can be seen, everything before it can. The cursor moves
//! only to the last position read and dealt with, by compare-and-set, and a hole between two
//! positions is an error, never stepped over.
//!
//! **On redelivery**: the inbox keeps the last version of each stream; what is not newer is a
//! duplicate and does nothing, what is too new makes the consumer fetch the missing range first.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod broker;
pub mod cloud_events;
pub mod conformance;
mod consumer;
mod delivery;
mod error;
mod feed;
mod handler;
mod hub;
#[cfg(feature = "kafka")]
pub mod kafka;
mod letters;
mod message;
mod outbox;
#[cfg(feature = "planted-bugs")]
pub mod planted;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod relay;
mod source;

pub use broker::{Broker, DELIVERY, Delivery, Envelope, Receipt, Subscription, WINDOW};
pub use consumer::{Consumer, Limits, Progress};
pub use error::Error;
pub use feed::Fed;
pub use handler::{Failure, Handler, listed};
pub use hub::Hub;
pub use letters::Redriven;
pub use log::LocalBoxFuture;
pub use log::once::RETENTION as ANSWERS_KEPT;
pub use log::parked::Parked as DeadLetter;
pub use message::Message;
pub use outbox::Outbox;
pub use relay::{Relay, RelayLimits, Relayed};
pub use source::{BoxFuture, Source, source};
