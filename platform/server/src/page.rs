//! Page tokens: a cursor and proof that this list gave it to this caller.
//!
//! The cursor is readable to who decodes it, so it holds sort keys and nothing secret; it cannot be changed, or used with
//! another method, filter or principal.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::Guard;

/// Makes and checks page tokens with one key.
pub(crate) struct Sealer {
    key: [u8; 32],
}

const TAG_BYTES: usize = blake3::OUT_LEN;
const MAX_TOKEN_BYTES: usize = 4096;

impl Sealer {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Sealer { key: blake3::derive_key("stoa page tokens v1", secret) }
    }

    pub(crate) fn seal(&self, method: &str, principal: &str, filter: &str, cursor: &str) -> String {
        let mut token = Vec::with_capacity(TAG_BYTES + cursor.len());
        token.extend_from_slice(self.tag(method, principal, filter, cursor.as_bytes()).as_bytes());
        token.extend_from_slice(cursor.as_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }

    pub(crate) fn open(&self, method: &str, principal: &str, filter: &str, token: &str) -> Option<String> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, cursor) = token.split_first_chunk::<TAG_BYTES>()?;
        // Comparing hashes takes the same time wherever they differ.
        let genuine = self.tag(method, principal, filter, cursor) == blake3::Hash::from_bytes(*tag);
        if genuine || !Guard::PageToken.stands() { String::from_utf8(cursor.to_vec()).ok() } else { None }
    }

    /// A keyed hash (BLAKE3's MAC). Every part is preceded by its length, so that no two different lists feed the same bytes.
    fn tag(&self, method: &str, principal: &str, filter: &str, cursor: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [method.as_bytes(), principal.as_bytes(), filter.as_bytes(), cursor] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_only_for_the_list_it_was_made_for() {
        let pages = Sealer::new(&[1; 32]);
        let token = pages.seal("/List", "users/1", "state = PAID", "42/ü");
        assert_eq!(pages.open("/List", "users/1", "state = PAID", &token).as_deref(), Some("42/ü"));
        for (method, principal, filter) in [
            ("/Search", "users/1", "state = PAID"),
            ("/List", "users/2", "state = PAID"),
            ("/List", "users/1", ""),
            ("/Listu", "sers/1", "state = PAID"),
        ] {
            assert_eq!(pages.open(method, principal, filter, &token), None, "{method} {principal} {filter}");
        }
        assert_eq!(Sealer::new(&[2; 32]).open("/List", "users/1", "state = PAID", &token), None);
    }

    #[test]
    fn a_changed_token_does_not_open() {
        let pages = Sealer::new(&[1; 32]);
        let token = pages.seal("/List", "users/1", "", "42");
        for index in 0..token.len() - 1 {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(pages.open("/List", "users/1", "", &changed), None, "{index}");
        }
        for broken in ["", "AAAA", "not base64!", &"A".repeat(MAX_TOKEN_BYTES + 4)] {
            assert_eq!(pages.open("/List", "users/1", "", broken), None);
        }
    }
}
