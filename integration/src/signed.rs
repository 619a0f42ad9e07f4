//! What is signed: access tokens that are taken apart and put together again by somebody without the shop's key, and the
//! provider's webhooks.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The key of webhooks that shop and provider have by default.
pub const WEBHOOK_SECRET: &[u8] = b"sandbox-webhook-secret";

/// An access token taken apart.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it says of its key and algorithm.
    pub header: Value,
    /// What it says of its bearer.
    pub claims: Value,
    /// The signature as it stands there.
    pub signature: String,
}

impl Token {
    /// Reads a token.
    pub fn read(token: &str) -> Result<Self> {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else { bail!("no JWT: {token}") };
        let part = |part: &str| anyhow::Ok(serde_json::from_slice(&BASE64.decode(part)?)?);
        Ok(Self { header: part(header)?, claims: part(claims)?, signature: signature.to_owned() })
    }

    /// The same with another value in its header.
    #[must_use]
    pub fn with_header(&self, name: &str, value: Value) -> Self {
        let mut token = self.clone();
        token.header[name] = value;
        token
    }

    /// The same with another claim.
    #[must_use]
    pub fn with(&self, name: &str, value: Value) -> Self {
        let mut token = self.clone();
        token.claims[name] = value;
        token
    }

    /// The same without a claim.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut token = self.clone();
        token.claims.as_object_mut().map(|claims| claims.remove(name));
        token
    }

    /// As it is written, with the signature it has.
    pub fn written(&self) -> String {
        format!("{}.{}", self.message(), self.signature)
    }

    /// As it is written, with the signature that somebody makes of its bytes.
    pub fn signed(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let message = self.message();
        let signature = sign(message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn message(&self) -> String {
        format!("{}.{}", BASE64.encode(self.header.to_string()), BASE64.encode(self.claims.to_string()))
    }
}

/// A key that nobody published.
pub fn thief() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

/// Signs a token with it.
pub fn by_thief(message: &[u8]) -> Vec<u8> {
    thief().sign(message).to_bytes().to_vec()
}

/// The key that every fleet of a test has, and a thief.
const FLEET: [u8; 32] = [0x5a; 32];

/// A token of this caller to this callee, as the fleet's key makes it.
pub fn call_token(actor: &str, callee: &str) -> Result<String> {
    let key = SigningKey::from_bytes(&FLEET);
    let x = BASE64.encode(key.verifying_key().to_bytes());
    // RFC 7638.
    let kid = BASE64.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)));
    let now = now()?;
    let header = json!({"alg": "EdDSA", "typ": "stoa-call+jwt", "kid": kid}).to_string();
    let claims = json!({
        "iss": "stoa-fleet", "aud": callee, "sub": format!("services/{actor}"), "act": {"sub": actor},
        "exp": now + 60, "nbf": now, "iat": now,
    });
    let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims.to_string()));
    let signature = BASE64.encode(key.sign(text.as_bytes()).to_bytes());
    Ok(format!("{text}.{signature}"))
}

/// Seconds since 1970.
pub fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    i64::try_from(now).context("a time that no clock shows")
}

/// The header by which a message of the provider, sent at this time, is known to be genuine.
pub fn webhook(secret: &[u8], time: i64, body: &str) -> Result<String> {
    let mac = Hmac::<Sha256>::new_from_slice(secret)?.chain_update(format!("{time}.{body}"));
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("t={time},v1={hex}"))
}
