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
mod grants;
mod keys;
mod password;
mod revocations;
mod rpc;
pub mod session;
mod store;
mod sweep;
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

pub use config::{Config, Flags, Hashing, Limit, Secret};
pub use error::{Error, Rejected};
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

impl From<Built> for Component {
    /// The service alone, which tells whoever starts it the password.
    fn from(built: Built) -> Self {
        match built.operator_password {
            Some(made_up) => built.component.notice(format!("{OPERATOR_EMAIL} has the password {}", made_up.expose())),
            None => built.component,
        }
    }
}

/// The service over its own store: routes, the task that looks after signing keys, its log as a source. Its keys are in the
/// context's keyring when this returns.
pub async fn build(config: Config, context: &Context) -> Result<Built, Error> {
    Ok(assemble(config, context).await?.0)
}

async fn assemble(config: Config, context: &Context) -> Result<(Built, Log<Event>), Error> {
    let store = context.open("identity", &[MIGRATIONS]).await?;
    let log = Log::new(store, vec![Arc::new(store::Rows)]);
    derive_if_emptied(&log).await?;
    let keys = keys::Keys::open(log.clone(), context, config.access_lifetime, config.key_notice).await?;
    let revocations = revocations::Revocations::new(log.clone(), context, config.access_lifetime, config.replay_window);
    let rpc = rpc::Rpc::open(log.clone(), &config, keys.clone(), &context.cache, revocations.clone()).await?;
    let operator_password = first_operator(&log, &rpc, config.operator_password).await?;
    let routes = Routes::new(IdentityServiceServer::new(rpc));
    let desk = operations::Desk::new(&log);
    revocations.begin().await;
    let mut component = Component::new("identity", contract::Table(METHODS), routes)
        .task(Task::endless("identity.signing_keys", keys.keep()))
        .source(bus::source(log.clone()));
    component = component.task(sweep::task(log.clone(), context));
    if let Some(task) = revocations.task(context) {
        component = component.task(task);
    }
    Ok((Built { component: desk.serve(component), operator_password }, log))
}

/// Derives the tables again where somebody threw them away: what follows decides by them whether this is a first start, and a
/// log with events is none.
async fn derive_if_emptied(log: &Log<Event>) -> Result<(), Error> {
    let emptied = log.store().read(async |tx: &mut Tx| {
        let begun = tx.heads().await?.iter().any(|head| *head > 0);
        Ok::<_, log::Error>(begun && store::is_empty(tx).await?)
    });
    if emptied.await? {
        for projection in log.projections() {
            log.rebuild(projection.name()).await?;
        }
    }
    Ok(())
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
    match rpc.create_operator(site!("identity.first_operator"), OPERATOR_EMAIL, password.expose()).await {
        Ok(()) => Ok(made_up),
        // Another copy that started at the same time was faster, and has told its password.
        Err(Error::Rejected(Rejected(error::Rejection::EmailTaken))) => Ok(None),
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use contracts::identity::v1 as proto;
    use contracts::identity::v1::identity_service_client::IdentityServiceClient;

    #[tokio::test]
    async fn what_is_kept_of_the_tokens_of_expired_sessions_is_swept_and_nothing_else() {
        let mut context = Context::temporary(contracts::METHODS);
        context.clock = ::store::Clock::manual(Timestamp::from_second(1_800_000_000).unwrap());
        let hashing = Hashing { memory_kib: 64, passes: 1, ..Hashing::default() };
        let (built, log) = assemble(Config { hashing, ..Config::default() }, &context).await.unwrap();
        let password = built.operator_password.unwrap().expose().to_owned();
        let (_service, _tasks) = context.mount(built.component);
        let client = IdentityServiceClient::new(context.clients.as_caller("gateway").channel("identity"));
        let sign_in = async || {
            let sign_in = proto::SignInRequest { email: OPERATOR_EMAIL.to_owned(), password: password.clone() };
            client.clone().sign_in(sign_in).await.unwrap().into_inner().refresh_token
        };
        let refresh = async |refresh_token: &str| {
            let shown = proto::RefreshSessionRequest { refresh_token: refresh_token.to_owned() };
            client.clone().refresh_session(shown).await
        };
        let expired = sign_in().await;
        context.clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
        let good = sign_in().await;
        assert_eq!(sweep::sweep(&log).await.unwrap(), 1);
        assert_eq!(sweep::sweep(&log).await.unwrap(), 0);
        let refused = refresh(&expired).await.unwrap_err();
        assert_eq!(server::status::reason(&refused).as_deref(), Some("SESSION_EXPIRED"));
        refresh(&good).await.unwrap();
    }

    #[tokio::test]
    async fn derived_rows_are_rebuilt_byte_equal_also_after_an_erasure() {
        let context = Context::temporary(contracts::METHODS);
        let hashing = Hashing { memory_kib: 64, passes: 1, ..Hashing::default() };
        let (built, log) = assemble(Config { hashing, ..Config::default() }, &context).await.unwrap();
        let password = built.operator_password.unwrap().expose().to_owned();
        let (_service, _tasks) = context.mount(built.component);
        let mut client = IdentityServiceClient::new(context.clients.as_caller("gateway").channel("identity"));
        let sign_in = proto::SignInRequest { email: OPERATOR_EMAIL.to_owned(), password };
        let signed_in = client.sign_in(sign_in).await.unwrap().into_inner();
        let shown = proto::RefreshSessionRequest { refresh_token: signed_in.refresh_token };
        client.refresh_session(shown).await.unwrap();
        let subject = context.verifier.verify(&signed_in.access_token, context.clock.now()).unwrap();
        let outgoing =
            client::Outgoing { principal: auth::Principal::User(subject.clone()), ..client::Outgoing::default() };
        let rotate =
            proto::RotateSigningKeyRequest { request_id: uuid::Uuid::now_v7().to_string(), validate_only: false };
        client.rotate_signing_key(outgoing.request(rotate)).await.unwrap();
        assert_eq!(log.verify("accounts").await.unwrap(), vec![]);
        let erase = proto::EraseUserRequest { name: subject.id, request_id: String::new() };
        client.erase_user(outgoing.request(erase)).await.unwrap();
        assert_eq!(log.verify("accounts").await.unwrap(), vec![]);
    }
}
