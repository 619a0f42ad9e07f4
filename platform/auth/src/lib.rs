//! Who is calling, and whether they may: tokens, keys and the decision over the contract's policies.
//!
//! Invariants: a token is believed only by a key this process holds, under the one algorithm of that key, with every claim
//! present and of the right JSON type; nothing in a token can name a key to fetch. No token is passed on: a call between
//! services carries the caller's own token for that one callee ([`Fleet`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod access;
mod claims;
mod fleet;
mod keys;
mod policy;

use std::borrow::Cow;

pub use access::{Error, Issued, Issuer, Verifier};
pub use claims::{MAX_TOKEN_BYTES, Refused, SKEW_S};
pub use contract::Role;
pub use fleet::Fleet;
pub use keys::{Keyring, MalformedJwks, PublicKey, SigningKey};
pub use policy::{Denied, decide};

/// The gateway's name as a caller: it speaks for people outside.
pub const GATEWAY: &str = "gateway";

/// The name of the operator's command line as a caller: it speaks for the operator, and for people whose purchases it enters.
pub const OPERATOR: &str = "operator";

/// Whether this caller speaks for people and has no business of its own: then a call without a person is nobody's.
pub fn speaks_for_people(caller: &str) -> bool {
    caller == GATEWAY || caller == OPERATOR
}

/// A person, as their access token names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `users/{u}` or `guests/{g}`.
    pub id: String,
    /// What they are to the shop.
    pub role: Role,
    /// The session the token belongs to, `users/{u}/sessions/{s}`; may be empty for guests.
    pub session: String,
}

/// On whose behalf a call is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody in particular: an outsider without a token, or a service acting by itself.
    #[default]
    Anonymous,
    /// A person who showed a valid token.
    User(Subject),
}

impl Principal {
    /// The person, if there is one.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Principal::Anonymous => None,
            Principal::User(subject) => Some(subject),
        }
    }
}

/// Both sides of a call's identity: which process sends it and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The calling service's short name, [`GATEWAY`], [`OPERATOR`], or empty for someone outside who proved nothing.
    pub caller: Cow<'static, str>,
    /// On whose behalf it calls.
    pub principal: Principal,
}
