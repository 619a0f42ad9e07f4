//! Identity: who is who. Users, their sessions, guests, and the keys that sign tokens; everybody else only checks tokens.
//!
//! Invariants: an address belongs to one user, though no row shows it (a keyed hash is unique, the address itself is sealed);
//! passwords exist as Argon2id hashes, refresh tokens as SHA-256 hashes; a refresh token is good once, and a spent one ends its
//! session for whoever holds a copy; a session that was ended stays ended, because that is an event; a key signs no sooner than
//! verifiers could fetch it. A guest costs no commit: its first refresh token carries its own proof, and its session is stored
//! when that token is traded in. Emits the events of `stoa.identity.v1`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod error;
mod keys;
mod limits;
mod password;
mod rpc;
pub mod session;
mod store;
mod token;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use ::store::{Tx, site};
use contracts::identity::v1::identity_service_server::IdentityServiceServer;
use contracts::identity::v1::{Event, METHODS};
use jiff::Timestamp;
use log::Log;
use server::{Component, Context, Task};
use tonic::service::Routes;

pub use config::{Config, Hashing, Secret};
pub use error::{Error, Rejected};
pub use limits::Limit;
pub use store::MIGRATIONS;

/// E-mail address of the first operator.
pub const OPERATOR_EMAIL: &str = "operator@stoa.local";

/// What `build` gives.
#[derive(Debug)]
pub struct Built {
    /// The service.
    pub component: Component,
    /// The password made up for [`OPERATOR_EMAIL`], at the start that created it without a configured one. It is stored
    /// nowhere in the clear: show it once.
    pub operator_password: Option<Secret>,
}

/// The service over its own store: routes, the task that looks after signing keys, its log as a source. Its keys are in the
/// context's keyring when this returns.
pub async fn build(config: Config, context: &Context) -> Result<Built, Error> {
    let store = context.open("identity", &[MIGRATIONS]).await?;
    let log = Log::new(store, vec![Arc::new(store::Rows)]);
    let keys = keys::Keys::open(log.clone(), context, config.access_lifetime, config.key_notice).await?;
    let rpc = rpc::Rpc::open(log.clone(), &config, keys.clone()).await?;
    let operator_password = first_operator(&log, &rpc, config.operator_password).await?;
    let routes = Routes::new(IdentityServiceServer::new(rpc));
    let desk = operations::Desk::new(&log);
    let component = Component::new("identity", contract::Table(METHODS), routes)
        .task(Task::endless("identity.signing_keys", keys.keep()))
        .source(bus::source(log));
    Ok(Built { component: desk.serve(component), operator_password })
}

/// Creates the operator where there is none; answers a password that was made up for it.
async fn first_operator(log: &Log<Event>, rpc: &rpc::Rpc, given: Option<Secret>) -> Result<Option<Secret>, Error> {
    if log.store().read(async |tx: &mut Tx| store::has_operator(tx).await).await? {
        return Ok(None);
    }
    let made_up = match &given {
        Some(_) => None,
        None => Some(Secret::from(made_up_password()?)),
    };
    let Some(password) = given.or_else(|| made_up.clone()) else { return Ok(None) };
    rpc.create_operator(site!("identity.first_operator"), OPERATOR_EMAIL, password.expose()).await?;
    Ok(made_up)
}

/// 192 random bits as text that a person can copy.
fn made_up_password() -> Result<String, Error> {
    use base64::Engine as _;
    let random = random()?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&random[..24]))
}

/// 256 random bits.
fn random() -> Result<[u8; 32], log::Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| log::Error::Random(error.to_string()))?;
    Ok(bytes)
}

/// A time later by so much, or the end of time.
fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}
