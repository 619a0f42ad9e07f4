//! The plain types of the contract tables.
//!
//! The `contracts` crate is generated from `proto/` and fills values of these types; servers, clients and the gateway read
//! them. Nothing here knows a message of the domain, so platform crates depend on this crate and never on `contracts`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod event;
mod guard;
mod json;
mod method;
mod money;
pub mod rules;
mod validate;

pub use event::{DecodeEventError, EventSet, Personal};
pub use guard::Guard;
pub use json::{JsonMessage, JsonTable};
pub use method::{Access, HttpRule, Idempotency, Method, Policy, Role, Table, Verb};
pub use money::{Currency, Money, MoneyError};
pub use validate::{FieldPath, Validate, Violation};
