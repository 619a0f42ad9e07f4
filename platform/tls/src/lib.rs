//! Which process is at the other end of a connection: both ends show a certificate, and its only URI is a SPIFFE id.
//!
//! [`Trust`] is the files of one process as the map names them; [`Credentials`] are those of one service, as they were last
//! read. A peer is believed if its certificate leads to the authority, is no authority itself, is valid now, and names exactly
//! one `spiffe://DOMAIN/NAME` of our domain; a callee moreover has to be the one that was meant, whatever its address.
//! Invariants: TLS 1.3 alone; no session is resumed, so every connection is judged by the files of today; files that do not
//! fit together take nothing away from those read before.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

pub mod authority;

mod credentials;
mod name;
mod stream;
mod trust;
mod verify;

pub use credentials::Credentials;
pub use name::{Name, Refused, id};
pub use stream::Stream;
pub use trust::{Error, Files, LOOK, Trust};
