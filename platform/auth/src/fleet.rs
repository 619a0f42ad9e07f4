//! Tokens between the services of one fleet: a call over the network says who calls and for whom, to one callee, for a minute.
//!
//! The callee believes the caller because both hold the fleet's key; the person is whoever the caller verified.

use std::borrow::Cow;

use contract::Role;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Serialize};

use crate::access::Error;
use crate::claims::{Expected, Refused, authentic, timely};
use crate::keys::{PublicKey, SigningKey};
use crate::{Identity, Principal, Subject};

const TYP: &str = "stoa-call+jwt";
const ISSUER: &str = "stoa-fleet";
const LIFETIME_S: i64 = 60;

/// The key the services of one fleet know each other by.
#[derive(Clone, Debug)]
pub struct Fleet {
    key: SigningKey,
}

impl Fleet {
    /// The fleet of this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Fleet { key: SigningKey::from_seed(seed) }
    }

    /// Signs one identity's calls to one callee.
    pub fn sign(&self, identity: &Identity, callee: &str, now: Timestamp) -> Result<String, Error> {
        let issued_at = now.as_second();
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
        Ok(Identity { caller: Cow::Owned(own.act.sub), principal })
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
