//! Tokens between the services of one fleet: a call over the network says who calls and for whom, to one callee, for a minute.
//!
//! The callee believes the caller because both hold the fleet's key; the person is whoever the caller verified.
//!
//! Signatures are the dear part of a token, so what was signed is shown again for some seconds, and what was once
//! found genuine is not computed again; its time is checked each time.

use std::borrow::Cow;
use std::sync::Arc;

use contract::Role;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::access::Error;
use crate::claims::{Expected, LEEWAY_S, Refused, authentic, timely};
use crate::keys::{PublicKey, SigningKey};
use crate::{Identity, Principal, Subject};

const TYP: &str = "stoa-call+jwt";
const ISSUER: &str = "stoa-fleet";
const LIFETIME_S: i64 = 60;

/// How old a token is at most when it is shown again: less than the leeway at its end, so that clocks may still be a minute
/// apart.
const AGAIN_S: i64 = LEEWAY_S - 1;

/// Tokens that are remembered on each side, some 600 bytes each; those shown least leave first.
const REMEMBERED: usize = 4096;

/// The key the services of one fleet know each other by.
#[derive(Clone, Debug)]
pub struct Fleet {
    key: SigningKey,
    /// What was signed, by whose calls to whom for whom.
    signed: Arc<Cache<String, Signed>>,
    /// What was found genuine, by the token.
    genuine: Arc<Cache<String, Arc<Genuine>>>,
}

#[derive(Clone, Debug)]
struct Signed {
    issued_at: i64,
    token: Arc<str>,
}

#[derive(Debug)]
struct Genuine {
    callee: String,
    exp: i64,
    nbf: Option<i64>,
    iat: Option<i64>,
    identity: Identity,
}

impl Fleet {
    /// The fleet of this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Fleet {
            key: SigningKey::from_seed(seed),
            signed: Arc::new(Cache::new(REMEMBERED)),
            genuine: Arc::new(Cache::new(REMEMBERED)),
        }
    }

    /// Signs one identity's calls to one callee; the token may be one that was signed some seconds ago.
    pub fn sign(&self, identity: &Identity, callee: &str, now: Timestamp) -> Result<Arc<str>, Error> {
        let issued_at = now.as_second();
        let whose = whose(identity, callee);
        if let Some(signed) = self.signed.get(&whose)
            && (0..=AGAIN_S).contains(&issued_at.saturating_sub(signed.issued_at))
        {
            return Ok(signed.token);
        }
        let token: Arc<str> = self.sign_anew(identity, callee, issued_at)?.into();
        self.signed.insert(whose, Signed { issued_at, token: Arc::clone(&token) });
        Ok(token)
    }

    fn sign_anew(&self, identity: &Identity, callee: &str, issued_at: i64) -> Result<String, Error> {
        let itself = format!("services/{}", identity.caller);
        let subject = identity.principal.subject();
        let claims = Claims {
            iss: Cow::Borrowed(ISSUER),
            aud: Cow::Borrowed(callee),
            sub: Cow::Borrowed(subject.map_or(itself.as_str(), |subject| &subject.id)),
            exp: issued_at + LIFETIME_S,
            nbf: issued_at,
            iat: issued_at,
            act: Actor { sub: Cow::Borrowed(&identity.caller) },
            role: subject.map(|subject| Cow::Borrowed(subject.role.as_str())),
            sid: subject.map(|subject| Cow::Borrowed(subject.session.as_str())),
        };
        let header = Header {
            typ: Some(TYP.to_owned()),
            kid: Some(self.key.public().kid().to_owned()),
            ..Header::new(Algorithm::EdDSA)
        };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key.encoding)?)
    }

    /// Who sent a call to this callee and for whom, or why that is not believed.
    pub fn verify(&self, token: &str, callee: &str, now: Timestamp) -> Result<Identity, Refused> {
        let known = self.genuine.get(token).filter(|known| known.callee == callee);
        let genuine = match known {
            Some(known) => known,
            None => {
                let found = Arc::new(self.found_genuine(token, callee, now)?);
                self.genuine.insert(token.to_owned(), Arc::clone(&found));
                found
            }
        };
        timely(genuine.exp, genuine.nbf, genuine.iat, LIFETIME_S, now)?;
        Ok(genuine.identity.clone())
    }

    fn found_genuine(&self, token: &str, callee: &str, now: Timestamp) -> Result<Genuine, Refused> {
        let expected = Expected { typ: TYP, issuer: ISSUER, audience: callee };
        let public = self.key.public();
        let (registered, own) =
            authentic::<Own>(token, &expected, |kid| (public.kid() == kid).then(|| PublicKey::decoding(public)))?;
        timely(registered.exp, registered.nbf, registered.iat, LIFETIME_S, now)?;
        if own.act.sub.is_empty() {
            return Err(Refused::Claims);
        }
        let principal = match (own.role, own.sid) {
            (Some(role), Some(session)) => Principal::User(Subject {
                id: registered.sub,
                role: Role::parse(&role).ok_or(Refused::Claims)?,
                session,
            }),
            (None, None) => Principal::Anonymous,
            (Some(_), None) | (None, Some(_)) => return Err(Refused::Claims),
        };
        let identity = Identity { caller: Cow::Owned(own.act.sub), principal };
        let (exp, nbf, iat) = (registered.exp, registered.nbf, registered.iat);
        Ok(Genuine { callee: callee.to_owned(), exp, nbf, iat, identity })
    }
}

/// Whose calls to whom for whom: one text for each, since the lengths of what others chose stand before it.
fn whose(identity: &Identity, callee: &str) -> String {
    match identity.principal.subject() {
        None => format!("{}>{callee}", identity.caller),
        Some(Subject { id, role, session }) => {
            format!("{}>{callee} {} {} {id} {session}", identity.caller, role.as_str(), id.len())
        }
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: Cow<'a, str>,
    aud: Cow<'a, str>,
    sub: Cow<'a, str>,
    exp: i64,
    nbf: i64,
    iat: i64,
    act: Actor<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Actor<'a> {
    sub: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Own {
    act: OwnActor,
    role: Option<String>,
    sid: Option<String>,
}

#[derive(Deserialize)]
struct OwnActor {
    sub: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn identity(principal: Principal) -> Identity {
        Identity { caller: Cow::Borrowed("ordering"), principal }
    }

    fn customer() -> Principal {
        Principal::User(Subject {
            id: "users/1".to_owned(),
            role: Role::Customer,
            session: "users/1/sessions/2".to_owned(),
        })
    }

    #[test]
    fn caller_and_person_arrive_as_they_were_sent() {
        let fleet = Fleet::from_seed(&[3; 32]);
        for principal in [Principal::Anonymous, customer()] {
            let sent = identity(principal);
            let token = fleet.sign(&sent, "inventory", at(NOW_S)).unwrap();
            assert_eq!(fleet.verify(&token, "inventory", at(NOW_S)), Ok(sent));
        }
    }

    #[test]
    fn a_token_is_for_one_callee_one_fleet_and_one_minute() {
        let fleet = Fleet::from_seed(&[3; 32]);
        let token = fleet.sign(&identity(customer()), "inventory", at(NOW_S)).unwrap();
        assert_eq!(fleet.verify(&token, "payment", at(NOW_S)), Err(Refused::Audience));
        assert_eq!(Fleet::from_seed(&[4; 32]).verify(&token, "inventory", at(NOW_S)), Err(Refused::UnknownKey));
        assert_eq!(fleet.verify(&token, "inventory", at(NOW_S + 65)), Err(Refused::Expired));
    }

    #[test]
    fn clocks_may_be_a_minute_apart_and_no_more() {
        let fleet = Fleet::from_seed(&[3; 32]);
        let token = fleet.sign(&identity(customer()), "inventory", at(NOW_S)).unwrap();
        for off in [-60, -30, 30, 60] {
            assert!(fleet.verify(&token, "inventory", at(NOW_S + off)).is_ok(), "{off}");
        }
        for (off, refused) in [(-61, Refused::NotYet), (65, Refused::Expired)] {
            assert_eq!(fleet.verify(&token, "inventory", at(NOW_S + off)), Err(refused));
            assert!(refused.is_of_time());
        }
    }

    #[test]
    fn a_token_is_shown_again_for_some_seconds_by_the_same_caller_to_the_same_callee_for_the_same_person() {
        let fleet = Fleet::from_seed(&[3; 32]);
        let one = identity(customer());
        let token = fleet.sign(&one, "inventory", at(NOW_S)).unwrap();
        assert_eq!(fleet.sign(&one, "inventory", at(NOW_S + 4)).unwrap(), token);
        let later = fleet.sign(&one, "inventory", at(NOW_S + 5)).unwrap();
        assert_ne!(later, token);
        assert_ne!(fleet.sign(&one, "inventory", at(NOW_S)).unwrap(), later, "a clock that was put back");
        // The oldest that is shown is believed by a clock that is a minute ahead.
        assert!(fleet.verify(&token, "inventory", at(NOW_S + 4 + 60)).is_ok());

        let Principal::User(subject) = customer() else { panic!("a customer") };
        let others = [
            identity(Principal::Anonymous),
            identity(Principal::User(Subject { role: Role::Guest, ..subject.clone() })),
            identity(Principal::User(Subject { id: "users/2".to_owned(), ..subject.clone() })),
            identity(Principal::User(Subject { session: "users/1/sessions/3".to_owned(), ..subject.clone() })),
            // What would be the same text, were the parts only put one behind the other.
            identity(Principal::User(Subject {
                id: "users/1 users/1".to_owned(),
                session: "sessions/2".to_owned(),
                ..subject
            })),
            Identity { caller: Cow::Borrowed("cart"), ..identity(customer()) },
        ];
        for other in others {
            let signed = fleet.sign(&other, "inventory", at(NOW_S)).unwrap();
            assert_eq!(fleet.verify(&signed, "inventory", at(NOW_S)), Ok(other));
        }
        let signed = fleet.sign(&one, "payment", at(NOW_S)).unwrap();
        assert_eq!(fleet.verify(&signed, "payment", at(NOW_S)), Ok(one));
    }

    #[test]
    fn a_token_that_was_believed_once_is_held_against_callee_and_clock_again() {
        let fleet = Fleet::from_seed(&[3; 32]);
        let token = fleet.sign(&identity(customer()), "inventory", at(NOW_S)).unwrap();
        for _ in 0..2 {
            assert!(fleet.verify(&token, "inventory", at(NOW_S)).is_ok());
            assert_eq!(fleet.verify(&token, "payment", at(NOW_S)), Err(Refused::Audience));
            assert_eq!(fleet.verify(&token, "inventory", at(NOW_S + 65)), Err(Refused::Expired));
            assert_eq!(fleet.verify(&token, "inventory", at(NOW_S - 61)), Err(Refused::NotYet));
            let forged = format!("{}A", &token[..token.len() - 1]);
            let forged = if *forged == *token { format!("{}B", &token[..token.len() - 1]) } else { forged };
            assert!(fleet.verify(&forged, "inventory", at(NOW_S)).is_err());
        }
    }

    #[test]
    fn an_access_token_is_none_between_services_even_under_the_same_key() {
        let issuer = crate::Issuer::new(
            SigningKey::from_seed(&[3; 32]),
            ISSUER,
            "inventory",
            std::time::Duration::from_secs(60),
        );
        let Principal::User(subject) = customer() else { panic!("a customer") };
        let token = issuer.issue(&subject, at(NOW_S)).unwrap().token;
        assert_eq!(Fleet::from_seed(&[3; 32]).verify(&token, "inventory", at(NOW_S)), Err(Refused::Type));
    }
}
