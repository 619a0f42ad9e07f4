//! The only door of the suite: JSON and gRPC on one port, in front of every service.
//!
//! [`transcode`] turns REST and JSON into gRPC by descriptors alone and knows nothing of the suite.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod transcode;
