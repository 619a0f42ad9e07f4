//! The payment service through real tonic, against the sandbox provider over real HTTP, judged by the provider's ledger.

#![allow(clippy::unwrap_used)]

mod doubts;
mod moves;
mod rig;
mod tokens;
mod webhooks;
