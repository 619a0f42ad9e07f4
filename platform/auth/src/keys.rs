//! Signing keys, and the set of public keys a verifier believes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};

/// An Ed25519 key that signs; its name is its RFC 7638 thumbprint, so the same seed has the same name everywhere.
#[derive(Clone)]
pub struct SigningKey {
    pub(crate) encoding: EncodingKey,
    public: PublicKey,
}

impl SigningKey {
    /// The key of this seed; whoever knows the seed can sign.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        // RFC 8410: the PKCS #8 envelope of an Ed25519 seed is these 16 bytes and the seed.
        let mut der =
            vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        der.extend_from_slice(seed);
        let bytes = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key().to_bytes();
        SigningKey { encoding: EncodingKey::from_ed_der(&der), public: PublicKey::from_bytes(bytes) }
    }

    /// The half that verifiers need.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.public.kid).finish_non_exhaustive()
    }
}

/// An Ed25519 key that verifies; it is used with EdDSA and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kid: String,
    bytes: [u8; 32],
}

impl PublicKey {
    /// The key of these 32 bytes, named by its thumbprint.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let kid = Jwk::from_decoding_key(&DecodingKey::from_ed_der(&bytes), Some(Algorithm::EdDSA))
            .and_then(|jwk| jwk.thumbprint(ThumbprintHash::SHA256))
            .unwrap_or_else(|_| URL_SAFE_NO_PAD.encode(bytes));
        PublicKey { kid, bytes }
    }

    /// The name tokens call it by.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) fn decoding(&self) -> DecodingKey {
        DecodingKey::from_ed_der(&self.bytes)
    }
}

/// The public keys that are believed now: a handle whose clones all see the newest set.
///
/// In one process identity publishes into it; elsewhere the set is imported from the JWKS document. Publish a new key before
/// the first token is signed with it, and keep an old one until its last token has expired.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Arc<ArcSwap<Vec<PublicKey>>>,
}

/// A JWKS document that cannot be read; the set that was held stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the JWKS document is malformed: {0}")]
pub struct MalformedJwks(String);

impl Keyring {
    /// A keyring that believes nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the whole set.
    pub fn publish(&self, keys: Vec<PublicKey>) {
        self.keys.store(Arc::new(keys));
    }

    /// The set as an RFC 7517 document.
    pub fn jwks(&self) -> String {
        let keys = self.keys.load();
        let document = Document { keys: keys.iter().map(Entry::of).map(|entry| serde_json::json!(entry)).collect() };
        serde_json::json!(document).to_string()
    }

    /// Replaces the whole set by the Ed25519 signature keys of an RFC 7517 document; keys of other kinds are skipped, as that
    /// RFC asks, but a document without any usable key is an error, because it would lock everybody out.
    pub fn import(&self, document: &str) -> Result<(), MalformedJwks> {
        let document: Document = serde_json::from_str(document).map_err(|error| MalformedJwks(error.to_string()))?;
        if document.keys.len() > MAX_KEYS {
            return Err(MalformedJwks(format!("more than {MAX_KEYS} keys")));
        }
        let keys: Vec<PublicKey> = document
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value::<Entry>(key).ok())
            .filter_map(Entry::into_key)
            .collect();
        if keys.is_empty() {
            return Err(MalformedJwks("no Ed25519 signature key in it".to_owned()));
        }
        self.publish(keys);
        Ok(())
    }

    /// True until the first set has arrived: nobody can be believed yet, and nobody refused for good.
    pub fn is_empty(&self) -> bool {
        self.keys.load().is_empty()
    }

    pub(crate) fn snapshot(&self) -> Arc<Vec<PublicKey>> {
        self.keys.load_full()
    }
}

const MAX_KEYS: usize = 64;

#[derive(Serialize, Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    kty: String,
    crv: String,
    #[serde(rename = "use", default = "signature")]
    usage: String,
    #[serde(default = "eddsa")]
    alg: String,
    kid: String,
    x: String,
}

fn signature() -> String {
    "sig".to_owned()
}

fn eddsa() -> String {
    "EdDSA".to_owned()
}

impl Entry {
    fn of(key: &PublicKey) -> Self {
        Entry {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            usage: signature(),
            alg: eddsa(),
            kid: key.kid.clone(),
            x: URL_SAFE_NO_PAD.encode(key.bytes),
        }
    }

    fn into_key(self) -> Option<PublicKey> {
        let usable = self.kty == "OKP" && self.crv == "Ed25519" && self.usage == "sig" && self.alg == "EdDSA";
        let bytes = URL_SAFE_NO_PAD.decode(&self.x).ok()?.try_into().ok()?;
        (usable && !self.kid.is_empty()).then_some(PublicKey { kid: self.kid, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exported_document_is_imported_as_the_same_set() {
        let ours = Keyring::new();
        ours.publish(vec![
            SigningKey::from_seed(&[1; 32]).public().clone(),
            SigningKey::from_seed(&[2; 32]).public().clone(),
        ]);
        let theirs = Keyring::new();
        theirs.import(&ours.jwks()).unwrap();
        assert_eq!(theirs.snapshot(), ours.snapshot());
    }

    #[test]
    fn the_document_holds_public_halves_in_the_shape_of_rfc_7517() {
        let ring = Keyring::new();
        ring.publish(vec![SigningKey::from_seed(&[1; 32]).public().clone()]);
        let document: serde_json::Value = serde_json::from_str(&ring.jwks()).unwrap();
        let key = &document["keys"][0];
        assert_eq!(key["kty"], "OKP");
        assert_eq!(key["crv"], "Ed25519");
        assert_eq!(key["use"], "sig");
        assert_eq!(key["alg"], "EdDSA");
        assert!(key.get("d").is_none());
    }

    #[test]
    fn the_thumbprint_is_the_one_of_rfc_8037() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(x).unwrap().try_into().unwrap();
        assert_eq!(PublicKey::from_bytes(bytes).kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn keys_of_other_kinds_are_skipped_and_a_document_of_only_those_is_refused() {
        let ring = Keyring::new();
        ring.publish(vec![SigningKey::from_seed(&[1; 32]).public().clone()]);
        let held = ring.snapshot();
        let useless = [
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"AQAB"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","use":"enc","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"HS256","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
            r#"[]"#,
            "",
        ];
        for document in useless {
            assert!(ring.import(document).is_err(), "{document}");
            assert_eq!(ring.snapshot(), held);
        }
        let mixed = r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"},
            {"kty":"OKP","crv":"Ed25519","kid":"b","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        ring.import(mixed).unwrap();
        assert_eq!(ring.snapshot().len(), 1);
    }
}
