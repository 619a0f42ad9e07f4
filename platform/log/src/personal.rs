//! Personal fields: sealed with a key per person, unreadable once that key is destroyed.
//!
//! `Log::append` seals every field marked personal before the event is stored, and projections see
//! it sealed, so rows hold ciphertext too and come out byte-equal from every rebuild, before and
//! after an erasure. Whoever needs the text opens it with [`open_text`].
//!
//! A sealed text is `sealed:` and the URL-safe base64 of nonce (24 bytes), ciphertext and tag
//! (XChaCha20-Poly1305, the subject's name as associated data, so a text cannot be moved to another
//! person's row). An empty text stays empty. [`forget`] overwrites the key and leaves the row: what
//! was sealed opens as "", and what would be sealed later for that person is dropped.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use store::{Tx, params};

use crate::Error;

/// How every sealed text begins.
pub(crate) const PREFIX: &str = "sealed:";
const NONCE: usize = 24;

/// True for a text as [`seal_text`] writes it.
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Seals `text` for `subject`, making the subject's key first where there is none; "" for someone
/// who was forgotten.
pub async fn seal_text(tx: &mut Tx, subject: &str, text: &str) -> Result<String, Error> {
    if text.is_empty() {
        return Ok(String::new());
    }
    key_for_sealing(tx, subject).await?.seal(subject, text)
}

/// The text that was sealed for `subject`; "" once the subject is forgotten. A text that is not
/// sealed is returned as it is; a sealed one that does not fit the key is an error.
pub async fn open_text(tx: &mut Tx, subject: &str, text: &str) -> Result<String, Error> {
    if !is_sealed(text) {
        return Ok(text.to_owned());
    }
    key_for_opening(tx, subject).await?.open(subject, text)
}

/// Destroys the key of `subject` in this store. Idempotent.
pub async fn forget(tx: &mut Tx, subject: &str) -> Result<(), Error> {
    let now = tx.now();
    tx.execute(
        "INSERT INTO subject_keys (subject, secret, create_time, forget_time)
         VALUES ($1, $2, $3, $3)
         ON CONFLICT (subject) DO UPDATE
         SET secret = excluded.secret, forget_time = excluded.forget_time",
        params![subject, Vec::<u8>::new(), now],
    )
    .await?;
    Ok(())
}

/// The key of one subject, or that it is gone.
#[derive(Clone)]
pub(crate) enum SubjectKey {
    Live(Box<XChaCha20Poly1305>),
    Forgotten,
}

impl SubjectKey {
    fn from_secret(subject: &str, secret: &[u8]) -> Result<Self, Error> {
        if secret.is_empty() {
            return Ok(Self::Forgotten);
        }
        let key = Key::try_from(secret).map_err(|_| unreadable(subject))?;
        Ok(Self::Live(Box::new(XChaCha20Poly1305::new(&key))))
    }

    pub(crate) fn seal(&self, subject: &str, text: &str) -> Result<String, Error> {
        let cipher = match self {
            Self::Live(cipher) => cipher,
            Self::Forgotten => return Ok(String::new()),
        };
        if text.is_empty() {
            return Ok(String::new());
        }
        let mut nonce = [0u8; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| Error::Random(error.to_string()))?;
        let payload = Payload { msg: text.as_bytes(), aad: subject.as_bytes() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| unreadable(subject))?;
        let mut bytes = Vec::with_capacity(NONCE + sealed.len());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        let mut out = String::with_capacity(PREFIX.len() + bytes.len() * 4 / 3 + 4);
        out.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut out);
        Ok(out)
    }

    pub(crate) fn open(&self, subject: &str, text: &str) -> Result<String, Error> {
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Ok(text.to_owned());
        };
        let cipher = match self {
            Self::Live(cipher) => cipher,
            Self::Forgotten => return Ok(String::new()),
        };
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| unreadable(subject))?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE).ok_or_else(|| unreadable(subject))?;
        let nonce = XNonce::try_from(nonce).map_err(|_| unreadable(subject))?;
        let payload = Payload { msg: sealed, aad: subject.as_bytes() };
        let plain = cipher.decrypt(&nonce, payload).map_err(|_| unreadable(subject))?;
        String::from_utf8(plain).map_err(|_| unreadable(subject))
    }
}

/// The keys met during one read, so that a batch of events asks once a person.
#[derive(Default)]
pub(crate) struct Keys(HashMap<String, SubjectKey>);

impl Keys {
    pub(crate) async fn get(&mut self, tx: &mut Tx, subject: &str) -> Result<&SubjectKey, Error> {
        if !self.0.contains_key(subject) {
            let key = key_for_opening(tx, subject).await?;
            self.0.insert(subject.to_owned(), key);
        }
        self.0.get(subject).ok_or_else(|| unreadable(subject))
    }
}

pub(crate) async fn key_for_sealing(tx: &mut Tx, subject: &str) -> Result<SubjectKey, Error> {
    if let Some(secret) = secret_of(tx, subject).await? {
        return SubjectKey::from_secret(subject, &secret);
    }
    let mut secret = vec![0u8; 32];
    getrandom::fill(&mut secret).map_err(|error| Error::Random(error.to_string()))?;
    let now = tx.now();
    // Another transaction may make the same key at the same time; the row that stands decides.
    tx.execute(
        "INSERT INTO subject_keys (subject, secret, create_time)
         VALUES ($1, $2, $3) ON CONFLICT (subject) DO NOTHING",
        params![subject, secret, now],
    )
    .await?;
    let secret = secret_of(tx, subject).await?.ok_or_else(|| unreadable(subject))?;
    SubjectKey::from_secret(subject, &secret)
}

async fn key_for_opening(tx: &mut Tx, subject: &str) -> Result<SubjectKey, Error> {
    // A sealed text without a key row is a damaged store, not an erased person.
    let secret = secret_of(tx, subject).await?.ok_or_else(|| unreadable(subject))?;
    SubjectKey::from_secret(subject, &secret)
}

async fn secret_of(tx: &mut Tx, subject: &str) -> Result<Option<Vec<u8>>, Error> {
    let row = tx.query_opt("SELECT secret FROM subject_keys WHERE subject = $1", params![subject]).await?;
    Ok(row.map(|row| row.get::<Vec<u8>>("secret")).transpose()?)
}

fn unreadable(subject: &str) -> Error {
    Error::Unreadable { subject: subject.to_owned() }
}
