//! Refresh tokens: what they hold, how they are signed, and what the store keeps of them.
//!
//! A token is opaque to clients: kind, principal, session, generation, issue time and 256 random bits, and an HMAC over it all,
//! in base64. The HMAC tells a token that was once good from one that never was: only the first may end a session. What is
//! good now is decided by the SHA-256 of the text alone, which is all the store keeps.
//!
//! The successor of a token is kept masked with a keyed hash of that token's text, so a client that shows the spent token
//! again can be given the same successor, and a reader of the store cannot make it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Whose session a token refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Guest,
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) kind: Kind,
    pub(crate) principal: Uuid,
    pub(crate) session: Uuid,
    /// 0 for the first token of a session, then one more with each refresh.
    pub(crate) generation: u32,
    pub(crate) issue_time: Timestamp,
    pub(crate) nonce: [u8; 32],
}

impl Ticket {
    /// `users/{user}` or `guests/{guest}`.
    pub(crate) fn principal_name(&self) -> String {
        match self.kind {
            Kind::User => format!("users/{}", self.principal),
            Kind::Guest => format!("guests/{}", self.principal),
        }
    }

    /// The name of the session.
    pub(crate) fn session_name(&self) -> String {
        format!("{}/sessions/{}", self.principal_name(), self.session)
    }
}

/// Signs and reads tokens.
#[derive(Clone)]
pub(crate) struct Mint {
    key: [u8; 32],
}

const FORMAT: u8 = 1;
const BODY_BYTES: usize = 1 + 1 + 16 + 16 + 4 + 8 + 32;
const TAG_BYTES: usize = 32;

impl Mint {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Mint { key }
    }

    /// The token of a ticket; the same one every time.
    pub(crate) fn token(&self, ticket: &Ticket) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + TAG_BYTES);
        bytes.push(FORMAT);
        bytes.push(match ticket.kind {
            Kind::User => 0,
            Kind::Guest => 1,
        });
        bytes.extend_from_slice(ticket.principal.as_bytes());
        bytes.extend_from_slice(ticket.session.as_bytes());
        bytes.extend_from_slice(&ticket.generation.to_be_bytes());
        bytes.extend_from_slice(&ticket.issue_time.as_microsecond().to_be_bytes());
        bytes.extend_from_slice(&ticket.nonce);
        let tag = mac(&self.key, &bytes);
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The ticket of a token this service once made; nothing for any other text.
    pub(crate) fn read(&self, token: &str) -> Option<Ticket> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, tag) = bytes.split_at_checked(BODY_BYTES)?;
        if tag.len() != TAG_BYTES {
            return None;
        }
        if !bool::from(subtle::ConstantTimeEq::ct_eq(mac(&self.key, body).as_slice(), tag)) {
            return None;
        }
        let (&[format, kind], body) = body.split_first_chunk()?;
        let (principal, body) = body.split_first_chunk::<16>()?;
        let (session, body) = body.split_first_chunk::<16>()?;
        let (generation, body) = body.split_first_chunk::<4>()?;
        let (issue_time, body) = body.split_first_chunk::<8>()?;
        let kind = match (format, kind) {
            (FORMAT, 0) => Kind::User,
            (FORMAT, 1) => Kind::Guest,
            _ => return None,
        };
        Some(Ticket {
            kind,
            principal: Uuid::from_bytes(*principal),
            session: Uuid::from_bytes(*session),
            generation: u32::from_be_bytes(*generation),
            issue_time: Timestamp::from_microsecond(i64::from_be_bytes(*issue_time)).ok()?,
            nonce: body.try_into().ok()?,
        })
    }
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mint")
    }
}

/// What the store keeps of a token.
pub(crate) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The nonce of a successor, masked with the token it follows; applied twice it is the nonce again.
pub(crate) fn masked(spent: &str, nonce: [u8; 32]) -> [u8; 32] {
    let mask = mac(spent.as_bytes(), b"stoa refresh token successor v1");
    std::array::from_fn(|at| nonce[at] ^ mask[at])
}

/// HMAC-SHA-256.
pub(crate) fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // A key of any length is accepted, so the other branch is never taken; an empty key would not be a secret, so it fails shut.
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(message);
            mac.finalize().into_bytes().into()
        }
        Err(_) => hash("no key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            kind: Kind::Guest,
            principal: Uuid::from_u128(1),
            session: Uuid::from_u128(2),
            generation: 3,
            issue_time: Timestamp::from_microsecond(1_800_000_000_000_001).unwrap(),
            nonce: [9; 32],
        }
    }

    #[test]
    fn a_token_reads_as_its_ticket_and_only_with_the_key() {
        let mint = Mint::new([1; 32]);
        let token = mint.token(&ticket());
        assert!(token.len() <= 256);
        assert_eq!(mint.read(&token), Some(ticket()));
        assert_eq!(Mint::new([2; 32]).read(&token), None);
        for index in 0..token.len() - 1 {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(mint.read(&String::from_utf8(changed).unwrap()), None, "{index}");
        }
        for bad in ["", "AAAA", "no base64!", &"A".repeat(256)] {
            assert_eq!(mint.read(bad), None);
        }
    }

    #[test]
    fn a_successor_is_unmasked_only_with_the_token_it_follows() {
        let nonce = [7; 32];
        assert_eq!(masked("spent", masked("spent", nonce)), nonce);
        assert_ne!(masked("other", masked("spent", nonce)), nonce);
    }

    #[test]
    fn the_keyed_hash_is_hmac_sha_256() {
        // RFC 4231, test case 2.
        let tag = mac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }
}
