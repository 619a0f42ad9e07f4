//! The provider as its clients see it: over TCP, with restarts, and killed at its worst moment.

#![allow(clippy::unwrap_used)]

mod challenges;
mod crashes;
mod ledger;
mod moves;
mod rig;
mod tokens;
mod webhooks;
