//! The only file that sees both prost and domain types.

use contract::Role;
use contracts::identity::v1 as proto;
use contracts::wkt;
use jiff::Timestamp;
use store::{Tx, Value};

use crate::keys::Key;
use crate::session::{Session, State};
use crate::store::User;

/// A user for its owner: personal fields opened.
pub(crate) async fn user(tx: &mut Tx, user: &User) -> Result<proto::User, log::Error> {
    let state = if user.erased { proto::UserState::Erased } else { proto::UserState::Active };
    Ok(proto::User {
        name: user.name.clone(),
        email: log::personal::open_text(tx, &user.name, &user.email).await?,
        display_name: log::personal::open_text(tx, &user.name, &user.display_name).await?,
        role: role(user.role).into(),
        state: state.into(),
        external_id: user.external_id.clone(),
        country_code: user.country_code.clone(),
        etag: user.version.to_string(),
        create_time: Some(user.create_time.into()),
        update_time: Some(user.update_time.into()),
    })
}

/// A guest, of whom nothing is known but the name.
pub(crate) fn guest(name: &str) -> proto::User {
    proto::User {
        name: name.to_owned(),
        role: proto::Role::Guest.into(),
        state: proto::UserState::Active.into(),
        ..Default::default()
    }
}

/// A session at a time.
pub(crate) fn session(session: &Session, now: Timestamp) -> proto::Session {
    let state = match session.state {
        State::Active if session.expire_time <= now => proto::SessionState::Expired,
        State::Active => proto::SessionState::Active,
        State::Revoked => proto::SessionState::Revoked,
    };
    proto::Session {
        name: session.name.clone(),
        state: state.into(),
        revoke_reason: proto::RevokeReason::from_str_name(&session.revoke_reason).unwrap_or_default().into(),
        create_time: Some(session.create_time.into()),
        refresh_time: Some(session.refresh_time.into()),
        expire_time: Some(session.expire_time.into()),
    }
}

/// A signing key without its secret.
pub(crate) fn signing_key(key: &Key) -> proto::SigningKey {
    proto::SigningKey {
        kid: key.kid().to_owned(),
        algorithm: ALGORITHM.to_owned(),
        public_key: key.public_bytes.to_vec(),
        create_time: Some(key.create_time.into()),
        activate_time: Some(key.activate_time.into()),
        retire_time: key.retire_time.map(wkt::Timestamp::from),
    }
}

/// A signing key as verifiers take it.
pub(crate) fn jwk(key: &Key) -> proto::Jwk {
    use base64::Engine as _;
    proto::Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.public_bytes),
        y: String::new(),
        kid: key.kid().to_owned(),
        alg: ALGORITHM.to_owned(),
        r#use: "sig".to_owned(),
    }
}

/// The one algorithm of our keys.
pub(crate) const ALGORITHM: &str = "EdDSA";

/// The event of a new session.
pub(crate) fn started(session: &str, principal: &str, granted: Role, expire_time: Timestamp) -> proto::Event {
    proto::Event::SessionStarted(proto::SessionStarted {
        session: session.to_owned(),
        principal: principal.to_owned(),
        role: role(granted).into(),
        expire_time: Some(expire_time.into()),
    })
}

/// The event of a refresh.
pub(crate) fn refreshed(session: &str, generation: u32, expire_time: Timestamp) -> proto::Event {
    proto::Event::SessionRefreshed(proto::SessionRefreshed {
        session: session.to_owned(),
        generation,
        expire_time: Some(expire_time.into()),
    })
}

/// The event of a session's end before its time.
pub(crate) fn revoked(session: &str, reason: proto::RevokeReason, actor: &str) -> proto::Event {
    proto::Event::SessionRevoked(proto::SessionRevoked {
        session: session.to_owned(),
        reason: reason.into(),
        actor: actor.to_owned(),
    })
}

/// The stored text of a role.
pub(crate) fn role_text(role: proto::Role) -> &'static str {
    match role {
        proto::Role::Unspecified => "",
        proto::Role::Guest => Role::Guest.as_str(),
        proto::Role::Customer => Role::Customer.as_str(),
        proto::Role::Operator => Role::Operator.as_str(),
    }
}

/// A role on the wire.
pub(crate) fn role(role: Role) -> proto::Role {
    match role {
        Role::Guest => proto::Role::Guest,
        Role::Customer => proto::Role::Customer,
        Role::Operator => proto::Role::Operator,
    }
}

/// A time of an event as a column.
pub(crate) fn time(time: Option<wkt::Timestamp>) -> Value {
    time.and_then(|time| Timestamp::try_from(time).ok()).into()
}
