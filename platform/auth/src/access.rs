//! Access tokens: what a person's client shows at the door, for at most five minutes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contract::Role;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Serialize};

use crate::claims::{Expected, Refused, authentic, timely};
use crate::keys::{Keyring, PublicKey, SigningKey};
use crate::{Principal, Subject};

/// The longest an access token lives.
const MAX_LIFETIME: Duration = Duration::from_secs(300);

const TYP: &str = "at+jwt";

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed: {0}")]
pub struct Error(#[from] jsonwebtoken::errors::Error);

/// Signs access tokens.
#[derive(Clone, Debug)]
pub struct Issuer {
    key: SigningKey,
    issuer: String,
    audience: String,
    lifetime: Duration,
}

/// A fresh access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The token as it goes into `Authorization: Bearer`.
    pub token: String,
    /// When it stops being accepted.
    pub expire_time: Timestamp,
}

impl Issuer {
    /// Signs as `issuer` for `audience`, each token living `lifetime`, at most five minutes.
    pub fn new(key: SigningKey, issuer: impl Into<String>, audience: impl Into<String>, lifetime: Duration) -> Self {
        Issuer { key, issuer: issuer.into(), audience: audience.into(), lifetime: lifetime.min(MAX_LIFETIME) }
    }

    /// The key that verifies what this issuer signs.
    pub fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    /// Signs a token for this person.
    pub fn issue(&self, subject: &Subject, now: Timestamp) -> Result<Issued, Error> {
        let issued_at = now.as_second();
        let expires_at = issued_at.saturating_add(i64::try_from(self.lifetime.as_secs()).unwrap_or(0));
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: &subject.id,
            exp: expires_at,
            nbf: issued_at,
            iat: issued_at,
            jti: uuid::Uuid::now_v7().to_string(),
            role: subject.role.as_str(),
            sid: &subject.session,
        };
        let header = Header {
            typ: Some(TYP.to_owned()),
            kid: Some(self.key.public().kid().to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        Ok(Issued {
            token: jsonwebtoken::encode(&header, &claims, &self.key.encoding)?,
            expire_time: Timestamp::from_second(expires_at).unwrap_or(now),
        })
    }
}

/// Checks access tokens against a keyring.
///
/// A signature costs some 50 us to check and a shopper shows the same token many times, so tokens that were found authentic
/// are remembered, up to a bound; their times are checked at every use, and a change of the keyring forgets them all.
#[derive(Clone, Debug)]
pub struct Verifier {
    keyring: Keyring,
    issuer: Arc<str>,
    audience: Arc<str>,
    remembered: Arc<Mutex<Remembered>>,
}

impl Verifier {
    /// Believes tokens of `issuer` for `audience` that a key of the keyring signed.
    pub fn new(keyring: Keyring, issuer: &str, audience: &str) -> Self {
        Verifier { keyring, issuer: issuer.into(), audience: audience.into(), remembered: Arc::default() }
    }

    /// The keyring this verifier believes.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// The person a token speaks for, or why it is not believed.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Subject, Refused> {
        let keys = self.keyring.snapshot();
        let known = self.lock().find(&keys, token);
        let fresh = match known {
            Some(known) => known,
            None => {
                let fresh = Arc::new(self.authenticate(token, &keys)?);
                timely(fresh.exp, fresh.nbf, fresh.iat, lifetime_s(), now)?;
                self.lock().remember(&keys, token, Arc::clone(&fresh), now);
                fresh
            }
        };
        timely(fresh.exp, fresh.nbf, fresh.iat, lifetime_s(), now)?;
        Ok(fresh.subject.clone())
    }

    /// The principal of a request that may carry a token.
    pub fn principal(&self, token: Option<&str>, now: Timestamp) -> Result<Principal, Refused> {
        match token {
            Some(token) => self.verify(token, now).map(Principal::User),
            None => Ok(Principal::Anonymous),
        }
    }

    fn authenticate(&self, token: &str, keys: &[PublicKey]) -> Result<Authentic, Refused> {
        let expected = Expected { typ: TYP, issuer: &self.issuer, audience: &self.audience };
        let (registered, own) = authentic::<Own>(token, &expected, |kid| {
            keys.iter().find(|key| key.kid() == kid).map(PublicKey::decoding)
        })?;
        let role = Role::parse(&own.role).ok_or(Refused::Claims)?;
        Ok(Authentic {
            subject: Subject { id: registered.sub, role, session: own.sid },
            exp: registered.exp,
            nbf: registered.nbf,
            iat: registered.iat,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lifetime_s() -> i64 {
    i64::try_from(MAX_LIFETIME.as_secs()).unwrap_or(0)
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: String,
    role: &'a str,
    sid: &'a str,
}

#[derive(Deserialize)]
struct Own {
    role: String,
    sid: String,
}

#[derive(Debug)]
struct Authentic {
    subject: Subject,
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
}

const MAX_REMEMBERED: usize = 8 * 1024;

#[derive(Debug, Default)]
struct Remembered {
    keys: Option<Arc<Vec<PublicKey>>>,
    tokens: HashMap<Box<str>, Arc<Authentic>>,
}

impl Remembered {
    fn find(&self, keys: &Arc<Vec<PublicKey>>, token: &str) -> Option<Arc<Authentic>> {
        let same_keys = self.keys.as_ref().is_some_and(|held| Arc::ptr_eq(held, keys));
        if same_keys { self.tokens.get(token).cloned() } else { None }
    }

    fn remember(&mut self, keys: &Arc<Vec<PublicKey>>, token: &str, authentic: Arc<Authentic>, now: Timestamp) {
        if !self.keys.as_ref().is_some_and(|held| Arc::ptr_eq(held, keys)) {
            self.keys = Some(Arc::clone(keys));
            self.tokens.clear();
        }
        if self.tokens.len() >= MAX_REMEMBERED {
            self.tokens.retain(|_, token| token.exp > now.as_second());
            if self.tokens.len() >= MAX_REMEMBERED {
                self.tokens.clear();
            }
        }
        self.tokens.insert(token.into(), authentic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    const NOW_S: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    fn verifier() -> Verifier {
        let ring = Keyring::new();
        ring.publish(vec![key().public().clone()]);
        Verifier::new(ring, "stoa", "stoa-shop")
    }

    fn subject() -> Subject {
        Subject { id: "users/1".to_owned(), role: Role::Customer, session: "users/1/sessions/2".to_owned() }
    }

    fn issuer() -> Issuer {
        Issuer::new(key(), "stoa", "stoa-shop", Duration::from_secs(300))
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key().public().kid()})
    }

    fn claims() -> Value {
        json!({"iss": "stoa", "aud": "stoa-shop", "sub": "users/1", "exp": NOW_S + 300, "nbf": NOW_S, "iat": NOW_S,
            "role": "customer", "sid": "users/1/sessions/2"})
    }

    /// Signs any header and claims with the right key, so that a test sees the rule refuse and not the signature.
    fn signed(header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key().encoding, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn with(mut object: Value, member: &str, value: Value) -> Value {
        object[member] = value;
        object
    }

    fn without(mut object: Value, member: &str) -> Value {
        object.as_object_mut().unwrap().remove(member);
        object
    }

    #[test]
    fn an_issued_token_is_believed_until_it_expires() {
        let issued = issuer().issue(&subject(), at(NOW_S)).unwrap();
        let verifier = verifier();
        assert_eq!(issued.expire_time, at(NOW_S + 300));
        assert_eq!(verifier.verify(&issued.token, at(NOW_S)), Ok(subject()));
        assert_eq!(verifier.verify(&issued.token, at(NOW_S + 304)), Ok(subject()));
        assert_eq!(verifier.verify(&issued.token, at(NOW_S + 305)), Err(Refused::Expired));
        assert_eq!(verifier.verify(&issued.token, at(NOW_S - 60)), Ok(subject()));
        assert_eq!(verifier.verify(&issued.token, at(NOW_S - 61)), Err(Refused::NotYet));
        assert_eq!(signed(&header().to_string(), &claims().to_string()).split('.').count(), 3);
    }

    #[test]
    fn no_issuer_signs_for_longer_than_five_minutes() {
        let issuer = Issuer::new(key(), "stoa", "stoa-shop", Duration::from_secs(86_400));
        assert_eq!(issuer.issue(&subject(), at(NOW_S)).unwrap().expire_time, at(NOW_S + 300));
    }

    #[test]
    fn each_rule_of_the_header_refuses_alone() {
        let rules = [
            (with(header(), "alg", json!("none")), Refused::Algorithm),
            (with(header(), "alg", json!("HS256")), Refused::Algorithm),
            (with(header(), "alg", json!("ES256")), Refused::Algorithm),
            (with(header(), "alg", json!("eddsa")), Refused::Algorithm),
            (with(header(), "alg", json!(1)), Refused::Malformed),
            (without(header(), "alg"), Refused::Malformed),
            (with(header(), "typ", json!("JWT")), Refused::Type),
            (without(header(), "typ"), Refused::Type),
            (with(header(), "crit", json!(["exp"])), Refused::Critical),
            (with(header(), "crit", json!([])), Refused::Critical),
            (with(header(), "crit", Value::Null), Refused::Critical),
            (with(header(), "kid", json!("somebody")), Refused::UnknownKey),
            (with(header(), "kid", json!("k".repeat(4096))), Refused::UnknownKey),
            (without(header(), "kid"), Refused::UnknownKey),
            (json!([]), Refused::Malformed),
        ];
        for (header, reason) in rules {
            let token = signed(&header.to_string(), &claims().to_string());
            assert_eq!(verifier().verify(&token, at(NOW_S)), Err(reason), "{header}");
        }
        let twice = r#"{"alg":"EdDSA","alg":"none","typ":"at+jwt","kid":"x"}"#;
        assert_eq!(verifier().verify(&signed(twice, &claims().to_string()), at(NOW_S)), Err(Refused::Malformed));
    }

    #[test]
    fn each_rule_of_the_claims_refuses_alone() {
        let rules = [
            (without(claims(), "exp"), Refused::Claims),
            (without(claims(), "iss"), Refused::Claims),
            (without(claims(), "aud"), Refused::Claims),
            (without(claims(), "sub"), Refused::Claims),
            (without(claims(), "role"), Refused::Claims),
            (with(claims(), "exp", json!((NOW_S + 60).to_string())), Refused::Claims),
            (with(claims(), "exp", json!(1.8e9 + 60.5)), Refused::Claims),
            (with(claims(), "exp", Value::Null), Refused::Claims),
            (with(claims(), "exp", json!(u64::MAX)), Refused::Claims),
            (with(claims(), "nbf", json!("0")), Refused::Claims),
            (with(claims(), "nbf", Value::Null), Refused::Claims),
            (with(claims(), "iat", json!([NOW_S])), Refused::Claims),
            (with(claims(), "iss", json!(["stoa"])), Refused::Claims),
            (with(claims(), "aud", json!({"stoa-shop": true})), Refused::Claims),
            (with(claims(), "aud", json!(["stoa-shop", "other"])), Refused::Claims),
            (with(claims(), "sub", json!(1)), Refused::Claims),
            (with(claims(), "sub", json!("")), Refused::Claims),
            (with(claims(), "role", json!("admin")), Refused::Claims),
            (with(claims(), "iss", json!("stoa2")), Refused::Issuer),
            (with(claims(), "aud", json!("stoa")), Refused::Audience),
            (with(claims(), "exp", json!(NOW_S - 5)), Refused::Expired),
            (with(claims(), "exp", json!(-1)), Refused::Expired),
            (with(claims(), "exp", json!(i64::MIN)), Refused::Expired),
            (with(claims(), "exp", json!(i64::MAX)), Refused::LivesTooLong),
            (with(claims(), "exp", json!(NOW_S + 361)), Refused::LivesTooLong),
            (with(claims(), "nbf", json!(NOW_S + 61)), Refused::NotYet),
            (with(claims(), "iat", json!(NOW_S + 61)), Refused::NotYet),
            (json!([1]), Refused::Claims),
        ];
        for (claims, reason) in rules {
            let token = signed(&header().to_string(), &claims.to_string());
            assert_eq!(verifier().verify(&token, at(NOW_S)), Err(reason), "{claims}");
        }
        let twice = claims().to_string().replacen('{', r#"{"sub":"users/9","#, 1);
        assert_eq!(verifier().verify(&signed(&header().to_string(), &twice), at(NOW_S)), Err(Refused::Claims));
    }

    #[test]
    fn a_key_named_or_carried_by_the_token_is_never_used() {
        let foreign = SigningKey::from_seed(&[9; 32]);
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        for (member, value) in
            [("jku", json!("https://evil.example/jwks")), ("x5u", json!("https://evil.example/x5u")), ("jwk", jwk)]
        {
            let header = with(header(), member, value).to_string();
            let message =
                format!("{}.{}", URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(claims().to_string()));
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), &foreign.encoding, Algorithm::EdDSA).unwrap();
            let forged = format!("{message}.{signature}");
            assert_eq!(verifier().verify(&forged, at(NOW_S)), Err(Refused::Signature), "{member}");
            let ours = signed(&header, &claims().to_string());
            assert_eq!(verifier().verify(&ours, at(NOW_S)), Ok(subject()), "{member}");
        }
    }

    #[test]
    fn the_public_key_is_no_secret_to_sign_with() {
        let secret = jsonwebtoken::EncodingKey::from_secret(key().public().kid().as_bytes());
        let header = Header {
            typ: Some(TYP.to_owned()),
            kid: Some(key().public().kid().to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let token = jsonwebtoken::encode(&header, &claims(), &secret).unwrap();
        assert_eq!(verifier().verify(&token, at(NOW_S)), Err(Refused::Algorithm));
    }

    #[test]
    fn a_token_of_another_shape_is_refused() {
        let good = issuer().issue(&subject(), at(NOW_S)).unwrap().token;
        let verifier = verifier();
        let unsigned = good.rsplit_once('.').unwrap().0;
        let shapes = [
            (String::new(), Refused::Malformed),
            ("a.b.c".to_owned(), Refused::Malformed),
            (unsigned.to_owned(), Refused::Malformed),
            (format!("{unsigned}."), Refused::Signature),
            (format!("{good}.x"), Refused::Malformed),
            (format!("{good}A"), Refused::Signature),
            (format!("{good}="), Refused::Signature),
            (format!(" {good}"), Refused::Malformed),
            ("x".repeat(MAX_TOKEN + 1), Refused::TooLong),
        ];
        for (token, reason) in shapes {
            assert_eq!(verifier.verify(&token, at(NOW_S)), Err(reason), "{token}");
        }
    }

    const MAX_TOKEN: usize = crate::MAX_TOKEN_BYTES;

    #[test]
    fn every_changed_character_breaks_the_token() {
        let good = issuer().issue(&subject(), at(NOW_S)).unwrap().token;
        let verifier = verifier();
        assert!(verifier.verify(&good, at(NOW_S)).is_ok());
        for index in (0..good.len()).step_by(3) {
            let mut bytes = good.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verifier.verify(&changed, at(NOW_S)).is_err(), "{index}");
        }
    }

    #[test]
    fn a_key_that_leaves_the_ring_takes_its_remembered_tokens_with_it() {
        let verifier = verifier();
        let token = issuer().issue(&subject(), at(NOW_S)).unwrap().token;
        assert!(verifier.verify(&token, at(NOW_S)).is_ok());
        verifier.keyring().publish(vec![SigningKey::from_seed(&[8; 32]).public().clone()]);
        assert_eq!(verifier.verify(&token, at(NOW_S)), Err(Refused::UnknownKey));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let verifier = verifier();
        let keys = verifier.keyring.snapshot();
        let authentic = || Arc::new(Authentic { subject: subject(), exp: NOW_S + 300, nbf: None, iat: None });
        for number in 0..=MAX_REMEMBERED {
            verifier.lock().remember(&keys, &number.to_string(), authentic(), at(NOW_S));
        }
        assert!(verifier.lock().tokens.len() <= MAX_REMEMBERED);
    }
}
