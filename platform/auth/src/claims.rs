//! The strict reading of a signed token, shared by access tokens and tokens between services.
//!
//! `jsonwebtoken` checks the signature under one fixed algorithm. Its own checks of claims treat a claim of the wrong JSON type
//! as absent and look at the system clock, so they are switched off and every claim is checked here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::Guard;
use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How long a token that has ended is believed, in seconds.
pub(crate) const LEEWAY_S: i64 = 5;

/// How far the clock of whoever signs may be ahead of the clock of whoever verifies, in seconds: each may be half a minute off.
/// A token from a clock that is behind ends that much earlier, which leaves something of every kind of token.
pub const SKEW_S: i64 = 60;

const MAX_KID_BYTES: usize = 128;

/// Why a token is not believed; the peer is told only that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// Not three base64url parts with JSON objects in them.
    #[error("the token is malformed")]
    Malformed,
    /// An algorithm other than the key's.
    #[error("the token's algorithm is not the key's")]
    Algorithm,
    /// A token made for another purpose.
    #[error("the token is of another type")]
    Type,
    /// An extension this verifier would have to understand.
    #[error("the token has critical extensions")]
    Critical,
    /// No key of this name is held.
    #[error("the token's key is unknown")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// A required claim is absent or has the wrong JSON type.
    #[error("the token's claims are incomplete or malformed")]
    Claims,
    /// Issued by somebody else.
    #[error("the token's issuer is another")]
    Issuer,
    /// Made for somebody else.
    #[error("the token's audience is another")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// Valid for longer than any token may be.
    #[error("the token lives too long")]
    LivesTooLong,
}

impl Refused {
    /// Whether the token is genuine and only the clock speaks against it: it is old, or the signer's clock is another.
    pub fn is_of_time(self) -> bool {
        match self {
            Refused::Expired | Refused::NotYet | Refused::LivesTooLong => true,
            Refused::TooLong
            | Refused::Malformed
            | Refused::Algorithm
            | Refused::Type
            | Refused::Critical
            | Refused::UnknownKey
            | Refused::Signature
            | Refused::Claims
            | Refused::Issuer
            | Refused::Audience => false,
        }
    }
}

/// What a kind of token must look like.
pub(crate) struct Expected<'a> {
    pub(crate) typ: &'static str,
    pub(crate) issuer: &'a str,
    pub(crate) audience: &'a str,
}

/// The claims every token must carry; each with its one JSON type, a duplicate is an error.
#[derive(Debug, Deserialize)]
pub(crate) struct Registered {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) sub: String,
    pub(crate) exp: i64,
    #[serde(default, deserialize_with = "present")]
    pub(crate) nbf: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) iat: Option<i64>,
}

/// Checks a token from its shape to its signature and gives back its claims, whose times are still to be checked.
///
/// `jku`, `x5u`, `jwk` and `x5c` are read by nobody: the key is the one held under `kid`, or none.
pub(crate) fn authentic<C: DeserializeOwned>(
    token: &str,
    expected: &Expected<'_>,
    key: impl FnOnce(&str) -> Option<DecodingKey>,
) -> Result<(Registered, C), Refused> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refused::TooLong);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(Refused::Malformed);
    };
    let header: Header = json(header).ok_or(Refused::Malformed)?;
    if header.crit.is_some() {
        return Err(Refused::Critical);
    }
    if header.alg != "EdDSA" {
        return Err(Refused::Algorithm);
    }
    if header.typ.as_deref() != Some(expected.typ) {
        return Err(Refused::Type);
    }
    let kid = header.kid.filter(|kid| kid.len() <= MAX_KID_BYTES).ok_or(Refused::UnknownKey)?;
    let key = key(&kid).ok_or(Refused::UnknownKey)?;

    let mut signature_only = Validation::new(Algorithm::EdDSA);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    match jsonwebtoken::decode::<IgnoredAny>(token, &key, &signature_only) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Json(_)) => return Err(Refused::Claims),
        Err(_) if Guard::TokenSignature.stands() => return Err(Refused::Signature),
        Err(_) => {}
    }

    let registered: Registered = json(payload).ok_or(Refused::Claims)?;
    let own: C = json(payload).ok_or(Refused::Claims)?;
    if registered.iss != expected.issuer {
        return Err(Refused::Issuer);
    }
    if registered.aud != expected.audience && Guard::TokenAudience.stands() {
        return Err(Refused::Audience);
    }
    if registered.sub.is_empty() {
        return Err(Refused::Claims);
    }
    Ok((registered, own))
}

/// Checks that now is within a token's time, and that its time is no longer than its kind may have.
pub(crate) fn timely(
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
    lifetime_s: i64,
    now: Timestamp,
) -> Result<(), Refused> {
    let now = now.as_second();
    if exp.saturating_add(LEEWAY_S) <= now && Guard::TokenTime.stands() {
        return Err(Refused::Expired);
    }
    let ahead = now.saturating_add(SKEW_S);
    if nbf.is_some_and(|nbf| nbf > ahead) || iat.is_some_and(|iat| iat > ahead) {
        return Err(Refused::NotYet);
    }
    if exp > ahead.saturating_add(lifetime_s) {
        return Err(Refused::LivesTooLong);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    // serde reads a JSON array into a struct as well, field by field; a token's parts are objects.
    if bytes.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(&bytes).ok()
}

/// A member that is there must have its type: an explicit `null` is not the same as none.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(member: D) -> Result<Option<T>, D::Error> {
    T::deserialize(member).map(Some)
}
