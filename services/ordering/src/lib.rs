//! Ordering: the write side of orders, event-sourced.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod order;
