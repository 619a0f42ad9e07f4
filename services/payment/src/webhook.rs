//! Messages of the provider: are they genuine, and what do they say.
//!
//! The signature covers the raw bytes and the time they were sent at; a message that is too old, or from the future, is
//! as good as forged.

use contract::Guard;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde::Deserialize;
use sha2::Sha256;

use crate::payment::{Kind, Outcome};

/// How far the time of a signature may be from ours, in seconds.
const TOLERANCE_S: u64 = 5 * 60;

/// A message whose signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The provider's id of the message.
    pub(crate) id: String,
    /// The provider's name of what happened.
    pub(crate) kind: String,
    /// Key of the attempt it is about, or the payment's name for its authorization.
    pub(crate) key: String,
    /// The provider's id of what it is about.
    pub(crate) reference: String,
    /// What became of the attempt, and of which kind it is.
    pub(crate) outcome: Option<(Kind, Outcome)>,
}

/// Checks `t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "t.body")>`. Takes the same time wherever a signature differs.
pub(crate) fn verify(secret: &str, header: &str, body: &[u8], now: Timestamp) -> Result<(), Forged> {
    let mut time = None;
    let mut signatures = vec![];
    for part in header.split(',').take(8) {
        match part.trim().split_once('=').ok_or(Forged)? {
            ("t", text) => time = Some(text),
            ("v1", text) => signatures.push(unhex(text).ok_or(Forged)?),
            _ => {}
        }
    }
    let time = time.ok_or(Forged)?;
    let seconds: i64 = time.parse().map_err(|_| Forged)?;
    let mut code = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| Forged)?;
    code.update(time.as_bytes());
    code.update(b".");
    code.update(body);
    let mut genuine = false;
    for signature in signatures {
        genuine |= code.clone().verify_slice(&signature).is_ok();
    }
    let genuine = genuine || !Guard::WebhookSignature.stands();
    let fresh = seconds.abs_diff(now.as_second()) <= TOLERANCE_S || !Guard::WebhookAge.stands();
    if genuine && fresh { Ok(()) } else { Err(Forged) }
}

/// Reads a genuine message; an error says what is wrong with it.
pub(crate) fn parse(body: &[u8]) -> Result<Notice, String> {
    let event: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if event.id.is_empty() || event.id.len() > 128 || !event.id.bytes().all(plain) {
        return Err("its id is not 1 to 128 letters, digits, '.', '_', '~' or '-'".to_owned());
    }
    let authorization = event.authorization;
    let reference = authorization.id.clone();
    let done = |kind| {
        let operation = event.operation.as_ref()?;
        Some((kind, Outcome::Done { reference: operation.id.clone() }))
    };
    let outcome = match event.kind.as_str() {
        "authorization.authorized" => Some((Kind::Authorize, Outcome::Done { reference })),
        "authorization.declined" => {
            let code = authorization.decline_code.clone().unwrap_or_else(|| "declined".to_owned());
            Some((Kind::Authorize, Outcome::Declined { code }))
        }
        "authorization.requires_action" => authorization.challenge.as_ref().map(|challenge| {
            let (uri, challenge) = (challenge.url.clone(), challenge.id.clone());
            (Kind::Authorize, Outcome::ActionRequired { reference, uri, challenge })
        }),
        "authorization.voided" => done(Kind::Void),
        "capture.succeeded" => done(Kind::Capture),
        "refund.succeeded" => done(Kind::Refund),
        _ => None,
    };
    // The operation of a finished challenge bears the reference of its authorization.
    let about = match &event.operation {
        Some(operation) if !operation.reference.is_empty() => operation.reference.clone(),
        Some(_) | None => authorization.reference.clone(),
    };
    Ok(Notice { id: event.id, kind: event.kind, key: about, reference: authorization.id, outcome })
}

#[derive(Deserialize)]
struct Body {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    authorization: Authorization,
    #[serde(default)]
    operation: Option<Operation>,
}

#[derive(Deserialize)]
struct Authorization {
    id: String,
    reference: String,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    challenge: Option<Challenge>,
}

#[derive(Deserialize)]
struct Challenge {
    id: String,
    url: String,
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    #[serde(default)]
    reference: String,
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_signature_holds_for_its_bytes_its_secret_and_five_minutes() {
        assert_eq!(verify("secret", SIGNED, b"{}", at(1_700_000_000)), Ok(()));
        assert_eq!(verify("secret", SIGNED, b"{}", at(1_700_000_300)), Ok(()));
        assert_eq!(verify("secret", SIGNED, b"{}", at(1_700_000_301)), Err(Forged));
        assert_eq!(verify("secret", SIGNED, b"{}", at(1_699_999_699)), Err(Forged));
        assert_eq!(verify("secret", SIGNED, b"{ }", at(1_700_000_000)), Err(Forged));
        assert_eq!(verify("other", SIGNED, b"{}", at(1_700_000_000)), Err(Forged));
    }

    #[test]
    fn a_header_that_is_none_is_forged() {
        for header in ["", "t=1700000000", "v1=00", "t=x,v1=00", "t=1700000000,v1=0", "t=1700000000,v1=zz", "é=,"] {
            assert_eq!(verify("secret", header, b"{}", at(1_700_000_000)), Err(Forged), "{header}");
        }
    }

    #[test]
    fn a_second_signature_may_be_the_genuine_one() {
        let header = format!("t=1700000000,v1=00,{}", &SIGNED[13..]);
        assert_eq!(verify("secret", &header, b"{}", at(1_700_000_000)), Ok(()));
    }

    #[test]
    fn a_message_names_what_it_is_about() {
        let body = br#"{"id":"evt_1","object":"event","type":"capture.succeeded","create_time":"2026-01-01T00:00:00Z",
            "authorization":{"id":"auth_1","reference":"payments/o","status":"authorized"},
            "operation":{"id":"cap_1","object":"capture","reference":"payments/o/capture-2"}}"#;
        let notice = parse(body).unwrap();
        assert_eq!((notice.key.as_str(), notice.reference.as_str()), ("payments/o/capture-2", "auth_1"));
        assert_eq!(notice.outcome, Some((Kind::Capture, Outcome::Done { reference: "cap_1".into() })));
        assert!(parse(br#"{"id":"a/b","type":"x","authorization":{"id":"","reference":""}}"#).is_err());
        assert!(parse(b"[]").is_err());
    }
}
